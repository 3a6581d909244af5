//! The S3 engine: blobs in a bucket of Amazon S3, or of what speaks its protocol. Each blob is one object, under the name of its
//! bucket and key, and can be read with any tool; what the engine adds is in the object's metadata.
//!
//! What is acknowledged is the store's, and as durable as that is. A blob that fits into one part is put by one request; a larger
//! one is uploaded in parts of which two are in memory at a time, and appears when all are there. `docs/engines.md` says what a
//! store must be able to do.
//!
//! A call goes `blobs` → `upload`, `download` or `list` → `object_store`, which signs it → `link`, where connections, timeouts
//! and retries are; `failure` says what an error means, and [`crate::breaker`] when the store is left alone.

mod blobs;
mod body;
mod conditions;
mod download;
mod failure;
mod key;
mod link;
mod list;
mod object;
mod portable;
mod shelf;
mod tls;
mod upload;
mod url;

use std::{
    ffi::OsString,
    sync::{Arc, atomic::AtomicBool},
};

use object_store::{
    RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential},
};

use self::{blobs::Bucket, link::Link, shelf::Shelf, url::Login};
use tokio::sync::OnceCell;

pub use self::{
    failure::Refusal,
    url::{CONNECT_TIMEOUT, PART_MIB, RESPONSE_TIMEOUT, Url, UrlError},
};
use crate::{
    Engines,
    clock::{Clock, SystemClock},
    error::Error,
    place::EngineName,
};

/// An engine that keeps blobs in a bucket.
pub struct S3 {
    bucket: Bucket,
    link: Link,
}

impl S3 {
    /// An engine at this URL. Nothing is asked before the first call: a store that is away now is an error then, and none any more
    /// once it is back. What the URL does not say is taken from the environment (`AWS_…`). To be called within a tokio runtime.
    ///
    /// Fails with [`Error::Engine`] when the file of certificates that the URL names cannot be read, and with
    /// [`Error::Invalid`] for an environment that contradicts itself, such as one with a key but no secret.
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
        let mut builder = builder_in(env);
        if let Some(Login { key, secret }) = &url.login {
            let credential = AwsCredential { key_id: key.clone(), secret_key: secret.clone(), token: None };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        if let Some(region) = &url.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = endpoint(url) {
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let said = |key| builder.get_config_value(&key);
        let endpoint = said(AmazonS3ConfigKey::S3Endpoint).or_else(|| said(AmazonS3ConfigKey::Endpoint));
        let link = Link::new(server(url, endpoint.as_deref()), url)?;
        // TLS keeps bytes whole: their hash in each request would only be computed once more.
        let has_tls = endpoint.is_none_or(|endpoint| !endpoint.starts_with("http://"));
        let store = builder
            .with_unsigned_payload(has_tls)
            .with_bucket_name(&url.bucket)
            .with_virtual_hosted_style_request(url.is_virtual_host)
            .with_disable_bulk_delete(true)
            // Requests are tried again where it is known what they are.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(link.clone())
            .build()
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let shelf = Shelf {
            store: Arc::new(store),
            names: url.names.clone(),
            part_bytes: url.part_bytes,
            clock,
            server: link.server().to_owned(),
            has_bucket: AtomicBool::new(false),
            heeded: OnceCell::new(),
        };
        Ok(Self { bucket: Bucket(Arc::new(shelf)), link })
    }

    /// What it is doing, for who watches.
    pub fn watch(&self, figures: &mut crate::figures::Figures) {
        self.link.watch(figures);
    }

    /// The engine, by kind of state: blobs alone.
    pub fn engines(&self) -> Engines {
        Engines { blobs: Arc::new(self.bucket.clone()), ..Engines::absent(EngineName::S3.name()) }
    }
}

/// What the environment says: variables that begin with `AWS_`, as Amazon's own tools read them.
fn builder_in(env: impl IntoIterator<Item = (OsString, OsString)>) -> AmazonS3Builder {
    env.into_iter().fold(AmazonS3Builder::new(), |builder, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return builder };
        match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            Ok(key) if name.starts_with("AWS_") => builder.with_config(key, value),
            _ => builder,
        }
    })
}

/// The endpoint that a URL names, as its requests begin.
fn endpoint(url: &Url) -> Option<String> {
    let endpoint = url.endpoint.as_ref()?;
    let scheme = if endpoint.is_tls { "https" } else { "http" };
    let bucket = if url.is_virtual_host { format!("{}.", url.bucket) } else { String::new() };
    Some(format!("{scheme}://{bucket}{}", endpoint.authority))
}

/// What messages call the store.
fn server(url: &Url, endpoint: Option<&str>) -> String {
    let place = endpoint.map_or_else(String::new, |endpoint| {
        format!(" at {}", endpoint.split_once("://").map_or(endpoint, |(_, place)| place))
    });
    format!("s3{place}, bucket {},", url.bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked_in(url: &str, env: &[(&str, &str)]) -> Result<(), Error> {
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let engine = S3::open_in(&url.parse().unwrap(), Arc::new(SystemClock), env)?;
        engine.engines().blobs.head("b", "k").await.map(drop)
    }

    /// A port that nothing listens on.
    fn nowhere() -> String {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn the_environment_says_what_the_url_does_not() {
        let (one, other) = (nowhere(), nowhere());
        let login = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "geheim")];
        let endpoint = format!("http://{one}");
        let env = [&login[..], &[("AWS_ENDPOINT_URL", endpoint.as_str())]].concat();
        let away = asked_in("s3://photos", &env).await.unwrap_err();
        assert!(matches!(&away, Error::Unavailable(text) if text.contains(&one)), "{away:?}");
        let away = asked_in(&format!("s3://photos?endpoint=http://{other}"), &env).await.unwrap_err();
        assert!(matches!(&away, Error::Unavailable(text) if text.contains(&other)), "{away:?}");
        let half = asked_in("s3://photos", &login[1..]).await.unwrap_err();
        assert!(matches!(&half, Error::Invalid(text) if text.contains("AccessKeyId")), "{half:?}");
    }

    #[tokio::test]
    async fn missing_credentials_are_said() {
        let metadata = format!("http://{}", nowhere());
        let error = asked_in("s3://photos", &[("AWS_METADATA_ENDPOINT", &metadata)]).await.unwrap_err();
        let Error::Engine(source) = error else { panic!("{error:?}") };
        let text = source.to_string();
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && text.contains("does not answer"), "{text}");
    }
}
