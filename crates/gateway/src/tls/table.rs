//! Which certificate a client gets: that for the exact name it asks for (SNI), else one for a wildcard that covers the
//! name, else the first of all.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::pair::Pair;

/// Certificates by name.
#[derive(Debug)]
pub(super) struct Table {
    /// By host name in lower case, or `*.` and the rest of one. Several for one name may differ in the kind of key.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For whoever asks for no name, or for one that none has.
    first: Option<Arc<CertifiedKey>>,
}

impl Table {
    pub(super) fn new(pairs: Vec<Pair>) -> Self {
        let mut named: HashMap<String, Vec<_>> = HashMap::new();
        let first = pairs.first().map(|pair| Arc::clone(&pair.certified));
        for pair in pairs {
            for name in pair.names {
                named.entry(name.to_ascii_lowercase()).or_default().push(Arc::clone(&pair.certified));
            }
        }
        Self { named, first }
    }

    /// The one for `name`; among several, the first that `usable` approves of.
    fn choose(
        &self,
        name: Option<&str>,
        usable: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let matching = name.and_then(|name| self.matching(name));
        let best = matching.and_then(|all| all.iter().find(|one| usable(one)).or(all.first()));
        best.or(self.first.as_ref()).cloned()
    }

    /// A wildcard stands for exactly one label (RFC 9525, section 6.3).
    fn matching(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.named.get(&name).or_else(|| {
            let (_, rest) = name.split_once('.')?;
            self.named.get(&format!("*.{rest}"))
        })
    }
}

/// The table in use. It is read once in a handshake, and never while a request is served.
#[derive(Debug)]
pub(super) struct Current(RwLock<Table>);

impl Current {
    pub(super) fn new(table: Table) -> Self {
        Self(RwLock::new(table))
    }

    pub(super) fn set(&self, table: Table) {
        let old = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), table);
        // Thousands of names take a while to free, and handshakes need not wait for it.
        drop(old);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let usable = |one: &CertifiedKey| one.key.choose_scheme(hello.signature_schemes()).is_some();
        table.choose(hello.server_name(), usable)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::{super::made, *};

    fn pair(names: &[&str]) -> Pair {
        let mut pair = made::make(&[], UnixTime::now()).unwrap();
        pair.names = names.iter().map(ToString::to_string).collect();
        pair
    }

    #[test]
    fn exact_before_wildcard_before_the_first() {
        let pairs = vec![
            pair(&["first.test"]),
            pair(&["*.shop.test", "other.test"]),
            pair(&["Www.Shop.test", "shop.test"]),
            pair(&["shop.test"]),
        ];
        let all: Vec<_> = pairs.iter().map(|pair| Arc::clone(&pair.certified)).collect();
        let table = Table::new(pairs);
        for (name, expected) in [
            (None, 0),
            (Some("nobody.test"), 0),
            (Some("first.test"), 0),
            (Some("www.shop.test"), 2),
            (Some("WWW.SHOP.TEST"), 2),
            (Some("api.shop.test"), 1),
            (Some("api.shop.test."), 1),
            (Some("a.b.shop.test"), 0),
            (Some("other.test"), 1),
            (Some("shop.test"), 2),
            (Some("test"), 0),
            (Some(""), 0),
        ] {
            let chosen = table.choose(name, |_| true).unwrap();
            assert!(Arc::ptr_eq(&chosen, &all[expected]), "{name:?}");
        }
        // A client that cannot use the first one's kind of key gets the other one; if it can use none, the first.
        let usable = |one: &CertifiedKey| std::ptr::eq(one, &*all[3]);
        assert!(Arc::ptr_eq(&table.choose(Some("shop.test"), usable).unwrap(), &all[3]));
        assert!(Arc::ptr_eq(&table.choose(Some("shop.test"), |_| false).unwrap(), &all[2]));
    }
}
