//! What the URLs of all object stores say alike: who asks, which bucket and folder, where the server is, and how it is spoken to.
//! What is wrong with one is named; what is secret in it never is.

use std::{fmt, path::PathBuf, time::Duration};

use object_store::path::Path;

use super::key::{FOLDER_BYTES_MAX, Names};
use crate::query::{Query, decoded};

/// A connection is given up when it was not made by then, unless `connect_timeout_ms` says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request on which nothing has moved for so long is given up, unless `response_timeout_ms` says otherwise.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is sent in one request at most, in MiB, unless `part_mib` says otherwise. An upload holds two of these in memory.
pub const PART_MIB: u32 = 6;
/// Least and most that `part_mib` may say. Every part but the last must have 5 MiB in S3.
const PART_MIB_RANGE: std::ops::RangeInclusive<u32> = 5..=1024;

/// How a store is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) part_bytes: usize,
    /// A file of certificates to trust instead of the system's, in PEM.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

/// The bucket and the folder in it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) names: Names,
}

/// Who asks, and with which secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) secret: String,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) is_tls: bool,
    /// Host, and port if it is said.
    pub(crate) authority: String,
    /// What the paths of all requests begin with: empty, or a `/` and more.
    pub(crate) path: String,
}

impl Settings {
    /// The options that say it.
    pub(crate) const OPTIONS: [&str; 4] = ["part_mib", "ca", "connect_timeout_ms", "response_timeout_ms"];

    /// Takes them from a URL's.
    pub(crate) fn take(options: &mut Query, endpoint: Option<&Endpoint>) -> Result<Self, String> {
        let ca = options.take("ca").map(PathBuf::from);
        if ca.is_some() && endpoint.is_some_and(|endpoint| !endpoint.is_tls) {
            return Err(
                "names certificates in `ca`, but the `endpoint` does not use TLS: write https://".into()
            );
        }
        Ok(Self {
            part_bytes: part_bytes(options.take("part_mib"))?,
            ca,
            connect_timeout: options.time("connect_timeout_ms", CONNECT_TIMEOUT)?,
            response_timeout: options.time("response_timeout_ms", RESPONSE_TIMEOUT)?,
        })
    }
}

impl Place {
    /// Reads `bucket/folder`, of which the bucket was found good.
    pub(crate) fn parse(bucket: &str, folder: &str) -> Result<Self, String> {
        Ok(Self { bucket: bucket.to_owned(), names: Names::new(&checked_folder(folder)?) })
    }
}

impl Login {
    /// Reads `name:secret`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, secret) = text
            .split_once(':')
            .filter(|(name, secret)| !name.is_empty() && !secret.is_empty())
            .ok_or("has a login that is not `key:secret@`")?;
        let decode = |text| decoded(text).ok_or("has a broken percent-encoding in its login");
        Ok(Self { name: decode(name)?, secret: decode(secret)? })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.name)
    }
}

impl Endpoint {
    /// Reads the URL of a server.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("has an `endpoint` that does not begin with https:// or http://".into()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let parsed = authority.parse::<http::uri::Authority>();
        // What stands behind a `?` may be a secret, and nothing that a path goes on with.
        let is_odd = |byte: u8| matches!(byte, b'?' | b'#' | b'@' | b'\\') || !byte.is_ascii_graphic();
        if authority.contains('@') || parsed.is_err() || rest.bytes().any(is_odd) {
            return Err("has an `endpoint` that is not a host, or a host and a port, behind `://`".into());
        }
        Ok(Self { is_tls, authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.path)
    }
}

fn checked_folder(folder: &str) -> Result<String, String> {
    let folder = folder.strip_suffix('/').unwrap_or(folder);
    if folder.len() > FOLDER_BYTES_MAX {
        return Err(format!("has a folder of {} bytes, over the limit of {FOLDER_BYTES_MAX}", folder.len()));
    }
    match Path::parse(folder) {
        Ok(path) if path.as_ref() == folder => Ok(folder.to_owned()),
        _ => Err("has a folder with an empty segment, `.`, `..` or a control character".into()),
    }
}

fn part_bytes(text: Option<String>) -> Result<usize, String> {
    let mib = match text.map(|text| text.parse()) {
        None => PART_MIB,
        Some(Ok(mib)) if PART_MIB_RANGE.contains(&mib) => mib,
        Some(_) => {
            let (least, most) = (PART_MIB_RANGE.start(), PART_MIB_RANGE.end());
            return Err(format!("has a `part_mib` that is not a number from {least} to {most}"));
        }
    };
    Ok((mib as usize) << 20)
}
