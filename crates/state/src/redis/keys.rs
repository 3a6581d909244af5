//! The names of keys. Those that one script uses together stand in one slot of a cluster, which what is between `{` and `}`
//! decides:
//!
//! | keys | slot |
//! |---|---|
//! | `NS:{NS:t}:…` all tables of a namespace | one, so that a batch may write to several tables |
//! | `NS:{NS:k}:…` all locks of a namespace | one, so that they can be listed |
//! | `NS:i:SCOPE:KEY` an idempotency key | any |
//! | `NS:{NS:l}:…` all limits of a namespace | one, so that several limits are judged in one step |
//! | `NS:{NS:c:CACHE}:…` a cache | one for each cache |
//! | `NS:touched:{NS:t}:TABLE:KEY`, `NS:touched:{NS:c:CACHE}:KEY` never there: they come and go within the scripts that write a row or an entry, for feeds | as those |
//! | `NS:{sXX}:HASH` a session, and `…:m` its mark | one of 256, by the first byte of the hash; renewal stays in it |
//! | `NS:{u:OWNER}` index of a user's sessions; owners are told in `crate::realm` | one for each user |

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{feed::followers::Topic, sessions::SessionId};

/// Makes the keys of a namespace.
pub(super) struct Keys {
    namespace: String,
    followed: [String; 2],
}

/// The SHA-256 of a session's secret id, as URL-safe base64. The id itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) text: String,
    /// By which sessions are spread.
    pub(super) shard: u8,
}

impl Hash {
    /// The hash of an id.
    pub(super) fn of(id: &SessionId) -> Self {
        let bytes = id.hash();
        Self { text: BASE64_URL_SAFE_NO_PAD.encode(bytes), shard: bytes[0] }
    }

    /// Reads its text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == 32).then(|| Self { text: text.to_owned(), shard: bytes[0] })
    }
}

impl Keys {
    /// The keys of a namespace, which has no braces.
    pub(super) fn new(namespace: String) -> Self {
        // `touch.lua` has the second one too.
        let followed = [format!("{namespace}:{{s"), format!("{namespace}:touched:{{{namespace}:")];
        Self { namespace, followed }
    }

    /// What all of them begin with.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A session and its mark. `session_end.lua` makes them too.
    pub(super) fn session(&self, hash: &Hash) -> [String; 2] {
        let session = format!("{}:{{s{:02x}}}:{}", self.namespace, hash.shard, hash.text);
        let mark = format!("{session}:m");
        [session, mark]
    }

    /// The sessions of an owner.
    pub(super) fn user(&self, owner: &str) -> String {
        format!("{}:{{u:{owner}}}", self.namespace)
    }

    /// Leases, the names of locks in their order, when leases end, and the last token.
    pub(super) fn locks(&self) -> [String; 4] {
        ["leases", "order", "ends", "token"].map(|what| format!("{0}:{{{0}:k}}:{what}", self.namespace))
    }

    /// An idempotency key.
    pub(super) fn idempotency(&self, scope: &str, key: &str) -> String {
        format!("{}:i:{scope}:{key}", self.namespace)
    }

    /// When keys of a limit have their whole burst again, and its keys in their order.
    pub(super) fn limit(&self, limit: &str) -> [String; 2] {
        ["times", "order"].map(|what| format!("{0}:{{{0}:l}}:{what}:{limit}", self.namespace))
    }

    /// Entries of a cache, their values, when they were last used, and when they end.
    pub(super) fn cache(&self, cache: &str) -> [String; 4] {
        ["entries", "values", "used", "ends"]
            .map(|what| format!("{0}:{{{0}:c:{cache}}}:{what}", self.namespace))
    }

    /// The last revision of tables.
    pub(super) fn revision(&self) -> String {
        self.tables("revision")
    }

    /// When rows expire.
    pub(super) fn expiries(&self) -> String {
        self.tables("expiries")
    }

    /// The rows of a table.
    pub(super) fn rows(&self, table: &str) -> String {
        self.tables(&format!("rows:{table}"))
    }

    /// The keys of a table in their order.
    pub(super) fn order(&self, table: &str) -> String {
        self.tables(&format!("order:{table}"))
    }

    /// What the keys begin with by which a feed hears of changes. Neither begins with the other, which Redis refuses.
    pub(super) fn followed(&self) -> &[String; 2] {
        &self.followed
    }

    /// What has changed when the server says that this key has: where, and its name, or the empty one for all that is there.
    /// Some keys merely begin as those that tell something.
    pub(super) fn changed<'a>(&self, key: &'a str) -> Option<(Topic, &'a str)> {
        let [sessions, touched] = &self.followed;
        if let Some(rest) = key.strip_prefix(&**touched) {
            let (slot, name) = rest.split_once("}:")?;
            if let Some(cache) = slot.strip_prefix("c:") {
                return Some((Topic::Cache(cache.into()), name));
            }
            let (table, row) = name.split_once(':').filter(|_| slot == "t")?;
            return Some((Topic::Table(table.into()), row));
        }
        let (shard, name) = key.strip_prefix(&**sessions)?.split_once("}:")?;
        let name = name.strip_suffix(":m").unwrap_or(name);
        let is_session = shard.len() == 2 && Hash::parse(name).is_some();
        is_session.then_some((Topic::Sessions, name))
    }

    fn tables(&self, what: &str) -> String {
        format!("{0}:{{{0}:t}}:{what}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_has_changed() {
        let hash = Hash::of(&SessionId::random().unwrap());
        // A namespace may look like a session's shard.
        for namespace in ["lethe", "s", "sab", "a:b", "touched"] {
            let keys = Keys::new(namespace.into());
            let touched = |rest: &str| format!("{}{rest}", keys.followed()[1]);
            let table = |name: &str| Topic::Table(name.into());
            let [session, mark] = keys.session(&hash);
            for (key, changed) in [
                (&session, Some((Topic::Sessions, hash.text.as_str()))),
                (&mark, Some((Topic::Sessions, hash.text.as_str()))),
                (&touched("t}:t:k"), Some((table("t"), "k"))),
                (&touched("t}:t-1:a:b{c}:}:"), Some((table("t-1"), "a:b{c}:}:"))),
                (&touched("t}:t"), None),
                (&touched("c:t}:a:b}:"), Some((Topic::Cache("t".into()), "a:b}:"))),
                (&touched("c:t}:"), Some((Topic::Cache("t".into()), ""))),
                (&touched("x}:t:k"), None),
                (&keys.cache("t")[0], None),
                (&keys.rows("t"), None),
                (&keys.revision(), None),
                (&keys.user("ada"), None),
                (&keys.locks()[0], None),
                (&format!("{session}x"), None),
                (&format!("x{session}"), None),
            ] {
                assert_eq!(keys.changed(key), changed, "{key}");
                if changed.is_some() {
                    assert!(keys.followed().iter().any(|prefix| key.starts_with(prefix)), "{key}");
                }
            }
        }
    }
}
