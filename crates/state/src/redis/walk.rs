//! A walk through all keys that servers have (SCAN), in pages that may be far apart in time. A cursor means something only to the
//! very process that gave it, and what is not behind it only while keys stay where they are. So each cursor says of which servers
//! it is: when one of them was started anew or another one has taken over, or slots have moved, the walk begins anew. It may
//! come to a key twice then, and leaves none out.

use std::{fmt, sync::Arc};

use futures_util::future::try_join_all;
use redis::Cmd;
use sha2::{Digest as _, Sha256};

use super::{
    Store,
    cluster::SLOTS,
    failure::Failure,
    node::Node,
    reply::{Reply, unexpected},
    server::as_text,
};
use crate::error::Error;

/// Keys that a server looks at in one step.
const STEP_KEYS: usize = 500;
/// Most steps of one page, so that it comes in time even where nothing matches.
const PAGE_STEPS_MAX: usize = 200;
/// How often a page is begun whose servers change meanwhile.
const TRIES_MAX: usize = 3;
/// What stands at the beginning of a server's walk, and at its end.
const EDGE: &str = "0";
/// Bytes of the name of some servers.
const NAME_BYTES: usize = 12;

/// Where a walk is. Its text is a cursor of [`crate::portable::Page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Of which servers it is.
    servers: String,
    /// The server, by its place among them.
    server: usize,
    /// The server's own cursor.
    cursor: String,
    /// The page ended in the middle of a step, behind this key; the step led to the cursor beside it.
    within: Option<(String, String)>,
}

/// The servers at some moment.
pub(super) struct Servers {
    nodes: Vec<Arc<Node>>,
    /// Another one whenever a cursor of before would mislead.
    name: String,
}

/// One step of a walk.
struct Step {
    /// In an order that stays.
    keys: Vec<String>,
    /// Where the server goes on.
    next: String,
}

impl At {
    fn begin(servers: &str) -> Self {
        Self { servers: servers.to_owned(), server: 0, cursor: EDGE.into(), within: None }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, '/');
        let mut word = || words.next().map(str::to_owned);
        let (servers, server, cursor) = (word()?, word()?.parse().ok()?, word()?);
        let within = match (word(), word()) {
            (Some(next), Some(key)) => Some((next, key)),
            _ => None,
        };
        Some(Self { servers, server, cursor, within })
    }

    /// Behind a step that led to `next`.
    fn behind(mut self, next: &str) -> Self {
        self.within = None;
        match next {
            EDGE => (self.server, self.cursor) = (self.server + 1, EDGE.into()),
            next => next.clone_into(&mut self.cursor),
        }
        self
    }

    /// What is left of a step: all of it, unless it is the very one in whose middle the last page ended.
    fn left(&self, step: &mut Step) {
        if let Some((next, key)) = &self.within
            && step.next == *next
        {
            step.keys.retain(|other| other > key);
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.servers, self.server, self.cursor)?;
        match &self.within {
            Some((next, key)) => write!(f, "/{next}/{key}"),
            None => Ok(()),
        }
    }
}

/// Who takes the keys of a walk.
pub(super) trait Take: Send {
    /// The page begins anew: what it has taken comes again.
    fn clear(&mut self);
    /// Takes keys in their order. Gives the last one that it took, when it has enough and leaves others.
    fn take(&mut self, keys: Vec<String>) -> impl Future<Output = Result<Option<String>, Error>> + Send;
    /// Whether it has enough for a page.
    fn is_full(&self) -> bool;
}

impl Store {
    /// Has `taker` take the keys that match, from `after` on. Returns where the next page begins.
    pub(super) async fn walk(
        &self,
        after: Option<&str>,
        matching: &str,
        taker: &mut impl Take,
    ) -> Result<Option<String>, Error> {
        let after = match after {
            None => None,
            Some(text) => Some(
                At::parse(text)
                    .ok_or_else(|| Error::Invalid(format!("`after` is `{text}`, which no page has given")))?,
            ),
        };
        for _ in 0..TRIES_MAX {
            taker.clear();
            let servers = self.servers().await?;
            let known = after.clone().filter(|at| at.servers == servers.name);
            let at = known.unwrap_or_else(|| At::begin(&servers.name));
            let next = self.walk_among(&servers, at, matching, taker).await?;
            // What was read is of these servers only if they still are.
            if self.servers().await?.name == servers.name {
                return Ok(next.map(|at| at.to_string()));
            }
        }
        Err(Error::Unavailable("the servers of redis change again and again while they are read".into()))
    }

    async fn walk_among(
        &self,
        servers: &Servers,
        mut at: At,
        matching: &str,
        taker: &mut impl Take,
    ) -> Result<Option<At>, Error> {
        for _ in 0..PAGE_STEPS_MAX {
            let Some(node) = servers.nodes.get(at.server) else { return Ok(None) };
            let mut step = self.step(node, &at.cursor, matching).await?;
            at.left(&mut step);
            if let Some(key) = taker.take(step.keys).await? {
                at.within = Some((step.next, key));
                return Ok(Some(at));
            }
            at = at.behind(&step.next);
            if taker.is_full() {
                break;
            }
        }
        Ok(Some(at).filter(|at| at.server < servers.nodes.len()))
    }

    async fn step(&self, node: &Node, cursor: &str, matching: &str) -> Result<Step, Error> {
        let mut command = Cmd::new();
        command.arg("SCAN").arg(cursor).arg("MATCH").arg(matching).arg("COUNT").arg(STEP_KEYS);
        let mut reply = Reply::list(self.router.read(node, &command).await?)?;
        let (next, mut found) = (reply.text()?, reply.next_list()?);
        let mut keys = Vec::with_capacity(found.len());
        while found.len() > 0 {
            keys.push(found.text()?);
        }
        keys.sort_unstable();
        Ok(Step { keys, next })
    }

    /// All servers that have keys of their own, and their name.
    async fn servers(&self) -> Result<Servers, Error> {
        let nodes = self.router.nodes().await?;
        let said = try_join_all(nodes.iter().map(|node| self.identity(node))).await?;
        let slots: u32 = said.iter().map(|(_, slots)| slots).sum();
        if self.router.has_slots() && slots != u32::from(SLOTS) {
            let text =
                format!("{slots} of the {SLOTS} slots of the redis cluster have a server; all are needed");
            return Err(Error::Unavailable(text));
        }
        let mut hash = Sha256::new();
        said.iter().for_each(|(identity, _)| hash.update(format!("{identity}\n")));
        let hash = hash.finalize();
        let name = hash[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Servers { nodes, name })
    }

    /// A server's process with its slots, and how many these are. Fails while one of them is on its way to another server.
    async fn identity(&self, node: &Node) -> Result<(String, u32), Error> {
        let info = self.router.read(node, redis::cmd("INFO").arg("server")).await?;
        let info = as_text(&info).ok_or_else(|| unexpected("INFO"))?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run = run.ok_or_else(|| unexpected("a run_id"))?.trim();
        if !self.router.has_slots() {
            return Ok((run.to_owned(), 0));
        }
        let nodes = self.router.read(node, redis::cmd("CLUSTER").arg("NODES")).await?;
        let nodes = as_text(&nodes).ok_or_else(|| unexpected("CLUSTER NODES"))?;
        let slots = own_slots(nodes).ok_or_else(|| unexpected("CLUSTER NODES"))?;
        if slots.contains('[') {
            let text = "the redis cluster is just moving slots; all its keys can be read when that has ended";
            return Err(Failure::NotDone(text.into()).into());
        }
        let count = slots.split(' ').filter_map(slots_in).sum();
        Ok((format!("{run} {slots}"), count))
    }
}

/// The slots of the server that has answered CLUSTER NODES; those that are on their way stand in brackets.
fn own_slots(nodes: &str) -> Option<String> {
    /// Words of a line before the slots.
    const BEFORE: usize = 8;
    let is_own = |line: &&str| {
        line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself"))
    };
    let own = nodes.lines().find(is_own)?;
    Some(own.split(' ').skip(BEFORE).collect::<Vec<_>>().join(" "))
}

/// How many slots a word of such a line has: one, or those from the first to the last.
fn slots_in(word: &str) -> Option<u32> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    last.checked_sub(first).map(|between| between + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(keys: &[&str], next: &str) -> Step {
        Step { keys: keys.iter().map(|key| (*key).to_owned()).collect(), next: next.into() }
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let at = At::begin("abc").behind("17");
        let within = At { within: Some(("0".into(), "n:i:s:a/b /c".into())), ..at.clone() };
        for at in [at, within] {
            assert_eq!(At::parse(&at.to_string()), Some(at));
        }
        assert_eq!([At::parse("abc"), At::parse("abc/x/0")], [None, None]);
    }

    #[test]
    fn a_walk_goes_from_server_to_server() {
        let at = At::begin("abc").behind("17").behind("4");
        assert_eq!((at.server, at.cursor.as_str()), (0, "4"));
        let at = at.behind("0");
        assert_eq!((at.server, at.cursor.as_str()), (1, "0"));
    }

    #[test]
    fn the_rest_of_a_step_is_left_out_only_if_it_is_that_step() {
        let at = At { within: Some(("9".into(), "b".into())), ..At::begin("abc") };
        let (mut same, mut other) = (step(&["a", "b", "c"], "9"), step(&["a", "b", "c"], "7"));
        at.left(&mut same);
        at.left(&mut other);
        assert_eq!((same.keys.len(), other.keys.len()), (1, 3));
        assert_eq!(at.behind("9").within, None);
    }

    #[test]
    fn own_slots_are_those_of_the_server_that_is_asked() {
        let nodes = "\
            07c3 127.0.0.1:1@11,h slave e7d1 0 1 4 connected\n\
            67ed 127.0.0.1:2@12,h master - 0 1 2 connected 5461-10922\n\
            e7d1 127.0.0.1:3@13,h myself,master - 0 0 1 connected 0-5460 7000 [7001->-67ed]\n";
        assert_eq!(own_slots(nodes).as_deref(), Some("0-5460 7000 [7001->-67ed]"));
        assert_eq!(own_slots(""), None);
        assert_eq!(["0-5460", "7000", "", "x"].map(slots_in), [Some(5461), Some(1), None, None]);
    }
}
