//! One connection that many calls share, in frames (see [`crate::frames`]). A task moves the bytes: it sends in one piece what
//! was asked since it last looked, and gives each answer to whoever waits for it. It ends with the connection, or with the
//! runtime that it was opened on.

use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    io,
    path::Path,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use super::{
    call::{Answer, Call},
    connection::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT},
};
use crate::frames::{self, PATH, PROTOCOL};

/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;
/// Most bytes of the answer to the upgrade.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The connection, as calls see it. Clones share it; it is closed when the last of them is gone and no call waits.
#[derive(Clone)]
pub(super) struct Line(Arc<Handle>);

struct Handle(Arc<Shared>);

/// Why a call has no answer.
pub(super) struct Unanswered {
    /// The reason.
    pub(super) text: String,
    /// Whether it is certain that it was not done.
    pub(super) is_undone: bool,
}

/// What came of opening one.
pub(super) enum Opened {
    Line(Line),
    /// The other side answers, but not in frames.
    HttpOnly,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Wakes the task.
    mover: AtomicWaker,
}

#[derive(Default)]
struct Desk {
    /// What was asked and not yet taken by the task.
    out: BytesMut,
    /// Bytes of calls, from the first one's on.
    asked_bytes: u64,
    last: u64,
    waiting: HashMap<u64, Waiting>,
    /// Why it takes no more calls.
    closed: Option<&'static str>,
}

struct Waiting {
    answer: oneshot::Sender<Result<Answer, Unanswered>>,
    /// Where its frame ends among the bytes of all.
    end: u64,
    /// Kept until the other side is done with it, also when nobody waits for the answer any more.
    _turn: OwnedSemaphorePermit,
}

impl Line {
    /// Connects to the socket `path`.
    pub(super) async fn open(path: &Path) -> io::Result<Opened> {
        let open = async {
            let mut stream = UnixStream::connect(path).await?;
            let upgrade = format!(
                "GET {PATH} HTTP/1.1\r\nhost: lethe\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n"
            );
            stream.write_all(upgrade.as_bytes()).await?;
            let mut read = BytesMut::with_capacity(READ_BYTES);
            let end = loop {
                if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
                if read.len() > HEAD_BYTES_MAX || stream.read_buf(&mut read).await? == 0 {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            };
            let is_agreed = read.starts_with(b"HTTP/1.1 101 ");
            read.advance(end);
            Ok(is_agreed.then_some((stream, read)))
        };
        let opened =
            timeout(CONNECT_TIMEOUT, open).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
        let Some((stream, read)) = opened.flatten()? else { return Ok(Opened::HttpOnly) };
        let shared = Arc::new(Shared { desk: Mutex::default(), mover: AtomicWaker::new() });
        let why = "its runtime has ended".into();
        let mover = Mover {
            stream,
            read,
            out: BytesMut::new(),
            sent_bytes: 0,
            unwritable: None,
            shared: shared.clone(),
            why,
        };
        tokio::spawn(mover.run());
        Ok(Opened::Line(Self(Arc::new(Handle(shared)))))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Whether it takes calls.
    pub(super) fn is_open(&self) -> bool {
        self.shared().desk().closed.is_none()
    }

    /// Takes no more calls; those that wait may still be answered.
    pub(super) fn close(&self) {
        self.shared().close("a call on it took too long");
    }

    /// Makes a call. Gives it back, with its turn, where it has no place in a frame. Dropped before the task has sent it, it may
    /// be done all the same.
    pub(super) async fn ask(&self, call: &Call, turn: OwnedSemaphorePermit) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        {
            let mut desk = self.shared().desk();
            if let Some(why) = desk.closed {
                return Err(Unanswered { text: why.into(), is_undone: true });
            }
            let (number, before) = (desk.last + 1, desk.out.len());
            if call.write(&mut desk.out, number).is_none() {
                desk.out.truncate(before);
                return Err(Unanswered { text: "the call has no place in a frame".into(), is_undone: true });
            }
            desk.last = number;
            desk.asked_bytes += (desk.out.len() - before) as u64;
            let end = desk.asked_bytes;
            desk.waiting.insert(number, Waiting { answer, end, _turn: turn });
        }
        self.shared().mover.wake();
        let _wakes = Wakes(self.shared());
        answered.await.unwrap_or_else(|_| {
            Err(Unanswered { text: "the connection was given up".into(), is_undone: false })
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close("it is not used any more");
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, why: &'static str) {
        self.desk().closed.get_or_insert(why);
        self.mover.wake();
    }
}

/// Lets the task look whether anybody still waits, when a call is dropped.
struct Wakes<'a>(&'a Shared);

impl Drop for Wakes<'_> {
    fn drop(&mut self) {
        if self.0.desk().closed.is_some() {
            self.0.mover.wake();
        }
    }
}

/// The task's part.
struct Mover {
    stream: UnixStream,
    read: BytesMut,
    out: BytesMut,
    /// Bytes that the kernel has taken.
    sent_bytes: u64,
    /// Why nothing can be sent any more.
    unwritable: Option<String>,
    shared: Arc<Shared>,
    /// Why the connection is over, once it is.
    why: String,
}

impl Mover {
    async fn run(mut self) {
        self.why = poll_fn(|cx| self.poll(cx)).await;
    }

    /// Ends with why the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.shared.mover.register(cx.waker());
        if self.unwritable.is_none() {
            self.unwritable = self.write(cx).err();
        }
        if self.unwritable.is_some() {
            self.shared.desk().closed.get_or_insert("the connection has ended");
        }
        // Who cannot be written to any more may have said much before it closed: answers, and that it leaves.
        if let Err(why) = self.answers(cx) {
            return Poll::Ready(self.unwritable.take().unwrap_or(why));
        }
        let desk = self.shared.desk();
        match desk.closed {
            Some(why) if desk.waiting.values().all(|waiting| waiting.answer.is_closed()) => {
                Poll::Ready(why.into())
            }
            _ => Poll::Pending,
        }
    }

    /// Writes what is there to be written, as far as it goes.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        loop {
            if self.out.is_empty() {
                std::mem::swap(&mut self.out, &mut self.shared.desk().out);
                if self.out.is_empty() {
                    return Ok(());
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(count)) => {
                    self.out.advance(count);
                    self.sent_bytes += count as u64;
                }
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    /// Hands out the answers that are there.
    fn answers(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        loop {
            while let Some(answer) = frames::take_answer(&mut self.read, ANSWER_BYTES_MAX)
                .map_err(|malformed| format!("the answer is no frame: {}", malformed.0))?
            {
                self.take(answer);
            }
            self.read.reserve(READ_BYTES);
            match pin!(self.stream.read_buf(&mut self.read)).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err("the connection was closed".into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    fn take(&mut self, answer: frames::Answer) {
        match answer {
            frames::Answer::Whole { number, status, headers, body } => {
                let waiting = self.shared.desk().waiting.remove(&number);
                if let Some(waiting) = waiting {
                    // Whoever has left does not want it.
                    let _ = waiting.answer.send(Ok(Answer { status, headers, body }));
                }
            }
            frames::Answer::Leaving { last } => {
                let mut desk = self.shared.desk();
                desk.closed = Some("the other side ends");
                let undone = desk.waiting.extract_if(|number, _| *number > last).collect::<Vec<_>>();
                drop(desk);
                for (_, waiting) in undone {
                    let text = "the other side ended before the call".into();
                    let _ = waiting.answer.send(Err(Unanswered { text, is_undone: true }));
                }
            }
        }
    }
}

/// Also when the runtime drops the task: nobody waits for what will not come.
impl Drop for Mover {
    fn drop(&mut self) {
        let waiting = {
            let mut desk = self.shared.desk();
            desk.closed.get_or_insert("the connection has ended");
            std::mem::take(&mut desk.waiting)
        };
        for waiting in waiting.into_values() {
            // A frame of which the end was not sent was not read either.
            let is_undone = waiting.end > self.sent_bytes;
            let _ = waiting.answer.send(Err(Unanswered { text: self.why.clone(), is_undone }));
        }
    }
}
