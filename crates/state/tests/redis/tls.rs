//! TLS: a server with a certificate that the URL names is trusted, another one is not.

use std::{error::Error as _, fs};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lethe_state::{error::Error, redis::Redis};

use crate::harness::Server;

/// Text of bytes (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[tokio::test]
async fn only_a_trusted_server_is_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["server", "other"] {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(path(&format!("{name}.crt")), pem("CERTIFICATE", made.cert.der())).unwrap();
        fs::write(path(&format!("{name}.key")), pem("PRIVATE KEY", &made.signing_key.serialize_der()))
            .unwrap();
    }
    let (certificate, key) = (path("server.crt"), path("server.key"));
    let server = Server::start_with_tls(&[
        "--save",
        "",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &certificate,
    ]);
    let engine = |scheme: &str, options: &str| {
        let url = format!("{scheme}://127.0.0.1:{}/{options}", server.port);
        Redis::open(url.parse().unwrap()).unwrap().engines()
    };
    let trusted = engine("rediss", &format!("?ca={certificate}"));
    assert_eq!(trusted.tables.get("t", "k").await.unwrap(), None);
    for (scheme, options) in [("rediss", format!("?ca={}", path("other.crt"))), ("redis", String::new())] {
        let refused = engine(scheme, &options).tables.get("t", "k").await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{scheme}: {refused:?}");
    }
    let missing = format!("rediss://127.0.0.1/?ca={}", path("none"));
    let missing = Redis::open(missing.parse().unwrap()).err().unwrap();
    assert!(missing.source().unwrap().to_string().contains("none"), "{missing:?}");
}
