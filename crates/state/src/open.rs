//! Opens the engines of a placement: each address once, however many kinds are there.

use std::collections::BTreeMap;

use crate::{
    Engines,
    error::Error,
    place::{Address, EngineName, Kind, Placement},
};

/// The engines of `placement`, of which the embedded one is open already. Engines are not asked for anything yet, or only for
/// as long as they say: who begins before its engine does gets [`Error::Unavailable`] from it until then.
///
/// Fails with [`Error::Unsupported`] for a kind that its engine does not keep, and for an engine that this program was built
/// without; and with what the engine says of a URL.
pub async fn open(placement: &Placement, embedded: &Engines) -> Result<Engines, Error> {
    let mut opened = BTreeMap::new();
    for kind in Kind::ALL {
        let address = placement.of(kind);
        if !address.engine().keeps(kind) {
            return Err(Error::Unsupported { engine: address.engine().name(), what: kind.name() });
        }
        if let Address::Url(engine, url) = address
            && !opened.contains_key(address)
        {
            opened.insert(address.clone(), open_url(*engine, url).await?);
        }
    }
    let of = |kind| opened.get(placement.of(kind)).unwrap_or(embedded);
    Ok(Engines {
        sessions: of(Kind::Sessions).sessions.clone(),
        tables: of(Kind::Tables).tables.clone(),
        blobs: of(Kind::Blobs).blobs.clone(),
        limits: of(Kind::Limits).limits.clone(),
        locks: of(Kind::Locks).locks.clone(),
        idempotency: of(Kind::Idempotency).idempotency.clone(),
    })
}

#[allow(clippy::unused_async, reason = "each engine is a feature")]
async fn open_url(engine: EngineName, _url: &str) -> Result<Engines, Error> {
    Err(Error::Unsupported { engine: engine.name(), what: "anything: this lethe was built without it" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_opened_is_said() {
        let embedded = Engines::absent("embedded");
        assert!(open(&Placement::default(), &embedded).await.is_ok());
        let mut placement = Placement::default();
        placement.kinds.insert(Kind::Blobs, Address::parse("redis://cache").unwrap());
        let error = open(&placement, &embedded).await.err().unwrap();
        assert_eq!(error.to_string(), "the redis engine does not offer blobs");
    }
}
