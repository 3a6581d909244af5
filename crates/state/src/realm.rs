//! Realms: sessions that have nothing to do with each other, in one engine. The id of a session names its realm, and in another
//! one there is no such id; a user of one realm is not the user of the same name in another.
//!
//! Engines know no more of it than two things. What they keep of an id is a hash that the realm goes into
//! ([`SessionId::hash`](crate::sessions::SessionId::hash)), and what they keep of a user is an *owner*, which is a text that
//! both are read from.

#[cfg(any(feature = "embedded", feature = "postgres", feature = "redis", test))]
use std::borrow::Cow;
use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::error::Error;

/// Longest name of a realm, in bytes. It is that of a service.
pub const NAME_BYTES_MAX: usize = 40;
/// The name of the realm that has none: of services that may use everything, and of programs that use an engine without a service's socket.
pub const COMMON: &str = "common";
/// Stands before the name of a realm in an owner, and behind it.
#[cfg(any(feature = "embedded", feature = "postgres", feature = "redis", test))]
const MARK: char = '\u{1}';

/// Which sessions are meant. [`Realm::default`] is [`COMMON`]. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Realm(Option<Arc<str>>);

impl Realm {
    /// The realm of this name: 1 to [`NAME_BYTES_MAX`] lower-case ASCII letters, digits, `-` and `_`.
    pub fn named(name: &str) -> Result<Self, Error> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_allowed) {
            return Err(Error::Invalid(format!(
                "{:?} cannot be the name of sessions: these are 1 to {NAME_BYTES_MAX} lower-case ASCII letters, digits, `-` and `_`",
                name.chars().take(NAME_BYTES_MAX).collect::<String>()
            )));
        }
        Ok(Self((name != COMMON).then(|| name.into())))
    }

    /// Its name; `None` if it is the common one.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether it is the common one.
    pub fn is_common(&self) -> bool {
        self.0.is_none()
    }
}

/// What engines keep of users.
#[cfg(any(feature = "embedded", feature = "postgres", feature = "redis", test))]
impl Realm {
    /// A user of this realm, as engines keep it.
    pub(crate) fn owner<'a>(&self, user: &'a str) -> Cow<'a, str> {
        match self.name() {
            Some(realm) => format!("{MARK}{realm}{MARK}{user}").into(),
            // A user of the common realm is itself, unless it could be taken for one of another.
            None if user.starts_with(MARK) => format!("{MARK}{MARK}{user}").into(),
            None => user.into(),
        }
    }

    /// The user that an owner is whose session is of this realm. What no owner of it looks like is from before there were realms, and is
    /// the user itself.
    pub(crate) fn user_of(&self, owner: String) -> String {
        let marked = owner.strip_prefix(MARK);
        let user = match self.name() {
            Some(realm) => marked.and_then(|rest| rest.strip_prefix(realm)?.strip_prefix(MARK)),
            None => marked.and_then(|rest| rest.strip_prefix(MARK)).filter(|user| user.starts_with(MARK)),
        };
        user.map(str::to_owned).unwrap_or(owner)
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or(COMMON))
    }
}

impl Serialize for Realm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Realm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::named(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_one_user_of_one_realm() {
        let realms = [Realm::default(), Realm::named("shop").unwrap(), Realm::named("s").unwrap()];
        let users = ["ada", "\u{1}", "\u{1}shop\u{1}ada", "\u{1}\u{1}ada", "shop\u{1}ada", "p\u{1}ada"];
        let mut owners = std::collections::BTreeSet::new();
        for realm in &realms {
            for user in users {
                let owner = realm.owner(user).into_owned();
                assert_eq!(realm.user_of(owner.clone()), user, "{realm}");
                assert!(owners.insert(owner), "{user:?} of {realm} is somebody else too");
            }
        }
        for old in ["ada", "\u{1}\u{1}ada", "\u{1}shop\u{1}ada", "\u{1}eve"] {
            assert_eq!(
                realms[0].user_of(old.to_owned()),
                old,
                "what was kept before there were realms is as it was"
            );
        }
        assert_eq!(realms[0].owner("ada"), "ada");
    }

    #[test]
    fn names_are_checked_and_the_common_one_has_none() {
        assert_eq!(Realm::named(COMMON).unwrap(), Realm::default());
        assert_eq!(Realm::default().to_string(), COMMON);
        for name in ["", "Shop", "a b", "a~b", "a\u{1}", &"x".repeat(NAME_BYTES_MAX + 1), &"xé".repeat(9000)]
        {
            let error = Realm::named(name).unwrap_err();
            assert!(matches!(&error, Error::Invalid(text) if text.len() < 400), "{error}");
        }
    }
}
