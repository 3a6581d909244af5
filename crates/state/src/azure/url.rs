//! The URL of a container: whose it is, where, and with which settings. What is wrong with one is named; what is secret in it never
//! is.

use std::{fmt, str::FromStr};

use object_store::azure::AzureAccessKey;

use crate::{
    objects::address::{Endpoint, Login, Place, Settings},
    query::{Query, decoded},
};

/// What a URL says, checked: `azure://account:key@container/folder?option=value&…`.
///
/// What it does not say is taken from the environment: `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_TOKEN`, `AZURE_CLIENT_ID` and so
/// on, or else from the machine (a managed or a workload identity). Characters with a meaning of their own are percent-encoded in
/// the key (RFC 3986, section 2.1).
#[derive(Clone)]
pub struct Url {
    pub(super) account: String,
    pub(super) key: Option<String>,
    pub(super) place: Place,
    /// Where the server is, instead of Azure's for the account.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) settings: Settings,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the azure URL {0}")]
pub struct UrlError(String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url")
            .field("account", &self.account)
            .field("place", &self.place)
            .field("endpoint", &self.endpoint)
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
    let rest = url.strip_prefix("azure://").ok_or("does not begin with azure://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut options = Query::parse(query, &[&["endpoint"][..], &Settings::OPTIONS].concat())?;
    let (login, place) =
        rest.rsplit_once('@').ok_or("names no account: it is `azure://account@container`")?;
    let (account, key) = match login.contains(':') {
        true => Login::parse(login).map(|login| (login.name, Some(login.secret)))?,
        false => (decoded(login).ok_or("has a broken percent-encoding in its login")?, None),
    };
    check_account(&account)?;
    if key.as_ref().is_some_and(|key| AzureAccessKey::try_new(key).is_err()) {
        return Err(
            "has a key that is not in base64: copy it whole, and write its `/` as %2F and its `+` as %2B"
                .into(),
        );
    }
    let (container, folder) = place.split_once('/').unwrap_or((place, ""));
    check_container(container)?;
    let place = Place::parse(container, folder)?;
    if folder.contains('\\') {
        return Err("has a folder with a `\\`, which Azure takes for `/`".into());
    }
    let endpoint = options.take("endpoint").map(|text| Endpoint::parse(&text)).transpose()?;
    Ok(Url {
        account,
        key,
        place: Place { names: place.names.of_windows(), ..place },
        settings: Settings::take(&mut options, endpoint.as_ref())?,
        endpoint,
    })
}

/// An account's name ("Storage account overview" of Azure's documentation).
fn check_account(account: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !(3..=24).contains(&account.len()) || !account.bytes().all(is_allowed) {
        // What stands there may be a part of the key.
        return Err("has no account of 3 to 24 lower-case ASCII letters and digits behind azure://".into());
    }
    Ok(())
}

/// A container's name ("Naming and referencing containers, blobs, and metadata" of Azure's REST API).
fn check_container(container: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_bent = container.starts_with('-') || container.ends_with('-') || container.contains("--");
    if !(3..=63).contains(&container.len()) || !container.bytes().all(is_allowed) || is_bent {
        // What stands there may be the end of a key with an `@` or `/` in it.
        return Err("has no container of 3 to 63 lower-case ASCII letters, digits and single `-` behind `@`; in a key, `@`, `/`, \
                    `?` and `+` are percent-encoded"
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
            "azure://shop:ab%2Fcd%2Bc%3D@photos/shop/eu?endpoint=http://127.0.0.1:10000/shop/&part_mib=16"
                .parse()
                .unwrap();
        assert_eq!((url.account.as_str(), url.key.as_deref()), ("shop", Some("ab/cd+c=")));
        assert_eq!((url.place.bucket.as_str(), url.settings.part_bytes), ("photos", 16 << 20));
        assert_eq!(url.place.names.object("b", "k").unwrap().as_ref(), "shop/eu/b/k");
        assert_eq!(url.endpoint.unwrap().to_string(), "http://127.0.0.1:10000/shop");

        let url: Url = "azure://shop@photos".parse().unwrap();
        assert!(url.key.is_none() && url.endpoint.is_none());
        assert_eq!(url.settings.response_timeout, RESPONSE_TIMEOUT);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, text) in [
            ("s3://photos", "does not begin with azure://"),
            ("azure://photos", "names no account"),
            ("azure://@photos", "no account"),
            ("azure://Shop@photos", "no account"),
            ("azure://shop:@photos", "not `key:secret@`"),
            ("azure://shop:%zz@photos", "percent-encoding in its login"),
            ("azure://shop:geheim@photos", "not in base64"),
            ("azure://shop@", "no container"),
            ("azure://shop@Photos", "no container"),
            ("azure://shop@photos--eu", "no container"),
            ("azure://shop@photos//x", "empty segment"),
            ("azure://shop@photos/a\\b", "takes for `/`"),
            ("azure://shop@photos?region=eu", "option `region`"),
            ("azure://shop@photos?endpoint=127.0.0.1:10000", "https:// or http://"),
            ("azure://shop@photos?endpoint=http://h&ca=/x", "https://"),
            ("azure://shop@photos?part_mib=4", "`part_mib`"),
        ] {
            let error = url.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(text), "{url}: {error}");
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        let url: Url = "azure://shop:geheimen@photos".parse().unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
        for url in [
            "azure://shop:geheim@photos",
            "azure://shop:geheim@",
            "azure://shop:geheim/b",
            "azure://geheim/x@photos",
            "azure://shop:geheim%4@photos",
        ] {
            let error = url.parse::<Url>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }
}
