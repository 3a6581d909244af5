//! Carries a worker's connections to services beside it, such as a database on this machine: inside its world somebody
//! listens where they listen outside, and each connection is carried over and counted. An answer may be kept from the worker, so that
//! it can be killed when something beside has done what it was asked for, and it does not know of it.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::gate::Gate;

/// How long a service beside may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Most connections that are carried at a time for one worker; more are refused.
const CONNECTIONS_MAX: usize = 512;

/// Stack of a thread that only carries bytes.
const STACK_BYTES: usize = 128 << 10;

/// What was carried, by where it led.
pub type Carried = BTreeMap<SocketAddr, u64>;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// Most exchanges that are noted of one worker, and bytes of each side of one; what is beyond is not noted.
const EXCHANGES_MAX: usize = 4096;
const NOTED_BYTES_MAX: usize = 4 << 10;

/// What a worker asked of a service beside, and what that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Which connection it was, by a number of its own.
    connection: u64,
    /// Where the service is.
    pub to: SocketAddr,
    /// The beginning of what was asked.
    pub asked: Vec<u8>,
    /// The beginning of the answer.
    pub answered: Vec<u8>,
}

#[cfg(test)]
impl Exchange {
    /// One of some connection.
    pub(crate) fn new(asked: &[u8], answered: &[u8]) -> Self {
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        Self { connection: 1, to, asked: asked.to_vec(), answered: answered.to_vec() }
    }
}

/// What is carried, noted while somebody wants to know.
#[derive(Default)]
struct Notes {
    is_wanted: AtomicBool,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Notes {
    fn asked(&self, connection: u64, to: SocketAddr, bytes: &[u8]) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut exchanges = lock(&self.exchanges);
        let last = exchanges.iter_mut().rev().find(|exchange| exchange.connection == connection);
        if let Some(open) = last.filter(|exchange| exchange.answered.is_empty()) {
            push(&mut open.asked, bytes);
        } else if exchanges.len() < EXCHANGES_MAX {
            let mut asked = Vec::new();
            push(&mut asked, bytes);
            exchanges.push(Exchange { connection, to, asked, answered: Vec::new() });
        }
    }

    fn answered(&self, connection: u64, bytes: &[u8]) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut exchanges = lock(&self.exchanges);
        // What comes without a question says nothing of this worker.
        if let Some(open) = exchanges.iter_mut().rev().find(|exchange| exchange.connection == connection) {
            push(&mut open.answered, bytes);
        }
    }
}

fn push(noted: &mut Vec<u8>, bytes: &[u8]) {
    let room = NOTED_BYTES_MAX.saturating_sub(noted.len());
    noted.extend(&bytes[..bytes.len().min(room)]);
}

/// How many more answers are passed on before one is kept, and who is told then.
#[derive(Default)]
struct Snare {
    armed: Mutex<Option<(u32, oneshot::Sender<()>)>>,
}

impl Snare {
    /// Whether the answer that has come now is the one that is kept.
    fn keeps(&self) -> bool {
        let mut armed = lock(&self.armed);
        match armed.as_mut() {
            None => return false,
            Some((left, _)) if *left > 1 => {
                *left -= 1;
                return false;
            }
            Some(_) => {}
        }
        // Who waits no longer has had its answer.
        armed.take().is_some_and(|(_, told)| told.send(()).is_ok())
    }
}

/// A gate, and which of its workers this one is.
pub type Place = (Arc<Gate>, usize);

/// Who looks at what is carried.
#[derive(Default)]
struct Watch {
    snare: Snare,
    notes: Notes,
    /// Where its answers wait for those of workers that start with it, and its number there.
    gate: Option<Place>,
}

/// Carries connections until it is dropped.
pub struct Relay {
    carried: Arc<Mutex<Carried>>,
    watch: Arc<Watch>,
    /// The thread ends when the other end of this is closed.
    _stop: OwnedFd,
}

impl Relay {
    /// Carries what comes in at `doors`, which are of another network namespace, to their addresses in this one.
    /// Answers wait at `gate`, if there is one.
    pub fn start(doors: Vec<(SocketAddr, TcpListener)>, gate: Option<Place>) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let (carried, watch) =
            (Arc::<Mutex<Carried>>::default(), Arc::new(Watch { gate, ..Watch::default() }));
        let (counts, watching) = (Arc::clone(&carried), Arc::clone(&watch));
        for (_, listener) in &doors {
            listener.set_nonblocking(true)?;
        }
        thread::Builder::new()
            .name("relay".into())
            .stack_size(STACK_BYTES)
            .spawn(move || accept(&doors, stopped.as_fd(), &counts, &watching))?;
        Ok(Self { carried, watch, _stop: stop.into() })
    }

    /// How many connections were carried, by where they led.
    pub fn carried(&self) -> Carried {
        lock(&self.carried).clone()
    }

    /// Keeps the answer of this number, from 1 and from now on, from the worker, and says so. An answer is what comes after the worker
    /// has sent something over the same connection.
    pub fn keep_answer(&self, number: u32) -> oneshot::Receiver<()> {
        let (told, kept) = oneshot::channel();
        *lock(&self.watch.snare.armed) = Some((number, told));
        kept
    }

    /// Notes what is carried from now on.
    pub fn note(&self) {
        lock(&self.watch.notes.exchanges).clear();
        self.watch.notes.is_wanted.store(true, Ordering::Relaxed);
    }

    /// What was noted; nothing is, from now on.
    pub fn noted(&self) -> Vec<Exchange> {
        self.watch.notes.is_wanted.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.watch.notes.exchanges))
    }
}

fn accept(
    doors: &[(SocketAddr, TcpListener)],
    stop: impl AsFd,
    carried: &Mutex<Carried>,
    watch: &Arc<Watch>,
) {
    let open = Arc::new(());
    let mut number = 0;
    loop {
        let mut waiting = vec![PollFd::new(&stop, PollFlags::IN)];
        waiting.extend(doors.iter().map(|(_, listener)| PollFd::new(listener, PollFlags::IN)));
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !waiting[0].revents().is_empty() => return,
            Ok(_) => {}
        }
        let ready = waiting[1..].iter().zip(doors).filter(|(fd, _)| !fd.revents().is_empty());
        for (address, listener) in ready.map(|(_, door)| door) {
            let Ok((inside, _)) = listener.accept() else { continue };
            if Arc::strong_count(&open) > CONNECTIONS_MAX {
                continue;
            }
            *lock(carried).entry(*address).or_default() += 1;
            number += 1;
            let (address, open, watch) = (*address, Arc::clone(&open), Arc::clone(watch));
            let carrier = thread::Builder::new().name("carrier".into()).stack_size(STACK_BYTES);
            // Without a thread, the connection is closed, which its worker sees.
            let _ = carrier.spawn(move || {
                let _ = carry(&inside, address, number, &watch);
                drop(open);
            });
        }
    }
}

/// Carries both ways until both are closed.
fn carry(inside: &TcpStream, address: SocketAddr, number: u64, watch: &Watch) -> io::Result<()> {
    inside.set_nonblocking(false)?;
    let outside = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    inside.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    // Whether the worker has sent something that is not answered yet.
    let asked = AtomicBool::new(false);
    let is_kept = |bytes: &[u8]| {
        watch.notes.answered(number, bytes);
        let is_answer = asked.swap(false, Ordering::SeqCst);
        if let (true, Some((gate, worker))) = (is_answer, &watch.gate) {
            gate.pass(*worker);
        }
        is_answer && watch.snare.keeps()
    };
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK_BYTES);
        back.spawn_scoped(scope, || pass(&outside, inside, &is_kept))?;
        pass(inside, &outside, &|bytes| {
            watch.notes.asked(number, address, bytes);
            asked.store(true, Ordering::SeqCst);
            false
        });
        Ok(())
    })
}

/// Passes all bytes on, then the end; nothing more, and no end, from where `is_kept` says so of what has come.
fn pass(from: &TcpStream, to: &TcpStream, is_kept: &dyn Fn(&[u8]) -> bool) {
    match pass_bytes(from, to, is_kept) {
        // The worker waits until it is killed.
        Ok(true) => return,
        Ok(false) => {}
        Err(_) => {
            // The other direction must not wait for an end that cannot come.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Gives whether something was kept.
fn pass_bytes(mut from: &TcpStream, mut to: &TcpStream, is_kept: &dyn Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut bytes = [0; CHUNK_BYTES];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if is_kept(&bytes[..read]) {
            return Ok(true);
        }
        to.write_all(&bytes[..read])?;
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_after_it_was_given() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut worker = TcpStream::connect(door.local_addr().unwrap()).unwrap();
        let relay = Relay::start(vec![(address, door)], None).unwrap();
        let kept = relay.keep_answer(2);
        let service = thread::spawn(move || {
            let (mut stream, _) = outside.accept().unwrap();
            let mut asked = [0; 2];
            for _ in 0..2 {
                stream.read_exact(&mut asked).unwrap();
                stream.write_all(b"yes").unwrap();
            }
            asked
        });
        let mut answer = [0; 3];
        worker.write_all(b"1?").unwrap();
        worker.read_exact(&mut answer).unwrap();
        worker.write_all(b"2?").unwrap();
        kept.blocking_recv().unwrap();
        assert_eq!(&service.join().unwrap(), b"2?");
        worker.set_nonblocking(true).unwrap();
        assert_eq!(worker.read(&mut answer).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        // Nobody waits for the next one any more: it is passed on.
        let (told, kept) = oneshot::channel();
        drop(kept);
        assert!(!Snare { armed: Mutex::new(Some((1, told))) }.keeps());
    }

    #[test]
    fn what_is_asked_and_answered_is_noted_while_it_is_wanted() {
        let (notes, to) = (Notes::default(), "127.0.0.1:6379".parse().unwrap());
        notes.asked(1, to, b"before");
        notes.is_wanted.store(true, Ordering::Relaxed);
        notes.answered(1, b"to what was asked before");
        notes.asked(1, to, b"IN");
        notes.asked(1, to, b"CR");
        notes.asked(2, to, &vec![b'x'; NOTED_BYTES_MAX * 2]);
        notes.answered(1, b":1");
        notes.asked(1, to, b"GET");
        let exchanges = lock(&notes.exchanges);
        let noted: Vec<_> = exchanges.iter().map(|each| (each.connection, each.asked.len())).collect();
        assert_eq!(noted, [(1, 4), (2, NOTED_BYTES_MAX), (1, 3)]);
        assert_eq!((&*exchanges[0].asked, &*exchanges[0].answered), (&b"INCR"[..], &b":1"[..]));
    }

    #[test]
    fn bytes_are_carried_both_ways_and_counted() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let inside = door.local_addr().unwrap();
        let relay = Relay::start(vec![(address, door)], None).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = outside.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        relay.note();
        let mut worker = TcpStream::connect(inside).unwrap();
        worker.write_all(b"hello").unwrap();
        worker.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        worker.read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELLO");
        echo.join().unwrap();
        assert_eq!(relay.carried(), Carried::from([(address, 1)]));
        let noted = relay.noted();
        assert_eq!((&*noted[0].asked, &*noted[0].answered), (&b"hello"[..], &b"HELLO"[..]));
        assert!(relay.noted().is_empty());
    }
}
