//! All that is kept, as records, over the state API. Only the socket of whoever runs `lethe` gives them.

use async_trait::async_trait;
use http::Method;

use super::{
    Remote,
    call::{Call, Target},
};
use crate::{
    error::Error,
    portable::{Page, Part, Portable, Record},
    wire,
};

#[async_trait]
impl Portable for Remote {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        let mut target = path(part)?;
        if let Some(after) = after {
            target = target.parameter("after", after);
        }
        self.pool.call(&Call::new(Method::GET, target)?).await?.done()?.json()
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        let Some(part) = records.first().map(Record::part) else { return Ok(()) };
        let call = Call::new(Method::POST, path(part)?)?.json(&wire::Records { records })?;
        self.pool.call(&call).await?.done().map(drop)
    }
}

fn path(part: Part) -> Result<Target, Error> {
    Target::new("/v1/portable").segment("a part", part.name(), 64)
}
