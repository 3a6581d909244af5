//! Active health checks: a worker that stops answering is passed over until it answers again. A thread of its own runs
//! one task for each worker of each service that has checks, so that a worker is asked once and not by every core, and
//! so that ten thousand checks a second never stand in the way of a request. What it finds is written into the
//! worker's standing, where the cores read it.

use std::{
    collections::BTreeMap,
    io,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lethe_model::{
    h2c_question,
    roster::{Protocol, Roster, Worker, WorkerState},
    service::ServiceName,
    workers::{Change, Workers},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::LocalOptions,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use crate::{balance::Dice, config::Health, ejection::Standing, follow::key, joint::Joint, socket::Socket};

/// Checks at the same time. One more waits, and its worker is checked later.
const CHECKS_MAX: usize = 256;
/// A status line is shorter than this.
const STATUS_LINE_BYTES_MAX: usize = 1024;
/// The roster is followed at most this often.
const FOLLOW_PAUSE: Duration = Duration::from_millis(20);

/// What is checked of one service.
#[derive(Clone)]
pub(crate) struct Checked {
    pub(crate) health: Health,
    pub(crate) out_percent_max: u8,
    pub(crate) joint: Arc<Joint>,
}

/// The services that have checks; a new value replaces all of the one before.
pub(crate) type Plan = Arc<BTreeMap<ServiceName, Checked>>;

/// Starts the thread. It ends when the sender of `plan` is dropped.
pub(crate) fn start(
    plan: watch::Receiver<Plan>,
    roster: watch::Receiver<Arc<Roster>>,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("gateway-health".into()).spawn(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(follow(plan, roster)),
            Err(error) => tracing::error!(%error, "health checks could not start"),
        }
    })
}

/// Has a task for each ready worker of the services in the plan.
async fn follow(mut plan: watch::Receiver<Plan>, mut roster: watch::Receiver<Arc<Roster>>) {
    let mut watch = Watch::default();
    loop {
        if plan.has_changed().unwrap_or(true) {
            watch.begin_anew();
        }
        let services = Arc::clone(&plan.borrow_and_update());
        let snapshot = Arc::clone(&roster.borrow_and_update());
        for (name, checked) in services.iter() {
            watch.follow(name, checked, snapshot.services.get(name));
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
        tokio::select! {
            changed = plan.changed() => if changed.is_err() { return },
            // When nobody publishes a roster any more, the last one holds.
            Ok(()) = roster.changed() => {}
        }
    }
}

/// All workers that are being checked.
struct Watch {
    room: Rc<Semaphore>,
    dice: Dice,
    /// By the address of their gate.
    watched: BTreeMap<usize, Watched>,
    /// The workers that it has come up to.
    followed: BTreeMap<ServiceName, Workers>,
}

impl Default for Watch {
    fn default() -> Self {
        let (watched, followed) = (BTreeMap::new(), BTreeMap::new());
        Self { room: Rc::new(Semaphore::new(CHECKS_MAX)), dice: Dice::new(), watched, followed }
    }
}

impl Watch {
    /// Ends all checks; what they found does not outlast their plan.
    fn begin_anew(&mut self) {
        self.followed.clear();
        for watched in std::mem::take(&mut self.watched).into_values() {
            watched.joint.outs.healthy(&watched.standing);
        }
    }

    /// Comes up to a service's workers.
    fn follow(&mut self, name: &ServiceName, checked: &Checked, workers: Option<&Workers>) {
        let workers = workers.cloned().unwrap_or_default();
        let before = self.followed.insert(name.clone(), workers.clone()).unwrap_or_default();
        let is_ready = |worker: &&Worker| worker.state == WorkerState::Ready;
        for Change { before, after } in before.changes_to(&workers) {
            let (was, is) = (before.filter(is_ready), after.filter(is_ready));
            if let Some(was) = was
                && is.is_none_or(|is| !Arc::ptr_eq(&is.gate, &was.gate))
            {
                self.watched.remove(&key(&was.gate));
            }
            if let Some(is) = is {
                let new = || Watched::begin(is, checked, &self.room, &self.dice);
                self.watched.entry(key(&is.gate)).or_insert_with(new);
            }
        }
    }
}

/// A worker that is being checked, until this is dropped.
struct Watched {
    joint: Arc<Joint>,
    standing: Arc<Standing>,
    task: JoinHandle<()>,
}

impl Watched {
    fn begin(worker: &Worker, checked: &Checked, room: &Rc<Semaphore>, dice: &Dice) -> Self {
        // Not all at the same time, however many started together.
        let delay = checked.health.every.mul_f64(dice.below(1000) as f64 / 1000.0);
        let (joint, standing) = (Arc::clone(&checked.joint), checked.joint.list(&worker.gate));
        let check =
            watch_over(worker.clone(), checked.clone(), Arc::clone(&standing), Rc::clone(room), delay);
        Self { joint, standing, task: tokio::task::spawn_local(check) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
        self.joint.unlist(&self.standing);
    }
}

/// Checks one worker again and again.
async fn watch_over(
    worker: Worker,
    checked: Checked,
    standing: Arc<Standing>,
    room: Rc<Semaphore>,
    delay: Duration,
) {
    let Checked { health, out_percent_max, joint } = checked;
    let mut tally = Tally::default();
    let mut next = tokio::time::Instant::now() + delay;
    loop {
        tokio::time::sleep_until(next).await;
        next += health.every;
        let Ok(_permit) = room.acquire().await else { return };
        let answer = tokio::time::timeout(health.timeout, check(&worker, &health.path)).await;
        let result = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let is_well = result.as_ref().is_ok_and(|status| (200..300).contains(status));
        match tally.note(is_well, &health) {
            Some(true) if joint.outs.healthy(&standing) => {
                tracing::info!(worker = %worker.instance, "healthy again");
            }
            Some(false) => {
                let was_out = standing.is_out(Instant::now());
                let is_out = joint.outs.unhealthy(&standing, out_percent_max, joint.ready(), Instant::now());
                if is_out && !was_out {
                    tracing::warn!(worker = %worker.instance, ?result, "passed over: its health check fails");
                }
            }
            _ => {}
        }
        // A check that took longer than the time between two is not made up for.
        next = next.max(tokio::time::Instant::now());
    }
}

/// Results in a row.
#[derive(Debug, Default)]
struct Tally {
    is_well: bool,
    in_a_row: u32,
}

impl Tally {
    /// Adds a result. Says whether the worker is well, once there were enough alike in a row.
    fn note(&mut self, is_well: bool, health: &Health) -> Option<bool> {
        self.in_a_row = if self.is_well == is_well { self.in_a_row.saturating_add(1) } else { 1 };
        self.is_well = is_well;
        let enough = if is_well { health.successes } else { health.failures };
        (self.in_a_row >= enough.max(1)).then_some(is_well)
    }
}

/// Asks once, on a connection of its own, and returns the status.
async fn check(Worker { address, protocol, .. }: &Worker, path: &str) -> io::Result<u16> {
    let (mut stream, host) = (Socket::connect(address).await?, address.authority());
    if *protocol == Protocol::H2c {
        return h2c_question::ask(stream, path, &host).await;
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: lethe-health\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::with_capacity(STATUS_LINE_BYTES_MAX);
    while !line.contains(&b'\n') {
        if line.len() >= STATUS_LINE_BYTES_MAX || stream.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    status(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The status of an HTTP/1 response (RFC 9112, section 4).
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let ends = matches!(rest.first(), Some(b' ' | b'\r' | b'\n'));
    if !ends || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (line, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 204\r\n", Some(204)),
            ("HTTP/1.1 503 \r\n", Some(503)),
            ("HTTP/1.1 200\n", Some(200)),
            ("HTTP/1.1 2000\r\n", None),
            ("HTTP/1.1 2x0 OK\r\n", None),
            ("HTTP/1.1 20", None),
            ("HTTP/2 200\r\n", None),
            ("SSH-2.0-x\r\n", None),
            ("\n", None),
        ] {
            assert_eq!(status(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn results_count_in_a_row() {
        let health = Health {
            path: "/".into(),
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failures: 3,
            successes: 2,
        };
        let mut tally = Tally::default();
        let mut said = String::new();
        for result in "++--+---+-++".chars() {
            said.push(match tally.note(result == '+', &health) {
                Some(true) => 'w',
                Some(false) => 'o',
                None => '.',
            });
        }
        assert_eq!(said, ".w.....o...w");
    }
}
