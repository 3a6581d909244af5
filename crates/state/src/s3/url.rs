//! The URL of a bucket: where it is, who asks, and with which settings. What is wrong with one is named; what is secret in it
//! never is.

use std::{fmt, str::FromStr};

use crate::{
    objects::address::{Endpoint, Login, Place, Settings},
    query::Query,
};

const OPTIONS: [&str; 3] = ["endpoint", "region", "virtual_host"];

/// What a URL says, checked: `s3://key:secret@bucket/folder?option=value&…`.
///
/// What it does not say is taken from the environment, as by Amazon's own tools: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on, or else from the machine (a role of EC2, ECS or EKS).
/// Characters with a meaning of their own are percent-encoded in key and secret (RFC 3986, section 2.1).
#[derive(Clone)]
pub struct Url {
    pub(super) place: Place,
    pub(super) login: Option<Login>,
    /// Where the server is, instead of Amazon's for the region.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) region: Option<String>,
    /// Whether the bucket is a part of the host's name, and not of the path.
    pub(super) is_virtual_host: bool,
    pub(super) settings: Settings,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the s3 URL {0}")]
pub struct UrlError(String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url")
            .field("place", &self.place)
            .field("login", &self.login)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
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
    let mut options = Query::parse(query, &[&OPTIONS[..], &Settings::OPTIONS].concat())?;
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(Login::parse(login)?), place),
        None => (None, rest),
    };
    let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
    check_bucket(bucket)?;
    let endpoint = options.take("endpoint").map(|text| Endpoint::parse(&text)).transpose()?;
    if endpoint.as_ref().is_some_and(|endpoint| !endpoint.path.is_empty()) {
        return Err("has an `endpoint` with a path; it is a host, or a host and a port, behind `://`".into());
    }
    Ok(Url {
        place: Place::parse(bucket, folder)?,
        login,
        region: options.take("region").map(checked_region).transpose()?,
        is_virtual_host: options.flag("virtual_host")?,
        settings: Settings::take(&mut options, endpoint.as_ref())?,
        endpoint,
    })
}

/// A bucket's name: those of Amazon, and what other servers allow beside them.
fn check_bucket(bucket: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_allowed) || bucket.starts_with('.') {
        // What stands there may be the end of a secret with an `@` or `/` in it.
        return Err("has no bucket of 3 to 63 ASCII letters, digits, `-`, `_` and `.` behind s3:// or `@`; in a key or \
                    secret, `@`, `/`, `?` and `+` are percent-encoded"
            .into());
    }
    Ok(())
}

fn checked_region(region: String) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if region.is_empty() || !region.bytes().all(is_allowed) {
        return Err("has a `region` that is no name such as `eu-central-1`".into());
    }
    Ok(region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{address::RESPONSE_TIMEOUT, key::FOLDER_BYTES_MAX};

    #[test]
    fn everything_can_be_said() {
        let url: Url = "s3://AKIA:se%2Fcr%2Bet@photos/shop/eu?endpoint=https://minio:9000/&region=eu-1&virtual_host&part_mib=16"
            .parse()
            .unwrap();
        assert_eq!((url.place.bucket.as_str(), url.settings.part_bytes), ("photos", 16 << 20));
        assert_eq!(url.place.names.object("b", "k").unwrap().as_ref(), "shop/eu/b/k");
        let login = url.login.unwrap();
        assert_eq!((login.name.as_str(), login.secret.as_str()), ("AKIA", "se/cr+et"));
        assert_eq!(url.endpoint.unwrap().to_string(), "https://minio:9000");
        assert_eq!((url.region.as_deref(), url.is_virtual_host), (Some("eu-1"), true));

        let url: Url = "s3://photos".parse().unwrap();
        assert_eq!(url.place.names.object("b", "k").unwrap().as_ref(), "b/k");
        assert!(url.login.is_none() && url.endpoint.is_none() && !url.is_virtual_host);
        assert_eq!((url.settings.part_bytes, url.settings.response_timeout), (6 << 20, RESPONSE_TIMEOUT));
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
            ("s3://photos?endpoint=http://minio/s3", "with a path"),
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
