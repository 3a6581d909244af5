//! What comes with a grant: the parts of Lethe's own tables and caches without which what was given would be of no use, and no
//! more of them. A service that has sessions can be told of those that ended, and has a ring of keys of its own.

use super::{Grant, Resource};
use crate::{cache::HOT_CACHE, revocations, tables::TOKEN_KEYS_TABLE};

/// What somebody wants to use.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of what kind it is.
    pub resource: Resource,
    /// Its name.
    pub name: &'a str,
    /// The row or entry of it that is wanted, if it is one.
    pub key: Option<&'a str>,
    /// Whether it is only read.
    pub is_read: bool,
}

impl Grant {
    /// Whether it comes with what is asked for, by the service of this name.
    pub fn comes_with(&self, service: &str, asked: &Asked<'_>) -> bool {
        let is_own = asked.key == Some(service);
        match (asked.resource, asked.name) {
            // Hybrid sessions: what was revoked is read; it is written by the state API itself, for whoever ends a session.
            (Resource::Tables, revocations::TABLE) => self.sessions.is_some() && asked.is_read,
            (Resource::Tables, TOKEN_KEYS_TABLE) => self.sessions.is_some() && is_own,
            (Resource::Caches, HOT_CACHE) => is_own && !self.names(Resource::Caches).is_empty(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Pattern, *};
    use crate::realm::Realm;

    #[test]
    fn what_comes_with_what() {
        let nothing = Grant::default();
        let sessions = Grant { sessions: Some(Realm::default()), ..Grant::default() };
        let mut caches = Grant::default();
        caches.give(Resource::Caches, [Pattern::parse(Resource::Caches, "pages").unwrap()]);
        let tables = |name, key, is_read| Asked { resource: Resource::Tables, name, key, is_read };
        let cache = |name, key| Asked { resource: Resource::Caches, name, key, is_read: false };
        for (asked, grants) in [
            (tables(revocations::TABLE, None, true), [false, true, false]),
            (tables(revocations::TABLE, Some("u/x"), true), [false, true, false]),
            (tables(revocations::TABLE, Some("u/x"), false), [false, false, false]),
            (tables(TOKEN_KEYS_TABLE, Some("web"), true), [false, true, false]),
            (tables(TOKEN_KEYS_TABLE, Some("web"), false), [false, true, false]),
            (tables(TOKEN_KEYS_TABLE, Some("api"), true), [false, false, false]),
            (tables(TOKEN_KEYS_TABLE, None, true), [false, false, false]),
            (tables("web", Some("web"), true), [false, false, false]),
            (cache(HOT_CACHE, Some("web")), [false, false, true]),
            (cache(HOT_CACHE, Some("api")), [false, false, false]),
            (cache(HOT_CACHE, None), [false, false, false]),
            (cache(revocations::TABLE, None), [false, false, false]),
        ] {
            let comes = [&nothing, &sessions, &caches].map(|grant| grant.comes_with("web", &asked));
            assert_eq!(comes, grants, "{asked:?}");
        }
    }
}
