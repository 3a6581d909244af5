//! A connection that stays open, and what has come over it. It is read all the time, so that what comes while nobody waits is not lost,
//! and pings are answered.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    Error, Limits, event_stream,
    exchange::{self, Answer, Connection, Task},
    websocket::{self, Event, Kind},
};
use crate::{
    channel::{MESSAGES_BYTES_MAX, MESSAGES_MAX, Protocol},
    destination::Destination,
    observed,
};

/// Frames that wait to be written.
const OUTBOX: usize = 16;

/// A connection that stays open until this is dropped.
#[derive(Debug)]
pub(super) struct LiveConnection {
    inbox: Arc<Inbox>,
    /// `None` where nothing can be said.
    outbox: Option<mpsc::Sender<Vec<u8>>>,
    /// What reads, writes and drives it.
    _tasks: Vec<Task>,
}

#[derive(Debug, Default)]
struct Inbox {
    heard: Mutex<Heard>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    messages: VecDeque<String>,
    bytes: usize,
    /// Whether any went that nobody has looked at, since a message was found or all were forgotten.
    has_lost: bool,
    ended: Option<String>,
}

/// Why a message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It did not come in time.
    Late,
    /// Nothing comes any more, and why.
    Ended(String),
    /// It may have come: there were more messages than are kept.
    Flooded,
}

/// Fields with which a channel is asked for, beside those that the step has.
pub(super) fn ask(protocol: Protocol, host: &str, headers: &mut HeaderMap) {
    let mut default = |name: header::HeaderName, value: &str| {
        // A host is checked where it is read.
        if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    match protocol {
        Protocol::EventStream => {
            default(header::ACCEPT, "text/event-stream");
            default(header::CACHE_CONTROL, "no-cache");
        }
        Protocol::WebSocket => {
            default(header::CONNECTION, "Upgrade");
            default(header::UPGRADE, "websocket");
            default(header::SEC_WEBSOCKET_VERSION, "13");
            default(header::SEC_WEBSOCKET_KEY, &websocket::key());
            // Browsers always say it, and servers may ask for it.
            default(header::ORIGIN, &format!("http://{host}"));
        }
    }
}

impl LiveConnection {
    /// Opens it; without one the server has refused, and the answer is whole.
    pub(super) async fn open(
        request: Request<Full<Bytes>>,
        protocol: Protocol,
        destination: &Destination,
        limits: &Limits,
    ) -> Result<(Answer, Option<Self>), Error> {
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
        let connection = Connection::open(destination, limits.kept_max).await?;
        let begun = connection.begin(request).await;
        let (response, task) = begun.map_err(|failed| failed.error(destination))?;
        let head = |status, headers: &HeaderMap| {
            let mut headers = headers.clone();
            // Another one for each key, and checked here.
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            Answer { status, headers, body: Bytes::new(), is_cut: true }
        };
        match protocol {
            Protocol::WebSocket if is_accepted(response.status(), response.headers(), key.as_ref()) => {
                let answer = head(response.status(), response.headers());
                let lost =
                    |source| Error::Lost { destination: destination.name().into(), status: None, source };
                let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
                Ok((answer, Some(Self::of_socket(upgraded))))
            }
            Protocol::EventStream if is_stream(response.status(), response.headers()) => {
                let answer = head(response.status(), response.headers());
                Ok((answer, Some(Self::of_events(response.into_body(), task))))
            }
            _ => {
                let answer = exchange::whole(response, limits).await;
                Ok((answer.map_err(|failed| failed.error(destination))?, None))
            }
        }
    }

    fn of_socket(upgraded: Upgraded) -> Self {
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let (outbox, frames) = mpsc::channel(OUTBOX);
        let inbox = Arc::<Inbox>::default();
        let tasks = vec![
            Task::spawn(read_socket(reader, Arc::clone(&inbox), outbox.clone())),
            Task::spawn(write_socket(writer, frames)),
        ];
        Self { inbox, outbox: Some(outbox), _tasks: tasks }
    }

    fn of_events(body: Incoming, connection: Task) -> Self {
        let inbox = Arc::<Inbox>::default();
        let tasks = vec![connection, Task::spawn(read_events(body, Arc::clone(&inbox)))];
        Self { inbox, outbox: None, _tasks: tasks }
    }

    /// Says something; waits for as long as the other end does not read what was said before. The error says why it cannot be said, in
    /// words.
    pub(super) async fn say(&self, text: &str) -> Result<(), String> {
        let ended = || self.inbox.ended().unwrap_or_else(|| "takes nothing any more".into());
        if self.inbox.ended().is_some() {
            return Err(ended());
        }
        let outbox = self.outbox.as_ref().ok_or_else(|| "cannot be written to".to_owned())?;
        outbox.send(websocket::frame(Kind::Text, text.as_bytes())).await.map_err(|_| ended())
    }

    /// Waits for a message with `text` in it, which may have come before; that one and those before it are taken. `Err` if there is none
    /// by then, or nothing comes any more.
    ///
    /// Cancelled, it has taken nothing.
    pub(super) async fn arrival(&self, text: &str, until: Instant) -> Result<String, Silence> {
        loop {
            let changed = self.inbox.changed.notified();
            match self.inbox.take(text) {
                Ok(message) => return Ok(message),
                Err(Silence::Late) => {
                    tokio::time::timeout_at(until, changed).await.map_err(|_| self.inbox.silence())?;
                }
                Err(silence) => return Err(silence),
            }
        }
    }

    /// Forgets what has come by now.
    pub(super) fn forget(&self) {
        self.inbox.forget();
    }
}

impl Inbox {
    fn put(&self, message: String) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.bytes += message.len();
        heard.messages.push_back(message);
        while heard.messages.len() > MESSAGES_MAX || heard.bytes > MESSAGES_BYTES_MAX {
            let Some(oldest) = heard.messages.pop_front() else { break };
            heard.bytes -= oldest.len();
            heard.has_lost = true;
        }
        drop(heard);
        self.changed.notify_one();
    }

    fn end(&self, why: String) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(why);
        self.changed.notify_one();
    }

    fn ended(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).ended.clone()
    }

    fn forget(&self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = Heard { ended: heard.ended.take(), ..Heard::default() };
    }

    /// Why a message that was waited for long enough has not come.
    fn silence(&self) -> Silence {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.has_lost { Silence::Flooded } else { Silence::Late }
    }

    /// [`Silence::Late`] is that it may come yet.
    fn take(&self, text: &str) -> Result<String, Silence> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = heard.messages.iter().position(|message| message.contains(text)) else {
            return Err(match &heard.ended {
                Some(_) if heard.has_lost => Silence::Flooded,
                Some(why) => Silence::Ended(why.clone()),
                None => Silence::Late,
            });
        };
        heard.has_lost = false;
        let taken: Vec<String> = heard.messages.drain(..=at).collect();
        heard.bytes -= taken.iter().map(String::len).sum::<usize>();
        taken.into_iter().next_back().ok_or(Silence::Late)
    }
}

fn is_accepted(status: StatusCode, headers: &HeaderMap, key: Option<&HeaderValue>) -> bool {
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    let is_right = accept.is_some_and(|accept| accept.as_bytes() == websocket::accept(key).as_bytes());
    status == StatusCode::SWITCHING_PROTOCOLS && is_right
}

fn is_stream(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && observed::content_type(headers).as_deref() == Some("text/event-stream")
}

async fn read_socket(
    mut reader: ReadHalf<TokioIo<Upgraded>>,
    inbox: Arc<Inbox>,
    outbox: mpsc::Sender<Vec<u8>>,
) {
    let mut decoder = websocket::Decoder::default();
    let why = loop {
        match decoder.next() {
            Ok(Some(Event::Message(text))) => inbox.put(text),
            // Who does not read what is said need not be answered, and is heard all the same.
            Ok(Some(Event::Ping(payload))) => {
                drop(outbox.try_send(websocket::frame(Kind::Pong, &payload)));
            }
            Ok(Some(Event::Close(code))) => {
                let payload = code.map(u16::to_be_bytes);
                let payload = payload.as_ref().map_or(&[][..], |code| code);
                drop(outbox.try_send(websocket::frame(Kind::Close, payload)));
                let code = code.map(|code| format!(" with code {code}")).unwrap_or_default();
                break format!("was closed by the service{code}");
            }
            Ok(None) => match reader.read_buf(&mut decoder.bytes).await {
                Ok(0) => break "has broken off".into(),
                Ok(_) => {}
                Err(error) => break format!("has broken off: {error}"),
            },
            Err(why) => break format!("was given up: the service {why}"),
        }
    };
    inbox.end(why);
}

async fn write_socket(mut writer: WriteHalf<TokioIo<Upgraded>>, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            break;
        }
    }
}

async fn read_events(mut body: Incoming, inbox: Arc<Inbox>) {
    let mut decoder = event_stream::Decoder::default();
    let why = loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => break format!("has broken off: {error}"),
            None => break "was ended by the service".into(),
        };
        let Ok(data) = frame.into_data() else { continue };
        match decoder.push(&data) {
            Ok(events) => events.into_iter().for_each(|event| inbox.put(event)),
            Err(why) => break format!("was given up: the service {why}"),
        }
    };
    inbox.end(why);
}

/// When something that begins now and may take so long is late.
pub(super) fn until(within: Duration) -> Instant {
    Instant::now() + within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_for_want_of_room_is_not_missing() {
        let inbox = Inbox::default();
        inbox.put("first".into());
        assert_eq!((inbox.take("second"), inbox.silence()), (Err(Silence::Late), Silence::Late));
        for number in 0..MESSAGES_MAX {
            inbox.put(number.to_string());
        }
        assert_eq!((inbox.take("first"), inbox.silence()), (Err(Silence::Late), Silence::Flooded));
        inbox.end("has ended".into());
        assert_eq!(inbox.take("first"), Err(Silence::Flooded));
        // What is found is younger than all that went.
        assert_eq!(inbox.take("7"), Ok("7".into()));
        assert_eq!(inbox.take("first"), Err(Silence::Ended("has ended".into())));
        inbox.forget();
        assert_eq!(inbox.take("8"), Err(Silence::Ended("has ended".into())));
    }
}
