//! `[tls]`: where TLS is spoken, and what `lethe` identifies itself with.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lethe_gateway::config::CertificateFiles;
use toml::de::DeValue;

use super::{
    address,
    problem::{Quote, Report},
    table::{Table, Text, Value, bad_value, wrong_type},
};

/// What `[tls]` may say.
pub(super) const KEYS: [&str; 2] = ["listen", "certificates"];
/// What one of the certificates may say.
const CERTIFICATE_KEYS: [&str; 2] = ["chain", "key"];

const LISTEN_EXPECTED: &str = "an address such as `\"0.0.0.0:8443\"`";
const CERTIFICATE_EXPECTED: &str = "a table such as `{ chain = \"shop.pem\", key = \"shop.key\" }`";

/// What the file says of TLS.
pub(super) struct Tls {
    /// An address of its own; without one, TLS is spoken where the gateway listens anyway.
    pub(super) listen: Option<SocketAddr>,
    /// Where `listen` was written.
    pub(super) listen_quote: Option<Quote>,
    /// At least one.
    pub(super) certificates: Vec<CertificateFiles>,
}

/// Reads `[tls]`; files are relative to `folder`. `None` if something is wrong, which is then reported.
pub(super) fn read(value: &Value<'_>, folder: &Path, report: &mut Report<'_>) -> Option<Tls> {
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type("`tls`", "a table with `certificates`", value, report);
        return None;
    };
    let table = Table::open("[tls]".into(), value.span(), entries, &KEYS, report);
    let listen = table.address("listen", LISTEN_EXPECTED, report, address::parse);
    let listen_quote = table.value("listen").map(|value| report.quote(value.span()));
    let certificates = certificates(&table, folder, report)?;
    Some(Tls { listen, listen_quote, certificates })
}

fn certificates(
    table: &Table<'_, '_>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Vec<CertificateFiles>> {
    const HOW: &str = "add certificates = [{ chain = \"shop.pem\", key = \"shop.key\" }], or start with \
                       --tls-self-signed and without [tls]";
    let Some(value) = table.value("certificates") else {
        if !table.was_tried("certificates") {
            report.at(table.span.clone(), format!("[tls] has no `certificates`: {HOW}"));
        }
        return None;
    };
    let DeValue::Array(items) = value.get_ref() else {
        table.wrong_type(
            "certificates",
            &format!("a list of which each is {CERTIFICATE_EXPECTED}"),
            value,
            report,
        );
        return None;
    };
    if items.is_empty() {
        report.at(value.span(), format!("`certificates` in [tls] is empty: {HOW}"));
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| certificate(item, folder, report)).collect();
    read.into_iter().collect()
}

fn certificate(value: &Value<'_>, folder: &Path, report: &mut Report<'_>) -> Option<CertificateFiles> {
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type("each of `certificates` in [tls]", CERTIFICATE_EXPECTED, value, report);
        return None;
    };
    let table =
        Table::open("`certificates` in [tls]".into(), value.span(), entries, &CERTIFICATE_KEYS, report);
    let chain = pem(&table, "chain", "CERTIFICATE", folder, report);
    let key = pem(&table, "key", "PRIVATE KEY", folder, report);
    Some(CertificateFiles { chain: chain?, key: key? })
}

/// A file in PEM (RFC 7468) that has something with this label, or one that ends in it.
fn pem(
    table: &Table<'_, '_>,
    key: &str,
    label: &str,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let Some(text) = table.text(key, "a file such as `\"shop.pem\"`", report) else {
        if !table.was_tried(key) {
            report.at(
                table.span.clone(),
                format!("this certificate has no `{key}`: write {CERTIFICATE_EXPECTED}"),
            );
        }
        return None;
    };
    let path = folder.join(text.text);
    match check(&path, label, folder) {
        Ok(()) => Some(path),
        Err(why) => {
            bad_value(key, &Text { text: text.text, span: text.span }, &why, report);
            None
        }
    }
}

fn check(path: &Path, label: &str, folder: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("is no file in {}; it is relative to the file", folder.display())
        }
        std::io::ErrorKind::PermissionDenied => "cannot be read: let the user that runs lethe read it".into(),
        _ => format!("cannot be read: {error}"),
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let is_there = text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----")));
    match is_there {
        true => Ok(()),
        false if text.contains("-----BEGIN ENCRYPTED") => {
            Err("is encrypted: decrypt it first, with `openssl pkey -in … -out …`".into())
        }
        false => Err(format!(
            "holds no {label} in PEM; convert it, or check that `chain` and `key` are not swapped"
        )),
    }
}
