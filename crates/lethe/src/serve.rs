//! A router as a worker: it listens as the worker contract says, answers, and leaves on SIGTERM without losing
//! a request.
//!
//! `Serving → Closing → Draining → CutOff`. In `Serving` connections are accepted. SIGTERM or SIGINT leads to
//! `Closing`: none is accepted any more, and each answer is the last of its connection. In `Draining` idle connections
//! are closed too. When the last request is answered all is done; [`DRAIN`] or another signal leads to `CutOff`.

mod connection;
mod listener;
mod socket;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, extract::Request, response::Response};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tower::Service;

pub use self::listener::PORT_DEFAULT;
use self::socket::{Socket, Stream};
use crate::{Error, state};

/// Most connections at once. More wait in the kernel's queue until one ends.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Longest wait for the head of a request, on a new connection and between two requests: so long may a client or
/// a gateway keep an idle connection. It is above the usual idle time of a proxy's pool, since a connection that
/// both ends may close can lose a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest wait for requests under way when the service is asked to leave.
pub const DRAIN: Duration = Duration::from_secs(30);
/// After the last accept, connections get so long to be read once before the idle ones are closed: a request
/// that had reached this machine before the signal is answered.
const LAST_READ: Duration = Duration::from_millis(20);
/// Pause after an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How far the service is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Closing,
    Draining,
    CutOff,
}

/// Serves a router until SIGTERM or SIGINT, then answers what is under way and returns.
///
/// It listens on the socket that was passed as file descriptor 3 when `LISTEN_FDS` says so (`sd_listen_fds(3)`),
/// else on the unix socket `$SOCKET`, else on `127.0.0.1:$PORT`, else on port [`PORT_DEFAULT`]. A handler that panics is answered with 500.
///
/// Before it listens, the caches of [`State::from_env`](crate::State::from_env) are warmed up
/// ([`State::warm_up`](crate::State::warm_up)), which takes two seconds at most.
///
/// Draining takes at most [`DRAIN`]; what is not answered by then is cut off, and the log says how much. A second
/// signal cuts it off at once.
pub async fn serve(app: Router) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let caches = state::caches_of_env();
    if let Some(caches) = &caches {
        caches.warm_up().await;
    }
    let listener = listener::open()?;
    let (socket, inherited) = (listener.socket, listener.inherited);
    if let Ok(place) = socket.place() {
        tracing::info!("listening on {place}");
    }
    run(socket, inherited, app, async || signals.next().await).await;
    if let Some(caches) = &caches {
        caches.report_hot_keys().await;
    }
    Ok(())
}

/// `asked` ends each time that the service is asked to leave; dropped while it waits, it misses nothing.
async fn run<S>(socket: Socket, inherited: bool, app: S, mut asked: impl AsyncFnMut())
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (phase, watched) = watch::channel(Phase::Serving);
    let begin = |stream, place| start(stream, app.clone(), watched.clone(), place);
    loop {
        tokio::select! {
            (stream, place) = accept(&socket, &places) => begin(stream, place),
            () = asked() => break,
        }
    }
    phase.send_replace(Phase::Closing);
    match inherited {
        // It may be shared with other workers, who will take what waits.
        true => drop(socket),
        // Closing the socket would reset what waits, so that comes in first.
        false => close(socket, &places).into_iter().for_each(|(stream, place)| begin(stream, place)),
    }
    let connections = || CONNECTIONS_MAX - places.available_permits();
    tracing::info!(connections = connections(), "draining");
    tokio::time::sleep(LAST_READ).await;
    drop(watched);
    phase.send_replace(Phase::Draining);
    let cut_off = tokio::select! {
        () = phase.closed() => return tracing::info!("drained"),
        () = tokio::time::sleep(DRAIN) => "they took too long",
        () = asked() => "asked again",
    };
    tracing::warn!(connections = connections(), "cutting off requests under way: {cut_off}");
    phase.send_replace(Phase::CutOff);
    phase.closed().await;
}

fn start<S>(stream: Stream, app: S, phase: watch::Receiver<Phase>, place: OwnedSemaphorePermit)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    tokio::spawn(async move {
        match stream {
            Stream::Tcp(stream) => match stream.set_nodelay(true) {
                Ok(()) => connection::serve(stream, app, phase).await,
                // The client has gone already.
                Err(error) => tracing::debug!(%error, "a connection ended at once"),
            },
            Stream::Unix(stream) => connection::serve(stream, app, phase).await,
        }
        drop(place);
    });
}

/// The next connection, when there is a place for it. Cancellation safe.
async fn accept(socket: &Socket, places: &Arc<Semaphore>) -> (Stream, OwnedSemaphorePermit) {
    let place = match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        // Nobody closes the semaphore.
        Err(_) => std::future::pending().await,
    };
    loop {
        match socket.accept().await {
            Ok(stream) => return (stream, place),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What has already arrived at the socket, as far as there are places; then closes it.
fn close(socket: Socket, places: &Arc<Semaphore>) -> Vec<(Stream, OwnedSemaphorePermit)> {
    let mut arrived = Vec::new();
    let Ok(mut next) = socket.into_arrivals() else { return arrived };
    while let Ok(place) = Arc::clone(places).try_acquire_owned() {
        match next() {
            Ok(stream) => arrived.push((stream, place)),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => break,
        }
    }
    arrived
}

/// Whether the error is about a client that has gone, and not about the socket (`accept(2)`, "Error handling").
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream, UnixListener, UnixStream},
        sync::mpsc,
    };

    use super::*;

    /// A socket of its own, and a client that has sent `head` to it.
    async fn client(head: &str) -> (Socket, TcpStream) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        (Socket::Tcp(socket), client)
    }

    /// The signal comes before anything is accepted.
    #[tokio::test]
    async fn what_has_arrived_at_a_unix_socket_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("its.sock");
        let socket = Socket::Unix(UnixListener::bind(&path).unwrap());
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = UnixStream::connect(&path).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            clients.push(client);
        }
        let app = Router::new().route("/", get(async || "hello"));
        let mut asked = false;
        let asked = async || {
            if std::mem::replace(&mut asked, true) {
                pending::<()>().await;
            }
        };
        run(socket, false, app, asked).await;
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
        }
    }

    /// Once the request has begun, time jumps to the next timer whenever nothing else is left to do.
    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_off_after_the_drain() {
        let (socket, mut client) = client("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (begun, mut began) = mpsc::channel(1);
        let app = Router::new().route(
            "/",
            get(async move || {
                begun.send(()).await.unwrap();
                pending::<()>().await
            }),
        );
        let mut begin = None;
        run(socket, false, app, async || {
            if begin.is_some() {
                pending::<()>().await;
            }
            began.recv().await.unwrap();
            tokio::time::pause();
            begin = Some(tokio::time::Instant::now());
        })
        .await;
        assert!(begin.unwrap().elapsed() >= DRAIN);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty(), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_not_waited_for() {
        let (socket, mut client) = client("GET / HTTP/1.1\r\nhost: a\r\n").await;
        let server = tokio::spawn(run(socket, false, Router::new(), async || pending().await));
        let mut answer = Vec::new();
        // It ends, perhaps with a reset since the head was not read to its end.
        let _ = client.read_to_end(&mut answer).await;
        server.abort();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
    }
}
