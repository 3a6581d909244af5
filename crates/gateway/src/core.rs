//! One core of the gateway: a thread with a runtime, a listener, routes, workers and counters of its own. Cores share
//! nothing on a request's way but each worker's gate.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use lethe_model::{roster::Roster, service::ServiceName, workers::Workers};
use slab::Slab;
use tokio::{
    runtime::LocalOptions,
    sync::{Notify, watch},
    task::AbortHandle,
};

use crate::{
    accept::{self, Door, Manner},
    access_log::writer::Writer,
    allowance::Allowance,
    balance::Dice,
    body_budget::{Budgets, Share},
    buffer::Pool,
    client::Client,
    config::{self, Config, Limits},
    crowd::{Crowd, Notice},
    forwarded::{Scheme, Trust},
    head::Bounds,
    joint::Joint,
    ledger::Ledger,
    observer::Observer,
    route::{Table, Target},
    service::Service,
    shard::Shard,
    slices::Slices,
    via::Via,
    watch::{Overdue, Phase, Watched},
};

/// How often timeouts are looked at, and so how exact they are.
const TICK: Duration = Duration::from_millis(100);
/// After many changes of the roster were followed, the next ones wait for so many times as long as that took, if that is
/// a millisecond, and no longer than a new worker should wait for its first request. Workers that have died are out before
/// that, by their gates.
const FOLLOW_PAUSE: u32 = 10;
const FOLLOW_PAUSE_MIN: Duration = Duration::from_millis(1);
const FOLLOW_PAUSE_MAX: Duration = Duration::from_millis(50);
/// How often it is looked whether requests have left a service to which no route leads any more.
const LEFT_LOOK: Duration = Duration::from_millis(10);

/// How long idle clients may still send a request to a process that has given its listeners to another. To close a
/// connection just as a request arrives would lose that, a busy client may be seconds late, and there is no hurry.
const PARTING: Duration = Duration::from_secs(5);

/// A configuration that all cores are to take up.
pub(crate) struct Turn {
    /// Grows by one with each.
    pub(crate) number: u64,
    pub(crate) config: Config,
    /// What all cores hold jointly for each service that a route leads to.
    pub(crate) joints: BTreeMap<ServiceName, Arc<Joint>>,
    /// What writes the access log.
    pub(crate) log: Option<Arc<Writer>>,
    /// Who is asked whether requests of a route with limits may pass.
    pub(crate) allowance: Option<Arc<dyn Allowance>>,
    /// Who is asked what was done, of what is done once.
    pub(crate) ledger: Option<Arc<dyn Ledger>>,
}

/// How the gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It does not.
    Not,
    /// Nobody listens afterwards: who is in the kernel's queue is still served, and clients are let go at once.
    Drain,
    /// Another process listens on the same sockets and serves those in the queue. Clients get the time they need.
    Release,
}

/// What a core is started with.
pub(crate) struct Seed {
    /// Its number, from 0.
    pub(crate) index: usize,
    pub(crate) turns: watch::Receiver<Arc<Turn>>,
    /// The number of the turn that each core has come to.
    pub(crate) reached: Arc<watch::Sender<Vec<u64>>>,
    pub(crate) doors: Vec<(std::net::TcpListener, Manner)>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// When and how the gateway is to stop.
    pub(crate) leaving: watch::Receiver<Leaving>,
    /// The clients of all cores.
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) budgets: Budgets,
    /// What it writes its spans into.
    #[cfg(feature = "otel")]
    pub(crate) spans: Option<crate::otel::Spans>,
}

/// What the tasks of one core share.
pub(crate) struct Core {
    index: usize,
    pub(crate) shard: Arc<Shard>,
    pub(crate) observer: Rc<Observer>,
    log: RefCell<Option<Arc<Writer>>>,
    pub(crate) table: RefCell<Table>,
    pub(crate) dice: Dice,
    pub(crate) pool: Pool,
    /// What it may keep of request bodies.
    pub(crate) replay_share: Rc<Share>,
    /// And of responses that are held.
    pub(crate) hold_share: Rc<Share>,
    /// The bounds of heads.
    pub(crate) bounds: Cell<Bounds>,
    /// The time as `Date` shows it, to the second, brought up to date by the tick.
    pub(crate) date: Cell<[u8; 29]>,
    date_seconds: Cell<u64>,
    /// Whose word about clients is taken.
    pub(crate) trust: RefCell<Trust>,
    /// What it says of itself on the way of a message, if anything.
    pub(crate) via: RefCell<Option<Via>>,
    limits: RefCell<Limits>,
    services: RefCell<BTreeMap<ServiceName, Rc<Service>>>,
    /// Held by who brings the services up to the roster.
    following: tokio::sync::Mutex<()>,
    clients: RefCell<Slab<(Rc<Watched>, AbortHandle)>>,
    crowd: Arc<Crowd>,
    notice: Notice,
    /// The gateway is stopping, and tunnels are not waited for.
    pub(crate) refuses_tunnels: Cell<bool>,
    /// Woken when a client connection is opened or closed.
    pub(crate) moved: Notify,
}

/// Runs a core on this thread until the gateway has drained.
pub(crate) fn run(seed: Seed) -> std::io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let Seed { index, mut turns, reached, doors, shard, mut roster, mut leaving, crowd, budgets, .. } =
            seed;
        let core = Rc::new(Core::new(index, shard, crowd, budgets));
        #[cfg(feature = "otel")]
        core.observer.set_spans(seed.spans);
        // It may be a later one than the first: where threads begin late, a reload can come before them, and waits for them.
        let first = {
            let turn = Arc::clone(&turns.borrow_and_update());
            core.configure(&turn);
            turn.number
        };
        roster.mark_unchanged();
        core.follow(&roster).await;
        reached.send_modify(|reached| reached[index] = first);
        let latest = roster.clone();
        let door = |(listener, manner)| Door::new(listener, manner);
        let doors: Vec<Door> = doors.into_iter().map(door).collect::<Result<_, _>>()?;
        let following = tokio::task::spawn_local({
            let core = Rc::clone(&core);
            async move {
                while roster.changed().await.is_ok() {
                    roster.mark_unchanged();
                    // However many workers there are and however often they change, requests have most of the core.
                    let pause = core.follow(&roster).await * FOLLOW_PAUSE;
                    if pause >= FOLLOW_PAUSE_MIN {
                        tokio::time::sleep(pause.min(FOLLOW_PAUSE_MAX)).await;
                    }
                }
            }
        });
        let turning = tokio::task::spawn_local({
            let core = Rc::clone(&core);
            async move {
                while turns.changed().await.is_ok() {
                    let turn = Arc::clone(&turns.borrow_and_update());
                    let retired = core.configure(&turn);
                    core.follow(&latest).await;
                    core.left(&retired).await;
                    reached.send_modify(|reached| reached[index] = turn.number);
                }
            }
        });
        let ticking = tokio::task::spawn_local(tick(Rc::clone(&core)));
        tokio::select! {
            () = accept::run(&core, &doors) => {}
            _ = leaving.wait_for(|leaving| *leaving != Leaving::Not) => {}
        }
        let how = *leaving.borrow();
        match how {
            Leaving::Release => drop(doors),
            Leaving::Not | Leaving::Drain => accept::rest(&core, doors),
        }
        drain(&core, how).await;
        following.abort();
        turning.abort();
        ticking.abort();
        core.observer.tick();
        Ok(())
    })
}

impl Core {
    pub(crate) fn new(index: usize, shard: Arc<Shard>, crowd: Arc<Crowd>, budgets: Budgets) -> Self {
        let core = Self {
            index,
            observer: Observer::new(Arc::clone(&shard)),
            log: RefCell::default(),
            shard,
            table: RefCell::new(Table::new(Vec::new())),
            dice: Dice::new(),
            pool: Pool::default(),
            replay_share: Rc::new(Share::new(budgets.replay)),
            hold_share: Rc::new(Share::new(budgets.hold)),
            bounds: Cell::default(),
            date: Cell::new([b' '; 29]),
            date_seconds: Cell::new(u64::MAX),
            trust: RefCell::new(Trust::new(&[])),
            via: RefCell::default(),
            limits: RefCell::default(),
            services: RefCell::default(),
            following: tokio::sync::Mutex::default(),
            clients: RefCell::default(),
            crowd,
            notice: Notice::default(),
            refuses_tunnels: Cell::new(false),
            moved: Notify::new(),
        };
        core.tell_time();
        core
    }

    /// Takes up a configuration. Requests in hand keep the route that they have; a service that is still named keeps its
    /// workers and their connections. Returns the routes of before that lead to services to which none leads any more.
    fn configure(&self, turn: &Turn) -> Vec<Weak<Target>> {
        let Turn { config, joints, log, allowance, ledger, .. } = turn;
        self.write_to(log.as_ref());
        let limits = &config.limits;
        self.bounds.set(Bounds {
            head_bytes_max: limits.head_bytes_max,
            target_bytes_max: limits.target_bytes_max,
            headers_max: limits.headers_max,
        });
        self.limits.replace(limits.clone());
        self.replay_share.settle();
        self.hold_share.settle();
        self.trust.replace(Trust::new(&config.trusted_proxies));
        self.via.replace(config.via.as_deref().map(Via::new));
        let mut services = self.services.borrow_mut();
        let (usual, now) = (config::Service::default(), Instant::now());
        for (name, joint) in joints {
            let settings = config.services.get(name).unwrap_or(&usual);
            match services.get(name) {
                Some(service) => service.configure(settings),
                None => {
                    let service = Service::new(name.clone(), Arc::clone(joint), settings, self.index, now);
                    services.insert(name.clone(), service);
                }
            }
        }
        let stats = self.shard.set_routes(&config.routes);
        let targets = config.routes.iter().zip(stats).filter_map(|(route, stats)| {
            let service = Rc::clone(services.get(&route.service)?);
            let allowance = allowance.as_ref().filter(|_| !route.limits.is_empty());
            let judge = allowance.map(|allowance| allowance.judge(self.index, &route.limits));
            let once = ledger.as_ref().zip(route.once.as_ref());
            let clerk = once.map(|(ledger, once)| ledger.clerk(route, once));
            Some(Rc::new(Target { route: route.clone(), service, stats, judge, clerk }))
        });
        let table = self.table.replace(Table::new(targets.collect()));
        let is_left =
            |target: &&Rc<Target>| config.routes.iter().all(|route| route.service != target.service.name);
        table.targets().filter(is_left).map(Rc::downgrade).collect()
    }

    /// Writes the access log by `writer` from now on, or none.
    fn write_to(&self, writer: Option<&Arc<Writer>>) {
        let mut log = self.log.borrow_mut();
        if log.as_ref().map(Arc::as_ptr) != writer.map(Arc::as_ptr) {
            self.observer.set_log(writer.map(|writer| writer.tray()));
            *log = writer.cloned();
        }
    }

    /// Waits until no request is at one of these routes any more, to look for a worker or for an answer; no longer than
    /// one may wait for a worker.
    async fn left(&self, retired: &[Weak<Target>]) {
        let left = async {
            while retired.iter().any(|target| target.strong_count() > 0) {
                tokio::time::sleep(LEFT_LOOK).await;
            }
        };
        let starts = retired.iter().filter_map(|target| target.upgrade()?.service.home.start_wait.get());
        let limit = self.limits().queue_timeout + starts.max().unwrap_or_default();
        let _ = tokio::time::timeout(limit, left).await;
    }

    /// The limits; not to be held across a wait.
    pub(crate) fn limits(&self) -> Ref<'_, Limits> {
        self.limits.borrow()
    }

    /// The client of a connection from `address`.
    pub(crate) fn client(&self, address: IpAddr, scheme: Scheme) -> Rc<Client> {
        Client::new(address, scheme, self.trust.borrow().trusts(address.to_canonical()))
    }

    /// Brings `date` up to date.
    fn tell_time(&self) {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.date_seconds.replace(seconds) != seconds
            && let Ok(date) = httpdate::fmt_http_date(now).into_bytes().try_into()
        {
            self.date.set(date);
        }
    }

    /// Brings the services up to the roster as it is now, with requests in between if that is much. Returns how long it
    /// took without those.
    async fn follow(&self, roster: &watch::Receiver<Arc<Roster>>) -> Duration {
        let _alone = self.following.lock().await;
        // Out of the channel before it is gone through, which would keep the supervisor from the next one.
        let roster = Arc::clone(&roster.borrow());
        let (mut slices, now) = (Slices::begin(), Instant::now());
        for (service, workers) in self.behind(&roster) {
            service.follow(&workers, &self.shard, &mut slices, now).await;
        }
        // What no route leads to and nobody is at is forgotten when its workers have left.
        let mut services = self.services.borrow_mut();
        services.retain(|name, service| Rc::strong_count(service) > 1 || roster.services.contains_key(name));
        slices.spent()
    }

    /// The services that have not come up to the roster, with their workers in it.
    fn behind(&self, roster: &Roster) -> Vec<(Rc<Service>, Workers)> {
        let services = self.services.borrow();
        let mut listed = roster.services.iter().peekable();
        // Both are in order.
        let workers_of = |(name, service): (&ServiceName, &Rc<Service>)| {
            while listed.next_if(|(other, _)| *other < name).is_some() {}
            let workers = listed.next_if(|(other, _)| *other == name).map(|(_, workers)| workers.clone());
            let workers = workers.unwrap_or_default();
            (!service.has_followed(&workers)).then(|| (Rc::clone(service), workers))
        };
        services.iter().filter_map(workers_of).collect()
    }

    /// Whether one more client connection may be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.crowd.admits(self.limits().connections_max)
    }

    /// Takes a client connection into the books.
    pub(crate) fn opened(&self, id: usize, watched: Rc<Watched>, task: AbortHandle) {
        self.joined(id, watched, task);
        self.tell_time();
        self.crowd.enter();
        self.shard.connections.add(1);
        self.moved.notify_waiters();
    }

    /// Takes a stream of a connection into the books.
    pub(crate) fn joined(&self, id: usize, watched: Rc<Watched>, task: AbortHandle) {
        let entered = self.clients.borrow_mut().insert((watched, task));
        debug_assert_eq!(entered, id, "nobody comes between");
    }

    /// Enforces what is overdue. Returns whether there is anything left to look at.
    async fn sweep(&self) -> bool {
        let now = Instant::now();
        self.tell_time();
        self.enforce(now);
        if self.notice.is_wanted(&self.crowd) {
            let clients = self.clients.borrow();
            self.notice.make_room(
                clients.iter().map(|(_, (client, _))| client),
                self.limits().connections_max,
                now,
            );
        }
        let services: Vec<Rc<Service>> = self.services.borrow().values().map(Rc::clone).collect();
        let (mut slices, mut has_pooled) = (Slices::begin(), false);
        for service in services {
            service.tick(now);
            has_pooled |= service.sweep(now, &mut slices).await;
        }
        has_pooled || !self.clients.borrow().is_empty()
    }

    /// Ends what takes longer than it may.
    fn enforce(&self, now: Instant) {
        let limits = self.limits();
        for (_, (client, task)) in self.clients.borrow().iter() {
            client.lasts();
            match client.overdue(now, &limits) {
                None => {}
                Some(Overdue::Close) => task.abort(),
                Some(Overdue::Answer) => {
                    client.late.set(true);
                    client.wake();
                }
            }
        }
    }
}

/// Looks at the timeouts while there is anything to time; a gateway that nobody talks to does not wake up.
async fn tick(core: Rc<Core>) {
    loop {
        let moved = core.moved.notified();
        core.observer.tick();
        if core.sweep().await {
            tokio::time::sleep(TICK).await;
        } else {
            moved.await;
        }
    }
}

/// Lets open requests end, for as long as they may take, and closes what is left. Upgraded connections never end by
/// themselves: they are closed at once and no more are begun, or, where another process goes on, they have all that time.
async fn drain(core: &Core, how: Leaving) {
    let has_time = how == Leaving::Release;
    core.refuses_tunnels.set(!has_time);
    for (_, (client, task)) in core.clients.borrow().iter() {
        client.draining.set(true);
        client.lingers.set(has_time);
        client.wake();
        if client.phase() == Phase::Tunnel && !has_time {
            task.abort();
        }
    }
    let ended = async {
        while !core.clients.borrow().is_empty() {
            core.moved.notified().await;
        }
    };
    let ended = async {
        let mut ended = pin!(ended);
        if has_time && tokio::time::timeout(PARTING, ended.as_mut()).await.is_err() {
            // Who was answered meanwhile was told to come back on another connection; these said nothing at all.
            for (_, (client, _)) in core.clients.borrow().iter() {
                client.lingers.set(false);
                client.wake();
            }
        }
        if !core.clients.borrow().is_empty() {
            ended.await;
        }
    };
    let drain_timeout = core.limits().drain_timeout;
    if tokio::time::timeout(drain_timeout, ended).await.is_err() {
        tracing::warn!(open = core.clients.borrow().len(), "closed connections that did not end in time");
    }
}

/// Takes a connection, or a stream of one, out of the books, however its task ends.
pub(crate) struct Books {
    core: Rc<Core>,
    id: usize,
    is_connection: bool,
}

impl Books {
    pub(crate) fn of_connection(core: &Rc<Core>) -> Self {
        Self::new(core, true)
    }

    pub(crate) fn of_stream(core: &Rc<Core>) -> Self {
        Self::new(core, false)
    }

    fn new(core: &Rc<Core>, is_connection: bool) -> Self {
        let id = core.clients.borrow().vacant_key();
        Self { core: Rc::clone(core), id, is_connection }
    }

    /// Its place in the books, which [`Core::opened`] or [`Core::joined`] fills before the next one is asked for.
    pub(crate) fn id(&self) -> usize {
        self.id
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        let core = &self.core;
        if core.clients.borrow_mut().try_remove(self.id).is_some() && self.is_connection {
            core.crowd.leave();
            core.shard.connections.subtract(1);
        }
        core.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a machine that has much else to do: a reload waits for all cores, and one of them begins only now.
    #[test]
    fn a_core_that_begins_late_has_come_to_the_latest_turn() {
        let config = Config::new(([127, 0, 0, 1], 0).into());
        let turn =
            Turn { number: 5, config, joints: BTreeMap::new(), log: None, allowance: None, ledger: None };
        let budgets = Budgets::new(&turn.config.limits);
        let (_turns, turns) = watch::channel(Arc::new(turn));
        let (reaching, mut reached) = watch::channel(vec![0]);
        let (leave, leaving) = watch::channel(Leaving::Not);
        let (_roster, roster) = watch::channel(Arc::new(Roster::default()));
        let seed = Seed {
            index: 0,
            turns,
            reached: Arc::new(reaching),
            doors: Vec::new(),
            shard: Arc::default(),
            roster,
            leaving,
            crowd: Arc::default(),
            budgets,
            #[cfg(feature = "otel")]
            spans: None,
        };
        let core = std::thread::spawn(move || run(seed));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reached = reached.wait_for(|reached| reached[0] == 5);
            let reached = tokio::time::timeout(Duration::from_secs(30), reached).await;
            drop(reached.expect("nobody waits for it in vain").unwrap());
        });
        leave.send_replace(Leaving::Drain);
        core.join().unwrap().unwrap();
    }
}
