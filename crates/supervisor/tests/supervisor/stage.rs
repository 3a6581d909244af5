//! What the tests stand on: a supervisor with one service of the test worker, and ways to wait for things.

use std::{future::Future, io, path::Path, sync::Arc, time::Duration};

use lethe_model::{
    roster::{Address, Protocol, Roster, Worker, WorkerState},
    service::ServiceName,
};
use lethe_supervisor::{
    home::Homes,
    logs::{Line, Source},
    resources::Resources,
    service::{Listener, Spec, StateUrls},
    supervisor::{Config, Supervisor},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{broadcast, watch},
};

/// The test worker.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_supervisor-test-worker");

/// Only a test that has failed waits this long.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// A service `web` of the test worker with a habit.
pub(crate) fn spec(instances: u32, habit: &[&str]) -> Spec {
    let command = [&[PROGRAM], habit].concat();
    Spec {
        name: ServiceName::new("web").unwrap(),
        command: command.into_iter().map(Into::into).collect(),
        instances,
        ready: None,
        warm_up: Vec::new(),
        listener: Listener::Port,
        protocol: Protocol::Http1,
        drain: Duration::from_secs(20),
        env: [].into(),
        release: 0,
        withheld: [].into(),
        directory: "/".into(),
        resources: Resources::default(),
    }
}

/// A new connection to a worker's port.
pub(crate) async fn connect(worker: &Worker) -> io::Result<TcpStream> {
    let Address::Tcp(address) = worker.address else { panic!("no port: {}", worker.address) };
    TcpStream::connect(address).await
}

/// A running supervisor, watched.
pub(crate) struct Stage {
    pub(crate) supervisor: Supervisor,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) lines: broadcast::Receiver<Arc<Line>>,
    pub(crate) sockets: TempDir,
}

impl Stage {
    pub(crate) async fn new(spec: Spec) -> Self {
        Self::at(spec, None).await
    }

    /// The same with homes for the workers.
    pub(crate) async fn at(spec: Spec, homes: Option<Homes>) -> Self {
        let services = vec![spec];
        let state_urls = Some(StateUrls::new(|service| format!("unix:/run/{service}")));
        let sockets = tempfile::tempdir().unwrap();
        let config =
            Config { services, sockets: sockets.path().into(), state_urls, homes, guard: PROGRAM.into() };
        let supervisor = Supervisor::start(config).await.unwrap();
        let (roster, lines) = (supervisor.roster(), supervisor.follow());
        Self { supervisor, roster, lines, sockets }
    }

    /// Waits until the roster is as wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&[Worker]) -> bool) -> Vec<Worker> {
        let seen = self.roster.wait_for(|roster| wanted(&web(roster)));
        let Ok(seen) = tokio::time::timeout(HANGS_AFTER, seen).await else {
            panic!("did not happen: {what}; {:#?}", self.supervisor.logs(None, 100));
        };
        web(&seen.unwrap())
    }

    /// The workers that the roster has now.
    pub(crate) fn workers(&self) -> Vec<Worker> {
        web(&self.roster.borrow())
    }

    /// Waits until exactly `count` workers exist and all of them are ready.
    pub(crate) async fn until_ready(&mut self, count: usize) -> Vec<Worker> {
        let what = format!("{count} ready workers");
        self.until(&what, |workers| workers.len() == count && workers.iter().all(is_ready)).await
    }

    /// Waits for a line that was printed or told, from the first line on.
    pub(crate) async fn line(&mut self, what: &str, wanted: impl Fn(&Line) -> bool) -> Line {
        loop {
            if let Some(line) = self.supervisor.logs(None, usize::MAX).unwrap().into_iter().find(&wanted) {
                return line;
            }
            // Another line may be the one; having missed some does not matter, since all are looked through.
            let next = tokio::time::timeout(HANGS_AFTER, self.lines.recv());
            let Ok(next) = next.await else {
                panic!("no line: {what}; {:#?}", self.supervisor.logs(None, 50));
            };
            match next {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => panic!("no line: {what}"),
            }
        }
    }

    /// The process id of a worker.
    pub(crate) fn pid(&self, instance: &str) -> Pid {
        let workers = self.supervisor.workers();
        let worker = workers.iter().find(|worker| worker.instance.as_str() == instance).unwrap();
        Pid::from_raw(worker.pid.unwrap().try_into().unwrap()).unwrap()
    }

    /// Kills a worker from outside, as a fault injector does.
    pub(crate) fn shoot(&self, instance: &str) {
        kill_process(self.pid(instance), Signal::KILL).unwrap();
    }

    /// What the supervisor has told.
    pub(crate) fn told(&self) -> Vec<String> {
        let lines = self.supervisor.logs(None, usize::MAX).unwrap();
        let told = lines.into_iter().filter(|line| line.source == Source::Lethe);
        told.map(|line| format!("{}: {}", line.instance, line.text)).collect()
    }
}

fn web(roster: &Roster) -> Vec<Worker> {
    roster.services["web"].iter().cloned().collect()
}

pub(crate) fn is_ready(worker: &Worker) -> bool {
    worker.state == WorkerState::Ready
}

pub(crate) fn names(workers: &[Worker]) -> Vec<&str> {
    workers.iter().map(|worker| worker.instance.as_str()).collect()
}

pub(crate) fn exists(pid: Pid) -> bool {
    Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()
}

/// What happens before a test is given up.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANGS_AFTER, event).await {
        Ok(seen) => seen,
        Err(_) => panic!("did not happen: {what}"),
    }
}
