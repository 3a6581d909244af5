//! TLS and passwords: with `verify-full` only the server that the certificate names is spoken to, and each refusal says why.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lethe_state::{error::Error, postgres::Postgres};

use sqlx::{Connection as _, PgConnection};

use crate::{count, execute, failure, server::Server};

/// Text of bytes (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A certificate for an address, and its key, in files.
fn certify(address: &str, folder: &Path, name: &str) -> PathBuf {
    let made = rcgen::generate_simple_self_signed([address.to_owned()]).unwrap();
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    // The server may run as somebody else.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    certificate
}

/// What comes of a first call.
async fn first_call(url: String) -> Result<i64, Error> {
    count(&Postgres::new(&url).unwrap().engines(), "k").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_server_that_proves_its_name_is_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Addresses that nobody else uses: the port is always the same.
    let [_, _, high, low] = process::id().to_be_bytes();
    let [named, unnamed] = [1, 2].map(|last| format!("127.{}.{low}.{last}", u16::from(high) % 200 + 1));
    let trusted = certify(&named, folder.path(), "server").display().to_string();
    let other = certify(&named, folder.path(), "other").display().to_string();
    let server = {
        let (addresses, folder) = (format!("{named},{unnamed}"), folder.path().to_owned());
        let starting = tokio::task::spawn_blocking(move || Server::start_with_tls(&addresses, &folder));
        starting.await.unwrap()
    };
    let socket = server.bare_url();
    let mut inside = PgConnection::connect(socket.split('?').next().unwrap()).await.unwrap();
    execute(&mut inside, "ALTER ROLE lethe PASSWORD 'secret'").await;
    let url = |address: &str, password: &str, more: &str| {
        format!("postgres://lethe:{password}@{address}/postgres?min=1&acquire_timeout=2s{more}")
    };

    let good = url(&named, "secret", &format!("&sslmode=verify-full&sslrootcert={trusted}"));
    assert_eq!(first_call(good).await.unwrap(), 1);
    assert_eq!(
        first_call(url(&unnamed, "secret", "&sslmode=require")).await.unwrap(),
        2,
        "which verifies nobody"
    );

    for (address, root, why) in
        [(&named, &other, "invalid peer certificate"), (&unnamed, &trusted, "not valid for name")]
    {
        let refused =
            first_call(url(address, "secret", &format!("&sslmode=verify-full&sslrootcert={root}"))).await;
        let said = failure(refused).to_string();
        assert!(said.contains(why) && !said.contains("secret"), "{said}");
    }
    for more in ["&sslmode=disable", &format!("&sslmode=verify-full&sslrootcert={trusted}")] {
        let wrong = if more.ends_with("disable") { "secret" } else { "geheim" };
        let said = failure(first_call(url(&named, wrong, more)).await).to_string();
        assert!(said.contains("does not let us in") && !said.contains(wrong), "{said}");
    }
    drop(server);
}
