//! The S3 engine: blobs in a bucket of Amazon S3, or of what speaks its protocol. How that is done is the same for all object stores:
//! see `objects`.

mod url;

use std::{ffi::OsString, sync::Arc};

use async_trait::async_trait;
use object_store::{
    Attributes, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    StaticCredentialProvider,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential},
    path::Path,
};

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
        address::Login,
        dialect::{Dialect, Versions},
        link::Link,
        shelf::Write,
    },
    place::EngineName,
};

pub(crate) const DIALECT: Dialect = Dialect {
    engine: EngineName::S3,
    bucket: "bucket",
    on_wrong_login: "; check the access key and its secret: they stand in the URL, or in AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY",
    on_missing_rights: "; the access key needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and \
                        s3:AbortMultipartUpload on its objects",
    credentials: "an access key (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
    on_left_parts: Some("a lifecycle rule that aborts incomplete uploads removes them"),
    contests: None,
    has_conditions: false,
    has_list_offset: true,
    list: "list-type=",
    has_lists_without_prefix: false,
    upload: &["uploads=", "uploadId="],
    upload_goes_on: None,
    versions: Versions::Tags,
    signature: None,
};

/// An engine that keeps blobs in a bucket.
pub struct S3(pub(crate) Objects);

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
        if let Some(Login { name, secret }) = &url.login {
            let credential = AwsCredential { key_id: name.clone(), secret_key: secret.clone(), token: None };
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
        let host = endpoint.as_deref().map(|text| text.split_once("://").map_or(text, |(_, host)| host));
        let link = Link::new(&DIALECT, host, &url.place.bucket, &url.settings, None)?;
        // TLS keeps bytes whole: their hash in each request would only be computed once more.
        let has_tls = endpoint.is_none_or(|endpoint| !endpoint.starts_with("http://"));
        let store = builder
            .with_unsigned_payload(has_tls)
            .with_bucket_name(&url.place.bucket)
            .with_virtual_hosted_style_request(url.is_virtual_host)
            .with_disable_bulk_delete(true)
            // Requests are tried again where it is known what they are.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(link.clone())
            .build()
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let store = Arc::new(store);
        Ok(Self(Objects::new(store.clone(), store, link, &url.place, &url.settings, clock)))
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

#[async_trait]
impl Write for AmazonS3 {
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<()> {
        self.put_opts(path, payload, options).await.map(drop)
    }

    async fn begin(
        &self,
        path: &Path,
        attributes: Attributes,
        _: PutMode,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.put_multipart_opts(path, attributes.into()).await
    }

    async fn remove(&self, path: &Path) -> object_store::Result<()> {
        self.delete(path).await
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
    let bucket = if url.is_virtual_host { format!("{}.", url.place.bucket) } else { String::new() };
    Some(format!("{scheme}://{bucket}{}", endpoint.authority))
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
        assert!(text.starts_with("no credentials for s3, bucket photos: neither"), "{text}");
    }

    /// So answers what stands before the machine's own address, or the machine where it has no role.
    #[tokio::test]
    async fn a_machine_that_gives_none_is_said() {
        let metadata = crate::objects::link::answering("403 Forbidden", "denied");
        let error = asked_in("s3://photos", &[("AWS_METADATA_ENDPOINT", &metadata)]).await.unwrap_err();
        let Error::Engine(source) = error else { panic!("{error:?}") };
        let text = source.to_string();
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && text.ends_with("refused: status 403"), "{text}");
    }
}
