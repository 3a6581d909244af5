//! A run: one thread lets users in at the planned instants, others play their journeys. The one who lets in waits for nobody.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lethe_journey::{
    observed::Observed,
    player::{Error, Player, Pool, Settings},
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    plan::Plan,
    recorder::{End, Recorder},
};

/// The most users who have been let in and have not yet been seen by their thread; who comes then is turned away.
const WAITING_MAX: usize = 100_000;

/// Between the start and the first arrival, for the threads to be there.
const PREPARATION: Duration = Duration::from_millis(20);

/// The longest sleep of the thread that lets users in, so that it hears soon of a stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// What can be seen of a run, and told it, while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Users who have come so far.
    pub arrived: AtomicU64,
    /// Requests that have ended as expected.
    pub ok: AtomicU64,
    /// Requests that have ended otherwise.
    pub not_ok: AtomicU64,
    /// Set, nobody more is let in.
    pub stop: AtomicBool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was measured.
    pub recorder: Recorder,
    /// When the first user could have come.
    pub began_at: Instant,
    /// From then until the last one had been let in, or would have been.
    pub took: Duration,
    /// Users who came.
    pub arrived: u64,
    /// Whether it was stopped before its end.
    pub is_stopped: bool,
    /// Users who were still under way when nobody was waited for any more.
    pub unfinished: u64,
}

/// A user who comes.
struct Arrival {
    number: u64,
    planned: Instant,
}

/// What all users of a thread share.
struct Ward {
    plan: Plan,
    progress: Arc<Progress>,
    recorder: Mutex<Recorder>,
    pool: Pool,
    began_at: Instant,
    /// What all identities of this run begin with.
    identity: String,
}

/// Makes a run, on threads of its own and this one, which it blocks.
///
/// # Errors
/// When threads cannot be started.
pub fn run(plan: &Plan, progress: &Arc<Progress>) -> io::Result<Run> {
    let identity = identity()?;
    let began_at = Instant::now() + PREPARATION;
    let (mut gates, mut threads) = (Vec::new(), Vec::new());
    for number in 0..plan.threads.max(1) {
        let (gate, arrivals) = mpsc::channel(WAITING_MAX);
        let recorder = Recorder::new(plan.schedule.duration(), plan.limits.step_time_max);
        let ward = Ward {
            plan: plan.clone(),
            progress: Arc::clone(progress),
            recorder: Mutex::new(recorder),
            pool: Pool::default(),
            began_at,
            identity: identity.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("load-{number}"));
        threads.push(thread.spawn(move || runtime.block_on(serve(Arc::new(ward), arrivals)))?);
        gates.push(gate);
    }
    let (arrived, turned_away) = let_in(plan, &gates, began_at, progress);
    let is_stopped = arrived < plan.schedule.arrivals();
    let took = if is_stopped { began_at.elapsed() } else { plan.schedule.duration() };
    drop(gates);
    let mut recorder = Recorder::new(plan.schedule.duration(), plan.limits.step_time_max);
    recorder.turned_away = turned_away;
    let mut unfinished = 0;
    for thread in threads {
        let (measured, left) =
            thread.join().map_err(|_| io::Error::other("a thread that makes load has panicked"))?;
        recorder.add(&measured);
        unfinished += left;
    }
    Ok(Run { recorder, began_at, took, arrived, is_stopped, unfinished })
}

/// Letters and digits that no other run has.
fn identity() -> io::Result<String> {
    let random = getrandom::u32().map_err(io::Error::other)?;
    Ok(format!("l{random:08x}"))
}

/// Lets each user in at the planned instant, or as soon as it can be; gives how many came, and how many of them were turned away.
fn let_in(
    plan: &Plan,
    gates: &[mpsc::Sender<Arrival>],
    began_at: Instant,
    progress: &Progress,
) -> (u64, u64) {
    let mut turned_away = 0;
    for number in 0..plan.schedule.arrivals() {
        let planned = began_at + plan.schedule.at(number).unwrap_or_default();
        loop {
            if progress.stop.load(Ordering::Relaxed) {
                return (number, turned_away);
            }
            let left = planned.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(NAP_MAX));
        }
        // In turn; the remainder fits.
        let gate = &gates[(number % gates.len() as u64) as usize];
        if gate.try_send(Arrival { number, planned }).is_err() {
            turned_away += 1;
        }
        progress.arrived.fetch_add(1, Ordering::Relaxed);
    }
    (plan.schedule.arrivals(), turned_away)
}

/// Plays the journeys of all who are let in to this thread; gives what was measured, and how many were not waited for.
async fn serve(ward: Arc<Ward>, mut arrivals: mpsc::Receiver<Arrival>) -> (Recorder, u64) {
    let users_max = ward.plan.users_max.div_ceil(ward.plan.threads.max(1)).max(1);
    let mut users = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            arrival = arrivals.recv() => match arrival {
                Some(_) if users.len() >= users_max => ward.record(|recorder| recorder.turned_away += 1),
                Some(arrival) => drop(users.spawn(visit(Arc::clone(&ward), arrival))),
                None => break,
            },
            Some(_) = users.join_next() => {}
        }
    }
    let end = tokio::time::Instant::now() + ward.plan.limits.step_time_max;
    while let Ok(Some(_)) = tokio::time::timeout_at(end, users.join_next()).await {}
    let left = users.len() as u64;
    users.shutdown().await;
    let recorder = ward.recorder.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (recorder, left)
}

impl Ward {
    fn record<T>(&self, what: impl FnOnce(&mut Recorder) -> T) -> T {
        what(&mut self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One user, from the first step to the last, or to the first that goes wrong.
async fn visit(ward: Arc<Ward>, Arrival { number, planned }: Arrival) {
    let plan = &ward.plan;
    let which = (number % plan.journeys.len() as u64) as usize;
    let journey = &plan.journeys[which];
    let identity = format!("{}{number:07x}", ward.identity);
    let settings = Settings { identity, host: plan.host.clone(), pauses: false, limits: plan.limits };
    let Ok(player) = Player::new(Arc::clone(journey), settings) else {
        return ward.record(|recorder| recorder.broken_off += 1);
    };
    let mut player = player.with_pool(ward.pool.clone());
    ward.record(|recorder| recorder.let_in(planned.elapsed()));
    let mut planned = planned;
    for (at, step) in journey.steps.iter().enumerate() {
        if !step.pause.is_zero() {
            planned += step.pause;
            tokio::time::sleep_until(planned.into()).await;
            ward.record(|recorder| recorder.let_in(planned.elapsed()));
        }
        let played = player.step(step.number, &plan.destination).await;
        let ended = Instant::now();
        let worker = played.as_ref().ok().and_then(|observed| plan.worker.find(&observed.headers));
        let end = end(&played);
        let is_ok = end == End::Ok;
        let counter = if is_ok { &ward.progress.ok } else { &ward.progress.not_ok };
        counter.fetch_add(1, Ordering::Relaxed);
        let since_start = ended.saturating_duration_since(ward.began_at);
        let latency = ended.saturating_duration_since(planned);
        ward.record(|recorder| recorder.record((which, at), worker, &end, since_start, latency));
        if !is_ok {
            return ward.record(|recorder| recorder.broken_off += 1);
        }
        // What comes next can be sent from now on.
        planned = ended;
    }
    ward.record(|recorder| recorder.finished += 1);
}

fn end(played: &Result<Observed, Error>) -> End {
    match played {
        Ok(observed) if observed.is_met() => End::Ok,
        Ok(observed) => {
            let is_unknown =
                observed.headers.get("lethe-outcome").is_some_and(|outcome| outcome == "unknown");
            let status = observed.status.as_u16();
            let why = observed.unmet.first().map(ToString::to_string).unwrap_or_default();
            match is_unknown {
                true => End::Unknown(format!("status {status} with Lethe-Outcome: unknown")),
                false => End::Unmet(why),
            }
        }
        Err(error @ Error::Late { .. }) => End::Late(error.to_string()),
        Err(error) => {
            let cause =
                std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            End::Failed(format!("{error}{cause}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use lethe_journey::{
        destination::Destination,
        journey::{Journey, Step},
        template::Template,
    };

    use super::*;
    use crate::{plan::WorkerName, schedule::Schedule};

    /// Who is let in late has waited, although nobody has seen it.
    #[tokio::test]
    async fn latency_is_counted_from_the_planned_instant() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().route("/", axum::routing::get(async || ""));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let steps = vec![
            Step::new(1, Method::GET, Template::literal("/")),
            Step::new(2, Method::GET, Template::literal("/")),
        ];
        let journey =
            Journey { name: "a".into(), host: None, variables: Vec::new(), steps, notes: Vec::new() };
        let plan = Plan {
            journeys: vec![Arc::new(journey)],
            destination: Destination::tcp(address),
            host: None,
            schedule: Schedule::constant(1.0, Duration::from_secs(1)).unwrap(),
            limits: Default::default(),
            users_max: 1,
            lag_max: Duration::ZERO,
            threads: 1,
            worker: WorkerName::ServerTiming,
        };
        let late = Duration::from_secs(1000);
        let planned = Instant::now() - late;
        let recorder = Recorder::new(Duration::from_secs(1), Duration::ZERO);
        let ward = Arc::new(Ward {
            plan,
            progress: Arc::default(),
            recorder: Mutex::new(recorder),
            pool: Pool::default(),
            began_at: planned,
            identity: "l0".into(),
        });
        visit(Arc::clone(&ward), Arrival { number: 0, planned }).await;
        ward.record(|recorder| {
            // Histograms tell no more than 300 s.
            let least = |at: usize| recorder.steps[&(0, at)].latencies.max();
            assert_eq!((recorder.finished, recorder.lag.len()), (1, 1));
            assert!(least(0) >= 299_000_000 && recorder.lag.max() >= 299_000_000, "{}", least(0));
            // The second could not have been sent before the first had ended.
            assert!(least(1) < 299_000_000, "{}", least(1));
        });
    }
}
