//! What all servers of one Redis have in common: settings, login and TLS; and what a server must be.

use std::{fs, io};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    TlsCertificates, Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};

use super::{
    failure::{Failure, Refusal},
    url::{Address, Login, Place, Tls, Url},
};
use crate::error::Error;

/// The oldest version that works: scripts say what they do at their head.
const VERSION_MIN: u32 = 7;
/// Commands of callers that wait to be written to a connection.
const QUEUED_MAX: usize = 1024;

/// How servers are reached.
pub(super) struct Servers {
    pub(super) url: Url,
    /// Certificates to trust instead of the system's, in PEM.
    ca: Option<Vec<u8>>,
}

impl Servers {
    /// Reads what the URL names.
    pub(super) fn new(url: Url) -> Result<Self, Error> {
        let ca = match &url.tls {
            Some(Tls { ca: Some(path) }) => Some(fs::read(path).map_err(|error| {
                let text = format!("the certificates in {} cannot be read: {error}", path.display());
                Error::Engine(Box::new(io::Error::new(error.kind(), text)))
            })?),
            _ => None,
        };
        if url.tls.is_some() {
            // Which cryptography is used must be said once for a process; whoever said it first has decided.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self { url, ca })
    }

    /// Timeouts and bounds of a connection.
    pub(super) fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.url.connect_timeout))
            .set_response_timeout(Some(self.url.response_timeout))
            .set_pipeline_buffer_size(QUEUED_MAX)
    }

    /// For a server that keeps state.
    pub(super) fn client(&self, address: &Address) -> Result<Client, Failure> {
        self.client_as(address, &self.url.login, self.url.db)
    }

    /// For a sentinel.
    pub(super) fn sentinel_client(&self, address: &Address) -> Result<Client, Failure> {
        self.client_as(address, &self.url.sentinel_login, 0)
    }

    fn client_as(&self, address: &Address, login: &Login, db: u16) -> Result<Client, Failure> {
        let Address { host, port } = address.clone();
        let mut settings =
            RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(i64::from(db));
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password);
        }
        let at = match &self.url.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let client = at.into_connection_info().and_then(|info| {
            let info =
                info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
            match &self.ca {
                Some(ca) => Client::build_with_tls(
                    info,
                    TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) },
                ),
                None => Client::open(info),
            }
        });
        client.map_err(|error| Failure::Refused(Refusal::new(&address.to_string(), error.to_string())))
    }
}

/// Sees that a server is what the URL says and new enough, and for one named by sentinels that it is a master.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    server: &str,
    place: &Place,
) -> Result<(), Failure> {
    let hello: Value =
        redis::cmd("HELLO").query_async(connection).await.map_err(|error| Failure::of(server, &error))?;
    let said = |name| text(&hello, name).unwrap_or_default();
    let refused = |what: String| Err(Failure::Refused(Refusal::new(server, what)));
    let version = said("version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    if major < VERSION_MIN {
        return refused(format!("it is version {version}; version {VERSION_MIN} or newer is needed"));
    }
    match (said("mode"), place) {
        ("cluster", Place::Cluster) => Ok(()),
        ("cluster", _) => refused("it is a server of a cluster; add `?cluster` to the URL".into()),
        (_, Place::Cluster) => {
            refused("it is not a server of a cluster; take `cluster` out of the URL".into())
        }
        ("sentinel", _) => refused("it is a sentinel; write redis+sentinel://".into()),
        (_, Place::Sentinels(_)) if said("role") != "master" => {
            Err(Failure::NotDone(format!("redis at {server} is not the master yet")))
        }
        _ => Ok(()),
    }
}

/// The text of a member of a map, such as HELLO answers with.
pub(super) fn text<'a>(map: &'a Value, name: &str) -> Option<&'a str> {
    member(map, name).and_then(as_text)
}

/// A member of a map.
pub(super) fn member<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(pairs) = map else { return None };
    pairs.iter().find(|(key, _)| as_text(key) == Some(name)).map(|(_, value)| value)
}

/// The text that a value is.
pub(super) fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}
