//! On a cluster of three masters: the contract, and a slot that moves meanwhile.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use lethe_state::{
    contract::Fixture,
    error::Error,
    redis::{Redis, Url},
    tables::{Action, Condition, Write},
};

use crate::harness::{self, PATIENCE, Server};

/// Slots of each master.
const SHARES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

pub struct Cluster {
    masters: Vec<Server>,
}

impl Cluster {
    /// Three masters that know each other and have all slots.
    fn start() -> Arc<Self> {
        Arc::new(Self::begin())
    }

    /// The same for somebody who changes it.
    pub fn begin() -> Self {
        let masters: Vec<Server> = SHARES.iter().map(|_| start_alone()).collect();
        for (epoch, ((first, last), master)) in (1..).zip(SHARES.iter().zip(&masters)) {
            obeys(master, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            // Masters that meet with the same epoch raise it, one by one. One that did so while a slot of its own is moved
            // away would claim it again with the higher epoch.
            obeys(master, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]);
        }
        for master in &masters[1..] {
            let bus = master.command(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().unwrap().to_owned();
            obeys(&masters[0], &["CLUSTER", "MEET", "127.0.0.1", &master.port.to_string(), &bus]);
        }
        let cluster = Self { masters };
        cluster.settle();
        cluster
    }

    /// Waits until each master knows all others, and who has which slot.
    fn settle(&self) {
        let known = format!("cluster_known_nodes:{}", self.masters.len());
        for master in &self.masters {
            let is_settled = || {
                let info = master.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
                    && info.contains(&known)
                    && master.command(&["CLUSTER", "SLOTS"]).matches("127.0.0.1").count() >= SHARES.len()
            };
            while !is_settled() {
                std::thread::yield_now();
            }
        }
    }

    /// Has one more master join, without a slot.
    pub fn grow(&mut self) {
        let master = start_alone();
        let bus = self.masters[0].command(&["CONFIG", "GET", "cluster-port"]);
        let bus = bus.lines().last().unwrap();
        obeys(&master, &["CLUSTER", "MEET", "127.0.0.1", &self.masters[0].port.to_string(), bus]);
        self.masters.push(master);
        self.settle();
    }

    /// One of them.
    pub fn first(&self) -> &Server {
        &self.masters[0]
    }

    /// Where one of them is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.first().port)
    }

    /// Moves the slot of the only namespace's tables to the next master.
    fn move_tables(&self) {
        let from = self.master_of_tables();
        self.move_tables_from(from, (from + 1) % self.masters.len());
    }

    /// Moves it to the master that came last.
    pub fn move_tables_to_the_last(&mut self) {
        self.move_tables_from(self.master_of_tables(), self.masters.len() - 1);
    }

    fn master_of_tables(&self) -> usize {
        let has_them = |master: &Server| !master.command(&["KEYS", "*:revision"]).trim().is_empty();
        self.masters.iter().position(has_them).unwrap()
    }

    /// Begins to move it to the next master; what is returned goes through with it.
    pub fn begin_to_move_tables(&self) -> impl FnOnce() {
        let from = self.master_of_tables();
        self.begin_to_move_tables_from(from, (from + 1) % self.masters.len())
    }

    fn move_tables_from(&self, from: usize, to: usize) {
        self.begin_to_move_tables_from(from, to)();
    }

    fn begin_to_move_tables_from(&self, from: usize, to: usize) -> impl FnOnce() {
        let keys = |master: &Server| master.command(&["KEYS", "*:revision"]).trim().to_owned();
        let others: Vec<_> = (0..self.masters.len()).filter(|other| ![from, to].contains(other)).collect();
        let (from, to) = (&self.masters[from], &self.masters[to]);
        let slot = from.command(&["CLUSTER", "KEYSLOT", &keys(from)]).trim().to_owned();
        let [from_id, to_id] =
            [from, to].map(|master| master.command(&["CLUSTER", "MYID"]).trim().to_owned());
        obeys(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        obeys(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        move || {
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            let port = to.port.to_string();
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS"];
            obeys(from, &[&migrate[..], &keys.lines().collect::<Vec<_>>()].concat());
            // As `redis-cli --cluster reshard` does it. The others would learn it some time later, and say till then that
            // nobody has the slot.
            for master in [to, from].into_iter().chain(others.iter().map(|other| &self.masters[*other])) {
                obeys(master, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
            }
        }
    }

    pub fn url(&self) -> Url {
        harness::url(self.first().port, &format!("&cluster{PATIENCE}"))
    }
}

/// Redis' client ends well whatever the server says.
fn obeys(master: &Server, command: &[&str]) {
    assert_eq!(master.command(command).trim(), "OK", "{command:?}");
}

/// A server that belongs to no cluster yet.
fn start_alone() -> Server {
    // The usual port of the bus may be over 65535.
    let bus = harness::free_port().to_string();
    let args = ["--save", "", "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port"];
    Server::start_with(&[&args[..], &[&bus]].concat())
}

/// The cluster that cases share which do nothing to it.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Arc<Cluster>> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

async fn engine() -> Fixture {
    harness::fixture(shared().url())
}

lethe_state::contract_tables!(engine);
lethe_state::contract_sessions!(engine);
lethe_state::contract_locks!(engine);
lethe_state::contract_idempotency!(engine);
lethe_state::contract_limits!(engine);
lethe_state::contract_feeds!(engine);
lethe_state::contract_near!(engine);
lethe_state::contract_cache!(engine);
lethe_state::contract_cache_feeds!(engine);

/// While the slot of all tables moves from one master to another, nothing is lost and nothing is done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_while_it_is_written_to() {
    let cluster = Cluster::start();
    let engine = Redis::open(cluster.url()).unwrap();
    let tables = engine.engines().tables;
    tables.apply(increment()).await.unwrap();
    let moving = Arc::new(AtomicBool::new(true));
    let writers = (0..4).map(|_| {
        let (tables, moving) = (tables.clone(), moving.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while moving.load(Ordering::SeqCst) {
                match tables.apply(increment()).await {
                    Ok(_) => done += 1,
                    // It takes longer than is waited for, but is not done.
                    Err(Error::Unavailable(text)) => assert!(!text.contains("may have"), "{text}"),
                    Err(error) => panic!("{error:?}"),
                }
            }
            done
        })
    });
    let writers: Vec<_> = writers.collect();
    let there = cluster.clone();
    tokio::task::spawn_blocking(move || there.move_tables()).await.unwrap();
    tables.apply(increment()).await.unwrap();
    moving.store(false, Ordering::SeqCst);
    let mut done = 2;
    for writer in writers {
        done += writer.await.unwrap();
    }
    assert_eq!(tables.get("t", "n").await.unwrap().unwrap().value, done.to_string());
}

fn increment() -> Vec<Write> {
    let action = Action::Increment { by: 1, ttl: None };
    vec![Write { table: "t".into(), key: "n".into(), condition: Condition::Any, action }]
}
