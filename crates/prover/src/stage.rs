//! The stage: plays a journey as a schedule says, with workers that nobody has used, and notes what came back.

pub(crate) mod emptied;
pub(crate) mod fan_out;
pub(crate) mod leave;
pub(crate) mod probe;
pub(crate) mod users;

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    pin::pin,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use lethe_journey::{
    crawl,
    destination::Destination,
    journey::Journey,
    observed::Observed,
    player::{self, Limits, Player, Settings},
};
use tokio::{net::TcpStream, runtime::Runtime};

use crate::{
    disk::{self, Disk, Written},
    output::Output,
    pool::Pool,
    schedule::{Moment, Restart, Schedule, Tear},
    tap::{self, Event},
    trace::Traces,
    worker::{Error, Worker},
    world::watch::Seen,
};

/// Shortest text that is looked for in files: shorter ones are there by chance.
const CANARY_BYTES_MIN: usize = 8;

/// How long workers that use services beside are left alone, when nothing else is said.
const IDLE: Duration = Duration::from_secs(3);

/// How long a channel is open before something is sent that is to arrive there; no person is faster.
const OPEN_MIN: Duration = Duration::from_millis(100);

/// How long `--reset` may take.
const RESET_MAX: Duration = Duration::from_secs(120);

/// Less than this is no room, in bytes.
const ROOM_MIN: u64 = 1 << 20;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Lines of what it prints that are shown when it fails.
const LINES_SHOWN: usize = 12;

/// What came of one step.
#[derive(Debug)]
pub enum Outcome {
    /// A response.
    Answered(Box<Observed>),
    /// None, and why.
    Lost(String),
}

impl Outcome {
    /// Whether it is not known what came, among more messages than are kept.
    pub(crate) fn is_flooded(&self) -> bool {
        matches!(self, Self::Answered(observed) if observed.is_flooded())
    }
}

/// What came of one run.
#[derive(Debug, Default)]
pub struct Run {
    /// Its steps as far as it went, in their order.
    pub outcomes: Vec<Outcome>,
    /// What the run's own texts are: its identity, the cookies and variables of its user.
    pub canaries: Vec<String>,
    /// What the worker of the noted steps wrote during them.
    pub written: Written,
    /// The disk that they are on, so that they can be read for as long as this is there.
    pub disk: Option<Arc<Disk>>,
    /// What was done with files that the worker of a noted run wrote, in all its steps.
    pub traces: Traces,
    /// Addresses of services beside that its workers used.
    pub beside: BTreeSet<std::net::SocketAddr>,
    /// Whether it ended because a worker that was to be killed in the middle of a step was done with that before.
    pub was_too_late: bool,
}

/// Whether a run ends after the step of this number, from 1, with this outcome.
pub type Ends<'w> = &'w dyn Fn(usize, &Outcome) -> bool;

/// How a run is watched.
#[derive(Default)]
pub struct Watch<'w> {
    /// When it ends before its schedule does.
    pub ends: Option<Ends<'w>>,
    /// The steps, from 1, during which is noted what their worker writes; the first and the last one of them. What it does with files is
    /// noted in all steps then; they must be of one worker that is not killed.
    pub noted: Option<(usize, usize)>,
    /// What random numbers of boot are drawn from.
    pub entropy: Option<u64>,
    /// Whether its workers are started at the same moment.
    pub at_once: bool,
    /// Whether all connections are closed before each step, those too that stay open, so that the user connects again.
    pub reconnects: bool,
}

/// Plays journeys.
pub struct Stage {
    pool: Pool,
    runtime: Runtime,
    reset: Option<String>,
    /// How long workers are left alone; `None` where nothing was asked for.
    idle: Option<Duration>,
    /// Whether any worker has.
    uses_what_is_beside: AtomicBool,
    seed: u64,
    runs: AtomicU64,
    /// The least that was free at the end of a run where workers write, in bytes.
    room: AtomicU64,
}

impl Stage {
    /// A stage with workers of `pool`. `reset` is run by a shell before each run; identities are drawn from `seed`.
    pub fn new(pool: Pool, reset: Option<String>, seed: u64) -> io::Result<Self> {
        // A thread of its own, so that pings are answered over connections that stay open while a worker is started or ended.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self {
            pool,
            runtime,
            reset,
            idle: None,
            uses_what_is_beside: AtomicBool::new(false),
            seed,
            runs: AtomicU64::new(0),
            room: AtomicU64::new(u64::MAX),
        })
    }

    /// The same with so long that workers are left alone; nothing of it with zero.
    pub fn with_idle(self, idle: Option<Duration>) -> Self {
        Self { idle, ..self }
    }

    /// How long workers are left alone: as was asked for, else a while if any of them has used a service beside by now. `None` is not at
    /// all.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let uses_what_is_beside = self.uses_what_is_beside.load(Ordering::Relaxed);
        let default = if uses_what_is_beside { IDLE } else { Duration::ZERO };
        Some(self.idle.unwrap_or(default)).filter(|idle| !idle.is_zero())
    }

    /// Whether workers may do what they do at midnight to what is beside: it is emptied, or that was asked for.
    pub(crate) fn may_come_to_midnight(&self) -> bool {
        self.has_reset() || self.idle.is_some()
    }

    /// Whether workers may be tried that do not know what is beside: there is nothing by default that they would take instead.
    pub(crate) fn may_be_without_configuration(&self) -> bool {
        self.has_reset() || !self.uses_what_is_beside.load(Ordering::Relaxed)
    }

    /// Whether what is beside is emptied before each run.
    pub(crate) fn has_reset(&self) -> bool {
        self.reset.is_some()
    }

    /// Where its workers come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// What is to be said if there was no room left for what workers write, in a sentence without its end.
    pub(crate) fn want_of_room(&self) -> Option<String> {
        let room = self.room.load(Ordering::Relaxed);
        let folder = self.pool.yard().scratch_folder().display();
        (room < ROOM_MIN).then(|| {
            format!(
                "no disk is left: {room} bytes were free in {folder}, where workers write during a proof, and what failed may have failed \
                 for that; set TMPDIR to a folder with more room"
            )
        })
    }

    /// A number that no other run has.
    pub fn entropy(&self) -> u64 {
        self.seed ^ (self.runs() << 20) ^ 0x1e7e
    }

    /// Plays `journey` as `schedule` says.
    pub fn play(&self, journey: &Arc<Journey>, schedule: &Schedule, watch: &Watch<'_>) -> Result<Run, Error> {
        self.empty_what_is_beside()?;
        let mut cast = Cast { stage: self, entropy: watch.entropy, workers: Vec::new() };
        if watch.at_once {
            cast.workers.extend(self.pool.at_once(schedule.width)?.into_iter().map(actor));
        }
        for _ in cast.workers.len()..schedule.width {
            let worker = cast.fresh()?;
            cast.workers.push(worker);
        }
        for number in 0..schedule.warm_ups {
            let mut player = self.player(journey)?;
            for step in 1..=journey.steps.len() {
                // What it answers is compared elsewhere.
                let at = number % schedule.width;
                let _ = self.runtime.block_on(player.step(step, &cast.workers[at].destination));
            }
        }
        let mut player = self.player(journey)?;
        let mut run = Run::default();
        let mut before = Written::new();
        if let (Some(_), Some(&at)) = (watch.noted, schedule.workers.first()) {
            run.traces.add(0, seen(&cast.workers[at]), |_| false);
        }
        for (step, (&at, kill)) in (1..).zip(schedule.workers.iter().zip(&schedule.kills)) {
            if let Some(tear) = schedule.tears.get(step - 1).copied().flatten() {
                // A worker that serves one connection at a time would wait for the end of the kept one.
                player.hang_up();
                if !cast.tear(&player, step, tear)? {
                    run.was_too_late = true;
                    break;
                }
                if tear.moment != Moment::Unheard {
                    player.lose(&cast.workers[tear.worker].destination);
                }
            }
            if watch.reconnects {
                player.hang_up();
                cast.workers.iter().for_each(|actor| player.lose(&actor.destination));
            }
            if watch.noted.is_some_and(|(first, _)| first == step) {
                before = cast.workers[at].worker.disk().written();
            }
            let mut outcome =
                outcome(self.runtime.block_on(player.step(step, &cast.workers[at].destination)));
            if let Outcome::Lost(why) = &mut outcome {
                why.push_str(&fate(&cast.workers[at].worker));
            }
            if watch.noted.is_some() {
                let disk = cast.workers[at].worker.disk();
                run.traces.add(step, seen(&cast.workers[at]), |path| disk.is_as_before(path));
            }
            if watch.noted.is_some_and(|(_, last)| last == step) {
                let disk = cast.workers[at].worker.disk();
                run.written = disk::changed(&before, &disk.written());
                run.disk = Some(Arc::clone(disk));
            }
            let ends = watch.ends.is_some_and(|ends| ends(step, &outcome));
            run.outcomes.push(outcome);
            if ends {
                break;
            }
            if let Some(restart) = kill {
                player.hang_up();
                player.lose(&cast.workers[at].destination);
                match cast.restart(at, *restart) {
                    // What it has left on its disk keeps it from starting, as the file of its process number.
                    Err(Error::NotListening { why, output }) if *restart == Restart::SameDisk => {
                        if step < schedule.workers.len() {
                            run.outcomes.push(Outcome::Lost(stays_down(&why, &output)));
                        }
                        break;
                    }
                    restarted => restarted?,
                }
            }
        }
        // While its workers have what they wrote.
        self.room.fetch_min(self.pool.yard().room(), Ordering::Relaxed);
        run.canaries = canaries(&player, journey);
        for actor in &cast.workers {
            run.beside.extend(actor.worker.carried().into_keys());
        }
        self.uses_what_is_beside.fetch_or(!run.beside.is_empty(), Ordering::Relaxed);
        Ok(run)
    }

    /// So many workers that nobody has used, where what is beside was emptied before.
    pub(crate) fn fresh(&self, workers: usize) -> Result<Vec<Worker>, Error> {
        self.empty_what_is_beside()?;
        (0..workers).map(|_| self.pool.fresh()).collect()
    }

    /// The same with clocks that are moved so many seconds forwards.
    pub(crate) fn with_clock(&self, workers: usize, offset: i64) -> Result<Vec<Worker>, Error> {
        self.empty_what_is_beside()?;
        self.pool.with_clock(workers, offset)
    }

    /// A journey out of the service itself: its links and forms, within the usual bounds.
    pub fn crawl(&self) -> Result<Journey, Error> {
        self.empty_what_is_beside()?;
        let actor = actor(self.pool.fresh()?);
        let (settings, bounds) = (self.settings(), crawl::Bounds::default());
        let crawled = self.runtime.block_on(crawl::crawl(&actor.destination, &settings, &bounds));
        Ok(crawled.map_err(|error| io::Error::other(told(&error)))?)
    }

    /// Those of somebody who has not been here.
    fn settings(&self) -> Settings {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        // Names are short; seeds that differ only in their upper bits have others too.
        let seed = (self.seed ^ (self.seed >> 24) ^ (self.seed >> 48)) & 0xff_ffff;
        let identity = format!("p{seed:06x}n{run:04}");
        let limits = Limits { open_min: OPEN_MIN, ..Limits::default() };
        Settings { identity, limits, ..Settings::default() }
    }

    fn player(&self, journey: &Arc<Journey>) -> io::Result<Player> {
        Player::new(Arc::clone(journey), self.settings()).map_err(|error| io::Error::other(told(&error)))
    }

    fn empty_what_is_beside(&self) -> io::Result<()> {
        self.reset.as_deref().map_or(Ok(()), |command| run_reset(command, RESET_MAX))
    }
}

/// Runs `--reset COMMAND`, for `max` at most.
fn run_reset(command: &str, max: Duration) -> io::Result<()> {
    let mut shell = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = Output::default();
    said.collect(shell.stderr.take())?;
    let began = Instant::now();
    let why = loop {
        match shell.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => break status.to_string(),
            None if began.elapsed() > max => {
                shell.kill()?;
                shell.wait()?;
                break format!("it takes longer than {} s and was ended", max.as_secs());
            }
            None => thread::sleep(LOOK_EVERY),
        }
    };
    said.until_the_end();
    let said = said.tail(LINES_SHOWN).join("\n");
    Err(io::Error::other(format!("`--reset {command}` failed ({why}): {}", said.trim())))
}

/// What is told of a worker that was killed and does not come back, on one line.
fn stays_down(why: &str, output: &[String]) -> String {
    let said = output.last().map(|line| format!(", and printed {:?}", line.trim())).unwrap_or_default();
    format!("the worker does not start again after kill -9 with its disk: {why}{said}")
}

/// What a worker that has given no answer says of it itself.
fn fate(worker: &Worker) -> String {
    let ended = worker.ended().ok().flatten().map(|how| format!("; {how}")).unwrap_or_default();
    let said = worker.tail().last().map(|line| format!("; it printed {:?} last", line.trim()));
    ended + &said.unwrap_or_default()
}

/// The workers of a run.
struct Cast<'s> {
    stage: &'s Stage,
    entropy: Option<u64>,
    workers: Vec<Actor>,
}

struct Actor {
    worker: Worker,
    destination: Destination,
}

impl Cast<'_> {
    fn fresh(&self) -> Result<Actor, Error> {
        let worker = match self.entropy {
            Some(entropy) => self.stage.pool.with_entropy(entropy)?,
            None => self.stage.pool.fresh()?,
        };
        Ok(actor(worker))
    }

    /// Sends a step to a worker as `player` would, and kills that worker in the middle of it; the player learns nothing of it. Gives
    /// whether the moment came, which it does not for a worker that is done before.
    fn tear(&mut self, player: &Player, step: usize, tear: Tear) -> Result<bool, Error> {
        let mut attempt = player.fork();
        let Actor { worker, destination } = &mut self.workers[tear.worker];
        let (destination, moment) = match tear.moment {
            Moment::Delivered => tap::tapped(destination, Event::Delivered),
            Moment::Answered => tap::tapped(destination, Event::Answering),
            Moment::Exchange(number) => (destination.clone(), worker.keep_answer(number)),
            Moment::Unheard => {
                let _ = self.stage.runtime.block_on(attempt.step(step, destination));
                return Ok(true);
            }
        };
        let mut moment = pin!(moment);
        let mut playing = pin!(attempt.step(step, &destination));
        let has_come = self.stage.runtime.block_on(poll_fn(|cx| match moment.as_mut().poll(cx) {
            Poll::Ready(moment) => Poll::Ready(moment.is_ok()),
            Poll::Pending => playing.as_mut().poll(cx).map(|_| false),
        }));
        if has_come {
            // Before the connection is closed, so that it cannot be told that nobody waits for it.
            worker.end();
        }
        Ok(has_come)
    }

    /// Kills a worker and puts another one in its place.
    fn restart(&mut self, at: usize, restart: Restart) -> Result<(), Error> {
        let former = self.workers.remove(at);
        drop(former.destination);
        let disk = former.worker.kill();
        let next = match restart {
            Restart::SameDisk => actor(self.stage.pool.again(disk, self.entropy)?),
            Restart::NewDisk => self.fresh()?,
        };
        self.workers.insert(at, next);
        Ok(())
    }
}

fn actor(worker: Worker) -> Actor {
    let door = Arc::new(worker.door());
    let destination = Destination::by(worker.name().to_owned(), move || {
        let door = Arc::clone(&door);
        // On one machine a connection is there at once, or is refused.
        async move {
            let stream = door()?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            TcpStream::from_std(stream)
        }
    });
    Actor { worker, destination }
}

/// What a worker did with files by now; a world that has ended tells nothing.
fn seen(actor: &Actor) -> Seen {
    actor.worker.seen().unwrap_or(Seen { files: Vec::new(), is_cut: true })
}

/// Not what the journey's file says or takes from the environment, which may be a password: only what this run alone has.
fn canaries(player: &Player, journey: &Journey) -> Vec<String> {
    let identity = player.variables().text(lethe_journey::template::IDENTITY);
    let cookies = player.jar().cookies().iter().map(|cookie| cookie.value.clone());
    let is_own = |name: &str| {
        name != lethe_journey::template::ORIGIN
            && journey.variables.iter().all(|(declared, _)| declared != name)
    };
    let variables = player.variables().iter().filter(|(name, _)| is_own(name));
    let variables = variables.map(|(_, value)| lethe_journey::template::text(value));
    let mut canaries: Vec<String> = identity.into_iter().chain(cookies).chain(variables).collect();
    canaries.retain(|canary| canary.len() >= CANARY_BYTES_MIN);
    canaries
}

fn outcome(answered: Result<Observed, player::Error>) -> Outcome {
    match answered {
        Ok(observed) => Outcome::Answered(Box::new(observed)),
        Err(error) => Outcome::Lost(told(&error)),
    }
}

/// An error with its causes.
fn told(error: &player::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain answer to a step.
    pub(crate) fn answered(step: usize, took: Duration) -> Outcome {
        Outcome::Answered(Box::new(Observed {
            step,
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: Vec::new().into(),
            is_cut: false,
            redirects: Vec::new(),
            took,
            unmet: Vec::new(),
            identity: String::new(),
        }))
    }

    #[test]
    fn a_reset_that_hangs_is_ended() {
        run_reset("exit 0", RESET_MAX).unwrap();
        let hung = run_reset("echo waiting for a lock >&2; exec sleep 1000", Duration::ZERO).unwrap_err();
        assert!(hung.to_string().contains("longer than 0 s"), "{hung}");
        let failed = run_reset("echo the disk is full >&2; false", RESET_MAX).unwrap_err().to_string();
        assert!(failed.contains("exit status: 1") && failed.contains("the disk is full"), "{failed}");
    }
}
