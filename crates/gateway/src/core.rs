//! One core of the gateway: a thread with a runtime, a listener, routes, workers and counters of its own. Cores share
//! nothing on a request's way but each worker's gate.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lethe_model::{roster::Roster, service::ServiceName};
use tokio::{
    runtime::LocalOptions,
    sync::{Notify, watch},
    task::AbortHandle,
};

use crate::{
    accept,
    balance::Dice,
    client::{Client, Overdue, Phase},
    config::Config,
    replay::Budget,
    route::{Table, Target},
    service::Service,
    stats::Shard,
};

/// How often timeouts are looked at, and so how exact they are.
const TICK: Duration = Duration::from_millis(100);

/// How often is looked whether requests of an earlier configuration have found a worker.
const LEFT_LOOK: Duration = Duration::from_millis(5);

/// A configuration, and the how-manieth it is.
pub(crate) struct Turn {
    pub(crate) number: u64,
    pub(crate) config: Config,
}

/// What a core is started with.
pub(crate) struct Seed {
    /// Its number, from 0.
    pub(crate) index: usize,
    pub(crate) turns: watch::Receiver<Arc<Turn>>,
    /// The number of the turn that each core has come to.
    pub(crate) reached: Arc<watch::Sender<Vec<u64>>>,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) shard: Arc<Shard>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// Becomes true when the gateway is to stop.
    pub(crate) draining: watch::Receiver<bool>,
    /// Client connections of all cores.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Bytes left for kept request bodies, of all cores.
    pub(crate) replay_bytes: Arc<AtomicUsize>,
}

/// What the tasks of one core share.
pub(crate) struct Core {
    index: usize,
    config: RefCell<Rc<Config>>,
    pub(crate) shard: Arc<Shard>,
    table: RefCell<Table>,
    pub(crate) dice: Dice,
    pub(crate) budget: Rc<Budget>,
    /// This core's share of the queue of each service.
    pub(crate) queue_max: Cell<usize>,
    /// Those that routes lead to, and those that requests of an earlier configuration are still at.
    services: RefCell<BTreeMap<ServiceName, Rc<Service>>>,
    clients: RefCell<HashMap<u64, (Rc<Client>, AbortHandle)>>,
    connections: Arc<AtomicUsize>,
    /// Woken when a client connection is opened or closed.
    pub(crate) moved: Notify,
}

/// Runs a core on this thread until the gateway has drained.
pub(crate) fn run(seed: Seed) -> std::io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let Seed {
            index,
            mut turns,
            reached,
            listener,
            shard,
            mut roster,
            mut draining,
            connections,
            replay_bytes,
        } = seed;
        let config = turns.borrow_and_update().config.clone();
        let core = Rc::new(Core::new(index, config, shard, connections, replay_bytes));
        core.follow(&roster.borrow_and_update());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let latest = roster.clone();
        let following = tokio::task::spawn_local({
            let core = Rc::clone(&core);
            async move {
                while roster.changed().await.is_ok() {
                    core.follow(&roster.borrow_and_update());
                }
            }
        });
        let turning = tokio::task::spawn_local({
            let core = Rc::clone(&core);
            async move {
                while turns.changed().await.is_ok() {
                    let turn = Arc::clone(&turns.borrow_and_update());
                    let retired = core.configure(turn.config.clone());
                    core.follow(&latest.borrow());
                    core.left(&retired).await;
                    reached.send_modify(|reached| reached[index] = turn.number);
                }
            }
        });
        let ticking = tokio::task::spawn_local(tick(Rc::clone(&core)));
        tokio::select! {
            () = accept::run(&core, &listener) => {}
            _ = draining.wait_for(|&draining| draining) => {}
        }
        accept::rest(&core, listener);
        drain(&core).await;
        following.abort();
        turning.abort();
        ticking.abort();
        Ok(())
    })
}

impl Core {
    fn new(
        index: usize,
        config: Config,
        shard: Arc<Shard>,
        connections: Arc<AtomicUsize>,
        replay_bytes: Arc<AtomicUsize>,
    ) -> Self {
        let core = Self {
            index,
            config: RefCell::new(Rc::new(config.clone())),
            shard,
            table: RefCell::new(Table::new(Vec::new())),
            dice: Dice::new(),
            budget: Rc::new(Budget::new(replay_bytes)),
            queue_max: Cell::default(),
            services: RefCell::default(),
            clients: RefCell::default(),
            connections,
            moved: Notify::new(),
        };
        core.configure(config);
        core
    }

    /// Routes by `config` from now on. Requests that were routed before go on with the route they have. Returns the
    /// routes of before that lead to services to which none leads any more.
    fn configure(&self, config: Config) -> Vec<Weak<Target>> {
        let mut services = self.services.borrow_mut();
        let targets: Vec<Rc<Target>> = config
            .routes
            .iter()
            .map(|route| {
                let service = services
                    .entry(route.service.clone())
                    .or_insert_with_key(|name| Service::new(name.clone(), self.index));
                Rc::new(Target { route: route.clone(), service: Rc::clone(service) })
            })
            .collect();
        let is_left =
            |target: &&Rc<Target>| config.routes.iter().all(|route| route.service != target.service.name);
        let table = self.table.replace(Table::new(targets));
        let retired = table.targets().filter(is_left).map(Rc::downgrade).collect();
        self.queue_max.set(config.limits.queue_max.div_ceil(config.cores.max(1)));
        self.config.replace(Rc::new(config));
        retired
    }

    /// Waits until no request is at one of these routes any more, to look for a worker or for an answer; no longer than
    /// one may wait for a worker.
    async fn left(&self, retired: &[Weak<Target>]) {
        let left = async {
            while retired.iter().any(|target| target.strong_count() > 0) {
                tokio::time::sleep(LEFT_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(self.config().limits.queue_timeout, left).await;
    }

    /// The present configuration.
    pub(crate) fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// The route of a request for `path` at `host`.
    pub(crate) fn route(&self, host: &str, path: &str) -> Option<Rc<Target>> {
        self.table.borrow().find(host, path).cloned()
    }

    /// Brings the services up to a new roster.
    fn follow(&self, roster: &Roster) {
        let mut services = self.services.borrow_mut();
        // What no route leads to and nobody is at is forgotten when its workers have left.
        services.retain(|name, service| Rc::strong_count(service) > 1 || roster.services.contains_key(name));
        for (name, service) in services.iter() {
            service.apply(roster.services.get(name).map(Vec::as_slice).unwrap_or_default());
        }
        let workers = services.values().flat_map(|service| service.workers());
        self.shard.set_workers(
            workers.map(|upstream| (upstream.instance.clone(), Arc::clone(&upstream.stats))).collect(),
        );
    }

    /// Whether one more client connection may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.connections.load(Relaxed) < self.config.borrow().limits.connections_max
    }

    /// Takes a client connection into the books.
    pub(crate) fn opened(&self, id: u64, client: Rc<Client>, task: AbortHandle) {
        self.clients.borrow_mut().insert(id, (client, task));
        self.connections.fetch_add(1, Relaxed);
        self.shard.connections.add(1);
        self.moved.notify_waiters();
    }

    /// Takes it out again.
    pub(crate) fn closed(&self, id: u64) {
        if self.clients.borrow_mut().remove(&id).is_some() {
            self.connections.fetch_sub(1, Relaxed);
            self.shard.connections.subtract(1);
            self.moved.notify_waiters();
        }
    }

    /// Enforces what is overdue. Returns whether there is anything left to look at.
    fn sweep(&self) -> bool {
        let (now, config) = (Instant::now(), self.config());
        for (client, task) in self.clients.borrow().values() {
            match client.overdue(now, &config.limits) {
                None => {}
                Some(Overdue::Close) => task.abort(),
                Some(Overdue::Answer) => {
                    client.late.set(true);
                    client.wake();
                }
            }
        }
        let services = self.services.borrow();
        let workers = services.values().flat_map(|service| service.workers());
        let idle: usize = workers.map(|upstream| upstream.sweep(now)).sum();
        idle > 0 || !self.clients.borrow().is_empty()
    }
}

/// Looks at the timeouts while there is anything to time; a gateway that nobody talks to does not wake up.
async fn tick(core: Rc<Core>) {
    loop {
        let moved = core.moved.notified();
        if core.sweep() {
            tokio::time::sleep(TICK).await;
        } else {
            moved.await;
        }
    }
}

/// Lets open requests end, for as long as they may take, and closes what is left. Upgraded connections never end by
/// themselves and are closed at once.
async fn drain(core: &Core) {
    for (client, task) in core.clients.borrow().values() {
        client.draining.set(true);
        client.wake();
        if client.phase() == Phase::Tunnel {
            task.abort();
        }
    }
    let ended = async {
        while !core.clients.borrow().is_empty() {
            core.moved.notified().await;
        }
    };
    if tokio::time::timeout(core.config().limits.drain_timeout, ended).await.is_err() {
        tracing::warn!(open = core.clients.borrow().len(), "closed connections that did not end in time");
    }
}
