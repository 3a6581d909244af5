//! The gcs engine: blobs in a bucket of Google Cloud Storage. How that is done is the same for all object stores: see `objects`.
//!
//! Objects are read, listed and removed by the XML API, which `object_store` speaks, and written by the JSON API: see [`upload`].

mod upload;
mod url;

use std::{ffi::OsString, sync::Arc};

use object_store::{
    RetryConfig,
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
};

use self::upload::Writer;
pub use self::url::{Url, UrlError};
pub use crate::objects::{
    Refusal,
    address::{CONNECT_TIMEOUT, PART_MIB, RESPONSE_TIMEOUT},
};
use crate::{
    Engines,
    clock::{Clock, SystemClock},
    error::Error,
    objects::{
        Objects,
        dialect::{Dialect, Versions},
        link::Link,
    },
    place::EngineName,
};

/// Where Cloud Storage is.
const ENDPOINT: &str = "https://storage.googleapis.com";

const DIALECT: Dialect = Dialect {
    engine: EngineName::Gcs,
    bucket: "bucket",
    on_wrong_login: "; check the file of credentials, whether its key is still valid, and this machine's clock",
    on_missing_rights: "; the account needs the role `Storage Object User` on the bucket, or storage.objects.list, get, create and \
                        delete",
    credentials: "a file of credentials (`credentials=FILE` in the URL, or GOOGLE_APPLICATION_CREDENTIALS)",
    on_left_parts: Some("Cloud Storage removes them after a week"),
    contests: None,
    has_conditions: true,
    has_list_offset: true,
    list: "list-type=",
    has_lists_without_prefix: false,
    upload: &["uploadType=resumable", "upload_id="],
    upload_goes_on: Some(upload::GOES_ON),
    versions: Versions::Generations,
    signature: None,
};

/// The same for whatever else speaks the protocol, which may not heed all of it.
const OF_OTHERS: Dialect = Dialect { has_conditions: false, ..DIALECT };

/// How the server of this host speaks.
fn dialect(host: &str) -> &'static Dialect {
    if host.ends_with(".googleapis.com") { &DIALECT } else { &OF_OTHERS }
}

/// An engine that keeps blobs in a bucket.
pub struct Gcs(pub(crate) Objects);

impl Gcs {
    /// An engine at this URL. Nothing is asked before the first call: a store that is away now is an error then, and none any more
    /// once it is back. What the URL does not say is taken from the environment (`GOOGLE_…`), from `gcloud`'s file in the home folder,
    /// or else from the machine's service account. To be called within a tokio runtime.
    ///
    /// Fails with [`Error::Engine`] when the file of certificates that the URL names cannot be read, and with
    /// [`Error::Invalid`] for a file of credentials that cannot be read or is none, and for an environment that contradicts itself.
    pub fn open(url: &Url) -> Result<Self, Error> {
        Self::open_with(url, Arc::new(SystemClock))
    }

    /// The same with a clock, by which blobs are dated that fit into one part.
    pub fn open_with(url: &Url, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::open_in(url, clock, std::env::vars_os())
    }

    /// The same in an environment.
    fn open_in(
        url: &Url,
        clock: Arc<dyn Clock>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let builder = match &url.credentials {
            // What the environment has of its own would contradict it.
            Some(file) => GoogleCloudStorageBuilder::new().with_application_credentials(file),
            None => builder_in(env),
        };
        let endpoint = url.endpoint.as_ref().map_or_else(|| ENDPOINT.to_owned(), ToString::to_string);
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        let link = Link::new(dialect(host), Some(host), &url.place.bucket, &url.settings, None)?;
        let store = builder
            .with_base_url(&endpoint)
            .with_bucket_name(&url.place.bucket)
            // Requests are tried again where it is known what they are.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(link.clone())
            .build()
            .map_err(|error| unusable(&error))?;
        let store = Arc::new(store);
        let writer = Writer::new(store.clone(), &endpoint, &url.place.bucket, link.clone());
        Ok(Self(Objects::new(store, Arc::new(writer), link, &url.place, &url.settings, clock)))
    }

    /// What it is doing, for who watches.
    pub fn watch(&self, figures: &mut crate::figures::Figures) {
        self.0.watch(figures);
    }

    /// The engine, by kind of state: blobs alone.
    pub fn engines(&self) -> Engines {
        self.0.engines()
    }
}

/// Why there can be no store: its credentials, or what the environment says of them.
fn unusable(error: &object_store::Error) -> Error {
    let why = match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Error::Invalid(format!(
        "credentials of gcs: {why}; name a readable file of credentials (`credentials=FILE` in the URL, or GOOGLE_APPLICATION_CREDENTIALS)"
    ))
}

/// What the environment says: variables that begin with `GOOGLE_`, as Google's own tools read them.
fn builder_in(env: impl IntoIterator<Item = (OsString, OsString)>) -> GoogleCloudStorageBuilder {
    env.into_iter().fold(GoogleCloudStorageBuilder::new(), |builder, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return builder };
        match name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            // These would ask another place than the one that the URL names, or nobody's leave.
            Ok(GoogleConfigKey::BaseUrl | GoogleConfigKey::Bucket | GoogleConfigKey::SkipSignature) => {
                builder
            }
            Ok(key) if name.starts_with("GOOGLE_") => builder.with_config(key, value),
            _ => builder,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that nothing listens on.
    fn nowhere() -> String {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    async fn asked_in(url: &str, env: &[(&str, &str)]) -> Result<(), Error> {
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let engine = Gcs::open_in(&url.parse().unwrap(), Arc::new(SystemClock), env)?;
        engine.engines().blobs.head("b", "k").await.map(drop)
    }

    #[tokio::test]
    async fn the_environment_says_who_asks() {
        let server = nowhere();
        let url = format!("gs://photos?endpoint=http://{server}");
        // What would ask another place is not heeded.
        let env = [("GOOGLE_BEARER_TOKEN", "geheim"), ("GOOGLE_BASE_URL", "http://elsewhere.invalid")];
        let away = asked_in(&url, &env).await.unwrap_err();
        assert!(matches!(&away, Error::Unavailable(text) if text.contains(&server)), "{away:?}");
        assert!(!away.to_string().contains("geheim"), "{away}");
        let missing = asked_in(&url, &[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")]).await;
        assert!(
            matches!(&missing, Err(Error::Invalid(text)) if text.contains("/nowhere/key.json")),
            "{missing:?}"
        );
        let both = [("GOOGLE_SERVICE_ACCOUNT", "/a.json"), ("GOOGLE_SERVICE_ACCOUNT_KEY", "{}")];
        let both = asked_in(&url, &both).await;
        assert!(matches!(&both, Err(Error::Invalid(_))), "{both:?}");
    }
}
