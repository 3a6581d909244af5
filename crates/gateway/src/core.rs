//! One core of the gateway: a thread with a runtime, a listener, routes, workers and counters of its own. Cores share
//! nothing on a request's way but each worker's gate.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
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
    batch::Tray,
    client::{Client, Overdue, Phase},
    config::Config,
    observer::Observer,
    replay::Budget,
    route::{Table, Target},
    service::Service,
    shard::Shard,
    stats::Protocol,
};

/// How often timeouts are looked at, and so how exact they are.
const TICK: Duration = Duration::from_millis(100);

/// What a core is started with.
pub(crate) struct Seed {
    /// Its number, from 0.
    pub(crate) index: usize,
    pub(crate) config: Arc<Config>,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) shard: Arc<Shard>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// Becomes true when the gateway is to stop.
    pub(crate) draining: watch::Receiver<bool>,
    /// Client connections of all cores.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Bytes left for kept request bodies, of all cores.
    pub(crate) replay_bytes: Arc<AtomicUsize>,
    /// What this core writes its part of the access log into.
    pub(crate) log: Option<Tray>,
    /// What it writes its spans into.
    #[cfg(feature = "otel")]
    pub(crate) spans: Option<crate::otel::Spans>,
}

/// What the tasks of one core share.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) observer: Rc<Observer>,
    pub(crate) table: Table,
    pub(crate) dice: Dice,
    pub(crate) budget: Rc<Budget>,
    /// This core's share of the queue of each service.
    pub(crate) queue_max: usize,
    services: BTreeMap<ServiceName, Rc<Service>>,
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
            index, config, listener, shard, mut roster, mut draining, connections, replay_bytes, ..
        } = seed;
        let core = Rc::new(Core::new(index, config, shard, connections, replay_bytes));
        core.observer.set_log(seed.log);
        #[cfg(feature = "otel")]
        core.observer.set_spans(seed.spans);
        core.follow(&roster.borrow_and_update());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let following = tokio::task::spawn_local({
            let core = Rc::clone(&core);
            async move {
                while roster.changed().await.is_ok() {
                    core.follow(&roster.borrow_and_update());
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
        ticking.abort();
        core.observer.tick();
        Ok(())
    })
}

impl Core {
    fn new(
        index: usize,
        config: Arc<Config>,
        shard: Arc<Shard>,
        connections: Arc<AtomicUsize>,
        replay_bytes: Arc<AtomicUsize>,
    ) -> Self {
        let mut services: BTreeMap<ServiceName, Rc<Service>> = BTreeMap::new();
        let stats = shard.set_routes(&config.routes);
        let targets = config.routes.iter().zip(stats).map(|(route, stats)| {
            let name = route.service.clone();
            let service = services.entry(name).or_insert_with_key(|name| Service::new(name.clone(), index));
            Rc::new(Target { route: route.clone(), service: Rc::clone(service), stats })
        });
        Self {
            table: Table::new(targets.collect()),
            dice: Dice::new(),
            budget: Rc::new(Budget::new(replay_bytes)),
            queue_max: config.limits.queue_max.div_ceil(config.cores.max(1)),
            services,
            clients: RefCell::default(),
            connections,
            moved: Notify::new(),
            config,
            observer: Observer::new(Arc::clone(&shard)),
            shard,
        }
    }

    /// Brings the services up to a new roster.
    fn follow(&self, roster: &Roster) {
        for (name, service) in &self.services {
            service.apply(roster.services.get(name).map(Vec::as_slice).unwrap_or_default());
        }
        let workers = self.services.values().flat_map(|service| service.workers());
        self.shard.set_workers(
            workers.map(|upstream| (upstream.instance.clone(), Arc::clone(&upstream.stats))).collect(),
        );
    }

    /// Whether one more client connection may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.connections.load(Relaxed) < self.config.limits.connections_max
    }

    /// Takes a client connection into the books.
    pub(crate) fn opened(&self, id: u64, client: Rc<Client>, task: AbortHandle) {
        self.clients.borrow_mut().insert(id, (client, task));
        self.connections.fetch_add(1, Relaxed);
        self.shard.connections.add(1);
        // Nothing else is spoken yet.
        self.shard.accepted(Protocol::Http11);
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
        let now = Instant::now();
        for (client, task) in self.clients.borrow().values() {
            match client.overdue(now, &self.config.limits) {
                None => {}
                Some(Overdue::Close) => task.abort(),
                Some(Overdue::Answer) => {
                    client.late.set(true);
                    client.wake();
                }
            }
        }
        let workers = self.services.values().flat_map(|service| service.workers());
        let idle: usize = workers.map(|upstream| upstream.sweep(now)).sum();
        idle > 0 || !self.clients.borrow().is_empty()
    }
}

/// Looks at the timeouts while there is anything to time; a gateway that nobody talks to does not wake up.
async fn tick(core: Rc<Core>) {
    loop {
        let moved = core.moved.notified();
        core.observer.tick();
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
    if tokio::time::timeout(core.config.limits.drain_timeout, ended).await.is_err() {
        tracing::warn!(open = core.clients.borrow().len(), "closed connections that did not end in time");
    }
}
