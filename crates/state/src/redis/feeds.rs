//! Feeds of what changes in Redis: the server itself tells which keys were written, whoever has written them (CLIENT TRACKING
//! in broadcast mode, with the prefixes that are followed), on a connection of its own to each master. All feeds share these.
//!
//! A connection that is cut says so; one that is silent is found out by a question each beat. The question is HELLO, and on
//! a cluster CLUSTER INFO: a server that is a master no longer, and a cluster that has changed, may not be the ones that tell.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use futures_util::future::try_join_all;
use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    Store,
    failure::{Failure, Refusal},
    keys::Keys,
    node,
    server::{self, as_text, text},
    url::{Address, Place},
};
use crate::{
    error::Error,
    feed::{BEAT, Feed, SILENCE_MAX, followers::Topic, source::Source},
};

/// What of CLUSTER INFO is other when a cluster has other masters, or they have other slots.
const TOPOLOGY: [&str; 5] = [
    "cluster_state:",
    "cluster_slots_fail:",
    "cluster_known_nodes:",
    "cluster_size:",
    "cluster_current_epoch:",
];

impl Store {
    /// Follows what changes there.
    pub(super) async fn follow_topic(&self, topic: Topic) -> Result<Feed, Error> {
        let open = async {
            let limit = self.router.call_timeout();
            let tracker = timeout(limit, Tracker::open(self)).await.map_err(|_| {
                Error::Unavailable(format!("redis did not answer within {} ms", limit.as_millis()))
            })??;
            Ok(tracker.run(self.feeds.clone()))
        };
        self.feeds.follow(topic, open).await
    }
}

/// What tells of all changes.
struct Tracker {
    masters: Vec<Master>,
    ear: Arc<Ear>,
    /// When it was asked what is known now.
    asked_at: Instant,
}

/// A connection to a server that tells.
struct Master {
    connection: MultiplexedConnection,
    name: String,
    is_of_cluster: bool,
    /// What it says of the cluster; nothing where there is none.
    topology: String,
}

/// What hears what the servers say.
struct Ear {
    source: Arc<Source>,
    keys: Arc<Keys>,
    /// Why something may have been missed.
    gap: OnceLock<String>,
    has_gap: Notify,
}

impl Tracker {
    /// Has all masters tell. When it is there, they do.
    async fn open(store: &Store) -> Result<Self, Failure> {
        let (source, keys) = (store.feeds.clone(), store.keys.clone());
        let ear = Arc::new(Ear { source, keys, gap: OnceLock::new(), has_gap: Notify::new() });
        let addresses = store.router.masters().await?;
        let asked_at = Instant::now();
        let masters = addresses.iter().map(|address| Master::open(store, address, &ear));
        let masters = try_join_all(masters).await?;
        // What they say of the cluster belongs to this list of them.
        if store.router.masters().await? != addresses {
            return Err(Failure::NotDone("the redis cluster is just changing".into()));
        }
        Ok(Self { masters, ear, asked_at })
    }

    /// Gives signs of life until nobody follows any more; why it ends.
    async fn run(mut self, source: Arc<Source>) -> String {
        let mut tick = interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ear = self.ear.clone();
        tokio::select! {
            biased;
            () = ear.has_gap.notified() => ear.gap.get().cloned().unwrap_or_default(),
            why = async {
                loop {
                    tick.tick().await;
                    if source.is_over() {
                        return "is not followed any more".into();
                    }
                    if let Err(why) = self.beat().await {
                        return why;
                    }
                    source.followers().beat();
                }
            } => why,
        }
    }

    /// Sees that all masters are there and are what they were. What they had told before their answers has been heard then.
    async fn beat(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let asked = try_join_all(self.masters.iter_mut().map(Master::look));
        match timeout_at(self.asked_at + SILENCE_MAX, asked).await {
            Ok(Ok(_)) => {
                self.asked_at = now;
                Ok(())
            }
            Ok(Err(failure)) => Err(format!("is lost: {}", Error::from(failure))),
            Err(_) => Err("is lost: redis does not answer in time".into()),
        }
    }
}

impl Master {
    async fn open(store: &Store, address: &Address, ear: &Arc<Ear>) -> Result<Self, Failure> {
        let (servers, name) = (store.router.servers(), address.to_string());
        let config = servers.config().set_push_sender({
            let (ear, name) = (ear.clone(), name.clone());
            move |push: PushInfo| {
                ear.hear(&name, push);
                Ok::<_, Infallible>(())
            }
        });
        let mut connection = node::open(&servers.client(address)?, &config, &name).await?;
        server::check(&mut connection, &name, &servers.url.place).await?;
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST");
        for prefix in store.keys.followed() {
            tracking.arg("PREFIX").arg(prefix);
        }
        let begun = tracking.query_async::<Value>(&mut connection).await;
        begun.map_err(|error| Failure::of(&name, &error))?;
        let is_of_cluster = servers.url.place == Place::Cluster;
        let mut master = Self { connection, name, is_of_cluster, topology: String::new() };
        master.topology = master.ask().await?;
        Ok(master)
    }

    /// Fails if it is not what it was.
    async fn look(&mut self) -> Result<(), Failure> {
        if self.ask().await? == self.topology {
            return Ok(());
        }
        Err(Failure::NotDone(format!("the redis cluster has changed, says {}", self.name)))
    }

    /// Sees that it is a master, and reads what it says of the cluster.
    async fn ask(&mut self) -> Result<String, Failure> {
        let mut questions = redis::pipe();
        questions.cmd("HELLO");
        if self.is_of_cluster {
            questions.cmd("CLUSTER").arg("INFO");
        }
        let answers: Vec<Value> = questions
            .query_async(&mut self.connection)
            .await
            .map_err(|error| Failure::of(&self.name, &error))?;
        if answers.first().and_then(|hello| text(hello, "role")) != Some("master") {
            let what = "it is a replica, and only a master tells of all changes";
            return Err(Failure::Refused(Refusal::new(&self.name, what)));
        }
        let info = answers.get(1).and_then(as_text).unwrap_or_default();
        let is_of_topology = |line: &&str| TOPOLOGY.iter().any(|name| line.starts_with(name));
        Ok(info.lines().filter(is_of_topology).collect())
    }
}

impl Ear {
    /// Is called by the connection as it reads, in the order of what comes: a change is told before the answer that follows it.
    fn hear(&self, server: &str, push: PushInfo) {
        match push.kind {
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(keys)) => keys.iter().for_each(|key| self.changed(key)),
                // Nothing instead of keys: all of them.
                _ => self.miss(format!("has a gap: all keys were removed from redis at {server}")),
            },
            PushKind::Disconnection => {
                self.miss(format!("is lost: redis at {server} has closed the connection"))
            }
            _ => {}
        }
    }

    fn changed(&self, key: &Value) {
        if let Some((topic, name)) = as_text(key).and_then(|key| self.keys.changed(key)) {
            match name {
                "" => self.source.followers().fail_topic(&topic, "ends: all of it has changed"),
                name => self.source.followers().tell(&topic, name),
            }
        }
    }

    fn miss(&self, why: String) {
        // The first reason is the one that counts.
        let _ = self.gap.set(why);
        self.has_gap.notify_one();
    }
}
