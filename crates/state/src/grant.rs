//! What one service may use of all that is kept: a grant names tables, buckets and the like, one by one or by how their
//! names begin. It is pure; the state API asks it at each request (`server/access.rs`).

mod company;

use std::{collections::BTreeMap, fmt};

pub use self::company::Asked;
use crate::{blobs, cache, idempotency, limits, locks, realm::Realm, rules::check_name, tables};

/// Most names that a grant has of one resource.
pub const NAMES_MAX: usize = 256;

/// What has names that can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// [`crate::tables`]
    Tables,
    /// [`crate::blobs`]
    Buckets,
    /// [`crate::cache`]
    Caches,
    /// [`crate::limits`]
    Limits,
    /// [`crate::locks`]
    Locks,
    /// The scopes of [`crate::idempotency`].
    Idempotency,
}

impl Resource {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Tables, Self::Buckets, Self::Caches, Self::Limits, Self::Locks, Self::Idempotency];

    /// Its name, as in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Buckets => "buckets",
            Self::Caches => "caches",
            Self::Limits => "limits",
            Self::Locks => "locks",
            Self::Idempotency => "idempotency",
        }
    }

    /// What one of them is called.
    pub fn one(self) -> &'static str {
        match self {
            Self::Tables => "table",
            Self::Buckets => "bucket",
            Self::Caches => "cache",
            Self::Limits => "limit",
            Self::Locks => "lock",
            Self::Idempotency => "idempotency scope",
        }
    }

    /// The longest name, in bytes.
    fn bytes_max(self) -> usize {
        match self {
            Self::Tables => tables::TABLE_NAME_BYTES_MAX,
            Self::Buckets => blobs::BUCKET_NAME_BYTES_MAX,
            Self::Caches => cache::CACHE_NAME_BYTES_MAX,
            Self::Limits => limits::LIMIT_NAME_BYTES_MAX,
            Self::Locks => locks::NAME_BYTES_MAX,
            Self::Idempotency => idempotency::SCOPE_BYTES_MAX,
        }
    }
}

/// A name that is granted, or how names begin that are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    text: String,
    is_prefix: bool,
}

impl Pattern {
    /// Reads `orders`, `cart-*`, or `*` for all. The error says what is wrong with it, to follow the text.
    pub fn parse(resource: Resource, text: &str) -> Result<Self, String> {
        let (start, is_prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let pattern = Self { text: start.to_owned(), is_prefix };
        if start.is_empty() {
            return if is_prefix {
                Ok(pattern)
            } else {
                Err("is empty: write a name, or \"*\" for all".into())
            };
        }
        if let Some((before, _)) = start.split_once('*')
            && resource != Resource::Locks
        {
            return Err(format!("has a `*` that is not its end: write \"{before}*\" or a whole name"));
        }
        let max = resource.bytes_max();
        if resource == Resource::Locks {
            return match start {
                _ if start.contains('\0') => Err("has a NUL character".into()),
                _ if start.len() > max => Err(format!("is longer than the {max} bytes of the longest name")),
                _ => Ok(pattern),
            };
        }
        if check_name(resource.one(), start, max).is_err() {
            let plain = plain(start);
            let near = match check_name(resource.one(), &plain, max) {
                Ok(()) => format!("; did you mean \"{plain}{}\"?", if is_prefix { "*" } else { "" }),
                Err(_) => String::new(),
            };
            let one = resource.one();
            return Err(format!(
                "cannot be the name of a {one}: these are 1 to {max} lower-case letters, digits, `-` and `_`{near}"
            ));
        }
        Ok(pattern)
    }

    /// Whether it is for this name.
    pub fn has(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }

    /// Whether it is for all that `other` is for.
    fn covers(&self, other: &Self) -> bool {
        self == other || self.is_prefix && other.text.starts_with(&self.text)
    }

    /// The name; `None` if it is how names begin.
    pub(crate) fn exact(&self) -> Option<&str> {
        (!self.is_prefix).then_some(&self.text)
    }

    /// How the names begin that it is for.
    pub(crate) fn start(&self) -> &str {
        &self.text
    }
}

/// What was meant by a name with other characters.
fn plain(text: &str) -> String {
    let characters = text.chars().map(|c| c.to_ascii_lowercase());
    characters
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' })
        .collect()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}{}`", self.text, if self.is_prefix { "*" } else { "" })
    }
}

/// What a service may use. [`Grant::default`] is nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// In order; none covers another.
    names: BTreeMap<Resource, Vec<Pattern>>,
    /// Whether it has all names.
    has_all: bool,
    /// The sessions that it has, if any.
    pub sessions: Option<Realm>,
}

impl Grant {
    /// Adds names.
    pub fn give(&mut self, resource: Resource, patterns: impl IntoIterator<Item = Pattern>) {
        let given = self.names.entry(resource).or_default();
        given.extend(patterns);
        given.sort();
        // What covers another is shorter or equal, and stands before it or, as a prefix of the same text, right behind.
        let all = given.clone();
        let covered = |one: &Pattern| all.iter().any(|other| other != one && other.covers(one));
        given.retain(|one| !covered(one));
        given.dedup();
    }

    /// Whether it has all names.
    pub fn has_all(&self) -> bool {
        self.has_all
    }

    /// Whether it has this name.
    pub fn has(&self, resource: Resource, name: &str) -> bool {
        self.has_all || self.names(resource).iter().any(|pattern| pattern.has(name))
    }

    /// The names it has, in order; no two are for the same name.
    pub fn names(&self, resource: Resource) -> &[Pattern] {
        self.names.get(&resource).map_or(&[], Vec::as_slice)
    }

    /// The names it has, for people.
    pub fn listed(&self, resource: Resource) -> String {
        let names: Vec<String> = self.names(resource).iter().map(ToString::to_string).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }

    /// Both together; `None` is all there is. Sessions are only of one realm: those of `one`, if it has any.
    pub fn either(one: Option<&Self>, other: Option<&Self>) -> Option<Self> {
        let mut both = one?.clone();
        let Some(other) = other else {
            // Without a grant there would be other sessions.
            both.has_all = true;
            return both.sessions.is_some().then_some(both);
        };
        both.has_all |= other.has_all;
        for (resource, patterns) in &other.names {
            both.give(*resource, patterns.iter().cloned());
        }
        both.sessions = both.sessions.or_else(|| other.sessions.clone());
        Some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(resource: Resource, text: &str) -> Pattern {
        Pattern::parse(resource, text).unwrap()
    }

    fn tables(patterns: &[&str]) -> Grant {
        let mut grant = Grant::default();
        grant.give(Resource::Tables, patterns.iter().map(|text| parse(Resource::Tables, text)));
        grant
    }

    #[test]
    fn names_and_beginnings() {
        let grant = tables(&["orders", "cart-*"]);
        for name in ["orders", "cart-", "cart-7"] {
            assert!(grant.has(Resource::Tables, name), "{name}");
        }
        for name in ["", "order", "orders2", "cart", "Orders", "orders\0"] {
            assert!(!grant.has(Resource::Tables, name), "{name}");
        }
        assert!(!grant.has(Resource::Buckets, "orders"), "each resource has names of its own");
        assert!(!Grant::default().has(Resource::Tables, ""), "nothing is nothing");
        assert!(tables(&["*"]).has(Resource::Tables, "anything"));
        assert_eq!(grant.listed(Resource::Tables), "`cart-*`, `orders`");
        assert_eq!(grant.listed(Resource::Locks), "none");
    }

    #[test]
    fn what_is_covered_is_left_out() {
        for (given, kept) in [
            (&["a", "a"][..], "`a`"),
            (&["b", "a*", "abc", "a", "ab*"], "`a*`, `b`"),
            (&["x", "*", "y*"], "`*`"),
            (&["ab", "a"], "`a`, `ab`"),
        ] {
            assert_eq!(tables(given).listed(Resource::Tables), kept, "{given:?}");
        }
    }

    #[test]
    fn both_together() {
        let (mut one, two) = (tables(&["a"]), tables(&["b*"]));
        one.sessions = Some(Realm::default());
        let both = Grant::either(Some(&one), Some(&two)).unwrap();
        assert_eq!((both.listed(Resource::Tables).as_str(), &both.sessions), ("`a`, `b*`", &one.sessions));
        assert_eq!(Grant::either(Some(&two), Some(&one)).unwrap(), both);
        let other = Grant { sessions: Some(Realm::named("shop").unwrap()), ..Grant::default() };
        assert_eq!(Grant::either(Some(&other), Some(&one)).unwrap().sessions, other.sessions, "of one realm");
        let all = Grant::either(Some(&other), None).unwrap();
        assert!(all.has(Resource::Tables, "anything") && all.sessions == other.sessions);
        assert_eq!(Grant::either(None, Some(&other)), None, "its sessions are those in common");
        assert_eq!(Grant::either(Some(&two), None), None, "all there is");
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (resource, text, part) in [
            (Resource::Tables, "", "is empty"),
            (Resource::Tables, "*orders", "write \"*\""),
            (Resource::Tables, "a*b*", "write \"a*\""),
            (Resource::Tables, "Orders", "did you mean \"orders\"?"),
            (Resource::Buckets, "My Photos*", "did you mean \"my-photos*\"?"),
            (Resource::Limits, &"x".repeat(65), "1 to 64 lower-case"),
            (Resource::Locks, "a\0", "NUL"),
            (Resource::Locks, &"x".repeat(257), "longer than the 256"),
        ] {
            let error = Pattern::parse(resource, text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(Resource::Locks, "daily report/*").has("daily report/2026"));
    }
}
