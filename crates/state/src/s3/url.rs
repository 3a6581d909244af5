//! The URL of a bucket: where it is, who asks, and with which settings. What is wrong with one is named; what is secret in it
//! never is.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use object_store::path::Path;

use super::key::{FOLDER_BYTES_MAX, Names};
use crate::query::{Query, decoded};

/// A connection is given up when it was not made by then, unless `connect_timeout_ms` says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request on which nothing has moved for so long is given up, unless `response_timeout_ms` says otherwise.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is sent in one request at most, in MiB, unless `part_mib` says otherwise. An upload holds two of these in memory.
pub const PART_MIB: u32 = 6;
/// Least and most that `part_mib` may say. Every part but the last must have 5 MiB.
const PART_MIB_RANGE: std::ops::RangeInclusive<u32> = 5..=1024;

const OPTIONS: [&str; 7] =
    ["endpoint", "region", "virtual_host", "part_mib", "ca", "connect_timeout_ms", "response_timeout_ms"];

/// What a URL says, checked: `s3://key:secret@bucket/folder?option=value&…`.
///
/// What it does not say is taken from the environment, as by Amazon's own tools: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on, or else from the machine (a role of EC2, ECS or EKS).
/// Characters with a meaning of their own are percent-encoded in key and secret (RFC 3986, section 2.1).
#[derive(Clone)]
pub struct Url {
    pub(super) bucket: String,
    pub(super) names: Names,
    pub(super) login: Option<Login>,
    /// Where the server is, instead of Amazon's for the region.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) region: Option<String>,
    /// Whether the bucket is a part of the host's name, and not of the path.
    pub(super) is_virtual_host: bool,
    pub(super) part_bytes: usize,
    /// A file of certificates to trust instead of the system's, in PEM.
    pub(super) ca: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) key: String,
    pub(super) secret: String,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) is_tls: bool,
    /// Host, and port if it is said.
    pub(super) authority: String,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the s3 URL {0}")]
pub struct UrlError(String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.login.as_ref().map(|login| &login.key);
        f.debug_struct("Url")
            .field("bucket", &self.bucket)
            .field("names", &self.names)
            .field("key", &key)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        read(url).map_err(UrlError)
    }
}

fn read(url: &str) -> Result<Url, String> {
    let rest = url.strip_prefix("s3://").ok_or("does not begin with s3://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut options = Query::parse(query, &OPTIONS)?;
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(Login::parse(login)?), place),
        None => (None, rest),
    };
    let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
    let endpoint = options.take("endpoint").map(|text| Endpoint::parse(&text)).transpose()?;
    let ca = options.take("ca").map(PathBuf::from);
    if ca.is_some() && endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_tls) {
        return Err("names certificates in `ca`, but the `endpoint` does not use TLS: write https://".into());
    }
    Ok(Url {
        bucket: checked_bucket(bucket)?,
        names: Names::new(&checked_folder(folder)?),
        login,
        endpoint,
        region: options.take("region").map(checked_region).transpose()?,
        is_virtual_host: options.flag("virtual_host")?,
        part_bytes: part_bytes(options.take("part_mib"))?,
        ca,
        connect_timeout: options.time("connect_timeout_ms", CONNECT_TIMEOUT)?,
        response_timeout: options.time("response_timeout_ms", RESPONSE_TIMEOUT)?,
    })
}

/// A bucket's name: those of Amazon, and what other servers allow beside them.
fn checked_bucket(bucket: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_allowed) || bucket.starts_with('.') {
        // What stands there may be the end of a secret with an `@` or `/` in it.
        return Err("has no bucket of 3 to 63 ASCII letters, digits, `-`, `_` and `.` behind s3:// or `@`; in a key or \
                    secret, `@`, `/`, `?` and `+` are percent-encoded"
            .into());
    }
    Ok(bucket.to_owned())
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

fn checked_region(region: String) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if region.is_empty() || !region.bytes().all(is_allowed) {
        return Err("has a `region` that is no name such as `eu-central-1`".into());
    }
    Ok(region)
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

impl Login {
    fn parse(text: &str) -> Result<Self, String> {
        let (key, secret) = text
            .split_once(':')
            .filter(|(key, secret)| !key.is_empty() && !secret.is_empty())
            .ok_or("has a login that is not `key:secret@`")?;
        let decode = |text| decoded(text).ok_or("has a broken percent-encoding in its login");
        Ok(Self { key: decode(key)?, secret: decode(secret)? })
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let (is_tls, authority) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("has an `endpoint` that does not begin with https:// or http://".into()),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed = authority.parse::<http::uri::Authority>();
        if authority.contains('@') || parsed.is_err() {
            return Err("has an `endpoint` that is not a host, or a host and a port, behind `://`".into());
        }
        Ok(Self { is_tls, authority: authority.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_said() {
        let url: Url = "s3://AKIA:se%2Fcr%2Bet@photos/shop/eu?endpoint=https://minio:9000/&region=eu-1&virtual_host&part_mib=16"
            .parse()
            .unwrap();
        assert_eq!((url.bucket.as_str(), url.part_bytes), ("photos", 16 << 20));
        assert_eq!(url.names.object("b", "k").unwrap().as_ref(), "shop/eu/b/k");
        let login = url.login.unwrap();
        assert_eq!((login.key.as_str(), login.secret.as_str()), ("AKIA", "se/cr+et"));
        assert_eq!(url.endpoint.unwrap().to_string(), "https://minio:9000");
        assert_eq!((url.region.as_deref(), url.is_virtual_host), (Some("eu-1"), true));

        let url: Url = "s3://photos".parse().unwrap();
        assert_eq!(url.names.object("b", "k").unwrap().as_ref(), "b/k");
        assert!(url.login.is_none() && url.endpoint.is_none() && !url.is_virtual_host);
        assert_eq!((url.part_bytes, url.response_timeout), (6 << 20, RESPONSE_TIMEOUT));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, text) in [
            ("http://photos", "does not begin with s3://"),
            ("s3://", "no bucket"),
            ("s3://ab", "no bucket"),
            ("s3://a b c", "no bucket"),
            ("s3://photos:9000", "no bucket"),
            ("s3://photos//x", "empty segment"),
            ("s3://photos/a/../b", "`..`"),
            ("s3://key@photos", "not `key:secret@`"),
            ("s3://key:%zz@photos", "percent-encoding in its login"),
            ("s3://photos?endpiont=x", "option `endpiont`"),
            ("s3://photos?endpoint=minio:9000", "https:// or http://"),
            ("s3://photos?endpoint=http://minio/s3", "not a host"),
            ("s3://photos?endpoint=http://key:secret@minio", "not a host"),
            ("s3://photos?endpoint=http://minio&ca=/x", "https://"),
            ("s3://photos?region=", "`region`"),
            ("s3://photos?part_mib=4", "`part_mib`"),
            ("s3://photos?virtual_host=maybe", "neither"),
            ("s3://photos?response_timeout_ms=0", "`response_timeout_ms`"),
        ] {
            let error = url.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(text), "{url}: {error}");
        }
        let long = format!("s3://photos/{}", "f".repeat(FOLDER_BYTES_MAX + 1));
        assert!(long.parse::<Url>().unwrap_err().to_string().contains("over the limit of 128"));
    }

    #[test]
    fn the_secret_is_never_shown() {
        let url: Url = "s3://key:geheim@photos".parse().unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
        for url in ["s3://key:geheim@", "s3://key:geheim@b", "s3://key:geheim/b", "s3://key:geheim%4@photos"]
        {
            let error = url.parse::<Url>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }
}
