//! Where state is kept: an address for each kind, as a configuration gives it, and which engine that means. It is pure:
//! nothing is opened or asked.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use sha2::{Digest, Sha256};

/// A kind of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`crate::sessions`]
    Sessions,
    /// [`crate::tables`]
    Tables,
    /// [`crate::blobs`]
    Blobs,
    /// [`crate::limits`]
    Limits,
    /// [`crate::idempotency`]
    Idempotency,
    /// [`crate::locks`]
    Locks,
    /// [`crate::cache`]
    Cache,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Sessions,
        Self::Tables,
        Self::Blobs,
        Self::Limits,
        Self::Idempotency,
        Self::Locks,
        Self::Cache,
    ];

    /// Its name, as in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Tables => "tables",
            Self::Blobs => "blobs",
            Self::Limits => "limits",
            Self::Idempotency => "idempotency",
            Self::Locks => "locks",
            Self::Cache => "cache",
        }
    }
}

/// What stores state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineName {
    /// SQLite and a folder of blobs, inside of `lethe`.
    Embedded,
    /// Redis or Valkey.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// S3, or what speaks its protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Gcs,
}

impl EngineName {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
        }
    }

    /// Whether it keeps this kind. What it does not keep has no such part in its type either.
    pub fn keeps(self, kind: Kind) -> bool {
        match self {
            Self::Embedded => true,
            Self::Redis => kind != Kind::Blobs,
            Self::Postgres => !matches!(kind, Kind::Blobs | Kind::Limits | Kind::Cache),
            Self::S3 | Self::Azure | Self::Gcs => kind == Kind::Blobs,
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "embedded" => Self::Embedded,
            "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" | "valkey" | "valkeys" => Self::Redis,
            "postgres" | "postgresql" => Self::Postgres,
            "s3" => Self::S3,
            "azure" => Self::Azure,
            "gs" => Self::Gcs,
            _ => return None,
        })
    }
}

/// Where an engine is. `Debug` and `Display` show no password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// The embedded engine in this folder; `None` for the one that `lethe` has in any case.
    Embedded(Option<PathBuf>),
    /// Another engine, with its URL, which may hold a password.
    Url(EngineName, String),
}

impl Address {
    /// Reads an address: `embedded`, `embedded:FOLDER`, or a URL. The error says what is wrong, to follow the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "embedded" {
            return Ok(Self::Embedded(None));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err("is no address: write `embedded`, or a URL such as `redis://127.0.0.1`".into());
        };
        match EngineName::of_scheme(scheme) {
            Some(EngineName::Embedded) if rest.is_empty() => {
                Err("names no folder: write `embedded:.lethe`, or `embedded` alone".into())
            }
            Some(EngineName::Embedded) => Ok(Self::Embedded(Some(rest.into()))),
            Some(engine) => match rest.strip_prefix("//") {
                Some(host) if !host.is_empty() => Ok(Self::Url(engine, text.to_owned())),
                _ => Err(match engine {
                    EngineName::S3 | EngineName::Gcs => {
                        format!("names no bucket: it begins with `{scheme}://` and its name")
                    }
                    EngineName::Azure => {
                        "names no container: it begins with `azure://account@container`".to_owned()
                    }
                    _ => format!("names no server: it begins with `{scheme}://` and a host"),
                }),
            },
            None => Err(format!(
                "needs the engine `{scheme}`, which this version does not have; \
                 there are `embedded`, `redis://`, `postgres://`, `s3://`, `azure://` and `gs://`"
            )),
        }
    }

    /// The engine that is there.
    pub fn engine(&self) -> EngineName {
        match self {
            Self::Embedded(_) => EngineName::Embedded,
            Self::Url(engine, _) => *engine,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(None) => f.write_str("embedded"),
            Self::Embedded(Some(folder)) => write!(f, "embedded:{}", folder.display()),
            Self::Url(_, url) => f.write_str(&public(url)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Puts the environment's variables, which `env` gives, into an address: `${NAME}`, so that no password need stand in a file or on a
/// command line. The error says what is wrong, and nothing of what the variables hold.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        expanded += before;
        let Some((name, after)) = behind.split_once('}') else {
            return Err("the address has a `${` without `}`".into());
        };
        match env(name) {
            Some(value) => expanded += &value,
            None => {
                return Err(format!(
                    "the address needs the environment variable `{name}`, which is not set: set it where lethe is started"
                ));
            }
        }
        rest = after;
    }
    Ok(expanded + rest)
}

/// A URL without what may be secret in it: the name and password before the host, and all of the query.
pub fn public(url: &str) -> String {
    let (scheme, rest) = url.split_once("//").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    // A password may hold a `/` or `@` that was not escaped: what is behind the last `@` is the host in any case.
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}//{place}")
}

/// Where each kind is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where kinds are for which nothing else is said.
    pub default: Address,
    /// Where the others are.
    pub kinds: BTreeMap<Kind, Address>,
}

impl Default for Placement {
    fn default() -> Self {
        Self { default: Address::Embedded(None), kinds: BTreeMap::new() }
    }
}

impl Placement {
    /// Where a kind is kept.
    pub fn of(&self, kind: Kind) -> &Address {
        self.kinds.get(&kind).unwrap_or(&self.default)
    }

    /// The same for two that say the same, passwords and options included, no part of which can be read in it. It stays the
    /// same from one version to the next, also if that has more kinds.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut say = |what: &str, address: &Address| {
            let address = match address {
                Address::Url(_, url) => url.clone(),
                embedded => embedded.to_string(),
            };
            hash.update(format!("{what}\0{address}\0"));
        };
        say("default", &self.default);
        let others = self.kinds.iter().filter(|(_, address)| **address != self.default);
        others.for_each(|(kind, address)| say(kind.name(), address));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first kind whose engine does not keep it.
    pub fn misplaced(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| !self.of(*kind).engine().keeps(*kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_engine() {
        for (text, engine) in [
            ("embedded", EngineName::Embedded),
            ("embedded:data/state", EngineName::Embedded),
            ("redis://cache-1,cache-2/?cluster", EngineName::Redis),
            ("rediss://cache", EngineName::Redis),
            ("redis+sentinel://a,b/?service=main", EngineName::Redis),
            ("postgres://app@db/app", EngineName::Postgres),
            ("postgresql:///app?host=/run/postgresql", EngineName::Postgres),
            ("s3://bucket?region=eu-1", EngineName::S3),
            ("azure://account@container", EngineName::Azure),
            ("gs://bucket", EngineName::Gcs),
        ] {
            assert_eq!(Address::parse(text).map(|address| address.engine()), Ok(engine), "{text}");
        }
        for (text, part) in [
            ("", "is no address"),
            ("cache-1", "is no address"),
            ("embedded:", "names no folder"),
            ("redis:", "names no server"),
            ("redis://", "names no server"),
            ("s3://", "names no bucket"),
            ("gs:photos", "names no bucket: it begins with `gs://`"),
            ("azure://", "names no container"),
            ("mongodb://db", "the engine `mongodb`"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_fingerprint_tells_all_apart_and_shows_nothing() {
        let at = |default: &str, blobs: &str| {
            let address = |text| Address::parse(text).unwrap();
            Placement { default: address(default), kinds: [(Kind::Blobs, address(blobs))].into() }
        };
        let one = at("redis://:secret@cache/0", "embedded");
        assert_eq!(one.fingerprint(), at("redis://:secret@cache/0", "embedded").fingerprint());
        for other in [
            at("redis://:another@cache/0", "embedded"),
            at("redis://:secret@cache/1", "embedded"),
            at("redis://:secret@cache/0", "embedded:blobs"),
            Placement::default(),
        ] {
            assert_ne!(one.fingerprint(), other.fingerprint(), "{other:?}");
        }
        // It must not change from one version to the next.
        let known = "81dc60bc51746383d49c6b845b15389585318a83fbce49982dc80f0214614aa6";
        assert_eq!(Placement::default().fingerprint(), known);
    }

    #[test]
    fn variables_are_put_in_once() {
        let env = |name: &str| (name == "P").then(|| "${P}s".to_owned());
        assert_eq!(expand("redis://:${P}@h/${P}", &env).as_deref(), Ok("redis://:${P}s@h/${P}s"));
        assert_eq!(expand("s3://plain$", &env).as_deref(), Ok("s3://plain$"));
        assert!(expand("redis://${Q}", &env).unwrap_err().contains("`Q`, which is not set"));
        assert!(expand("redis://${P", &env).unwrap_err().contains("without `}`"));
    }

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("redis://:secret@cache:6379/0?x=secret", "redis://cache:6379/0"),
            ("postgres://app:se/cr@et@db/app", "postgres://db/app"),
            ("s3://bucket?access-key-id=a&secret-access-key=secret", "s3://bucket"),
            ("redis://cache", "redis://cache"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), shown);
        }
    }

    #[test]
    fn a_kind_is_where_it_is_put() {
        let mut placement =
            Placement { default: Address::parse("redis://cache").unwrap(), ..Default::default() };
        assert_eq!(placement.misplaced(), Some(Kind::Blobs));
        placement.kinds.insert(Kind::Blobs, Address::parse("s3://photos").unwrap());
        assert_eq!(placement.misplaced(), None);
        assert_eq!(placement.of(Kind::Locks), &placement.default);
        placement.kinds.insert(Kind::Limits, Address::parse("postgres://db").unwrap());
        assert_eq!(placement.misplaced(), Some(Kind::Limits));
        assert_eq!(Placement::default().misplaced(), None);
    }
}
