//! A number from a URL: the body as a whole, or one place in a JSON document. Bounded in time and size, since the other
//! side may be anything.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lethe_scaler::{quantity::Quantity, samples::Reading};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::config::scale::Fetched;

/// How often it is asked.
pub const PERIOD: Duration = Duration::from_secs(1);
/// How long an answer may take, from the connection to its last byte.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The longest answer.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How much of what is no number is repeated.
const SHOWN_CHARS_MAX: usize = 40;

/// Asks where a host is; blocks for as long as the system's resolver likes.
type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Fetches one number, as often as it is asked to.
pub struct Fetcher {
    from: Fetched,
    resolve: Resolve,
    /// What the resolver has not answered yet. It cannot be given up: so nothing else is asked before it has.
    asked: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Fetcher {
    /// Fetches nothing yet.
    pub fn new(from: Fetched) -> Self {
        Self { from, resolve: |host, port| Ok((host, port).to_socket_addrs()?.collect()), asked: None }
    }

    /// Fetches it. The error is what is wrong with the source; what it says that is no number is a reading all the same.
    /// Cancellation safe.
    pub async fn number(&mut self) -> Result<Reading, String> {
        let late = |_| Err(format!("no answer within {} ms", TIMEOUT.as_millis()));
        let body = async {
            let addresses = self.addresses().await.map_err(|error| error.to_string())?;
            body(&self.from.url, &addresses).await
        };
        let body = tokio::time::timeout(TIMEOUT, body).await.unwrap_or_else(late)?;
        read(&body, &self.from.pointer)
    }

    /// Where the host is. At most one thread waits for that, however long it takes.
    async fn addresses(&mut self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (self.from.url.host().unwrap_or_default(), self.from.url.port_u16().unwrap_or(80));
        let host = host.trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let (resolve, host) = (self.resolve, host.to_owned());
        let ask = || tokio::task::spawn_blocking(move || resolve(&host, port));
        let answer = self.asked.get_or_insert_with(ask).await;
        self.asked = None;
        answer.map_err(io::Error::other)?
    }
}

async fn body(url: &http::Uri, addresses: &[SocketAddr]) -> Result<Bytes, String> {
    let host = url.host().unwrap_or_default();
    let stream = TcpStream::connect(addresses).await.map_err(|error| error.to_string())?;
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("lethe/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| {
            format!("its answer cannot be read, or is longer than {BODY_BYTES_MAX} bytes: {error}")
        })
    };
    // Driven here and not in a task of its own: what is given up leaves nothing behind.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// Thousandths, rounded up, of what stands there.
fn read(body: &[u8], pointer: &str) -> Result<Reading, String> {
    if pointer.is_empty() {
        return Ok(reading(String::from_utf8_lossy(body).trim()));
    }
    let document: Value =
        serde_json::from_slice(body).map_err(|error| format!("its answer is no JSON: {error}"))?;
    match document.pointer(pointer) {
        Some(Value::String(text)) => Ok(reading(text.trim())),
        Some(value) => Ok(reading(&value.to_string())),
        None => Err(format!("its answer has nothing at {pointer}")),
    }
}

/// A number that is written out, or a quantity such as `5k`, as cases have them; anything else is bad, and infinity and NaN
/// are. So is what is below zero, by which many say that they do not know.
pub fn reading(text: &str) -> Reading {
    let quantity = text.parse::<Quantity>().ok().map(|quantity| quantity.milli);
    let number = || text.parse::<f64>().ok().filter(|number| number.is_finite());
    let milli = quantity.or_else(|| Some((number()? * 1_000.0 - 1e-6).ceil() as i64));
    match milli {
        Some(milli @ 0..) => Reading::Value(milli),
        _ => Reading::Bad(text.chars().take(SHOWN_CHARS_MAX).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn what_numbers_look_like() {
        let (value, bad) = (|milli| Ok(Reading::Value(milli)), |text: &str| Ok(Reading::Bad(text.into())));
        for (body, pointer, expected) in [
            ("17", "", value(17_000)),
            (" 0.5\n", "", value(500)),
            ("1e3", "", value(1_000_000)),
            ("-3", "", bad("-3")),
            ("-0", "", value(0)),
            ("0.0001", "", value(1)),
            ("NaN", "", bad("NaN")),
            ("inf", "", bad("inf")),
            ("", "", bad("")),
            ("{\"a\":1}", "", bad("{\"a\":1}")),
            ("{\"a\":[{\"b\":4}]}", "/a/0/b", value(4_000)),
            ("{\"a\":\"4.5\"}", "/a", value(4_500)),
            ("{\"a\":null}", "/a", bad("null")),
            ("{\"a\":1}", "/b", Err("its answer has nothing at /b".into())),
        ] {
            assert_eq!(read(body.as_bytes(), pointer), expected, "{body} {pointer}");
        }
        assert!(read(b"x", "/a").is_err_and(|why| why.starts_with("its answer is no JSON: ")));
        assert_eq!(reading(&"9".repeat(400)), Reading::Bad("9".repeat(SHOWN_CHARS_MAX)));
    }

    /// What comes of a source that answers this to each request, after its head is read.
    async fn fetched(answer: &'static str) -> Result<Reading, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/queue?x=1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"GET /queue?x=1 HTTP/1.1\r\nhost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                // It says nothing, and does not go away.
                std::future::pending::<()>().await;
            }
        });
        let number = fetcher(&url).number().await;
        server.abort();
        number
    }

    fn fetcher(url: &str) -> Fetcher {
        Fetcher::new(Fetched { url: url.parse().unwrap(), pointer: String::new() })
    }

    /// Threads that have asked the resolver, and whether it answers.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static ANSWERS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    fn hangs(_: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        ASKED.fetch_add(1, SeqCst);
        let answers = ANSWERS.0.lock().unwrap();
        drop(ANSWERS.1.wait_while(answers, |answers| !*answers).unwrap());
        Ok(vec![([127, 0, 0, 1], port).into()])
    }

    #[tokio::test]
    async fn one_thread_waits_for_a_resolver_that_hangs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://somewhere:{}/", listener.local_addr().unwrap().port());
        let mut fetcher = Fetcher { resolve: hangs, ..fetcher(&url) };
        for _ in 0..2 {
            assert_eq!(fetcher.number().await, Err("no answer within 1000 ms".into()));
        }
        assert_eq!(ASKED.load(SeqCst), 1);
        *ANSWERS.0.lock().unwrap() = true;
        ANSWERS.1.notify_all();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        // The first try may have been begun before the answer was there; the address is found in the end.
        let mut number = fetcher.number().await;
        while number == Err("no answer within 1000 ms".into()) {
            number = fetcher.number().await;
        }
        assert_eq!((number, ASKED.load(SeqCst)), (Ok(Reading::Value(7_000)), 1));
        server.abort();
    }

    #[tokio::test]
    async fn over_the_wire() {
        assert_eq!(
            fetched("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n12").await,
            Ok(Reading::Value(12_000))
        );
        assert_eq!(
            fetched("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nNaN").await,
            Ok(Reading::Bad("NaN".into()))
        );
        let away = fetched("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(away, Err("answered 503 Service Unavailable".into()));
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n";
        assert!(fetched(long).await.is_err());
        assert_eq!(fetched("").await, Err("no answer within 1000 ms".into()));
        assert!(fetcher("http://127.0.0.1:1/").number().await.is_err_and(|why| why.contains("refused")));
        assert!(fetcher("http://[::1]:1/").number().await.is_err());
    }
}
