//! Workers that are started ahead, since starts take most of the time of a proof.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use crate::{
    disk::Disk,
    gate::Gate,
    worker::{Error, Worker},
    yard::Yard,
};

/// Workers that wait, started; and as many are being started.
const AHEAD_MAX: usize = 2;

/// Gives fresh workers, each with an empty disk of its own.
pub struct Pool {
    yard: Arc<Yard>,
    numbers: Arc<AtomicU32>,
    /// `None` where nothing may be started ahead.
    ready: Option<Mutex<Receiver<Result<Worker, Error>>>>,
    starters: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts workers ahead, or, where what is beside is emptied between runs, only when they are asked for.
    pub fn new(yard: Arc<Yard>, is_ahead: bool) -> io::Result<Self> {
        let mut pool =
            Self { yard, numbers: Arc::default(), ready: None, starters: Vec::with_capacity(AHEAD_MAX) };
        if !is_ahead {
            return Ok(pool);
        }
        let (sender, ready) = sync_channel(0);
        for _ in 0..AHEAD_MAX {
            let (yard, numbers, sender) = (Arc::clone(&pool.yard), Arc::clone(&pool.numbers), sender.clone());
            let starter = thread::Builder::new().name("starter".into());
            pool.starters.push(starter.spawn(move || start_ahead(&yard, &numbers, &sender))?);
        }
        pool.ready = Some(Mutex::new(ready));
        Ok(pool)
    }

    /// Where its workers are.
    pub fn yard(&self) -> &Arc<Yard> {
        &self.yard
    }

    /// A worker that nobody has used.
    pub fn fresh(&self) -> Result<Worker, Error> {
        match &self.ready {
            // The threads end only with this.
            Some(ready) => ready.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or_else(|_| {
                Err(io::Error::other("the threads that start workers have ended").into())
            }),
            None => fresh(&self.yard, &self.numbers, None),
        }
    }

    /// A worker whose random numbers of boot are drawn from `entropy`.
    pub fn with_entropy(&self, entropy: u64) -> Result<Worker, Error> {
        fresh(&self.yard, &self.numbers, Some(entropy))
    }

    /// So many workers that are started at the same moment, what services beside answer to them in step. The error is that of the first that
    /// does not start; the others are ended.
    pub fn at_once(&self, workers: usize) -> Result<Vec<Worker>, Error> {
        let gate = Arc::new(Gate::new(workers));
        let start = |number: usize| {
            let mut start = self.yard.next(name(&self.numbers), None)?;
            start.gate = Some((Arc::clone(&gate), number));
            let worker = Worker::start(&self.yard, &start, Arc::new(self.yard.disk()?));
            // One that has started may ask for nothing more, and one that has ended will not.
            gate.open();
            worker
        };
        together(workers, start)
    }

    /// So many workers that are started at the same moment, each with a clock that is moved so many seconds forwards. The error is that of
    /// the first that does not start; the others are ended.
    pub fn with_clock(&self, workers: usize, offset: i64) -> Result<Vec<Worker>, Error> {
        let start = || {
            let mut start = self.yard.next(name(&self.numbers), None)?;
            start.clock = Some(offset);
            Worker::start(&self.yard, &start, Arc::new(self.yard.disk()?))
        };
        together(workers, |_| start())
    }

    /// A worker that starts while `file` is empty.
    pub fn without(&self, file: &Path) -> Result<Worker, Error> {
        let mut start = self.yard.next(name(&self.numbers), None)?;
        start.emptied = Some(file.to_owned());
        Worker::start(&self.yard, &start, Arc::new(self.yard.disk()?))
    }

    /// Another worker on a disk that a former one has left.
    pub fn again(&self, disk: Arc<Disk>, entropy: Option<u64>) -> Result<Worker, Error> {
        let start = self.yard.next(name(&self.numbers), entropy)?;
        Worker::start(&self.yard, &start, disk)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Without a receiver the threads end, and their workers with them.
        self.ready = None;
        for starter in self.starters.drain(..) {
            let _ = starter.join();
        }
    }
}

fn together(
    workers: usize,
    start: impl Fn(usize) -> Result<Worker, Error> + Sync,
) -> Result<Vec<Worker>, Error> {
    thread::scope(|scope| {
        let start = &start;
        let starts: Vec<_> = (0..workers).map(|number| scope.spawn(move || start(number))).collect();
        let ended = |_| Err(io::Error::other("a thread that starts a worker has ended").into());
        let started: Vec<_> = starts.into_iter().map(|start| start.join().unwrap_or_else(ended)).collect();
        started.into_iter().collect()
    })
}

fn start_ahead(yard: &Yard, numbers: &AtomicU32, sender: &SyncSender<Result<Worker, Error>>) {
    while sender.send(fresh(yard, numbers, None)).is_ok() {}
}

fn fresh(yard: &Yard, numbers: &AtomicU32, entropy: Option<u64>) -> Result<Worker, Error> {
    let start = yard.next(name(numbers), entropy)?;
    Worker::start(yard, &start, Arc::new(yard.disk()?))
}

fn name(numbers: &AtomicU32) -> String {
    format!("worker-{}", numbers.fetch_add(1, Ordering::Relaxed) + 1)
}
