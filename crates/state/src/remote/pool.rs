//! The connections to the state API, which are kept and shared, and the rules of trying again: a request is
//! sent anew only if it changes nothing or was certainly not done.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

use super::{
    call::{Answer, Call},
    connection::Connection,
    line::{Line, Opened},
};
use crate::{error::Error, frames};

/// Most calls over HTTP at one time, apart from the streams of blobs.
const CALLS_MAX: usize = 32;
/// Most blobs that are written at one time.
const UPLOADS_MAX: usize = 32;
/// Most blobs that are read at one time.
const DOWNLOADS_MAX: usize = 64;
/// Most feeds at one time.
const FEEDS_MAX: usize = 128;
/// How long a call waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections that are kept while there is nothing to send.
const IDLE_MAX: usize = 16;
/// How long they are kept: less than the other side does, so that no request meets a connection as it closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long another side that does not know frames is believed not to.
const HTTP_ONLY_FOR: Duration = Duration::from_secs(60);
/// How long calls are tried again while the other process is not there.
const RETRY_WINDOW: Duration = Duration::from_secs(2);
/// The first wait before trying again; each further one is twice as long, up to the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// What a connection is taken for. Each has its own bound, so that a copy, which reads while it writes, cannot wait
/// for itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Framed,
    Call,
    Upload,
    Download,
}

/// The connections to one socket.
pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Idle>>,
    /// The connection that calls share.
    line: Mutex<Option<Line>>,
    /// Held by whoever opens it.
    opening: tokio::sync::Mutex<Opening>,
    is_http_only: bool,
    framed: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
}

/// What came of opening the connection that calls share.
#[derive(Default)]
struct Opening {
    /// Until when it need not be tried, since the other side knows HTTP only.
    http_only_until: Option<Instant>,
    /// When it failed the last time, and why.
    failed: Option<(Instant, String)>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            line: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            is_http_only: false,
            framed: Arc::new(Semaphore::new(frames::CALLS_MAX)),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
        }
    }

    /// One that never has calls share a connection.
    pub(super) fn over_http(path: PathBuf) -> Self {
        Self { is_http_only: true, ..Self::new(path) }
    }

    /// Waits for leave to have one more connection in use, or one more call on that which calls share.
    pub(super) async fn turn(&self, purpose: Purpose) -> Result<OwnedSemaphorePermit, Error> {
        let semaphore = match purpose {
            Purpose::Framed => &self.framed,
            Purpose::Call => &self.calls,
            Purpose::Upload => &self.uploads,
            Purpose::Download => &self.downloads,
        };
        if let Ok(turn) = Arc::clone(semaphore).try_acquire_owned() {
            return Ok(turn);
        }
        match timeout(TURN_TIMEOUT, Arc::clone(semaphore).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable(format!(
                "all connections to {} were busy for {} s",
                self.path.display(),
                TURN_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Leave to have one more feed, which nobody waits for: feeds stay.
    pub(super) fn feed(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.feeds)
            .try_acquire_owned()
            .map_err(|_| self.unavailable(&format!("there are {FEEDS_MAX} feeds already")))
    }

    /// A connection that takes a request now: one that was kept, else a new one. Tries for a while when the other
    /// process is not there.
    pub(super) async fn connection(&self, retry: &mut Retry) -> Result<Connection, Error> {
        while let Some(mut kept) = self.take_idle() {
            if kept.ready().await {
                return Ok(kept);
            }
        }
        loop {
            match Connection::open(&self.path).await {
                Ok(mut connection) => {
                    if connection.ready().await {
                        return Ok(connection);
                    }
                    retry.after("the connection was closed at once", self).await?;
                }
                Err(error) if is_passing(&error) => retry.after(&error.to_string(), self).await?,
                Err(error) => return Err(self.unavailable(&error.to_string())),
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Makes a call, and gives the answer whatever its status. Cancellation safe in the sense of the traits.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, Error> {
        let mut retry = Retry::default();
        if !self.is_http_only && call.has_place_in_a_frame() {
            while let Some(line) = self.line(&mut retry).await? {
                let turn = self.turn(Purpose::Framed).await?;
                match timeout(ANSWER_TIMEOUT, line.ask(call, turn)).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(lost)) if call.is_repeatable() || lost.is_undone => {
                        retry.after(&lost.text, self).await?;
                    }
                    Ok(Err(lost)) => return Err(self.unknown(&lost.text)),
                    Err(_) => {
                        line.close();
                        return Err(self.no_answer());
                    }
                }
            }
        }
        let _turn = self.turn(Purpose::Call).await?;
        loop {
            let mut connection = self.connection(&mut retry).await?;
            match timeout(ANSWER_TIMEOUT, connection.ask(call.request())).await {
                Ok(Ok(answer)) => {
                    self.keep(connection);
                    return Ok(answer);
                }
                Ok(Err(lost)) if call.is_repeatable() || lost.unsent.is_some() => {
                    retry.after(&lost.text, self).await?
                }
                Ok(Err(lost)) => return Err(self.unknown(&lost.text)),
                Err(_) => return Err(self.no_answer()),
            }
        }
    }

    /// The connection that calls share, opened anew if need be; `None` where the other side has no such. Of those who need it at one
    /// time, one opens it, and its failure is that of all: nobody waits for the attempts of others one after the other.
    async fn line(&self, retry: &mut Retry) -> Result<Option<Line>, Error> {
        loop {
            if let Some(line) = self.open_line() {
                return Ok(Some(line));
            }
            let asked = Instant::now();
            let mut opening = self.opening.lock().await;
            // Somebody else may have opened it meanwhile.
            if let Some(line) = self.open_line() {
                return Ok(Some(line));
            }
            if opening.http_only_until.is_some_and(|until| Instant::now() < until) {
                return Ok(None);
            }
            // What failed before this call was asked says nothing of now.
            opening.failed.take_if(|(at, _)| *at < asked);
            if opening.failed.is_none() {
                match Line::open(&self.path).await {
                    Ok(Opened::Line(line)) => {
                        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
                        return Ok(Some(line));
                    }
                    Ok(Opened::HttpOnly) => {
                        opening.http_only_until = Some(Instant::now() + HTTP_ONLY_FOR);
                        return Ok(None);
                    }
                    Err(error) if is_passing(&error) => {
                        opening.failed = Some((Instant::now(), error.to_string()));
                    }
                    Err(error) => return Err(self.unavailable(&error.to_string())),
                }
            }
            let why = opening.failed.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
            drop(opening);
            retry.after(&why, self).await?;
        }
    }

    fn open_line(&self) -> Option<Line> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.as_ref().filter(|line| line.is_open()).cloned()
    }

    fn no_answer(&self) -> Error {
        self.unknown(&format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
    }

    /// The error for a request that nothing came of.
    pub(super) fn unavailable(&self, text: &str) -> Error {
        Error::Unavailable(format!("{}: {text}", self.path.display()))
    }

    /// The error for a request that was sent and not answered.
    pub(super) fn unknown(&self, text: &str) -> Error {
        Error::Unavailable(format!(
            "{}: {text}; a write that was under way may have taken effect or not",
            self.path.display()
        ))
    }

    /// The connection that was used last, as it is the likeliest to be open. Older ones than it are dropped if it is
    /// too old itself.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let last = idle.pop()?;
        if last.since.elapsed() < IDLE_TIMEOUT {
            return Some(last.connection);
        }
        idle.clear();
        None
    }
}

/// Whether the other process may only be starting: its socket is not there yet, nobody listens on it, or its queue of
/// connections is full.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | WouldBlock | TimedOut
    )
}

/// How often one call was tried.
#[derive(Default)]
pub(super) struct Retry {
    until: Option<Instant>,
    backoff: Duration,
}

impl Retry {
    /// Waits before the next try, or fails when the time for trying is over. `why` is what went wrong last.
    pub(super) async fn after(&mut self, why: &str, pool: &Pool) -> Result<(), Error> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + RETRY_WINDOW);
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        if Instant::now() + self.backoff > until {
            let text = format!(
                "{why}, and trying again for {} s was in vain; is lethe running?",
                RETRY_WINDOW.as_secs()
            );
            return Err(pool.unavailable(&text));
        }
        sleep(self.backoff).await;
        Ok(())
    }
}
