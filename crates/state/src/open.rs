//! Opens the engines of a placement: each address once, however many kinds are there.

use std::collections::BTreeMap;

use crate::{
    Engines,
    error::Error,
    place::{Address, EngineName, Kind, Placement},
};

/// The engines of `placement`, of which the embedded one is open already. No server is asked for anything yet: who begins before
/// its engine does gets [`Error::Unavailable`] from it until then. To be called within a tokio runtime.
///
/// Fails with [`Error::Unsupported`] for a kind that its engine does not keep, and for an engine that this program was built
/// without; and with what the engine says of a URL.
pub fn open(placement: &Placement, embedded: &Engines) -> Result<Engines, Error> {
    let mut opened = BTreeMap::new();
    for kind in Kind::ALL {
        let address = placement.of(kind);
        if !address.engine().keeps(kind) {
            return Err(Error::Unsupported { engine: address.engine().name(), what: kind.name() });
        }
        if let Address::Url(engine, url) = address
            && !opened.contains_key(address)
        {
            opened.insert(address.clone(), open_url(*engine, url)?);
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
        cache: of(Kind::Cache).cache.clone(),
    })
}

/// Whether the engine that is meant could be opened there, as far as the address tells; what is wrong, in a sentence without
/// secrets.
pub fn check(address: &Address) -> Result<(), String> {
    let Address::Url(engine, url) = address else { return Ok(()) };
    match engine {
        #[cfg(feature = "redis")]
        EngineName::Redis => url.parse::<crate::redis::Url>().map(drop).map_err(|error| error.to_string()),
        #[cfg(feature = "postgres")]
        EngineName::Postgres => {
            url.parse::<crate::postgres::config::Config>().map(drop).map_err(|error| error.to_string())
        }
        #[cfg(feature = "s3")]
        EngineName::S3 => url.parse::<crate::s3::Url>().map(drop).map_err(|error| error.to_string()),
        engine => {
            let _ = url;
            Err(format!("this lethe was built without the engine `{}`", engine.name()))
        }
    }
}

/// The engine behind a URL. Its server is asked for nothing yet.
fn open_url(engine: EngineName, url: &str) -> Result<Engines, Error> {
    match engine {
        #[cfg(feature = "redis")]
        EngineName::Redis => {
            let url = url.parse::<crate::redis::Url>().map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(crate::redis::Redis::open(url)?.engines())
        }
        #[cfg(feature = "postgres")]
        EngineName::Postgres => Ok(crate::postgres::Postgres::new(url)?.engines()),
        #[cfg(feature = "s3")]
        EngineName::S3 => {
            let url = url.parse::<crate::s3::Url>().map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(crate::s3::S3::open(&url)?.engines())
        }
        _ => {
            let _ = url;
            Err(Error::Unsupported {
                engine: engine.name(),
                what: "anything: this lethe was built without it",
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_said() {
        let embedded = Engines::absent("embedded");
        assert!(open(&Placement::default(), &embedded).is_ok());
        let mut placement = Placement::default();
        placement.kinds.insert(Kind::Blobs, Address::parse("redis://cache").unwrap());
        let error = open(&placement, &embedded).err().unwrap();
        assert_eq!(error.to_string(), "the redis engine does not offer blobs");
    }
}
