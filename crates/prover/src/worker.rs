//! A worker in a world of its own: started, reached, killed, and started again with the same disk or a new one.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    disk::Disk,
    output::Output,
    relay::{Carried, Exchange, Relay},
    world::{
        Reply, Request,
        channel::Channel,
        watch::{Seen, WatchMethod},
    },
    yard::{Start, Yard},
};

/// The hidden verb that starts [`crate::world::outer`].
const WORLD_VERB: &str = "world";

/// How long an answer of whether a worker is ready is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Largest first line of it, in bytes.
const LINE_BYTES_MAX: u64 = 1024;

/// How long it is tried to make a world like those before it, and how often.
const UNLIKE_MAX: Duration = Duration::from_secs(5);
const UNLIKE_EVERY: Duration = Duration::from_millis(50);

/// How often a starting worker is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Lines of output that are shown of a worker that does not start.
const LINES_SHOWN: usize = 12;

/// Why a worker is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its world could not be made.
    #[error("a world for a worker cannot be made: {0}")]
    World(String),
    /// No worlds can be made here at a level that was asked for.
    #[error(
        "workers cannot be kept apart on this machine ({0}). Run it as root or where user namespaces are allowed, with TMPDIR on a \
         file system of a disk; or allow `--copied`, which gives each worker a copy of the service's folder and nothing else: what \
         it does with other files, with ports and with processes, it does to this machine"
    )]
    NoWorlds(String),
    /// Another world than those before is no ground to compare a worker with theirs.
    #[error(
        "a worker cannot have a world like those before it: what it can do with {0} has changed, as when a file system is mounted or unmounted \
         there; prove again when that is over"
    )]
    Unlike(String),
    /// The program could not be started.
    #[error("the program cannot be started: {0}")]
    Program(String),
    /// It ended, or did not listen in time.
    #[error("the service did not start: {why}{}", quoted(.output))]
    NotListening {
        /// What happened instead.
        why: String,
        /// The last that it printed.
        output: Vec<String>,
    },
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn quoted(output: &[String]) -> String {
    let lines = output.iter().map(|line| format!("\n    {line}"));
    if output.is_empty() { "; it printed nothing".into() } else { lines.collect() }
}

/// A running worker. Dropped, it is killed.
pub struct Worker {
    name: String,
    world: World,
    address: SocketAddr,
    disk: Arc<Disk>,
    /// Where the library is that moves its clock.
    clock: PathBuf,
}

/// The processes of a world, as seen from outside.
struct World {
    channel: Arc<Mutex<Channel>>,
    outer: Child,
    output: Output,
    relay: Option<Relay>,
    doors: BTreeSet<SocketAddr>,
    watch_method: WatchMethod,
}

impl Worker {
    /// Starts a worker on `disk` and waits until it listens.
    pub fn start(yard: &Yard, start: &Start, disk: Arc<Disk>) -> Result<Self, Error> {
        let began = Instant::now();
        let mut world = loop {
            match World::make(yard, start, &disk) {
                // Most of what is mounted in passing is soon gone.
                Err(Error::Unlike(_)) if began.elapsed() < UNLIKE_MAX => thread::sleep(UNLIKE_EVERY),
                made => break made?,
            }
        };
        let address = world.until_listening(yard, start.port)?;
        world.ask(&Request::Booted)?;
        let mut worker = Self { name: start.instance.clone(), world, address, disk, clock: yard.clock()? };
        if let Some(path) = yard.ready() {
            worker.until_ready(path, began + yard.start_max())?;
        }
        Ok(worker)
    }

    /// Asks `path` until it answers with 2xx.
    fn until_ready(&mut self, path: &str, end: Instant) -> Result<(), Error> {
        let door = self.door();
        // What it answered says more than that it was too slow once.
        let mut answered = None;
        let failed = loop {
            let failed = match status(&door, path) {
                Ok(status) if status.starts_with('2') => return Ok(()),
                Ok(status) => answered.insert(format!("status {status}")).clone(),
                Err(error) => error.to_string(),
            };
            if Instant::now() > end {
                break failed;
            }
            thread::sleep(LOOK_EVERY);
        };
        let said = answered.unwrap_or(failed);
        let why = format!("it listens, but {path} does not say that it is ready: {said}");
        Err(Error::NotListening { why, output: self.world.end() })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, inside its world.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its disk.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Connections that it made to services beside.
    pub fn carried(&self) -> Carried {
        self.world.relay.as_ref().map(Relay::carried).unwrap_or_default()
    }

    /// Keeps the answer of this number, from 1 and from now on, that something beside gives from the worker. What is returned resolves
    /// when it was given, or at once with an error where nothing beside can be reached.
    pub fn keep_answer(&self, number: u32) -> oneshot::Receiver<()> {
        match &self.world.relay {
            Some(relay) => relay.keep_answer(number),
            None => oneshot::channel().1,
        }
    }

    /// Empties a file for it alone.
    pub fn empty(&self, file: &Path) -> io::Result<()> {
        match self.world.ask(&Request::Empty(file.to_owned()))? {
            Reply::Done => Ok(()),
            Reply::Refused(why) => Err(io::Error::other(why)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Asks it to end, as a supervisor does: SIGTERM to the process that was started.
    pub fn terminate(&self) -> io::Result<()> {
        self.world.ask(&Request::Terminate).map(drop)
    }

    /// Whether all that was sent to it is in its hands: each connection was accepted, and each byte read.
    pub fn has_read_all(&self) -> io::Result<bool> {
        Ok(matches!(self.world.ask(&Request::Unread(self.address.port()))?, Reply::Unread(0)))
    }

    /// How the process that was started has ended, if it has.
    pub fn ended(&self) -> io::Result<Option<String>> {
        match self.world.ask(&Request::Status)? {
            Reply::Status { ended, .. } => Ok(ended),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Notes what it asks of services beside, from now on.
    pub fn note(&self) {
        if let Some(relay) = &self.world.relay {
            relay.note();
        }
    }

    /// What was noted; nothing is, from now on.
    pub fn noted(&self) -> Vec<Exchange> {
        self.world.relay.as_ref().map(Relay::noted).unwrap_or_default()
    }

    /// What it did with files since this was asked before, at first since its start.
    pub fn seen(&self) -> io::Result<Seen> {
        match self.world.ask(&Request::Seen)? {
            Reply::Seen(seen) => Ok(seen),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// How many of its processes have a clock that can be moved, and how many have not.
    pub(crate) fn with_moved_clock(&self) -> io::Result<(usize, usize)> {
        match self.world.ask(&Request::Loaded(self.clock.clone()))? {
            Reply::Loaded(with, without) => Ok((with, without)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The last lines that it printed.
    pub fn tail(&self) -> Vec<String> {
        self.world.output.tail(LINES_SHOWN)
    }

    /// Shows on standard error what it has printed, and from now on what it prints.
    pub fn show_output(&self) {
        self.world.output.show();
    }

    /// What opens connections to it, from any thread, for as long as it lives.
    pub fn door(&self) -> impl Fn() -> io::Result<TcpStream> + Send + Sync + 'static {
        let (channel, address) = (Arc::clone(&self.world.channel), self.address);
        move || {
            let (reply, mut files) = ask(&channel, &Request::Connect(address))?;
            match (reply, files.pop()) {
                (Reply::Connected, Some(socket)) => Ok(socket.into()),
                (Reply::Refused(why), _) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Kills it and all that it has started, as `kill -9` does, and waits until nothing of it is left.
    pub fn end(&mut self) {
        self.world.kill();
    }

    /// The same; gives its disk, which stays.
    pub fn kill(self) -> Arc<Disk> {
        self.disk
        // The world is dropped.
    }
}

impl World {
    /// Makes a world and starts the program in it.
    fn make(yard: &Yard, start: &Start, disk: &Disk) -> Result<Self, Error> {
        let spec = yard.spec(start, disk)?;
        let spec = serde_json::to_string(&spec).map_err(io::Error::from)?;
        let (ours, theirs) = Channel::pair()?;
        let mut outer = Command::new(yard.program())
            .args([WORLD_VERB, &spec])
            .envs(yard.env(start)?)
            .stdin(theirs.into_socket())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to a whole process group. It ends `lethe`, and with that what is here, in its order.
            .process_group(0)
            .spawn()?;
        let output = Output::default();
        let collected = output.collect(outer.stdout.take()).and(output.collect(outer.stderr.take()));
        let mut world = Self {
            channel: Arc::new(Mutex::new(ours)),
            outer,
            output,
            relay: None,
            doors: BTreeSet::new(),
            watch_method: WatchMethod::None,
        };
        collected?;
        let said = world.channel.lock().unwrap_or_else(PoisonError::into_inner).receive::<Reply>()?;
        match said {
            Some((Reply::Ready { doors, watch_method, notices, weak }, files)) => {
                yard.note(&notices);
                yard.expect(weak);
                world.watch_method = watch_method;
                world.doors = doors.iter().copied().collect();
                let listeners = files.into_iter().map(TcpListener::from);
                world.relay =
                    Some(Relay::start(doors.into_iter().zip(listeners).collect(), start.gate.clone())?);
                Ok(world)
            }
            Some((Reply::NoWorld(why), _)) => Err(Error::World(why)),
            Some((Reply::Unlike(what), _)) => Err(Error::Unlike(what)),
            Some((Reply::NoProgram(why), _)) => Err(Error::Program(why)),
            _ => Err(Error::World(world.output.tail(LINES_SHOWN).join(" "))),
        }
    }

    fn ask(&self, request: &Request) -> io::Result<Reply> {
        Ok(ask(&self.channel, request)?.0)
    }

    /// Waits until somebody listens inside: at the port it was told, or at another one.
    fn until_listening(&mut self, yard: &Yard, port: u16) -> Result<SocketAddr, Error> {
        let told = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = Instant::now();
        let mut heard: Option<Instant> = None;
        loop {
            if let Reply::Listening(listening) = self.ask(&Request::Listening)? {
                let mut listening = listening;
                listening.retain(|address| !self.doors.contains(address));
                // From the first on, since others may come.
                let since = (!listening.is_empty()).then(|| *heard.get_or_insert_with(Instant::now));
                let for_long = since.map_or(Duration::ZERO, |since| since.elapsed());
                if let Some(address) = yard.choose(listening.into_iter(), told, for_long) {
                    return Ok(address);
                }
            }
            let why = match self.ask(&Request::Status)? {
                Reply::Status { ended: Some(ended), has_others: false } => ended,
                _ if began.elapsed() > yard.start_max() => {
                    let seconds = yard.start_max().as_secs();
                    format!(
                        "nothing listens after {seconds} s; it must listen on 127.0.0.1:$PORT or on any port"
                    )
                }
                _ => {
                    thread::sleep(LOOK_EVERY);
                    continue;
                }
            };
            // What it printed last comes a moment after its end.
            let output = self.end();
            return Err(Error::NotListening { why, output });
        }
    }

    /// Ends everything inside and gives the last that was printed.
    fn end(&mut self) -> Vec<String> {
        self.kill();
        self.output.until_the_end();
        self.output.tail(LINES_SHOWN)
    }

    fn kill(&mut self) {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        // The first process inside ends with the channel, and the kernel ends all others.
        channel.end();
        drop(channel);
        let _ = self.outer.wait();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The status that `path` answers with (RFC 9112, section 4).
fn status(door: &impl Fn() -> io::Result<TcpStream>, path: &str) -> io::Result<String> {
    let mut stream = door()?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line.split(' ').nth(1).unwrap_or_default().trim().to_owned())
}

fn ask(channel: &Mutex<Channel>, request: &Request) -> io::Result<(Reply, Vec<std::os::fd::OwnedFd>)> {
    let channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
    // A pipe that is broken is another thing to who calls: that nobody reads the report any more.
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::other("the world of a worker has ended"),
        _ => error,
    };
    channel.send(request, &[]).map_err(ended)?;
    channel.receive()?.ok_or_else(|| ended(io::ErrorKind::BrokenPipe.into()))
}

/// Tries whether worlds of the yard's level can be made at all, and gives by what means files are watched in them; the error says why not.
pub fn try_world(yard: &Yard, start: &Start, disk: &Disk) -> Result<WatchMethod, Error> {
    World::make(yard, start, disk).map(|world| world.watch_method)
}
