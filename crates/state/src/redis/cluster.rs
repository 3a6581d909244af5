//! The servers of a cluster, and which of them has which slot. The map is read from any server that answers, and read anew
//! when one says that a slot has moved or does not answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use redis::Value;

use super::{
    failure::Failure,
    node::{Node, Whereabouts},
    server::{Servers, member, text},
    url::Address,
};
use crate::figures::Figures;

/// Slots of a cluster (Redis cluster specification, "Key distribution model").
pub(super) const SLOTS: u16 = 16384;

/// A cluster.
pub(super) struct Cluster {
    servers: Arc<Servers>,
    map: RwLock<Arc<Map>>,
    /// Held by who reads the map anew.
    reading: tokio::sync::Mutex<()>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
}

/// Which server has which slots.
#[derive(Default)]
pub(super) struct Map {
    /// First and last slot of a range, and its server.
    ranges: Vec<(u16, u16, Arc<Node>)>,
}

impl Cluster {
    /// A cluster, which is not asked anything yet.
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self {
            servers,
            map: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            nodes: Mutex::default(),
        }
    }

    /// The map as it was last read.
    pub(super) fn map(&self) -> Arc<Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server that has a key.
    pub(super) async fn node_of(&self, key: &str) -> Result<Arc<Node>, Failure> {
        let slot = slot(key.as_bytes());
        let map = self.map();
        if let Some(node) = map.node(slot) {
            return Ok(node);
        }
        self.refresh(&map).await?;
        let none = || Failure::NotDone(format!("no server of the redis cluster has slot {slot}"));
        self.map().node(slot).ok_or_else(none)
    }

    /// The server that another one has named: `host:port`, where no host means its own.
    pub(super) fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        // A port is there in any case.
        Address::parse(address, 0).ok().map(|address| self.node(address))
    }

    fn node(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Node::new(Whereabouts::At(address.clone()), self.servers.clone()));
        nodes.entry(address.clone()).or_insert_with(make).clone()
    }

    /// What the servers are doing that are known, for who watches.
    pub(super) fn watch(&self, figures: &mut Figures) {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.values().for_each(|node| node.watch(figures));
    }

    /// Reads the map anew, unless another call has done so since `seen`.
    pub(super) async fn refresh(&self, seen: &Arc<Map>) -> Result<(), Failure> {
        let _reading = self.reading.lock().await;
        if !Arc::ptr_eq(&self.map(), seen) {
            return Ok(());
        }
        let read = |answer: &Value, host: &str| self.read(answer, host).filter(|map| !map.ranges.is_empty());
        self.keep(self.ask("SLOTS", read).await?);
        Ok(())
    }

    /// All masters, also those without a slot, which may get one any time. In the order of their addresses.
    pub(super) async fn masters(&self) -> Result<Vec<Address>, Failure> {
        let is_tls = self.servers.url.tls.is_some();
        let mut masters = self.ask("SHARDS", |answer, host| read_masters(answer, host, is_tls)).await?;
        masters.sort_by_cached_key(Address::to_string);
        Ok(masters)
    }

    /// The same, to be spoken to.
    pub(super) async fn master_nodes(&self) -> Result<Vec<Arc<Node>>, Failure> {
        let masters = self.masters().await?;
        Ok(masters.into_iter().map(|master| self.node(master)).collect())
    }

    /// Asks one server after the other about the cluster, until an answer can be read.
    async fn ask<T>(&self, what: &str, read: impl Fn(&Value, &str) -> Option<T>) -> Result<T, Failure> {
        let known: Vec<Address> =
            self.nodes.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let seeds = self.servers.url.addresses.iter().filter(|seed| !known.contains(seed));
        let mut said = Vec::new();
        for address in known.iter().chain(seeds) {
            match self.node(address.clone()).command(redis::cmd("CLUSTER").arg(what), false).await {
                Ok(answer) => match read(&answer, &address.host) {
                    Some(read) => return Ok(read),
                    None => said.push(format!("{address} knows no slots")),
                },
                Err(Failure::NotDone(text) | Failure::Unknown(text) | Failure::Resting(text)) => {
                    said.push(text)
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::NotDone(format!("no server of the redis cluster answers: {}", said.join("; "))))
    }

    /// Uses the map from now on, and forgets servers that have left.
    fn keep(&self, map: Map) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, node| map.ranges.iter().any(|(_, _, owner)| Arc::ptr_eq(owner, node)));
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }

    /// Understands the answer to CLUSTER SLOTS of a server at `host`.
    fn read(&self, answer: &Value, host: &str) -> Option<Map> {
        let Value::Array(ranges) = answer else { return None };
        let mut map = Map::default();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return None;
            };
            let (named, Value::Int(port)) = (master.first()?, master.get(1)?) else { return None };
            let named = match named {
                Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
                _ => "",
            };
            // A server that does not know its own name is where it was asked.
            let host = if matches!(named, "" | "?") { host } else { named }.to_owned();
            let node = self.node(Address { host, port: u16::try_from(*port).ok()? });
            map.ranges.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, node));
        }
        Some(map)
    }
}

/// Understands the answer to CLUSTER SHARDS of a server at `host`: the masters, without those that have failed.
fn read_masters(answer: &Value, host: &str, is_tls: bool) -> Option<Vec<Address>> {
    let Value::Array(shards) = answer else { return None };
    let mut masters = Vec::new();
    for shard in shards {
        let Some(Value::Array(nodes)) = member(shard, "nodes") else { return None };
        for node in nodes.iter().filter(|node| text(node, "role") == Some("master")) {
            if text(node, "health") == Some("failed") {
                continue;
            }
            let Value::Int(port) = member(node, if is_tls { "tls-port" } else { "port" })? else {
                return None;
            };
            // A server that does not know its own name is where it was asked.
            let named = text(node, "endpoint").filter(|named| !matches!(*named, "" | "?"));
            let host = named.unwrap_or(host).to_owned();
            masters.push(Address { host, port: u16::try_from(*port).ok()? });
        }
    }
    (!masters.is_empty()).then_some(masters)
}

impl Map {
    fn node(&self, slot: u16) -> Option<Arc<Node>> {
        let has = |(first, last, _): &&(u16, u16, Arc<Node>)| (*first..=*last).contains(&slot);
        self.ranges.iter().find(has).map(|(_, _, node)| node.clone())
    }
}

/// The slot of a key: that of what stands between its first `{` and the next `}`, if anything does.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let close = behind.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&behind[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }
}
