//! A service's name: the handle that routes, commands and logs use.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest service name, in bytes. It leaves room for `-<number>` in an instance's name and in a
/// DNS label (RFC 1035, section 2.3.4: 63 octets).
pub const NAME_BYTES_MAX: usize = 40;

/// The name of a service: lower-case ASCII letters, digits and `-`, beginning with a letter, at most
/// [`NAME_BYTES_MAX`] bytes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

/// Why a text is not a service name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a service name: use lower-case letters, digits and `-`, beginning with a letter, \
     at most {NAME_BYTES_MAX} characters"
)]
pub struct InvalidName(String);

impl ServiceName {
    /// Checks `name` and keeps it.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let valid = name.len() <= NAME_BYTES_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid { Ok(Self(name.into())) } else { Err(InvalidName(name.into())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(&name)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0.as_ref().into()
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of one worker, `<service>-<number>`; a number is never given twice while `lethe` runs.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The name of worker `number` of `service`.
    pub fn new(service: &ServiceName, number: u64) -> Self {
        Self(format!("{service}-{number}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number in it: the younger a worker of a service, the greater. `None` for a text that is not such a name.
    pub fn number(&self) -> Option<u64> {
        self.0.rsplit_once('-')?.1.parse().ok()
    }
}

impl From<String> for InstanceId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<InstanceId> for String {
    fn from(instance: InstanceId) -> Self {
        instance.0.as_ref().into()
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "shop", "shop-2", "a1-b2"] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Shop", "1shop", "-shop", "a_b", "a b", "é", &"a".repeat(41)] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
        let shop = ServiceName::new("shop").unwrap();
        let seventh = InstanceId::new(&shop, 7);
        assert_eq!((seventh.as_str(), seventh.number()), ("shop-7", Some(7)));
        assert_eq!(InstanceId::from("shop".to_owned()).number(), None);
    }
}
