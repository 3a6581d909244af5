//! The way to the store: connections, timeouts, the breaker, and what is tried again. `object_store` signs requests and reads
//! answers; what goes over the wire, and how often, is decided here.
//!
//! What was certainly not done is sent again, and so is what comes to the same if it is done twice. A put or delete without a
//! condition does not, since others may have written between the two.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    address::Settings,
    body::{Received, Sent},
    dialect::Dialect,
    failure::{Failure, Refusal},
    tls,
};
use crate::{breaker::Breaker, clock::jittered, error::Error, figures::Figures};

/// Requests that are under way at once, with the answers that are still being read; more wait for a place.
pub(super) const REQUESTS_MAX: usize = 1024;
/// How often a request is tried again.
const RETRIES_MAX: u32 = 5;
/// No retry begins later than this after the first attempt, so that a caller of a silent store is not kept for minutes.
const RETRY_SPAN: Duration = Duration::from_secs(15);
/// The pause before the first retry; it doubles with each, and is cut by up to a half by chance.
const PAUSE: Duration = Duration::from_millis(50);
/// Idle connections that are kept.
const IDLE_MAX: usize = 64;
/// How long they are kept: less than servers do.
const IDLE_TIME: Duration = Duration::from_secs(15);
/// Most of a refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Largest answer that is no object's bytes: a page of a list with names of 1024 bytes is less than 2 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How the body begins that says that a request has failed.
const FAILED: &[u8] = b"<Error>";

tokio::task_local! {
    /// A condition that `object_store` cannot say: see [`under`].
    static CONDITION: (HeaderName, HeaderValue);
    /// See [`alone`].
    static ALONE: ();
}

/// Makes a call's requests conditional. Completed uploads and deletes have conditions that `object_store` has no words for. The field
/// is added after the request was signed. In S3 the signature allows it: of the fields, it must cover `host` and `x-amz-*` alone
/// (Amazon S3's API reference, "Authenticating requests"). Elsewhere there is a [`Signer`].
pub(super) async fn under<T>(
    condition: Option<(HeaderName, HeaderValue)>,
    call: impl Future<Output = T>,
) -> T {
    match condition {
        Some(condition) => CONDITION.scope(condition, call).await,
        None => call.await,
    }
}

/// Lets a call's requests be sent again although they write without a condition: nobody else writes what they do.
pub(super) async fn alone<T>(call: impl Future<Output = T>) -> T {
    ALONE.scope((), call).await
}

/// Signs requests again that were changed, where a signature covers what was changed.
pub(crate) trait Signer: Send + Sync {
    /// Signs one that was signed before. The error says why it cannot be.
    fn sign_again(&self, request: &mut HttpRequest) -> Result<(), String>;
}

/// The way to one store. Clones are the same.
#[derive(Clone)]
pub(crate) struct Link(Arc<Line>);

struct Line {
    client: Client<HttpsConnector<HttpConnector>, Sent>,
    breaker: Breaker,
    places: Arc<Semaphore>,
    response_timeout: Duration,
    dialect: &'static Dialect,
    signer: Option<Arc<dyn Signer>>,
    /// Which server and bucket, for messages.
    server: String,
    /// The same, for who watches.
    place: String,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.0.server)
    }
}

impl Link {
    /// A way to a bucket at a host, if one is said. Nothing is connected yet.
    pub(crate) fn new(
        dialect: &'static Dialect,
        host: Option<&str>,
        bucket: &str,
        settings: &Settings,
        signer: Option<Arc<dyn Signer>>,
    ) -> Result<Self, Error> {
        let engine = dialect.engine.name();
        let bucket = format!("{} {bucket}", dialect.bucket);
        let server = match host {
            Some(host) => format!("{engine} at {host}, {bucket}"),
            None => format!("{engine}, {bucket}"),
        };
        let place = format!("{}, {bucket}", host.unwrap_or(engine));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(settings.connect_timeout));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(tls::connector(connector, settings.ca.as_deref())?);
        Ok(Self(Arc::new(Line {
            client,
            breaker: Breaker::new(format!("{server},")),
            place,
            dialect,
            signer,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            response_timeout: settings.response_timeout,
            server,
        })))
    }

    /// What it is doing, for who watches. Its connections are those of the client beneath, which tells nothing of them.
    pub(super) fn watch(&self, figures: &mut Figures) {
        figures.breakers.push(self.0.breaker.figures(self.0.dialect.engine.name(), &self.0.place));
    }

    /// Which server and bucket, for messages.
    pub(crate) fn server(&self) -> &str {
        &self.0.server
    }

    /// How the store speaks.
    pub(super) fn dialect(&self) -> &'static Dialect {
        self.0.dialect
    }
}

impl object_store::client::HttpConnector for Link {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Link {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !self.0.dialect.is_signed(&request) {
            return self.0.ask_for_credentials(request).await.map_err(to_http);
        }
        if let Ok((name, value)) = CONDITION.try_with(Clone::clone) {
            request.headers_mut().insert(name, value);
            if let Some(signer) = &self.0.signer {
                signer.sign_again(&mut request).map_err(|why| to_http(Failure::Strange(why)))?;
            }
        }
        let is_repeatable = self.0.is_repeatable(&request) || ALONE.try_with(|()| ()).is_ok();
        let (began, mut pause, mut retries) = (Instant::now(), PAUSE, 0);
        loop {
            let failure = match self.0.ask(request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.is_doubtful() && !is_repeatable => {
                    return Err(to_http(Failure::Doubtful(failure.to_string())));
                }
                Err(failure) => failure,
            };
            if retries == RETRIES_MAX || began.elapsed() > RETRY_SPAN || !failure.is_passing() {
                return Err(to_http(failure));
            }
            tracing::debug!(%failure, "a request is tried again");
            tokio::time::sleep(jittered(pause)).await;
            (pause, retries) = (2 * pause, retries + 1);
        }
    }
}

/// So that `object_store` does not try again by itself.
fn to_http(failure: Failure) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, failure)
}

impl Line {
    /// One request to the store, if it is not left alone.
    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let pass = self.breaker.enter().map_err(|resting| Failure::Resting(resting.to_string()))?;
        let uri = request.uri().clone();
        let is_object = request.method() == Method::GET && !self.dialect.is_list(&uri);
        let answer = match self.exchange(request).await {
            // Azurite answers so, and not with 416, where a range begins at the object's end.
            Ok(answer) if is_part_of_nothing(&answer) => {
                Err(self.read(StatusCode::RANGE_NOT_SATISFIABLE, answer.headers(), b"").into())
            }
            Ok(answer) if answer.status().is_success() && is_object => Ok(answer),
            Ok(answer) if self.dialect.is_done(&uri, answer.status()) => self.whole(answer).await,
            Ok(answer) => Err(self.refusal(answer).await),
            Err(failure) => Err(failure),
        };
        match &answer {
            Err(Failure::Away(why) | Failure::Unsent(why)) => pass.failed(why),
            Err(Failure::Refused(refusal)) if refusal.is_trouble() => pass.failed(&refusal.to_string()),
            _ => pass.succeeded(),
        }
        answer
    }

    /// A request to whoever gives credentials: the machine, or its cloud. Its answer is for `object_store` to read, which does not ask
    /// again.
    async fn ask_for_credentials(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (began, mut pause, mut retries) = (Instant::now(), PAUSE, 0);
        loop {
            let asked = self.exchange(request.clone()).await;
            let trouble = match &asked {
                Ok(answer) if matches!(answer.status().as_u16(), 408 | 429 | 500..) => {
                    format!("answers with status {}", answer.status().as_u16())
                }
                Ok(answer) if answer.status().is_client_error() => {
                    return Err(self.no_credentials(&host, asked).await);
                }
                Ok(_) => return asked,
                // Where nobody is there, there is nothing to be waited for.
                Err(Failure::Unsent(_)) => return Err(self.no_credentials(&host, asked).await),
                Err(failure) => format!("does not answer: {failure}"),
            };
            if retries == RETRIES_MAX || began.elapsed() > RETRY_SPAN {
                return Err(Failure::Away(format!(
                    "{}: {host}, which gives credentials, {trouble}",
                    self.server
                )));
            }
            tokio::time::sleep(jittered(pause)).await;
            (pause, retries) = (2 * pause, retries + 1);
        }
    }

    /// What to say of a host that gives no credentials. The machine's own is asked when nothing else is known, and others for tokens, with
    /// what is known.
    async fn no_credentials(&self, host: &str, asked: Result<HttpResponse, Failure>) -> Failure {
        let trouble = match asked {
            Ok(answer) => {
                let (status, body) = (answer.status(), Self::said(answer).await);
                format!("refused: {}", self.read(status, &HeaderMap::new(), &body).said())
            }
            Err(failure) => format!("does not answer: {failure}"),
        };
        let Self { server, dialect, .. } = self;
        let is_of_machine = host.starts_with("metadata.") || is_address(host);
        Failure::NoCredentials(if is_of_machine {
            format!(
                "no credentials for {server}: neither the URL nor the environment has {}, and {host}, which gives those of a role, {trouble}",
                dialect.credentials
            )
        } else {
            format!(
                "no credentials for {server}: {host}, which gives them, {trouble}{}",
                dialect.on_wrong_login
            )
        })
    }

    /// Sends a request and waits for the head of its answer for as long as something moves.
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let away = |why: String| Failure::Away(format!("{}: {why}", self.server));
        let unsent = |why: String| Failure::Unsent(format!("{}: {why}", self.server));
        let place = timeout(self.response_timeout, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(unsent(format!("{REQUESTS_MAX} requests are under way, and none of them ends")));
        };
        let moved = Arc::new(AtomicU64::new(0));
        let mut answer =
            std::pin::pin!(self.client.request(request.map(|body| Sent::new(body, moved.clone()))));
        let answer = loop {
            let before = moved.load(Ordering::Relaxed);
            match timeout(self.response_timeout, answer.as_mut()).await {
                Ok(Err(error)) if error.is_connect() => return Err(unsent(told(&error))),
                Ok(answer) => break answer.map_err(|error| away(told(&error)))?,
                Err(_) if moved.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(away(format!("no answer within {:?}", self.response_timeout))),
            }
        };
        Ok(answer.map(|body| {
            HttpResponseBody::new(Received::new(body, self.response_timeout, self.server.clone(), place))
        }))
    }

    /// An answer that is no object's bytes, read to its end, so that one that is cut short is asked for again. Of a success that
    /// takes long, the store says only there that it has become a failure (Amazon S3's API reference, "CompleteMultipartUpload").
    async fn whole(&self, answer: HttpResponse) -> Result<HttpResponse, Failure> {
        let (parts, body) = answer.into_parts();
        let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = read.map_err(|error| Failure::Away(format!("{}: {error}", self.server)))?.to_bytes();
        if body.windows(FAILED.len()).any(|part| part == FAILED) {
            return Err(self.read(parts.status, &parts.headers, &body).into());
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }

    /// Reads why the store said no.
    async fn refusal(&self, answer: HttpResponse) -> Failure {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = Self::said(answer).await;
        self.read(status, &headers, &body).into()
    }

    /// The body of a refusal. Where it cannot be read, the status alone says enough, unless it is one to be explained.
    async fn said(answer: HttpResponse) -> Bytes {
        let read = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        read.map_or_else(|_| Bytes::new(), |body| body.to_bytes())
    }

    fn read(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        Refusal::read(self.dialect, &self.server, status, headers, body)
    }

    /// Whether a request may be done twice: it reads, or is one of an upload, which nobody else knows, or it writes under a
    /// condition, which holds once.
    fn is_repeatable(&self, request: &HttpRequest) -> bool {
        let writes = [Method::PUT, Method::POST, Method::DELETE].contains(request.method());
        !writes || self.dialect.versions.are_in(request) || self.dialect.is_upload(request.uri())
    }
}

/// Whether a part was sent that has no byte, which no part may be (RFC 9110, section 15.3.7).
fn is_part_of_nothing(answer: &HttpResponse) -> bool {
    answer.status() == StatusCode::PARTIAL_CONTENT
        && answer.headers().get(CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// Whether a host is named by its address.
fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// An error and its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A server that answers all that it is asked with this; its address.
#[cfg(test)]
pub(crate) fn answering(status: &'static str, body: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, size) = (socket.unwrap(), body.len());
            // Whoever asks so little says all of it at once.
            let _ = socket.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all((head + body).as_bytes());
        }
    });
    address
}
