//! On a cluster of three masters: the contract, and a slot that moves meanwhile.

use std::sync::OnceLock;

use lethe_state::{contract::Fixture, redis::Url};

use crate::harness::{self, Server};

/// Slots of each master.
const SHARES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

pub struct Cluster {
    masters: Vec<Server>,
}

impl Cluster {
    /// Three masters that know each other and have all slots.
    fn start() -> Self {
        let masters: Vec<Server> = SHARES
            .iter()
            .map(|_| {
                // The usual port of the bus may be over 65535.
                let bus = harness::free_port().to_string();
                let args = ["--save", "", "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port"];
                Server::start_with(&[&args[..], &[&bus]].concat())
            })
            .collect();
        for ((first, last), master) in SHARES.iter().zip(&masters) {
            master.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for master in &masters[1..] {
            let bus = master.command(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().unwrap().to_owned();
            masters[0].command(&["CLUSTER", "MEET", "127.0.0.1", &master.port.to_string(), &bus]);
        }
        for master in &masters {
            while !(master.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && master.command(&["CLUSTER", "SLOTS"]).matches("127.0.0.1").count() >= SHARES.len())
            {
                std::thread::yield_now();
            }
        }
        Self { masters }
    }

    /// Where one of them is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.masters[0].port)
    }

    fn url(&self) -> Url {
        format!("redis://{}/?cluster&namespace={}", self.address(), harness::namespace()).parse().unwrap()
    }
}

/// The cluster that cases share which do nothing to it.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

async fn engine() -> Fixture {
    harness::fixture(shared().url())
}

lethe_state::contract_tables!(engine);
lethe_state::contract_sessions!(engine);
lethe_state::contract_limits!(engine);
