//! The control API's client: what the verbs of the command line use, and what a Rust program can.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

use crate::{
    api::{
        Down, Interrupt, Kill, Line, Logs, Problem, Reloaded, Restarted, Scale, Scaled, Scaling, Status,
        Upgrade, Upgraded,
    },
    releases::{Begun, Deploy, Event, Release, Rollback},
    stop::Wish,
};

/// The longest answer that is read whole, and the longest line of a stream.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody serves the socket.
    #[error("no lethe answers at {}", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered that it did not do it; the text says why.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// The connection broke, as when `lethe` is killed meanwhile.
    #[error("the connection to lethe broke")]
    Broken(#[from] hyper::Error),
    /// It answered something that is not of this API, as another version may.
    #[error("lethe's answer cannot be read: {0}")]
    Answer(String),
    /// Its end could not be waited for.
    #[error("cannot wait for lethe to end")]
    Wait(#[source] io::Error),
}

/// A client of one running `lethe`. Each call opens a connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the control socket at `socket`; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// All there is to see.
    pub async fn status(&self) -> Result<Status, Error> {
        self.call(Method::GET, "/v1/status".into(), &()).await
    }

    /// Lines of the past and, with `follow`, those to come.
    pub async fn logs(&self, logs: &Logs) -> Result<Lines, Error> {
        let mut path = format!("/v1/logs?follow={}", logs.follow);
        if let Some(name) = &logs.name {
            path.push_str("&name=");
            path.push_str(&encode(name));
        }
        if let Some(lines) = logs.lines {
            path.push_str(&format!("&lines={lines}"));
        }
        let (response, _) = self.open(Method::GET, path, &()).await?;
        Ok(Lines {
            body: response.into_body(),
            buffer: BytesMut::new(),
            follow: logs.follow,
            of: PhantomData,
        })
    }

    /// Sends a signal to a worker's process group, without draining it.
    pub async fn kill(&self, instance: &str, signal: i32) -> Result<(), Error> {
        self.call(Method::POST, format!("/v1/workers/{}/kill", encode(instance)), &Kill { signal }).await
    }

    /// Drains a worker and replaces it; returns when it has ended.
    pub async fn drain(&self, instance: &str) -> Result<(), Error> {
        self.call(Method::POST, format!("/v1/workers/{}/drain", encode(instance)), &()).await
    }

    /// Sets the number of workers; returns when the new ones are ready and the surplus ones have ended. An error if a new
    /// one does not become ready: it stays and goes on trying.
    pub async fn scale(&self, service: &str, instances: u32) -> Result<Scaled, Error> {
        self.call(
            Method::POST,
            format!("/v1/services/{}/scale", encode(service)),
            &Scale { instances: Some(instances), auto: false },
        )
        .await
    }

    /// Lets load decide again how many workers a service has.
    pub async fn scale_by_load(&self, service: &str) -> Result<Scaled, Error> {
        let path = format!("/v1/services/{}/scale", encode(service));
        self.call(Method::POST, path, &Scale { instances: None, auto: true }).await
    }

    /// How it is decided how many workers a service has, and what was decided last.
    pub async fn scaling(&self, service: &str) -> Result<Scaling, Error> {
        self.call(Method::GET, format!("/v1/services/{}/scaling", encode(service)), &()).await
    }

    /// What the decision of this number was taken from: a case for `lethe simulate`.
    pub async fn scaling_case(&self, service: &str, number: u64) -> Result<serde_json::Value, Error> {
        self.call(Method::GET, format!("/v1/services/{}/scaling/{number}", encode(service)), &()).await
    }

    /// Tells a number by which a service is scaled, such as `17`, `0.5` or `5k`.
    pub async fn tell_metric(&self, service: &str, metric: &str, number: &str) -> Result<(), Error> {
        let path = format!("/v1/services/{}/metrics/{}", encode(service), encode(metric));
        self.call(Method::PUT, path, &number).await
    }

    /// Replaces all workers of a service, one after the other; returns how many.
    pub async fn restart(&self, service: &str) -> Result<u32, Error> {
        let path = format!("/v1/services/{}/restart", encode(service));
        let done: Restarted = self.call(Method::POST, path, &()).await?;
        Ok(done.replaced)
    }

    /// Has the configuration read again; returns what is different when all of it has taken effect.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.call(Method::POST, "/v1/reload".into(), &()).await
    }

    /// Has another program take over; returns when it is in charge.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<Upgraded, Error> {
        self.call(Method::POST, "/v1/upgrade".into(), upgrade).await
    }

    /// Begins to roll out a new release; [`Client::rollout`] tells how it goes.
    pub async fn deploy(&self, service: &str, deploy: &Deploy) -> Result<Begun, Error> {
        self.call(Method::POST, format!("/v1/services/{}/deploy", encode(service)), deploy).await
    }

    /// Begins to go back; [`Client::rollout`] tells how it goes.
    pub async fn rollback(&self, service: &str, rollback: &Rollback) -> Result<Begun, Error> {
        self.call(Method::POST, format!("/v1/services/{}/rollback", encode(service)), rollback).await
    }

    /// What has happened in the last rollout of a service, and what will until it ends.
    pub async fn rollout(&self, service: &str) -> Result<Lines<Event>, Error> {
        let path = format!("/v1/services/{}/rollout", encode(service));
        let (response, _) = self.open(Method::GET, path, &()).await?;
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), follow: true, of: PhantomData })
    }

    /// The rollouts of a service, the oldest first.
    pub async fn history(&self, service: &str) -> Result<Vec<Release>, Error> {
        self.call(Method::GET, format!("/v1/services/{}/history", encode(service)), &()).await
    }

    /// Asks `lethe` to stop; returns when its process has ended.
    pub async fn down(&self, how: Wish) -> Result<(), Error> {
        let (_, pid) = self.open(Method::POST, "/v1/down".into(), &Down { how }).await?;
        if let Some(pid) = pid {
            ended(pid).await.map_err(Error::Wait)?;
        }
        Ok(())
    }

    /// Tells `lethe` that its machine is to go; returns when its process has ended.
    pub async fn interrupt(&self, interrupt: Interrupt) -> Result<(), Error> {
        let (_, pid) = self.open(Method::POST, "/v1/interrupt".into(), &interrupt).await?;
        if let Some(pid) = pid {
            ended(pid).await.map_err(Error::Wait)?;
        }
        Ok(())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let (response, _) = self.open(method, path, body).await?;
        let nothing = response.status() == StatusCode::NO_CONTENT;
        let whole = whole(response).await?;
        let json: &[u8] = if nothing { b"null" } else { &whole };
        serde_json::from_slice(json).map_err(|error| Error::Answer(error.to_string()))
    }

    /// Sends a request and returns its answer's head, with the process that gave it as the kernel knows it.
    async fn open(
        &self,
        method: Method,
        path: String,
        body: &impl Serialize,
    ) -> Result<(Response<Incoming>, Option<Peer>), Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Connect { socket: self.socket.clone(), source })?;
        // Opened before the request is sent, while the process is there for sure and its number is its own.
        let peer = peer(&stream);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its error is also the request's; it ends with the response's body or when that is dropped.
        tokio::spawn(connection);
        let body = serde_json::to_vec(body).map_err(|error| Error::Answer(error.to_string()))?;
        let body = if body == b"null" { Bytes::new() } else { body.into() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lethe")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Answer(error.to_string()))?;
        let response = sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok((response, peer));
        }
        let whole = whole(response).await?;
        let problem = serde_json::from_slice(&whole);
        Err(problem.map_or_else(|error| Error::Answer(error.to_string()), Error::Problem))
    }
}

/// Lines as they come.
pub struct Lines<T = Line> {
    body: Incoming,
    buffer: BytesMut,
    follow: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next line; `None` at their end, which with `follow` is the end of that `lethe`. Cancellation safe.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let json = self.buffer.split_to(end);
                self.buffer.advance(1);
                let line = serde_json::from_slice(&json).map_err(|error| Error::Answer(error.to_string()))?;
                return Ok(Some(line));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(Error::Answer("a line is too long".into()));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = match frame {
                // Lines that are followed end with that `lethe`, however it ends.
                Err(_) if self.follow => return Ok(None),
                frame => frame?,
            };
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

type Peer = std::os::fd::OwnedFd;

fn peer(stream: &UnixStream) -> Option<Peer> {
    let pid = Pid::from_raw(stream.peer_cred().ok()?.pid()?)?;
    pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
}

/// Waits for the end of a process: its pidfd becomes readable (pidfd_open(2)).
async fn ended(process: Peer) -> io::Result<()> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, which `AsyncFd` does last.
    let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
    process.readable().await?.retain_ready();
    Ok(())
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Error> {
    let limited = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let whole = limited.collect().await.map_err(|error| Error::Answer(error.to_string()))?;
    Ok(whole.to_bytes())
}

/// Percent-encodes a path segment or a query's value (RFC 3986, section 2.1), all but the unreserved characters.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}
