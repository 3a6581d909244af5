//! Real handshakes over loopback, and real files in all the states that files get into.

use std::{error::Error as _, fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::config::CertificateFiles;

const RSA: &str = include_str!("rsa.pem");

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// A certificate and its PKCS#8 key, in PEM.
fn issue(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::new(["shop.test".to_string()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", key.serialized_der()))
}

/// Writes a pair into `folder`. Each is a new file that takes the old one's place: the kernel's clock for times of files
/// moves in steps of milliseconds, which would let two states look the same.
fn put(folder: &Path, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Tls {
    let files = CertificateFiles { chain: folder.join("chain.pem"), key: folder.join("key.pem") };
    for (path, contents) in [(&files.chain, chain.as_ref()), (&files.key, key.as_ref())] {
        let new = path.with_extension("new");
        fs::write(&new, contents).unwrap();
        fs::rename(new, path).unwrap();
    }
    Tls::Files(vec![files])
}

/// Trusts exactly the certificates in `chain`, which is PEM.
fn client(chain: &str, version: &'static SupportedProtocolVersion, protocols: &[&str]) -> TlsConnector {
    use pem::PemObject;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(chain.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    trusting(roots, version, protocols)
}

fn trusting(
    roots: RootCertStore,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> TlsConnector {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

type Connection = (TlsStream<TcpStream>, client::TlsStream<TcpStream>);

/// A connection of `client` that asks for `name`: the gateway's end, and the client's.
async fn connect(acceptor: &Acceptor, client: &TlsConnector, name: &str) -> io::Result<Connection> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TcpStream::connect(listener.local_addr()?).await?;
    let (accepted, _) = listener.accept().await?;
    let name = ServerName::try_from(name.to_string()).unwrap();
    let (ours, theirs) = tokio::join!(acceptor.accept(accepted), client.connect(name, stream));
    let theirs = theirs?;
    Ok((ours?, theirs))
}

/// Sends something both ways, by which the client also gets its tickets.
async fn talk((ours, theirs): &mut Connection) {
    let mut heard = [0; 4];
    theirs.write_all(b"ping").await.unwrap();
    ours.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    ours.write_all(b"pong").await.unwrap();
    theirs.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"pong");
}

fn told(error: &Error) -> String {
    error.source().map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}

#[tokio::test]
async fn what_is_negotiated() {
    let folder = TempDir::new().unwrap();
    let (chain, key) = issue(|_| {});
    let acceptor = Certificates::load(&put(folder.path(), &chain, key)).unwrap().acceptor();
    for version in [&TLS12, &TLS13] {
        for (offered, expected) in [
            (&["h2", "http/1.1"][..], Protocol::Http2),
            (&["http/1.1", "h2"], Protocol::Http2),
            (&["http/1.1"], Protocol::Http1),
            (&[], Protocol::Http1),
        ] {
            let client = client(&chain, version, offered);
            let mut connection = connect(&acceptor, &client, "shop.test").await.unwrap();
            assert_eq!(protocol(&connection.0), expected, "{offered:?}");
            assert_eq!(server_name(&connection.0), Some("shop.test"));
            assert_eq!(connection.1.get_ref().1.protocol_version(), Some(version.version));
            talk(&mut connection).await;
        }
        // RFC 7301, section 3.2: nothing in common is an error, not something else than what was offered.
        let client = client(&chain, version, &["spdy/3"]);
        assert!(connect(&acceptor, &client, "shop.test").await.is_err());
    }
}

#[test]
fn sessions_are_resumed_on_any_core() {
    let folder = TempDir::new().unwrap();
    let (chain, key) = issue(|_| {});
    let certificates = Certificates::load(&put(folder.path(), &chain, key)).unwrap();
    for version in [&TLS12, &TLS13] {
        let client = client(&chain, version, &["h2"]);
        // Each thread has a runtime and an acceptor of its own, as a core does.
        let kinds = [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed];
        for expected in kinds {
            let (acceptor, client) = (certificates.acceptor(), client.clone());
            let core = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut connection = connect(&acceptor, &client, "shop.test").await.unwrap();
                    talk(&mut connection).await;
                    connection.0.get_ref().1.handshake_kind()
                })
            });
            assert_eq!(core.join().unwrap(), Some(expected), "{:?}", version.version);
        }
    }
}

#[tokio::test]
async fn certificates_are_replaced_while_connections_go_on() {
    let folder = TempDir::new().unwrap();
    let (old, old_key) = issue(|_| {});
    let (new, new_key) = issue(|_| {});
    let certificates = Certificates::load(&put(folder.path(), &old, &old_key)).unwrap();
    let acceptor = certificates.acceptor();
    // New ones each time: a session that is resumed shows no certificate.
    let trusts =
        async |chain: &str| connect(&acceptor, &client(chain, &TLS13, &[]), "shop.test").await.is_ok();
    let mut open = connect(&acceptor, &client(&old, &TLS13, &[]), "shop.test").await.unwrap();
    assert!(matches!(certificates.look(), Look::Unchanged));

    // Only half of the new pair is there.
    put(folder.path(), &new, &old_key);
    let Look::Kept(error) = certificates.look() else { panic!("a pair that does not match was taken") };
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert!(matches!(certificates.look(), Look::Unchanged), "the same mistake is told once");
    assert!(trusts(&old).await && !trusts(&new).await);

    put(folder.path(), &new, &new_key);
    assert!(matches!(certificates.look(), Look::Replaced(warnings) if warnings.is_empty()));
    assert!(trusts(&new).await && !trusts(&old).await);
    talk(&mut open).await;

    fs::remove_file(folder.path().join("key.pem")).unwrap();
    assert!(matches!(certificates.look(), Look::Kept(Error::Unreadable { .. })));
    assert!(trusts(&new).await);
    talk(&mut open).await;

    // What is watched from now on is what was given last.
    let other = TempDir::new().unwrap();
    certificates.replace(Loaded::read(&put(other.path(), &old, &old_key)).unwrap());
    assert!(trusts(&old).await && !trusts(&new).await);
    put(folder.path(), &new, &new_key);
    assert!(matches!(certificates.look(), Look::Unchanged));
}

#[tokio::test]
async fn the_watch_sees_a_change() {
    let folder = TempDir::new().unwrap();
    let (old, old_key) = issue(|_| {});
    let (new, new_key) = issue(|_| {});
    let certificates = Certificates::load(&put(folder.path(), &old, &old_key)).unwrap();
    put(folder.path(), &new, &new_key);
    let watch = tokio::spawn(certificates.clone().watch());
    let acceptor = certificates.acceptor();
    while connect(&acceptor, &client(&new, &TLS13, &[]), "shop.test").await.is_err() {}
    watch.abort();
}

#[tokio::test]
async fn several_certificates() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (wild, wild_key) = issue(|params| {
        *params = CertificateParams::new(["*.shop.test".to_string()]).unwrap();
    });
    let Tls::Files(mut files) = put(folders[0].path(), &wild, wild_key) else { unreachable!() };
    // One file may hold both; the key is PKCS#1.
    let Tls::Files(rsa) = put(folders[1].path(), RSA, RSA) else { unreachable!() };
    files.extend(rsa);
    let acceptor = Certificates::load(&Tls::Files(files)).unwrap().acceptor();
    for version in [&TLS12, &TLS13] {
        connect(&acceptor, &client(&wild, version, &[]), "api.shop.test").await.unwrap();
        assert!(connect(&acceptor, &client(&wild, version, &[]), "shop.test").await.is_err());
        // A client trusts a certificate that is its own authority only if it is not one: this one is, as openssl makes it.
        let error = connect(&acceptor, &client(RSA, version, &[]), "rsa.test").await.unwrap_err();
        assert!(error.to_string().contains("CaUsedAsEndEntity"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_of_our_own() {
    let tls = Tls::SelfSigned(vec!["shop.test".into(), "localhost".into(), "192.0.2.7".into()]);
    let loaded = Loaded::read(&tls).unwrap();
    assert_eq!(loaded.warnings().count(), 0);
    let mut roots = RootCertStore::empty();
    roots.add(loaded.pairs[0].certified.cert[0].clone()).unwrap();
    let certificates = Certificates::new(loaded).unwrap();
    let acceptor = certificates.acceptor();
    for round in 0..2 {
        for name in ["shop.test", "localhost", "127.0.0.1", "::1", "192.0.2.7"] {
            connect(&acceptor, &trusting(roots.clone(), &TLS13, &[]), name).await.unwrap();
        }
        assert!(connect(&acceptor, &trusting(roots.clone(), &TLS13, &[]), "other.test").await.is_err());
        assert!(matches!(certificates.look(), Look::Unchanged), "round {round}");
        // What a browser was told to trust stays good.
        certificates.replace(Loaded::read(&tls).unwrap());
    }
    certificates.replace(Loaded::read(&Tls::SelfSigned(vec!["other.test".into()])).unwrap());
    let result = connect(&acceptor, &trusting(roots, &TLS13, &[]), "localhost").await;
    assert!(result.is_err(), "other names need another certificate");
}

#[tokio::test]
async fn http_without_tls_is_told_so() {
    let acceptor = Certificates::load(&Tls::SelfSigned(Vec::new())).unwrap().acceptor();
    for (sent, expected) in [
        (&b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"[..], &b"HTTP/1.1 400 Bad Request\r\n"[..]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        // A handshake that begins with ServerHelloDone, and no TLS at all: alerts.
        (b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00", b"\x15\x03\x03"),
        (b"\x00\x01\x02\x03\x04\x05", b"\x15\x03\x03"),
        (b"", b""),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        acceptor.accept(accepted).await.unwrap_err();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{sent:?}: {answer:?}");
        if let Some(body) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let length = format!("content-length: {}\r\n", answer.len() - body - 4);
            assert!(String::from_utf8(answer).unwrap().contains(&length));
        }
    }
}

#[test]
fn what_cannot_be_used() {
    let folder = TempDir::new().unwrap();
    let (chain, key) = issue(|_| {});
    let (other, other_key) = issue(|_| {});
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"x");
    let old_encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let cut = &chain[..chain.len() - 30];
    let large = "x".repeat(pair::FILE_BYTES_MAX as usize + 1);
    let both = format!("{other}{chain}");
    let der = BASE64_STANDARD.decode(chain.lines().nth(1).unwrap()).unwrap();
    for (chain, key, file, expected) in [
        ("", &*key, "chain.pem", "holds no certificate"),
        (&key, &key, "chain.pem", "holds no certificate"),
        (cut, &key, "chain.pem", "is not valid PEM"),
        (
            "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n",
            &key,
            "chain.pem",
            "is not valid PEM",
        ),
        (&pem("CERTIFICATE", b"nonsense"), &key, "chain.pem", "must be X.509, version 3: "),
        (&pem("CERTIFICATE", &der[..der.len() - 9]), &key, "chain.pem", "must be X.509, version 3: "),
        (&large, &key, "chain.pem", "is larger than 1024 KiB"),
        (&chain, "", "key.pem", "holds no private key"),
        (&chain, &chain, "key.pem", "holds no private key"),
        (&chain, &encrypted, "key.pem", "openssl pkey -in "),
        (&chain, old_encrypted, "key.pem", "openssl pkey -in "),
        (&chain, &pem("PRIVATE KEY", b"nonsense"), "key.pem", "must be ECDSA"),
        (&chain, &other_key, "key.pem", "does not belong to the certificate in"),
        (&chain, RSA, "key.pem", "does not belong to the certificate in"),
        (&both, &key, "chain.pem", "which is number 2"),
    ] {
        let error = told(&Loaded::read(&put(folder.path(), chain, key)).unwrap_err());
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains(&folder.path().join(file).display().to_string()), "{file}: {error}");
    }
    let error = told(&Loaded::read(&put(folder.path(), &der, &key)).unwrap_err());
    assert!(error.contains("openssl x509 -inform der"), "{error}");

    let missing =
        CertificateFiles { chain: folder.path().join("none.pem"), key: folder.path().join("key.pem") };
    let error = told(&Loaded::read(&Tls::Files(vec![missing])).unwrap_err());
    assert!(error.contains("none.pem") && error.contains("No such file"), "{error}");
    let error = told(&Loaded::read(&Tls::Files(Vec::new())).unwrap_err());
    assert!(error.contains("--tls-self-signed"), "{error}");
}

#[test]
fn what_can_be_used_with_a_warning() {
    let folder = TempDir::new().unwrap();
    let now = date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(UnixTime::now().as_secs());
    let hours = |hours| std::time::Duration::from_hours(hours);
    let check = |expected: &[&str], change: &dyn Fn(&mut CertificateParams)| {
        let (chain, key) = issue(change);
        let loaded = Loaded::read(&put(folder.path(), chain, key)).unwrap();
        let warnings: Vec<_> = loaded.warnings().collect();
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{warning}");
            assert!(warning.contains("chain.pem"), "{warning}");
        }
    };
    check(&[], &|params| params.not_after = now + hours(8 * 24));
    check(&["expired 2 days ago"], &|params| params.not_after = now - hours(50));
    check(&["expires in 1 day;"], &|params| params.not_after = now + hours(47));
    check(&["not valid yet, but in 2 hours"], &|params| {
        params.not_before = now + hours(2) + std::time::Duration::from_mins(30);
    });
    check(&["not meant for servers"], &|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    check(&["names no host"], &|params| params.subject_alt_names.clear());
    check(&["expired 2 days ago", "names no host"], &|params| {
        params.not_after = now - hours(50);
        params.subject_alt_names.clear();
    });
}

#[test]
fn keys_in_their_older_form() {
    let folder = TempDir::new().unwrap();
    let (chain, key) = issue(|_| {});
    // PKCS#8 holds the older form (SEC1, RFC 5915), which begins with SEQUENCE, its length, and version 1.
    let der = BASE64_STANDARD.decode(key.lines().nth(1).unwrap()).unwrap();
    let begins = |at: &usize| der[*at] == 0x30 && der[at + 2..].starts_with(&[2, 1, 1, 4, 32]);
    let begin = (1..der.len() - 7).find(begins).unwrap();
    let old = pem("EC PRIVATE KEY", &der[begin..begin + 2 + usize::from(der[begin + 1])]);
    // openssl writes the curve into a section of its own.
    let old = format!("{}{old}", pem("EC PARAMETERS", &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]));
    Loaded::read(&put(folder.path(), chain, old)).unwrap();
    Loaded::read(&put(folder.path(), RSA, RSA)).unwrap();
}
