//! The URL of a bucket: where it is, and with which settings. It has no secret: credentials are in a file, or the machine's.

use std::str::FromStr;

use crate::{
    objects::address::{Endpoint, Place, Settings},
    query::Query,
};

const OPTIONS: [&str; 2] = ["endpoint", "credentials"];

/// What a URL says, checked: `gs://bucket/folder?option=value&…`.
///
/// Who asks stands in the file that `credentials` names, of a service account or of a user; else the environment says it
/// (`GOOGLE_APPLICATION_CREDENTIALS` and so on), or the machine (its service account).
#[derive(Clone, Debug)]
pub struct Url {
    pub(super) place: Place,
    /// Where the server is, instead of Google's.
    pub(super) endpoint: Option<Endpoint>,
    /// The file of credentials.
    pub(super) credentials: Option<String>,
    pub(super) settings: Settings,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gcs URL {0}")]
pub struct UrlError(String);

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        read(url).map_err(UrlError)
    }
}

fn read(url: &str) -> Result<Url, String> {
    let rest = url.strip_prefix("gs://").ok_or("does not begin with gs://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut options = Query::parse(query, &[&OPTIONS[..], &Settings::OPTIONS].concat())?;
    if place.contains('@') {
        return Err("has a login, which gs:// does not know: name a file with `?credentials=FILE`".into());
    }
    let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
    check_bucket(bucket)?;
    let endpoint = options.take("endpoint").map(|text| Endpoint::parse(&text)).transpose()?;
    let credentials = options.take("credentials");
    if credentials.as_ref().is_some_and(String::is_empty) {
        return Err("names no file in `credentials`".into());
    }
    Ok(Url {
        place: Place::parse(bucket, folder)?,
        credentials,
        settings: Settings::take(&mut options, endpoint.as_ref())?,
        endpoint,
    })
}

/// A bucket's name ("About Cloud Storage buckets", under names).
fn check_bucket(bucket: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_allowed = |byte: u8| is_plain(byte) || matches!(byte, b'-' | b'_' | b'.');
    let has_ends = bucket.bytes().next().is_some_and(is_plain) && bucket.bytes().last().is_some_and(is_plain);
    if !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(is_allowed) || !has_ends {
        return Err("has no bucket of 3 to 222 lower-case ASCII letters, digits, `-`, `_` and `.`, with a letter or digit at each end, \
                    behind gs://"
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::address::RESPONSE_TIMEOUT;

    #[test]
    fn everything_can_be_said() {
        let url: Url =
            "gs://photos/shop/eu?credentials=/etc/shop%20key.json&endpoint=http://127.0.0.1:4443/&part_mib=16"
                .parse()
                .unwrap();
        assert_eq!((url.place.bucket.as_str(), url.settings.part_bytes), ("photos", 16 << 20));
        assert_eq!(url.place.names.object("b", "k").unwrap().as_ref(), "shop/eu/b/k");
        assert_eq!(url.credentials.as_deref(), Some("/etc/shop key.json"));
        assert_eq!(url.endpoint.unwrap().to_string(), "http://127.0.0.1:4443");

        let url: Url = "gs://photos".parse().unwrap();
        assert!(url.credentials.is_none() && url.endpoint.is_none());
        assert_eq!(url.settings.response_timeout, RESPONSE_TIMEOUT);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, text) in [
            ("gcs://photos", "does not begin with gs://"),
            ("gs://", "no bucket"),
            ("gs://Photos", "no bucket"),
            ("gs://-photos", "no bucket"),
            ("gs://photos.", "no bucket"),
            ("gs://key@photos", "`?credentials=FILE`"),
            ("gs://photos//x", "empty segment"),
            ("gs://photos?region=eu", "option `region`"),
            ("gs://photos?credentials=", "no file"),
            ("gs://photos?endpoint=127.0.0.1:4443", "https:// or http://"),
            ("gs://photos?endpoint=http://h&ca=/x", "https://"),
            ("gs://photos?part_mib=4", "`part_mib`"),
        ] {
            let error = url.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(text), "{url}: {error}");
        }
    }
}
