//! Stands between a browser and a service: requests go on, responses come back, and both are recorded.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, client, server, service::service_fn, upgrade};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream, task::spawn_blocking};

use super::{head, recording::Recording, tee::Tee};

/// The most bytes of what is sent that are kept. A journey's own bound is higher.
const SENT_BYTES_MAX: usize = 16 << 20;

/// The most bytes of a response that are kept: those in which a replay looks for what later requests need.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long a connection to the service may take.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(10);

type Answer = Response<Either<Tee, Full<Bytes>>>;

/// Opens a connection to the service. It may block.
pub(super) type Way = Arc<dyn Fn() -> io::Result<std::net::TcpStream> + Send + Sync>;

/// The service.
pub(super) struct Upstream {
    pub(super) way: Way,
    /// What it knows itself by, as in `Host`; `None` if it is whatever the browser calls it.
    pub(super) authority: Option<String>,
}

impl Upstream {
    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let way = Arc::clone(&self.way);
        let stream = spawn_blocking(move || way()).await?.context("is it running?")?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(TcpStream::from_std(stream)?)
    }
}

/// Serves browsers.
pub(super) struct Proxy {
    upstream: Upstream,
    /// What the service is called in the recording.
    host: String,
    recording: Arc<Recording>,
}

impl Proxy {
    pub(super) fn new(upstream: Upstream, host: String, recording: Arc<Recording>) -> Arc<Self> {
        Arc::new(Self { upstream, host, recording })
    }

    /// Serves one connection, in the background.
    pub(super) fn serve(self: &Arc<Self>, stream: TcpStream) {
        let proxy = Arc::clone(self);
        let _ = stream.set_nodelay(true);
        let answer = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        let connection = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        // A browser that goes away is no failure.
        tokio::spawn(connection.with_upgrades());
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let own = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let own = own.map_or_else(|| self.host.clone(), str::to_owned);
        if !self.is_own_name(&own) {
            let text = "lethe record is asked by the address that it has said, or as localhost\n".to_owned();
            return refusal(StatusCode::MISDIRECTED_REQUEST, text);
        }
        let asked = head::upgrade(request.headers());
        let browser = asked.is_some().then(|| upgrade::on(&mut request));
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let noted = head::of_request(request.headers(), &own, &self.host);
        let number = self.recording.request(request.method().clone(), target.clone(), noted);
        match self.pass(number, request, &target, &own, asked).await {
            Ok(response) => self.back(number, response, &own, browser),
            Err(error) => {
                self.recording.ended(number, None);
                let text = format!("lethe record has no response of the service: {error:#}\n");
                refusal(StatusCode::BAD_GATEWAY, text)
            }
        }
    }

    /// Whether a page of somebody else could not be behind the name: it could have its own name lead here (DNS rebinding), but not
    /// an address or `localhost`. A name that the service has of itself is good, too.
    fn is_own_name(&self, name: &str) -> bool {
        let host = name.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let host = host.map_or(name, |(host, _)| host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost")
            || name.eq_ignore_ascii_case(&self.host)
    }

    /// Asks the service, over a connection of its own.
    async fn pass(
        &self,
        number: u64,
        request: Request<Incoming>,
        target: &str,
        own: &str,
        asked: Option<http::HeaderValue>,
    ) -> anyhow::Result<Response<Incoming>> {
        let authority = self.upstream.authority.as_deref().unwrap_or(own);
        let (parts, body) = request.into_parts();
        let recording = Arc::clone(&self.recording);
        let body = Tee::new(body, SENT_BYTES_MAX, move |body| recording.sent(number, body));
        let mut passed = Request::builder().method(parts.method).uri(target).body(body)?;
        *passed.headers_mut() = head::to_service(&parts.headers, own, authority);
        if let Some(protocol) = asked {
            passed.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
            passed.headers_mut().insert(header::UPGRADE, protocol);
        }
        let stream = self.upstream.connect().await?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender.send_request(passed).await?)
    }

    /// What the browser gets of it.
    fn back(
        &self,
        number: u64,
        mut response: Response<Incoming>,
        own: &str,
        browser: Option<upgrade::OnUpgrade>,
    ) -> Answer {
        let authority = self.upstream.authority.as_deref().unwrap_or(own);
        let noted = head::of_response(response.headers(), authority, &self.host);
        self.recording.answered(number, response.status().as_u16(), noted);
        let mut headers = head::to_browser(response.headers(), authority, own);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.recording.ended(number, None);
            for name in [header::CONNECTION, header::UPGRADE] {
                headers.extend(response.headers().get(&name).cloned().map(|value| (name, value)));
            }
            if let Some(browser) = browser {
                tokio::spawn(join(browser, upgrade::on(&mut response)));
            }
        }
        let (parts, body) = response.into_parts();
        let recording = Arc::clone(&self.recording);
        let body = match parts.status {
            StatusCode::SWITCHING_PROTOCOLS => Either::Right(Full::default()),
            _ => Either::Left(Tee::new(body, ANSWER_BYTES_MAX, move |body| recording.ended(number, body))),
        };
        let mut back = Response::new(body);
        *back.status_mut() = parts.status;
        *back.headers_mut() = headers;
        back
    }
}

fn refusal(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(text.into())));
    *response.status_mut() = status;
    response
}

/// Passes bytes both ways until one end has none any more.
async fn join(browser: upgrade::OnUpgrade, service: upgrade::OnUpgrade) {
    if let (Ok(browser), Ok(service)) = tokio::join!(browser, service) {
        let _ = copy_bidirectional(&mut TokioIo::new(browser), &mut TokioIo::new(service)).await;
    }
}
