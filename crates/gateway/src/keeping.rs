//! The client's side of a request that is done once: its answer is gathered, told to the ledger, and only then given to the
//! client. So a client that leaves changes nothing, and a worker that is lost half-way has shown nothing.
//!
//! Gathering → Telling → Giving. What is too large to be kept, or has no end, is told as that, and from then on passed on.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use crate::{
    allowance::Fields,
    body_budget::Share,
    downstream::{Answer, Broken, Downstream, Piece},
    exchange::PASSING_BYTES,
    ledger::{self, Ending, Turn},
    record::Record,
};

/// Fields that are of one answer alone, beside those that tell how a client stands.
const OF_ONE_ANSWER: [&[u8]; 3] = [b"x-request-id", b"server-timing", b"via"];

/// An answer that says that nobody knows the outcome is kept up to this size in any case; those of the gateway are smaller.
const UNKNOWN_BYTES_MAX: usize = 4 << 10;

/// A client whose answer is kept before it is given.
pub(crate) struct Keeping<'a, D> {
    down: &'a mut D,
    record: &'a Record,
    /// How the client stands with the limits of the route, which is told by these fields.
    standing: &'a Fields,
    step: Step,
    head: Head,
    body: Vec<u8>,
    body_bytes_max: usize,
    memory: Memory,
    /// So much of `body` was given.
    given: usize,
}

/// How far it is.
enum Step {
    Gathering(Box<dyn Turn>),
    Telling(Pin<Box<dyn Future<Output = ()>>>),
    Giving,
}

/// The head of the answer.
#[derive(Default)]
struct Head {
    status: u16,
    reason: Vec<u8>,
    fields: Fields,
    length: Option<u64>,
    has_body: bool,
    close: bool,
    /// Nobody may wait for its end.
    is_endless: bool,
    /// It says that nobody knows whether the request was carried out.
    is_unknown: bool,
}

/// What the body takes of the memory for responses that are held, where it takes any.
struct Memory {
    share: Rc<Share>,
    bytes: usize,
}

impl Memory {
    /// Whether there is room for a body of so many bytes; a small one costs nothing, as with every response that is held.
    fn has_room(&mut self, bytes: usize) -> bool {
        let missing = if bytes > PASSING_BYTES { bytes.saturating_sub(self.bytes) } else { 0 };
        let is_there = self.share.take(missing);
        self.bytes += if is_there { missing } else { 0 };
        is_there
    }

    fn give_back(&mut self) {
        self.share.give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<'a, D: Downstream> Keeping<'a, D> {
    /// For a request whose `turn` it is. Of its answer's body at most so much is kept.
    pub(crate) fn new(
        down: &'a mut D,
        turn: Box<dyn Turn>,
        body_bytes_max: usize,
        share: &Rc<Share>,
        (record, standing): (&'a Record, &'a Fields),
    ) -> Self {
        Self {
            down,
            record,
            standing,
            step: Step::Gathering(turn),
            head: Head::default(),
            body: Vec::new(),
            body_bytes_max,
            memory: Memory { share: Rc::clone(share), bytes: 0 },
            given: 0,
        }
    }

    /// Ready when the ledger knows how it ended, and then the client gets its head.
    fn poll_told(&mut self, cx: &mut Context<'_>, is_whole: bool) -> Poll<()> {
        loop {
            match std::mem::replace(&mut self.step, Step::Giving) {
                Step::Gathering(turn) => {
                    let Head { status, is_unknown, .. } = self.head;
                    let ending = if is_whole {
                        Ending::Whole(self.answer())
                    } else {
                        Ending::Unkept { status, is_unknown }
                    };
                    self.step = Step::Telling(turn.end(ending));
                }
                Step::Telling(mut telling) => {
                    if telling.as_mut().poll(cx).is_pending() {
                        self.step = Step::Telling(telling);
                        return Poll::Pending;
                    }
                    self.show();
                }
                Step::Giving => return Poll::Ready(()),
            }
        }
    }

    /// The answer, as it may be given again.
    fn answer(&self) -> ledger::Answer {
        let is_passing = |name: &[u8]| {
            OF_ONE_ANSWER.contains(&name) || self.standing.iter().any(|(other, _)| other == name)
        };
        let fields = self.head.fields.iter().filter(|(name, _)| !is_passing(&name.to_ascii_lowercase()));
        ledger::Answer {
            status: self.head.status,
            fields: fields.cloned().collect(),
            body: self.body.clone(),
        }
    }

    /// Gives the head to the client.
    fn show(&mut self) {
        let Head { status, reason, fields, length, has_body, close, .. } = &self.head;
        self.record.responded(*status, Instant::now());
        self.down.respond(Answer {
            status: *status,
            reason,
            fields: &mut fields.iter().map(|(name, value)| (&name[..], &value[..])),
            length: *length,
            has_body: *has_body,
            close: *close,
        });
    }

    /// Ready when the client has been given what was gathered.
    fn poll_given(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.given < self.body.len() {
            self.given += ready!(self.down.poll_write(cx, &self.body[self.given..]))?;
        }
        Poll::Ready(Ok(()))
    }

    fn is_gathering(&self) -> bool {
        matches!(self.step, Step::Gathering(_))
    }
}

impl<D: Downstream> Downstream for Keeping<'_, D> {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Broken>> {
        self.down.poll_body(cx, into, room)
    }

    /// Whoever leaves may come again, and then the answer should be there.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.step, Step::Giving) { self.down.poll_gone(cx) } else { Poll::Pending }
    }

    fn inform(&mut self, status: u16, fields: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        self.down.inform(status, fields);
    }

    fn respond(&mut self, answer: Answer<'_, '_>) {
        let fields: Fields = answer.fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let is_endless = fields.iter().any(|(name, value)| {
            let is =
                |kind: &[u8]| value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
            name.eq_ignore_ascii_case(b"content-type")
                && (is(b"text/event-stream") || is(b"application/grpc"))
        });
        // It is the one that later requests need most.
        let is_unknown = ledger::is_unknown(&fields);
        if is_unknown {
            self.body_bytes_max = self.body_bytes_max.max(UNKNOWN_BYTES_MAX);
        }
        self.head = Head {
            status: answer.status,
            reason: answer.reason.to_vec(),
            fields,
            length: answer.length,
            has_body: answer.has_body,
            close: answer.close,
            is_endless,
            is_unknown,
        };
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_gathering() && !self.head.is_endless {
            let bytes = self.body.len() + data.len();
            if bytes <= self.body_bytes_max && self.memory.has_room(bytes) {
                self.body.extend_from_slice(data);
                return Poll::Ready(Ok(data.len()));
            }
        }
        ready!(self.poll_told(cx, false));
        ready!(self.poll_given(cx))?;
        self.down.poll_write(cx, data)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_gathering() && !self.head.is_endless {
            // Interim responses, which are of no use later.
            let _ = self.down.poll_flush(cx);
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_told(cx, false));
        ready!(self.poll_given(cx))?;
        self.down.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>> {
        let is_whole = !self.head.is_endless;
        if is_whole && self.is_gathering() && self.head.has_body && trailers.is_empty() {
            self.head.length = Some(self.body.len() as u64);
        }
        ready!(self.poll_told(cx, is_whole));
        ready!(self.poll_given(cx))?;
        self.down.poll_finish(cx, trailers)
    }

    fn cut(&mut self) {
        self.down.cut();
    }

    fn take_back(&mut self) -> Option<usize> {
        self.is_gathering().then(|| {
            self.head = Head::default();
            self.memory.give_back();
            std::mem::take(&mut self.body).len()
        })
    }

    fn tunnel(&mut self) {
        self.down.tunnel();
    }

    fn counts(&self) -> bool {
        true
    }
}
