//! One connection that many calls share, in frames (see [`crate::frames`]). A task moves the bytes: it sends in one piece what
//! was asked since it last looked, and gives each answer to whoever waits for it. While several calls are under way, it lets all
//! tasks that are ready to ask have their turn before it sends: a system call costs more than what is asked. It ends with the
//! connection, or with the runtime that it was opened on.

use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    hash::{BuildHasherDefault, Hasher},
    io,
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
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
    call::{Answer, Call, Headers},
    connection::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT},
};
use crate::frames::{self, PATH, PROTOCOL};

/// How much is read at a time.
const READ_BYTES: usize = 32 << 10;
/// With more calls under way than this, it is worth while to wake another thread of the runtime for them.
const MANY: usize = 16;
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
    /// Whether the desk is closed, to be seen without a lock.
    is_closed: AtomicBool,
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
    waiting: HashMap<u64, Waiting, BuildHasherDefault<Numbers>>,
    /// Why it takes no more calls.
    closed: Option<&'static str>,
}

impl Desk {
    /// How many calls are under way, if some of what they ask is still here.
    fn unsent(&self) -> usize {
        if self.out.is_empty() { 0 } else { self.waiting.len() }
    }
}

/// Hashes numbers that go up, which nobody chooses: as they are, spread over all bits.
#[derive(Default)]
struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
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
        let shared = Arc::new(Shared {
            desk: Mutex::default(),
            is_closed: AtomicBool::new(false),
            mover: AtomicWaker::new(),
        });
        let why = "its runtime has ended".into();
        let mover = Mover {
            stream,
            read,
            out: BytesMut::new(),
            sent_bytes: 0,
            unwritable: None,
            is_gathering: false,
            answered: Vec::new(),
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
        !self.shared().is_closed.load(SeqCst)
    }

    /// Takes no more calls; those that wait may still be answered.
    pub(super) fn close(&self) {
        self.shared().close("a call on it took too long");
    }

    /// Makes a call, which must have a place in a frame. Dropped before its answer has come, it may be done all the same, and has
    /// its turn until the other side is done with it.
    pub(super) async fn ask(&self, call: &Call, turn: OwnedSemaphorePermit) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        {
            let mut desk = self.shared().desk();
            if let Some(why) = desk.closed {
                return Err(Unanswered { text: why.into(), is_undone: true });
            }
            let (number, before) = (desk.last + 1, desk.out.len());
            if call.write(&mut desk.out, number).is_none() {
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
        self.close_desk(&mut self.desk(), why);
        self.mover.wake();
    }

    fn close_desk(&self, desk: &mut Desk, why: &'static str) {
        desk.closed.get_or_insert(why);
        self.is_closed.store(true, SeqCst);
    }
}

/// Lets the task look whether anybody still waits, when a call is dropped.
struct Wakes<'a>(&'a Shared);

impl Drop for Wakes<'_> {
    fn drop(&mut self) {
        if self.0.is_closed.load(SeqCst) {
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
    /// Whether it waits for what others, who are ready, have to ask.
    is_gathering: bool,
    /// What is to be given out, at most as much as is under way; empty in between.
    answered: Vec<(Waiting, Result<Answer, Unanswered>)>,
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
        if self.unwritable.is_none() && !self.gathers(cx) {
            self.unwritable = self.write(cx).err();
        }
        if self.unwritable.is_some() {
            self.shared.close_desk(&mut self.shared.desk(), "the connection has ended");
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

    /// Whether others have their turn before anything is sent; then this task comes behind all that are ready.
    fn gathers(&mut self, cx: &mut Context<'_>) -> bool {
        let waiting = if self.is_gathering || !self.out.is_empty() { 0 } else { self.shared.desk().unsent() };
        self.is_gathering = waiting > 1;
        if waiting > MANY {
            cx.waker().wake_by_ref();
        } else if self.is_gathering {
            // One that yields wakes no other thread of the runtime, as one that wakes itself does.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        self.is_gathering
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
            self.take()?;
            self.read.reserve(READ_BYTES);
            match pin!(self.stream.read_buf(&mut self.read)).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err("the connection was closed".into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    /// Gives out what was read. Callers are woken once the desk is free for what they ask next.
    fn take(&mut self) -> Result<(), String> {
        let (mut desk, mut result) = (self.shared.desk(), Ok(()));
        loop {
            match frames::take_answer(&mut self.read, ANSWER_BYTES_MAX) {
                Ok(Some(frames::Answer::Whole { number, status, headers, body })) => {
                    if let Some(waiting) = desk.waiting.remove(&number) {
                        let answer = Answer { status, headers: Headers::Framed(headers), body };
                        self.answered.push((waiting, Ok(answer)));
                    }
                }
                Ok(Some(frames::Answer::Leaving { last })) => {
                    desk.closed = Some("the other side ends");
                    self.shared.is_closed.store(true, SeqCst);
                    for (_, waiting) in desk.waiting.extract_if(|number, _| *number > last) {
                        let text = "the other side ended before the call".into();
                        self.answered.push((waiting, Err(Unanswered { text, is_undone: true })));
                    }
                }
                Ok(None) => break,
                Err(malformed) => {
                    result = Err(format!("the answer is no frame: {}", malformed.0));
                    break;
                }
            }
        }
        drop(desk);
        for (waiting, answer) in self.answered.drain(..) {
            // Whoever has left does not want it.
            let _ = waiting.answer.send(answer);
        }
        result
    }
}

/// Also when the runtime drops the task: nobody waits for what will not come.
impl Drop for Mover {
    fn drop(&mut self) {
        let waiting = {
            let mut desk = self.shared.desk();
            self.shared.close_desk(&mut desk, "the connection has ended");
            std::mem::take(&mut desk.waiting)
        };
        for waiting in waiting.into_values() {
            // A frame of which the end was not sent was not read either.
            let is_undone = waiting.end > self.sent_bytes;
            let _ = waiting.answer.send(Err(Unanswered { text: self.why.clone(), is_undone }));
        }
    }
}
