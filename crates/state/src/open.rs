//! Opens the engines of a placement: each address once, however many kinds are there.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use crate::{
    Engines,
    error::Error,
    figures::Figures,
    place::{Address, EngineName, Kind, Placement},
};

/// Engines that were opened.
pub struct Opened {
    /// The engines, by kind.
    pub engines: Engines,
    servers: Vec<Server>,
}

/// An engine that is a server elsewhere.
enum Server {
    #[cfg(feature = "redis")]
    Redis(crate::redis::Redis),
    #[cfg(feature = "postgres")]
    Postgres(crate::postgres::Postgres),
    #[cfg(feature = "objects")]
    Objects(crate::objects::Objects),
}

impl Server {
    fn away(&self, why: String) -> Away {
        let mut figures = Figures::default();
        self.watch(&mut figures);
        Away { engine: figures.breakers.first().map_or("unknown", |breaker| breaker.engine), why }
    }

    /// Asks for what is surely not there.
    async fn ask(&self) -> Result<(), Error> {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(engine) => engine.engines().locks.look("lethe-is-there").await.map(drop),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.ready().await,
            #[cfg(feature = "objects")]
            Self::Objects(engine) => engine.engines().blobs.head("lethe-is-there", "none").await.map(drop),
            #[cfg(not(any(feature = "redis", feature = "postgres", feature = "objects")))]
            _ => Ok(()),
        }
    }

    fn engines(&self) -> Engines {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(engine) => engine.engines(),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.engines(),
            #[cfg(feature = "objects")]
            Self::Objects(engine) => engine.engines(),
            #[cfg(not(any(feature = "redis", feature = "postgres", feature = "objects")))]
            _ => Engines::absent("unknown"),
        }
    }

    #[cfg_attr(
        not(any(feature = "redis", feature = "postgres", feature = "objects")),
        allow(unused_variables, reason = "there is nothing to tell")
    )]
    fn watch(&self, figures: &mut Figures) {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(engine) => engine.watch(figures),
            #[cfg(feature = "postgres")]
            Self::Postgres(engine) => engine.watch(figures),
            #[cfg(feature = "objects")]
            Self::Objects(engine) => engine.watch(figures),
            #[cfg(not(any(feature = "redis", feature = "postgres", feature = "objects")))]
            _ => {}
        }
    }
}

/// A server that cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// The engine's name.
    pub engine: &'static str,
    /// Why, with the server's address and without its secrets.
    pub why: String,
}

/// An error of an engine and what it comes from, in a line.
fn told(error: &Error) -> String {
    match error {
        Error::Unavailable(text) => text.clone(),
        Error::Engine(source) => source.to_string(),
        other => other.to_string(),
    }
}

impl Opened {
    /// Asks each server for something once, at most so long, and says of those that cannot be used what they are and why not.
    pub async fn away(&self, patience: Duration) -> Vec<Away> {
        let ask = async |server: &Server| match timeout(patience, server.ask()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(server.away(told(&error))),
            Err(_) => Some(server.away(format!("no answer within {patience:?}"))),
        };
        futures_util::future::join_all(self.servers.iter().map(ask)).await.into_iter().flatten().collect()
    }

    /// What the servers and the connections to them are doing.
    pub fn watch(&self, figures: &mut Figures) {
        self.servers.iter().for_each(|server| server.watch(figures));
    }

    /// Waits for calls that are under way, `grace` long at most, and closes the connections of those engines that have a pool.
    pub async fn close(&self, grace: Duration) {
        for server in &self.servers {
            match server {
                #[cfg(feature = "postgres")]
                Server::Postgres(engine) => engine.close(grace).await,
                #[allow(unreachable_patterns, reason = "there may be no other engine")]
                _ => {
                    let _ = grace;
                }
            }
        }
    }
}

/// The engines of `placement`, of which the embedded one is open already. No server is asked for anything yet: who begins before
/// its engine does gets [`Error::Unavailable`] from it until then. To be called within a tokio runtime.
///
/// Fails with [`Error::Unsupported`] for a kind that its engine does not keep, and for an engine that this program was built
/// without; and with what the engine says of a URL.
pub fn open(placement: &Placement, embedded: &Engines) -> Result<Opened, Error> {
    let mut opened = BTreeMap::new();
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        let address = placement.of(kind);
        if !address.engine().keeps(kind) {
            return Err(Error::Unsupported { engine: address.engine().name(), what: kind.name() });
        }
        if let Address::Url(engine, url) = address
            && !opened.contains_key(address)
        {
            let server = open_url(*engine, url)?;
            opened.insert(address.clone(), server.engines());
            servers.push(server);
        }
    }
    let of = |kind| opened.get(placement.of(kind)).unwrap_or(embedded);
    let engines = Engines {
        sessions: of(Kind::Sessions).sessions.clone(),
        tables: of(Kind::Tables).tables.clone(),
        blobs: of(Kind::Blobs).blobs.clone(),
        limits: of(Kind::Limits).limits.clone(),
        locks: of(Kind::Locks).locks.clone(),
        idempotency: of(Kind::Idempotency).idempotency.clone(),
        cache: of(Kind::Cache).cache.clone(),
    };
    Ok(Opened { engines, servers })
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
        #[cfg(feature = "azure")]
        EngineName::Azure => url.parse::<crate::azure::Url>().map(drop).map_err(|error| error.to_string()),
        #[cfg(feature = "gcs")]
        EngineName::Gcs => url.parse::<crate::gcs::Url>().map(drop).map_err(|error| error.to_string()),
        engine => {
            let _ = url;
            Err(format!("this lethe was built without the engine `{}`", engine.name()))
        }
    }
}

/// The engine behind a URL. Its server is asked for nothing yet.
fn open_url(engine: EngineName, url: &str) -> Result<Server, Error> {
    match engine {
        #[cfg(feature = "redis")]
        EngineName::Redis => {
            let url = url.parse::<crate::redis::Url>().map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(Server::Redis(crate::redis::Redis::open(url)?))
        }
        #[cfg(feature = "postgres")]
        EngineName::Postgres => Ok(Server::Postgres(crate::postgres::Postgres::new(url)?)),
        #[cfg(feature = "s3")]
        EngineName::S3 => {
            let url = url.parse::<crate::s3::Url>().map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(Server::Objects(crate::s3::S3::open(&url)?.0))
        }
        #[cfg(feature = "azure")]
        EngineName::Azure => {
            let url = url.parse::<crate::azure::Url>().map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(Server::Objects(crate::azure::Azure::open(&url)?.0))
        }
        #[cfg(feature = "gcs")]
        EngineName::Gcs => {
            let url = url.parse::<crate::gcs::Url>().map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(Server::Objects(crate::gcs::Gcs::open(&url)?.0))
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
