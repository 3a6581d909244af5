//! The azure engine: blobs in a container of Azure Blob Storage. How that is done is the same for all object stores: see `objects`.

mod url;

use std::{ffi::OsString, sync::Arc};

use async_trait::async_trait;
use http::{Method, Uri, header::AUTHORIZATION};
use object_store::{
    Attributes, MultipartUpload, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig,
    azure::{
        AzureAccessKey, AzureAuthorizer, AzureConfigKey, AzureCredential, MicrosoftAzure,
        MicrosoftAzureBuilder,
    },
    client::{HttpClient, HttpRequest, HttpRequestBody},
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
        address::Endpoint,
        dialect::{Dialect, Versions},
        link::{Link, Signer},
        shelf::Write,
    },
    place::EngineName,
};

const DIALECT: Dialect = Dialect {
    engine: EngineName::Azure,
    bucket: "container",
    on_wrong_login: "; check the account in the URL and its key, for how long the shared access signature or the secret of the client \
                     is valid, and this machine's clock",
    on_missing_rights: "; check the account's key; a role must be `Storage Blob Data Contributor` on the container, a shared access \
                        signature needs read, write, delete and list, and the account's firewall must let this machine in",
    credentials: "a key of the account (AZURE_STORAGE_ACCOUNT_KEY), a shared access signature (AZURE_STORAGE_SAS_TOKEN) or a client \
                  (AZURE_CLIENT_ID with AZURE_CLIENT_SECRET and AZURE_TENANT_ID)",
    on_left_parts: None,
    // The last one is of an upload whose blocks another writer of the blob has thrown away.
    contests: Some(&[
        "ConditionNotMet",
        "BlobAlreadyExists",
        "UnauthorizedBlobOverwrite",
        "InvalidBlockList",
    ]),
    has_conditions: true,
    // `startFrom` needs a newer version of the protocol than `object_store` speaks.
    has_list_offset: false,
    list: "comp=list",
    has_lists_without_prefix: true,
    upload: &["comp=block"],
    upload_goes_on: None,
    versions: Versions::Tags,
    signature: Some("sig="),
};

/// An engine that keeps blobs in a container.
pub struct Azure(pub(crate) Objects);

impl Azure {
    /// An engine at this URL. Nothing is asked before the first call: a store that is away now is an error then, and none any more
    /// once it is back. What the URL does not say is taken from the environment (`AZURE_…`). To be called within a tokio runtime.
    ///
    /// Fails with [`Error::Engine`] when the file of certificates that the URL names cannot be read, and with
    /// [`Error::Invalid`] for a key that is none, and for an environment that contradicts itself.
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
        let invalid = |error: object_store::Error| Error::Invalid(error.to_string());
        let mut builder = builder_in(env).with_account(&url.account).with_container_name(&url.place.bucket);
        if let Some(key) = &url.key {
            builder = builder.with_access_key(key).with_config(AzureConfigKey::CredentialType, "access_key");
        }
        let base = match (&url.endpoint, builder.get_config_value(&AzureConfigKey::Endpoint)) {
            (Some(endpoint), _) => endpoint.to_string(),
            (None, Some(text)) => match Endpoint::parse(&text) {
                Ok(endpoint) => endpoint.to_string(),
                Err(why) => {
                    return Err(Error::Invalid(format!("the environment (AZURE_STORAGE_ENDPOINT) {why}")));
                }
            },
            (None, None) => format!("https://{}.blob.core.windows.net", url.account),
        };
        let signer = match builder.get_config_value(&AzureConfigKey::AccessKey) {
            Some(key) => Some(Arc::new(Key::new(&key, &url.account)?) as Arc<dyn Signer>),
            None => None,
        };
        let host = base.split_once("://").map_or(base.as_str(), |(_, host)| host);
        let link = Link::new(&DIALECT, Some(host), &url.place.bucket, &url.settings, signer)?;
        let store = builder
            .with_endpoint(base.clone())
            // Requests are tried again where it is known what they are.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(link.clone())
            .build()
            .map_err(invalid)?;
        let store = Arc::new(store);
        let container = Container {
            store: store.clone(),
            account: url.account.clone(),
            url: format!("{base}/{}", url.place.bucket),
            client: HttpClient::new(link.clone()),
        };
        Ok(Self(Objects::new(store, Arc::new(container), link, &url.place, &url.settings, clock)))
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

/// What the environment says: variables that begin with `AZURE_`.
fn builder_in(env: impl IntoIterator<Item = (OsString, OsString)>) -> MicrosoftAzureBuilder {
    env.into_iter().fold(MicrosoftAzureBuilder::new(), |builder, (name, value)| {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return builder };
        // App Service and its like say so where a managed identity's tokens are.
        let name = if name == "IDENTITY_ENDPOINT" { "AZURE_MSI_ENDPOINT" } else { name };
        match name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            // These would ask another place than the one that the URL names, or nobody's leave.
            Ok(
                AzureConfigKey::UseEmulator
                | AzureConfigKey::UseFabricEndpoint
                | AzureConfigKey::SkipSignature,
            ) => builder,
            Ok(key) if name.starts_with("AZURE_") => builder.with_config(key, value),
            _ => builder,
        }
    })
}

/// The key of an account, whose signature covers a request's conditions ("Authorize with Shared Key" of Azure's REST API).
struct Key {
    credential: AzureCredential,
    account: String,
}

impl Key {
    fn new(key: &str, account: &str) -> Result<Self, Error> {
        let key = AzureAccessKey::try_new(key).map_err(|_| {
            Error::Invalid(
                "the key of the azure account is not in base64: copy it whole into AZURE_STORAGE_ACCOUNT_KEY"
                    .into(),
            )
        })?;
        Ok(Self { credential: AzureCredential::AccessKey(key), account: account.to_owned() })
    }
}

impl Signer for Key {
    fn sign_again(&self, request: &mut HttpRequest) -> Result<(), String> {
        let by_key = |value: &http::HeaderValue| value.as_bytes().starts_with(b"SharedKey ");
        // Other signatures and tokens cover no fields.
        if !request.headers().get(AUTHORIZATION).is_some_and(by_key) {
            return Ok(());
        }
        request.headers_mut().remove(AUTHORIZATION);
        sign(&self.credential, &self.account, request).map_err(|error| error.to_string())
    }
}

fn sign(
    credential: &AzureCredential,
    account: &str,
    request: &mut HttpRequest,
) -> Result<(), object_store::Error> {
    AzureAuthorizer::new(credential, account).try_authorize(request)
}

/// A container as it is written.
struct Container {
    store: Arc<MicrosoftAzure>,
    account: String,
    /// What the URLs of all objects begin with.
    url: String,
    client: HttpClient,
}

#[async_trait]
impl Write for Container {
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<()> {
        self.store.put_opts(path, payload, options).await.map(drop)
    }

    async fn begin(
        &self,
        path: &Path,
        attributes: Attributes,
        _: PutMode,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, attributes.into()).await
    }

    /// By a request of its own, where `object_store` sends one for many.
    async fn remove(&self, path: &Path) -> object_store::Result<()> {
        let failed = |source| object_store::Error::Generic { store: "MicrosoftAzure", source };
        let credential = self.store.credentials().get_credential().await?;
        let uri: Uri =
            format!("{}/{}", self.url, encoded(path)).parse().map_err(|error| failed(Box::from(error)))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = uri;
        sign(&credential, &self.account, &mut request)?;
        self.client.execute(request).await.map(drop).map_err(|error| failed(Box::from(error)))
    }
}

/// A name as it stands in a URL (RFC 3986, section 2.1).
fn encoded(path: &Path) -> String {
    use std::fmt::Write;
    path.as_ref().bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            byte => _ = write!(text, "%{byte:02X}"),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked_in(url: &str, env: &[(&str, &str)]) -> Result<(), Error> {
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let engine = Azure::open_in(&url.parse().unwrap(), Arc::new(SystemClock), env)?;
        engine.engines().blobs.head("b", "k").await.map(drop)
    }

    /// A port that nothing listens on.
    fn nowhere() -> String {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn the_environment_says_what_the_url_does_not() {
        let (one, other) = (nowhere(), nowhere());
        let endpoint = format!("http://{one}/shop");
        let login = [("AZURE_STORAGE_ACCOUNT_KEY", "Z2VoZWlt")];
        let env = [&login[..], &[("AZURE_STORAGE_ENDPOINT", endpoint.as_str())]].concat();
        let away = asked_in("azure://shop@photos", &env).await.unwrap_err();
        assert!(matches!(&away, Error::Unavailable(text) if text.contains(&one)), "{away:?}");
        let away = asked_in(&format!("azure://shop@photos?endpoint=http://{other}"), &env).await.unwrap_err();
        assert!(matches!(&away, Error::Unavailable(text) if text.contains(&other)), "{away:?}");
        let signature = [("AZURE_STORAGE_SAS_TOKEN", "sv=2023-11-03&sig=geheim")];
        let away =
            asked_in(&format!("azure://shop@photos?endpoint=http://{other}"), &signature).await.unwrap_err();
        assert!(matches!(&away, Error::Unavailable(text) if text.contains(&other)), "{away:?}");
        assert!(!away.to_string().contains("geheim"), "{away}");
        let endpoint = [("AZURE_STORAGE_ENDPOINT", "https://shop.blob.core.windows.net/?sv=1&sig=geheim")];
        let odd = asked_in("azure://shop@photos", &[&login[..], &endpoint].concat()).await.unwrap_err();
        assert!(matches!(&odd, Error::Invalid(text) if text.contains("AZURE_STORAGE_ENDPOINT")), "{odd:?}");
        assert!(!format!("{odd:?}").contains("geheim"), "{odd:?}");
        let none = [("AZURE_STORAGE_ACCOUNT_KEY", "no base64!")];
        let none = asked_in("azure://shop@photos", &none).await.unwrap_err();
        assert!(matches!(&none, Error::Invalid(text) if !text.contains("no base64!")), "{none:?}");
    }

    #[tokio::test]
    async fn missing_credentials_are_said() {
        let machine = format!("http://{}/token", nowhere());
        for name in ["AZURE_MSI_ENDPOINT", "IDENTITY_ENDPOINT"] {
            let error = asked_in("azure://shop@photos", &[(name, &machine)]).await.unwrap_err();
            let Error::Engine(source) = error else { panic!("{error:?}") };
            let text = source.to_string();
            assert!(text.contains("AZURE_STORAGE_ACCOUNT_KEY") && text.contains("does not answer"), "{text}");
        }
    }

    #[tokio::test]
    async fn why_there_is_no_token_is_said() {
        let body = r#"{"error": "invalid_client", "error_description": "The secret has expired."}"#;
        let authority =
            crate::objects::link::answering("401 Unauthorized", body).replace("127.0.0.1", "localhost");
        let env = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_CLIENT_SECRET", "geheim"),
            ("AZURE_AUTHORITY_HOST", &authority),
        ];
        let error = asked_in("azure://shop@photos", &env).await.unwrap_err();
        let Error::Engine(source) = error else { panic!("{error:?}") };
        let text = source.to_string();
        let said = "localhost, which gives them, refused: invalid_client, The secret has expired.; check";
        assert!(text.contains(said) && !text.contains("geheim"), "{text}");
    }

    /// A short trouble of whoever gives credentials is waited for, and one that lasts is no fault of the configuration.
    #[tokio::test]
    async fn who_gives_credentials_is_asked_again() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = format!("http://{}/token", listener.local_addr().unwrap());
        let (asked, questions) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let _ = socket.read(&mut [0; 4096]);
                let answer = "HTTP/1.1 503 Later\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = socket.write_all(answer.as_bytes());
                if asked.send(()).is_err() {
                    return;
                }
            }
        });
        let error = asked_in("azure://shop@photos", &[("AZURE_MSI_ENDPOINT", &machine)]).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(text) if text.contains("status 503")), "{error:?}");
        assert!(questions.try_iter().count() > 1);
    }

    fn refusal(status: u16, code: &str) -> crate::objects::failure::Failure {
        let (status, headers) = (http::StatusCode::from_u16(status).unwrap(), http::HeaderMap::new());
        let body = format!("<Error><Code>{code}</Code></Error>");
        Refusal::read(&DIALECT, "azure at h, container photos", status, &headers, body.as_bytes()).into()
    }

    #[test]
    fn what_lasts_is_no_race() {
        for (status, code, expected) in [
            (412, "ConditionNotMet", true),
            (409, "BlobAlreadyExists", true),
            (400, "InvalidBlockList", true),
            (409, "BlobImmutableDueToLegalHold", false),
            (409, "BlobImmutableDueToPolicy", false),
            (412, "LeaseIdMissing", false),
            (409, "ContainerBeingDeleted", false),
        ] {
            assert_eq!(refusal(status, code).is_contest(), expected, "{code}");
        }
        let text = refusal(403, "AuthenticationFailed").to_string();
        assert!(text.contains("check the account") && text.contains("shared access signature"), "{text}");
    }

    #[test]
    fn names_stand_in_urls() {
        let path = Path::parse("shop/two!20words/ä+~.jpg").unwrap();
        assert_eq!(encoded(&path), "shop/two%2120words/%C3%A4%2B~.jpg");
    }
}
