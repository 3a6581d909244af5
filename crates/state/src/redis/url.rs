//! The URL of a Redis: where it is, how it is reached, and with which settings. What is wrong with one is named; the password
//! never is.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::query::{Query, decoded};

/// A connection is given up when it was not made by then, unless `connect_timeout_ms` says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is given up when it has not come by then, unless `response_timeout_ms` says otherwise.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// What all keys begin with, unless `namespace` says otherwise.
pub const NAMESPACE: &str = "lethe";
/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 64;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const OPTIONS: [&str; 9] = [
    "cluster",
    "service",
    "db",
    "namespace",
    "connect_timeout_ms",
    "response_timeout_ms",
    "ca",
    "sentinel_user",
    "sentinel_password",
];

/// What a URL says, checked: `redis://user:password@host:port/db?option=value&…`.
///
/// - `redis://`, or `rediss://` with TLS: one server, or with `?cluster` some servers of a cluster: `redis://a,b:7000/?cluster`.
/// - `valkey://` and `valkeys://` are the same.
/// - `redis+sentinel://` or `rediss+sentinel://`: sentinels that know where the master of `?service=NAME` is.
///
/// Characters with a meaning of their own are percent-encoded in user and password (RFC 3986, section 2.1).
#[derive(Clone, Debug)]
pub struct Url {
    pub(super) place: Place,
    pub(super) addresses: Vec<Address>,
    pub(super) login: Login,
    pub(super) sentinel_login: Login,
    pub(super) tls: Option<Tls>,
    pub(super) db: u16,
    pub(super) namespace: String,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
}

/// What is at the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The only server.
    One,
    /// Some servers of a cluster.
    Cluster,
    /// Sentinels, which are asked for the master of this service.
    Sentinels(String),
}

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// As whom to sign in.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// How TLS is done.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    /// A file of certificates to trust instead of the system's, in PEM.
    pub(super) ca: Option<PathBuf>,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the redis URL {0}")]
pub struct UrlError(String);

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("Login").field("user", &self.user).field("password", &password).finish()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| refused("has no scheme: redis://HOST"))?;
        let (is_tls, has_sentinels) = match scheme {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            other => {
                return fail(format!(
                    "has the scheme `{other}`; these are known: redis, rediss, redis+sentinel, rediss+sentinel, valkey, valkeys"
                ));
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Query::parse(query, &OPTIONS)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Login::parse(login)?, hosts),
            None => (Login::default(), authority),
        };
        let port = if has_sentinels { SENTINEL_PORT } else { PORT };
        let addresses: Vec<_> =
            hosts.split(',').map(|host| Address::parse(host, port)).collect::<Result<_, _>>()?;
        let place = place(has_sentinels, addresses.len(), &mut options)?;
        let db = db(path, options.take("db"))?;
        if db != 0 && place == Place::Cluster {
            return fail("names a database: a cluster has only number 0".into());
        }
        let namespace = options.take("namespace").unwrap_or_else(|| NAMESPACE.into());
        if crate::rules::check_name("namespace", &namespace, NAMESPACE_BYTES_MAX).is_err() {
            return fail(format!(
                "has a `namespace` that is not 1 to {NAMESPACE_BYTES_MAX} lower-case ASCII letters, digits, `-` and `_`"
            ));
        }
        let ca = options.take("ca").map(PathBuf::from);
        if ca.is_some() && !is_tls {
            return fail("names certificates in `ca`, but does not use TLS: write rediss://".into());
        }
        let sentinel_login =
            Login { user: options.take("sentinel_user"), password: options.take("sentinel_password") };
        if !has_sentinels && (sentinel_login.user.is_some() || sentinel_login.password.is_some()) {
            return fail("has a login for sentinels, but none: write redis+sentinel://".into());
        }
        Ok(Self {
            place,
            addresses,
            login,
            sentinel_login,
            tls: is_tls.then_some(Tls { ca }),
            db,
            namespace,
            connect_timeout: options.time("connect_timeout_ms", CONNECT_TIMEOUT)?,
            response_timeout: options.time("response_timeout_ms", RESPONSE_TIMEOUT)?,
        })
    }
}

impl From<String> for UrlError {
    fn from(what: String) -> Self {
        Self(what)
    }
}

fn refused(what: &str) -> UrlError {
    UrlError(what.into())
}

fn fail<T>(what: String) -> Result<T, UrlError> {
    Err(UrlError(what))
}

fn place(has_sentinels: bool, addresses: usize, options: &mut Query) -> Result<Place, UrlError> {
    let cluster = options.flag("cluster")?;
    match (has_sentinels, options.take("service")) {
        (true, Some(_)) if cluster => fail("names both a cluster and sentinels".into()),
        (true, Some(service)) if !service.is_empty() => Ok(Place::Sentinels(service)),
        (true, _) => fail("does not say whose master the sentinels shall name: add `service=NAME`".into()),
        (false, Some(_)) => fail("has a `service`, but no sentinels: write redis+sentinel://".into()),
        (false, None) if cluster => Ok(Place::Cluster),
        (false, None) if addresses > 1 => {
            fail("names several servers: add `?cluster`, or write redis+sentinel://".into())
        }
        (false, None) => Ok(Place::One),
    }
}

fn db(path: &str, option: Option<String>) -> Result<u16, UrlError> {
    let text = match option {
        Some(_) if !path.is_empty() => return fail("names the database twice: as a path and as `db`".into()),
        Some(option) => option,
        None if path.is_empty() => return Ok(0),
        None => path.to_owned(),
    };
    text.parse()
        .or_else(|_| fail(format!("names the database `{text}`, which is no number up to {}", u16::MAX)))
}

impl Address {
    /// Reads `host`, `host:port` or `[host]:port`.
    pub(super) fn parse(text: &str, port: u16) -> Result<Self, UrlError> {
        let (host, port_text) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) =
                    rest.split_once(']').ok_or_else(|| refused("has a `[` without a `]` in its host"))?;
                (host, behind.strip_prefix(':'))
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() || (host.contains(':') && !text.starts_with('[')) {
            return fail("has an empty host, or an IPv6 address without brackets".into());
        }
        let port = match port_text {
            None => port,
            Some(text) => match text.parse() {
                Ok(port) if port != 0 => port,
                // What stands there may be the end of a password with an `@` or `/` in it.
                _ => {
                    return fail(format!(
                        "has no port number behind `{host}:`; a password needs `@`, `/` and `?` percent-encoded"
                    ));
                }
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (text, None),
        };
        let decode =
            |text| decoded(text).ok_or_else(|| refused("has a broken percent-encoding in its login"));
        let user = (!user.is_empty()).then(|| decode(user)).transpose()?;
        Ok(Self { user, password: password.map(decode).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_said() {
        let url: Url = "rediss://ada:p%40ss%2Fw%3Ard@cache-1:7000/3?namespace=shop&connect_timeout_ms=100"
            .parse()
            .unwrap();
        assert_eq!((url.place, url.db, url.namespace.as_str()), (Place::One, 3, "shop"));
        assert_eq!(url.addresses, [Address { host: "cache-1".into(), port: 7000 }]);
        assert_eq!(
            (url.login.user.as_deref(), url.login.password.as_deref()),
            (Some("ada"), Some("p@ss/w:rd"))
        );
        assert!(url.tls.is_some());
        assert_eq!(
            (url.connect_timeout, url.response_timeout),
            (Duration::from_millis(100), RESPONSE_TIMEOUT)
        );

        let url: Url = "redis://a,b:7001,[::1]:7002/?cluster".parse().unwrap();
        let addresses: Vec<_> = url.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            (url.place, addresses),
            (Place::Cluster, vec!["a:6379".into(), "b:7001".into(), "[::1]:7002".into()])
        );

        let url: Url = "redis+sentinel://:pw@s1,s2:1/?service=main&sentinel_password=x".parse().unwrap();
        assert_eq!(url.place, Place::Sentinels("main".into()));
        assert_eq!(url.addresses[0].port, SENTINEL_PORT);
        assert_eq!((url.login.user.as_deref(), url.sentinel_login.password.as_deref()), (None, Some("x")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, text) in [
            ("localhost:6379", "no scheme"),
            ("http://a", "scheme `http`"),
            ("redis://", "empty host"),
            ("redis://a:b", "no port number"),
            ("redis://a:0", "no port number"),
            ("redis://::1", "without brackets"),
            ("redis://[::1", "without a `]`"),
            ("redis://a,b", "`?cluster`"),
            ("redis://a/x", "database `x`"),
            ("redis://a/1?db=2", "twice"),
            ("redis://a/1?cluster", "cluster has only number 0"),
            ("redis://a?cluster=maybe", "neither"),
            ("redis://a?clutser", "option `clutser`"),
            ("redis://a?db=1&db=1", "`db` twice"),
            ("redis://a?service=x", "redis+sentinel://"),
            ("redis+sentinel://a", "`service=NAME`"),
            ("redis+sentinel://a?service=x&cluster", "both"),
            ("redis://a?connect_timeout_ms=0", "`connect_timeout_ms`"),
            ("redis://a?namespace=A", "`namespace`"),
            ("redis://a?ca=/x", "rediss://"),
            ("redis://a?sentinel_user=x", "login for sentinels"),
            ("redis://u:p%4@a", "percent-encoding in its login"),
            ("redis://a?namespace=%zz", "percent-encoding in `namespace`"),
        ] {
            let error = url.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(text), "{url}: {error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let url: Url = "redis+sentinel://u:geheim@a/?service=x&sentinel_password=geheim".parse().unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
        for url in ["redis://u:geheim@", "redis://u:geheim@a:x", "redis://u:geheim%4@a", "http://u:geheim@a"]
        {
            let error = url.parse::<Url>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }
}
