//! Finds out when a worker is ready: its port or unix socket accepts, and if a path is to be asked for, it answers well. Asked
//! every few milliseconds at first, so that readiness is seen at most 5 ms after it is true.

use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lethe_model::{
    h2c_question,
    roster::{Address, Protocol},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    service::{Listener, Spec},
    warm_up::WarmUp,
};

/// How long one attempt may take, from connecting to the status line.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// How much of an answer is read, and for how long, after its status line, so that the worker sees no reset.
const REST: Rest = Rest { bytes_max: 64 * 1024, time_max: Duration::from_secs(1) };
/// How long a process that ends may take from its first closed connection to its last: it closes all of them at once.
const SETTLES_WITHIN: Duration = Duration::from_millis(20);
/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

/// What a worker is asked, and its last refusal.
#[derive(Debug)]
pub(crate) struct Probe {
    address: Address,
    protocol: Protocol,
    question: Question,
    began: Instant,
    refusal: Mutex<Refusal>,
    pub(crate) warm_up: WarmUp,
}

/// What is read of an answer after its status line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(crate) bytes_max: u64,
    pub(crate) time_max: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// Does it accept connections?
    Accepts,
    /// Is this path answered with 2xx?
    Succeeds(String),
    /// Is `/` answered at all? An inherited listener accepts before the worker does, so that accepting says nothing.
    Answers,
}

/// Why a worker is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing listens there.
    NotListening,
    /// A connection was accepted, and no HTTP answer came.
    Silent,
    /// The path was answered with this status.
    Status(u16),
}

impl Probe {
    /// The probe of a worker of `spec` that is to listen on `address`.
    pub(crate) fn new(spec: &Spec, address: Address) -> Self {
        let question = match (&spec.ready, spec.listener) {
            (Some(path), _) => Question::Succeeds(path.clone()),
            (None, Listener::Inherited) => Question::Answers,
            (None, Listener::Port | Listener::Socket) => Question::Accepts,
        };
        let (protocol, refusal) = (spec.protocol, Mutex::new(Refusal::NotListening));
        Self { address, protocol, question, began: Instant::now(), refusal, warm_up: WarmUp::new(spec) }
    }

    /// Waits until the worker is ready, and warm. Cancellation safe.
    pub(crate) async fn ready(&self) {
        self.answers().await;
        self.warm_up.run(&self.address, self.protocol).await;
        if self.warm_up.was_refused() {
            // Whoever dies answers nothing either, and the kernel closes its connections before it tells of its end.
            sleep(SETTLES_WITHIN).await;
            self.answers().await;
        }
    }

    async fn answers(&self) {
        loop {
            match timeout(ATTEMPT_MAX, self.attempt()).await.unwrap_or(Err(Refusal::Silent)) {
                Ok(()) => return,
                Err(refusal) => *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal,
            }
            sleep(pause(self.began.elapsed())).await;
        }
    }

    /// What a person should know about a worker that is still not ready.
    pub(crate) fn trouble(&self) -> String {
        if let Some(path) = self.warm_up.at() {
            return format!("it is warming up, and has not answered GET {path} (`warm-up`) yet");
        }
        let (place, missing) = match &self.address {
            Address::Tcp(address) => {
                let port = address.port();
                (format!("port {port}"), format!("it must listen on 127.0.0.1:$PORT (PORT={port})"))
            }
            Address::Unix(path) => {
                let path = path.display();
                let must = format!(
                    "it must listen on the unix socket $SOCKET (SOCKET={path}); for a program that listens on a port, \
                     leave out `listener = \"socket\"`"
                );
                (format!("socket {path}"), must)
            }
        };
        let by = match self.protocol {
            Protocol::Http1 => "",
            Protocol::H2c => " by HTTP/2 without TLS (`protocol = \"h2c\"`)",
        };
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (&self.question, refusal) {
            (Question::Answers, _) => format!("it does not answer GET / on the listener it was given{by}"),
            (_, Refusal::NotListening) => {
                format!("it has not opened {place}; {missing}")
            }
            (Question::Succeeds(path), refusal) => {
                format!("GET {path} on its {place} {refusal}{by}; it must be answered with 2xx")
            }
            (Question::Accepts, refusal) => format!("its {place} {refusal}"),
        }
    }

    async fn attempt(&self) -> Result<(), Refusal> {
        let path = match &self.question {
            Question::Accepts => return connect(&self.address).await.map(drop),
            Question::Succeeds(path) => path,
            Question::Answers => "/",
        };
        let status = ask(&self.address, self.protocol, path, REST).await?.0;
        match self.question {
            Question::Succeeds(_) if !(200..300).contains(&status) => Err(Refusal::Status(status)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListening => f.write_str("refuses connections"),
            Self::Silent => f.write_str("is not answered"),
            Self::Status(status) => write!(f, "is answered with status {status}"),
        }
    }
}

/// Both kinds of connections.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(address: &Address) -> Result<Box<dyn Stream>, Refusal> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(|_| Refusal::NotListening)?;
            // Where nobody listens, a connection from a port of the same number meets itself (RFC 9293, section
            // 3.5: simultaneous open). The system may choose that number among the ephemeral ones.
            if stream.local_addr().ok() == stream.peer_addr().ok() {
                return Err(Refusal::NotListening);
            }
            Ok(Box::new(stream))
        }
        Address::Unix(path) => {
            Ok(Box::new(UnixStream::connect(path).await.map_err(|_| Refusal::NotListening)?))
        }
    }
}

/// Sends one GET and returns the status of its answer, once that has been read.
pub(crate) async fn get(
    address: &Address,
    protocol: Protocol,
    path: &str,
    rest: Rest,
) -> Result<u16, Refusal> {
    let (status, rest) = ask(address, protocol, path, rest).await?;
    if let Some(rest) = rest {
        // How it ends says nothing: its head has come.
        let _ = rest.await;
    }
    Ok(status)
}

/// Sends one GET and returns the status of its answer, and what reads the rest of it.
async fn ask(
    address: &Address,
    protocol: Protocol,
    path: &str,
    rest: Rest,
) -> Result<(u16, Option<JoinHandle<()>>), Refusal> {
    let (stream, host) = (connect(address).await?, address.authority());
    let answer = match protocol {
        Protocol::Http1 => {
            ask_http1(stream, path, &host, rest).await.map(|(status, rest)| (status, Some(rest)))
        }
        Protocol::H2c => h2c_question::ask(stream, path, &host).await.map(|status| (status, None)),
    };
    answer.map_err(|_| Refusal::Silent)
}

async fn ask_http1(
    mut stream: Box<dyn Stream>,
    path: &str,
    host: &str,
    rest: Rest,
) -> io::Result<(u16, JoinHandle<()>)> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lethe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; STATUS_BYTES];
    stream.read_exact(&mut head).await?;
    let status = parse_status(&head).ok_or(io::ErrorKind::InvalidData)?;
    let rest = tokio::spawn(async move {
        let mut sink = tokio::io::sink();
        let _ = timeout(rest.time_max, tokio::io::copy(&mut stream.take(rest.bytes_max), &mut sink)).await;
    });
    Ok((status, rest))
}

fn parse_status(head: &[u8; STATUS_BYTES]) -> Option<u16> {
    let (version, status) = std::str::from_utf8(head).ok()?.split_once(' ')?;
    let known =
        matches!(version, "HTTP/1.1" | "HTTP/1.0") && status.bytes().all(|byte| byte.is_ascii_digit());
    if known { status.parse().ok().filter(|status| (100..600).contains(status)) } else { None }
}

/// How long to wait before the next attempt, `elapsed` after the start.
fn pause(elapsed: Duration) -> Duration {
    Duration::from_millis(match elapsed.as_millis() {
        0..500 => 1,
        500..2_000 => 2,
        // The timer rounds up by a millisecond, so this is the most that keeps the promise of 5 ms.
        2_000..30_000 => 3,
        30_000..120_000 => 25,
        _ => 250,
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{io::AsyncBufReadExt, net::TcpListener, sync::watch};

    use super::*;

    #[test]
    fn status_lines() {
        let cases = [
            (b"HTTP/1.1 200", Some(200)),
            (b"HTTP/1.0 503", Some(503)),
            (b"HTTP/1.1 999", None),
            (b"HTTP/1.1 2x0", None),
            (b"SSH-2.0-Open", None),
            (b"HTTP/2.0 200", None),
        ];
        for (head, status) in cases {
            assert_eq!(parse_status(head), status, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn pauses_keep_the_promise_for_30_s() {
        for ms in 0..30_000 {
            assert!(pause(Duration::from_millis(ms)) <= Duration::from_millis(4), "{ms}");
        }
        assert!(pause(Duration::from_secs(3600)) >= Duration::from_millis(100));
    }

    fn probe(address: SocketAddr, question: Question) -> Probe {
        Probe {
            address: address.into(),
            protocol: Protocol::Http1,
            question,
            began: Instant::now(),
            refusal: Mutex::new(Refusal::NotListening),
            warm_up: WarmUp::of(Vec::new()),
        }
    }

    /// Answers each request with the status of the moment, and counts them.
    async fn answer(listener: TcpListener, status: watch::Receiver<u16>, asked: watch::Sender<u32>) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = String::new();
            let (read, mut write) = stream.split();
            let mut lines = tokio::io::BufReader::new(read).lines();
            while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
                request += &line;
                request += "\n";
            }
            assert!(request.starts_with("GET /up?x=1 HTTP/1.1\nHost: 127.0.0.1:"), "{request}");
            let answer = format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", *status.borrow());
            write.write_all(answer.as_bytes()).await.unwrap();
            asked.send_modify(|asked| *asked += 1);
        }
    }

    #[tokio::test]
    async fn a_path_must_succeed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, watched) = watch::channel(503);
        let (asked, mut count) = watch::channel(0);
        tokio::spawn(answer(listener, watched, asked));
        let probe = probe(address, Question::Succeeds("/up?x=1".into()));
        tokio::select! {
            () = probe.ready() => panic!("503 is not ready"),
            _ = count.wait_for(|&count| count >= 3) => {}
        }
        let trouble = probe.trouble();
        assert!(trouble.contains("GET /up?x=1") && trouble.contains("status 503"), "{trouble}");
        status.send_replace(204);
        probe.ready().await;
    }

    #[tokio::test]
    async fn an_inherited_listener_must_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = probe(address, Question::Answers);
        tokio::select! {
            biased;
            () = probe.ready() => panic!("a connection in the backlog is not an answer"),
            accepted = listener.accept() => drop(accepted),
        }
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
            stream
        };
        tokio::join!(probe.ready(), serve);
    }

    /// One that speaks HTTP/2 has no answer to HTTP/1.1.
    #[tokio::test]
    async fn a_path_is_asked_for_by_what_the_worker_speaks() {
        // SETTINGS, and HEADERS with `:status` 500 (RFC 7541, appendix A: 14), then 204 (9).
        const ANSWER: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let spoken = Probe { protocol: Protocol::H2c, ..probe(address, Question::Succeeds("/up".into())) };
        let answer = async |status: u8| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            stream.write_all(&[ANSWER, &[status]].concat()).await.unwrap();
            stream
        };
        tokio::select! {
            () = spoken.ready() => panic!("500 is not ready"),
            _asked = async { (answer(0x8e).await, listener.accept().await) } => {}
        }
        let trouble = spoken.trouble();
        assert!(trouble.contains("status 500") && trouble.contains("h2c"), "{trouble}");
        tokio::join!(spoken.ready(), answer(0x89));
    }
}
