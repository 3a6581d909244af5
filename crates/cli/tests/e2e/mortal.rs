//! A worker that dies at the very moment that its request names in the path, and the record of what was done by it and
//! those before it. It is this test program itself, run again by `lethe`; sockets are written and read by hand.

use std::{
    fmt::{Debug, Display},
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
};

use rustix::process::{Signal, getpid, kill_process};

use crate::inbound::Inbound;

/// The moment of an exchange at which the worker dies, as far as it has come then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The connection is accepted and the request has arrived, and not one byte of it was read.
    Unread,
    /// The head was read, and nothing of the body.
    Head,
    /// Half of the body was read.
    HalfBody,
    /// All was read and carried out, and nothing was answered.
    Ran,
    /// Half of the response's head was sent.
    HalfHead,
    /// The head of a large response was sent, and nothing of its body.
    WholeHead,
    /// Half of a small response was sent.
    HalfSmall,
    /// Half of a large response was sent.
    HalfLarge,
    /// The same with a strong entity tag, and an offer to continue it.
    HalfTagged,
    /// Half of a large chunked response was sent, up to the middle of a chunk.
    HalfChunked,
    /// Half of the events of an event stream were sent, each whole.
    HalfEvents,
    /// The same, with a length that would let them be held.
    HalfSizedEvents,
    /// The connection was upgraded, and four bytes were echoed.
    Upgraded,
    /// Not at all.
    Never,
}

impl Moment {
    const ALL: [Self; 14] = [
        Self::Unread,
        Self::Head,
        Self::HalfBody,
        Self::Ran,
        Self::HalfHead,
        Self::WholeHead,
        Self::HalfSmall,
        Self::HalfLarge,
        Self::HalfTagged,
        Self::HalfChunked,
        Self::HalfEvents,
        Self::HalfSizedEvents,
        Self::Upgraded,
        Self::Never,
    ];
}

/// How the worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// By SIGKILL, sent to itself, so that the moment is exact.
    Killed,
    /// By SIGKILL from outside: it says that it is there, and waits.
    Awaited,
    /// It aborts, as a program does whose fault was noticed.
    Aborts,
    /// It exits.
    Exits,
}

impl Manner {
    const ALL: [Self; 4] = [Self::Killed, Self::Awaited, Self::Aborts, Self::Exits];
}

/// The field that tells a worker how long a body is whose framing does not.
pub const BODY_BYTES: &str = "body-bytes";
/// Bytes of a small response's body.
pub const SMALL_BYTES: usize = 1000;
/// Bytes of a large response's body: above what the gateway holds back.
pub const LARGE_BYTES: usize = 2 << 20;
/// The tag of the large response that can be continued.
const ETAG: &str = "\"large\"";
const EVENT_STREAM: &str = "content-type: text/event-stream\r\n";
const EVENTS: usize = 10;
const CHUNK_BYTES: usize = 100_000;

/// So many bytes that are the same each time, and of which no two parts of one length are the same nearby.
pub fn payload(bytes: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..251).collect();
    let mut payload = block.repeat(bytes / block.len() + 1);
    payload.truncate(bytes);
    payload
}

/// The events of an event stream.
pub fn events() -> Vec<u8> {
    (0..EVENTS).flat_map(|number| format!("data: {number}\n\n").into_bytes()).collect()
}

/// What the workers of one service have done: a file that each of them appends to, one line at a time.
pub struct Record(pub PathBuf);

impl Record {
    fn write(&self, case: &str, deed: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.0)?;
        file.write_all(format!("{case} {deed} {}\n", std::process::id()).as_bytes())
    }

    /// The process ids of the workers that did this, in order.
    fn by(&self, case: &str, deed: &str) -> Vec<u32> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let start = format!("{case} {deed} ");
        text.lines().filter_map(|line| line.strip_prefix(&start)?.parse().ok()).collect()
    }

    /// Workers that read the whole request, and so carried it out.
    pub fn ran(&self, case: &str) -> usize {
        self.by(case, "ran").len()
    }

    /// Whether a worker came to the moment that was named, and lives on since enough have died.
    pub fn has_passed(&self, case: &str) -> bool {
        !self.by(case, "passes").is_empty()
    }

    /// Workers that were to die, in order.
    pub fn dying(&self, case: &str) -> Vec<u32> {
        self.by(case, "dies")
    }
}

/// What a request's path says.
pub struct Order<C> {
    pub case: C,
    pub moment: Moment,
    pub manner: Manner,
    /// So many workers die, and the next one answers.
    pub deaths: usize,
}

impl<C: Display> Order<C> {
    /// The path, below that of the service's route.
    pub fn path(&self, route: &str) -> String {
        format!("/{route}/{}/{:?}/{:?}/{}", self.case, self.moment, self.manner, self.deaths)
    }
}

impl Order<String> {
    fn parse(target: &str) -> Option<Self> {
        let mut words = target.split('/').skip(2);
        let case = words.next()?.to_owned();
        let (moment, manner) = (named(&Moment::ALL, words.next()?)?, named(&Manner::ALL, words.next()?)?);
        Some(Self { case, moment, manner, deaths: words.next()?.parse().ok()? })
    }
}

fn named<T: Copy + Debug>(all: &[T], name: &str) -> Option<T> {
    all.iter().copied().find(|one| format!("{one:?}") == name)
}

/// Not a test: what `lethe` runs as a worker, with `RECORD` for its record.
#[test]
#[ignore = "is a worker, and needs lethe"]
fn worker() -> anyhow::Result<()> {
    let (Ok(port), Ok(record)) = (std::env::var("PORT"), std::env::var("RECORD")) else { return Ok(()) };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?))?;
    for stream in listener.incoming() {
        let (stream, record) = (stream?, Record(record.clone().into()));
        std::thread::spawn(move || Worker { stream, record }.serve());
    }
    Ok(())
}

/// One connection of the worker.
struct Worker {
    stream: TcpStream,
    record: Record,
}

impl Worker {
    /// Answers until the gateway ends the connection.
    fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(head) = self.peek()? {
            let target = head.split(' ').nth(1).unwrap_or_default();
            let order = Order::parse(target).ok_or(io::ErrorKind::InvalidInput)?;
            self.come(Moment::Unread, &order)?;
            self.stream.read_exact(&mut vec![0; head.len()])?;
            self.come(Moment::Head, &order)?;
            let is_chunked = field(&head, "transfer-encoding") == Some("chunked");
            let length = field(&head, if is_chunked { BODY_BYTES } else { "content-length" });
            let length = length.map_or(0, |length| length.parse().unwrap_or(0));
            let mut body = vec![0; length];
            let (first, second) = body.split_at_mut(length / 2);
            let mut inbound = Inbound::new(self.stream.try_clone()?, is_chunked);
            inbound.read(first)?;
            self.come(Moment::HalfBody, &order)?;
            inbound.read(second)?;
            inbound.end()?;
            self.record.write(&order.case, "ran")?;
            self.come(Moment::Ran, &order)?;
            self.answer(&head, &body, &order)?;
        }
        Ok(())
    }

    /// The next request's head, which stays unread; nothing at the end of the connection.
    fn peek(&self) -> io::Result<Option<String>> {
        let mut bytes = vec![0; 16 << 10];
        loop {
            let count = self.stream.peek(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes[..count]);
            match text.find("\r\n\r\n") {
                Some(end) => return Ok(Some(text[..end + 4].to_owned())),
                None if count == 0 => return Ok(None),
                // The gateway writes a head at once: the rest is about to be there.
                None => std::thread::yield_now(),
            }
        }
    }

    /// Dies, if this is the moment and not enough have died.
    fn come(&self, moment: Moment, order: &Order<String>) -> io::Result<()> {
        if order.moment != moment {
            return Ok(());
        }
        let dies = self.record.dying(&order.case).len() < order.deaths;
        let deed = if dies { "dies" } else { "passes" };
        self.record.write(&order.case, deed)?;
        // Whoever waits for it looks into the record when something is printed.
        writeln!(io::stdout(), "{} {deed}", order.case)?;
        if !dies {
            return Ok(());
        }
        match order.manner {
            Manner::Killed => kill_process(getpid(), Signal::KILL)?,
            Manner::Awaited => {}
            Manner::Aborts => std::process::abort(),
            Manner::Exits => std::process::exit(3),
        }
        loop {
            std::thread::park();
        }
    }

    fn answer(&mut self, head: &str, body: &[u8], order: &Order<String>) -> io::Result<()> {
        let answer = Answer::to(order.moment, head, body);
        let is_head = head.starts_with("HEAD ");
        if order.moment == Moment::HalfHead {
            let (first, second) = answer.head.as_bytes().split_at(answer.head.len() / 2);
            self.stream.write_all(first)?;
            self.come(Moment::HalfHead, order)?;
            self.stream.write_all(second)?;
        } else {
            self.stream.write_all(answer.head.as_bytes())?;
        }
        if is_head {
            return Ok(());
        }
        if order.moment == Moment::Upgraded {
            let mut echo = [0; 4];
            self.stream.read_exact(&mut echo)?;
            self.stream.write_all(&echo)?;
        }
        self.stream.write_all(&answer.body[..answer.half])?;
        if order.moment > Moment::HalfHead {
            self.come(order.moment, order)?;
        }
        self.stream.write_all(&answer.body[answer.half..])
    }
}

/// A response, with the place at which the worker dies if it is to die there.
struct Answer {
    head: String,
    body: Vec<u8>,
    half: usize,
}

impl Answer {
    fn to(moment: Moment, head: &str, body: &[u8]) -> Self {
        match moment {
            Moment::WholeHead => Self { half: 0, ..Self::sized("", payload(LARGE_BYTES)) },
            Moment::HalfLarge => Self::sized("", payload(LARGE_BYTES)),
            Moment::HalfTagged => Self::tagged(head),
            Moment::HalfChunked => {
                let pieces: Vec<_> = payload(LARGE_BYTES).chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect();
                let chunked = Self::chunked("", &pieces);
                Self { half: chunked.body.len() / 2, ..chunked }
            }
            Moment::HalfEvents => {
                let events = events();
                let pieces: Vec<_> = events.chunks(events.len() / EVENTS).map(<[u8]>::to_vec).collect();
                let stream = Self::chunked(EVENT_STREAM, &pieces);
                Self { half: (stream.body.len() - "0\r\n\r\n".len()) / 2, ..stream }
            }
            Moment::HalfSizedEvents => Self::sized(EVENT_STREAM, events()),
            Moment::Upgraded => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                Self { head: head.into(), body: Vec::new(), half: 0 }
            }
            _ => Self::sized("", small(body)),
        }
    }

    fn sized(fields: &str, body: Vec<u8>) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n", body.len());
        Self { head, half: body.len() / 2, body }
    }

    fn chunked(fields: &str, pieces: &[Vec<u8>]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n\r\n");
        let mut body = Vec::new();
        for piece in pieces {
            body.extend(format!("{:x}\r\n", piece.len()).bytes());
            body.extend(piece);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        Self { head, body, half: 0 }
    }

    /// RFC 9110, section 14: the rest of it, if that is what is asked for and it is still the same.
    fn tagged(request: &str) -> Self {
        let mut body = payload(LARGE_BYTES);
        let tag = format!("etag: {ETAG}\r\n");
        let start = field(request, "range")
            .filter(|_| field(request, "if-range") == Some(ETAG))
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let Some(start) = start else { return Self::sized(&tag, body) };
        let rest = body.split_off(start);
        let range = format!("content-range: bytes {start}-{}/{LARGE_BYTES}\r\n", LARGE_BYTES - 1);
        let head =
            format!("HTTP/1.1 206 Partial Content\r\n{tag}{range}content-length: {}\r\n\r\n", rest.len());
        Self { head, half: rest.len() / 2, body: rest }
    }
}

/// What a request with this body is answered: whether it came as it was sent.
pub fn small(body: &[u8]) -> Vec<u8> {
    let intact = if body == payload(body.len()) { "intact" } else { "damaged" };
    format!("{:<SMALL_BYTES$}", format!("{} bytes, {intact}", body.len())).into_bytes()
}

/// The value of a header field, if it is there.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
