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
//! | `NS:{sXX}:HASH` a session, and `…:m` its mark | one of 256, by the first byte of the hash; renewal stays in it |
//! | `NS:{u:USER}` index of a user's sessions | one for each user |

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::sessions::SessionId;

/// Makes the keys of a namespace.
pub(super) struct Keys {
    namespace: String,
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
        let bytes: [u8; 32] = Sha256::digest(id.as_bytes()).into();
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
        Self { namespace }
    }

    /// A session and its mark.
    pub(super) fn session(&self, hash: &Hash) -> [String; 2] {
        let session = format!("{}:{{s{:02x}}}:{}", self.namespace, hash.shard, hash.text);
        let mark = format!("{session}:m");
        [session, mark]
    }

    /// The sessions of a user.
    pub(super) fn user(&self, user: &str) -> String {
        format!("{}:{{u:{user}}}", self.namespace)
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

    fn tables(&self, what: &str) -> String {
        format!("{0}:{{{0}:t}}:{what}", self.namespace)
    }
}
