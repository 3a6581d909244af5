//! A certificate of our own making, for local use: nobody trusts it who was not told to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    sign::CertifiedKey,
};

use super::{Error, pair::Pair};

/// What it is always good for.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// How long it is good for: the most that Apple's systems accept even from a certificate that was put in by hand.
const VALID_DAYS: u32 = 825;
const DAY: Duration = Duration::from_hours(24);

/// Makes a certificate for `names`, host names or addresses, and for this machine's own.
pub(super) fn make(names: &[String], now: UnixTime) -> Result<Pair, Error> {
    for name in names {
        CertificateParams::new([name.clone()])
            .map_err(|source| Error::Name { name: name.clone(), source })?;
    }
    let names: BTreeSet<String> = LOCAL.into_iter().map(String::from).chain(names.iter().cloned()).collect();
    let names = Vec::from_iter(names);
    let mut params = CertificateParams::new(names.clone()).map_err(Error::Make)?;
    params.distinguished_name.push(DnType::CommonName, "Lethe, self-signed");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs());
    // Clocks differ.
    params.not_before = now - DAY;
    params.not_after = now + DAY * (VALID_DAYS - 1);
    let key = KeyPair::generate().map_err(Error::Make)?;
    let certificate = params.self_signed(&key).map_err(Error::Make)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &ring::default_provider())
        .map_err(Error::Setup)?;
    Ok(Pair { certified: Arc::new(certified), names, warnings: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be() {
        let error = make(&["shop.test".into(), "büro.test".into()], UnixTime::now()).unwrap_err();
        assert!(error.to_string().contains("`büro.test`"), "{error}");
    }
}
