//! A certificate with its key, read from files and checked: everything that would make each handshake fail is found here,
//! and what makes only some clients turn away becomes a warning.

use std::{fs::File, io::Read, path::Path, sync::Arc, time::Duration};

use rustls::{
    InconsistentKeys,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};

use super::Error;
use crate::config::CertificateFiles;

/// The largest file that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// A certificate that expires sooner than this is worth a warning: renewal should have happened by then.
const SOON: Duration = Duration::from_hours(7 * 24);

/// A certificate with its key, ready for use.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    /// The host names it is for, some with a wildcard (`*.shop.test`).
    pub(super) names: Vec<String>,
    /// What makes some clients turn away from it.
    pub(super) warnings: Vec<String>,
}

/// Reads and checks one pair.
pub(super) fn read(files: &CertificateFiles, now: UnixTime) -> Result<Pair, Error> {
    let chain = chain(&files.chain)?;
    let leaf = EndEntityCert::try_from(&chain[0])
        .map_err(|source| Error::Certificate { path: files.chain.clone(), source })?;
    let names: Vec<String> = leaf.valid_dns_names().map(String::from).collect();
    let warnings = warnings(&leaf, &names, &files.chain, now)?;
    let key = ring::default_provider()
        .key_provider
        .load_private_key(key(&files.key)?)
        .map_err(|source| Error::Key { path: files.key.clone(), source })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(mismatch(certified, files)),
    }
    Ok(Pair { certified: Arc::new(certified), names, warnings })
}

fn contents(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let mut contents = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(unreadable)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLarge { path: path.into() });
    }
    Ok(contents)
}

/// All certificates of a file; there is at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&contents(path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem { path: path.into(), source })?;
    if chain.is_empty() { Err(Error::NoCertificate { path: path.into() }) } else { Ok(chain) }
}

/// The first private key of a file: PKCS#8, PKCS#1 or SEC1.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let contents = contents(path)?;
    PrivateKeyDer::from_pem_slice(&contents).map_err(|source| {
        let path = path.into();
        // PKCS#8 says it in the marker, the older forms in a header below theirs (RFC 1421), which is not base64.
        let holds = |text: &[u8]| contents.windows(text.len()).any(|window| window == text);
        match source {
            _ if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") => {
                Error::EncryptedKey { path }
            }
            pem::Error::NoItemsFound => Error::NoKey { path },
            source => Error::Pem { path, source },
        }
    })
}

/// Why the key is not that of the first certificate.
fn mismatch(certified: CertifiedKey, files: &CertificateFiles) -> Error {
    let CertificateFiles { chain, key } = files.clone();
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
    };
    match certified.cert.iter().position(belongs) {
        Some(index) => Error::Order { chain, key, position: index + 1 },
        None => Error::Mismatch { chain, key },
    }
}

/// What clients will find wrong with a certificate that can be used nevertheless.
fn warnings(
    leaf: &EndEntityCert<'_>,
    names: &[String],
    path: &Path,
    now: UnixTime,
) -> Result<Vec<String>, Error> {
    let path = path.display();
    let mut warnings = Vec::new();
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
    match check(leaf, now).and_then(|()| check(leaf, soon)) {
        Err(webpki::Error::CertExpired { not_after, .. }) if not_after < now => warnings.push(format!(
            "the certificate in {path} expired {} ago, and clients refuse it; renew it",
            time(now.as_secs() - not_after.as_secs())
        )),
        Err(webpki::Error::CertExpired { not_after, .. }) => warnings.push(format!(
            "the certificate in {path} expires in {}; renew it",
            time(not_after.as_secs() - now.as_secs())
        )),
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => warnings.push(format!(
            "the certificate in {path} is not valid yet, but in {}; see whether this machine's clock is right",
            time(not_before.as_secs().saturating_sub(now.as_secs()))
        )),
        Err(webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension) => warnings.push(format!(
            "the certificate in {path} is not meant for servers, and clients refuse it; have one issued for server authentication"
        )),
        _ => {}
    }
    if names.is_empty() {
        warnings.push(format!(
            "the certificate in {path} names no host, and is given only to clients that ask for none that others have; \
             have one issued with its names as subjectAltName"
        ));
    }
    Ok(warnings)
}

/// Validity and purpose, as a client sees them. No authority is given, so that nobody vouches for it: that is the one
/// answer that says nothing against it.
fn check(leaf: &EndEntityCert<'_>, at: UnixTime) -> Result<(), webpki::Error> {
    match leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &[], &[], at, KeyUsage::server_auth(), None, None) {
        Ok(_) | Err(webpki::Error::UnknownIssuer) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A time in words, rounded down to its largest unit.
fn time(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
