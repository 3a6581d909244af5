//! What workers print, line by line, kept outside them so that it survives them.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use lethe_model::service::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::supervisor::Error;

/// Bytes of lines that are kept for each service, with what it costs to keep them.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Services that are gone and whose lines are kept.
pub const GONE_SERVICES_MAX: usize = 16;
/// Lines by which a follower may lag before it misses some.
pub const FOLLOWER_LINES_MAX: usize = 4096;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The worker's standard output.
    Stdout,
    /// The worker's standard error.
    Stderr,
    /// The supervisor, about the worker: started, ready, died, replaced.
    Lethe,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read.
    pub at: SystemTime,
    /// The worker's service.
    pub service: ServiceName,
    /// The worker.
    pub instance: InstanceId,
    /// Where it came from.
    pub source: Source,
    /// The text, without its line end; invalid UTF-8 is replaced, and a line over the limit is cut into several.
    pub text: String,
}

/// The lines that are kept, and those who follow them.
#[derive(Debug)]
pub(crate) struct Logs {
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Arc<Line>>,
}

#[derive(Debug)]
struct Kept {
    services: BTreeMap<ServiceName, Ring>,
    /// Those of them that are gone, in the order in which they went.
    gone: VecDeque<ServiceName>,
    /// How many lines there have been: the number of the next.
    count: u64,
}

/// The last lines of one service, numbered.
#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<(u64, Arc<Line>)>,
    bytes: usize,
}

impl Logs {
    /// No lines, of these services.
    pub(crate) fn new(services: impl Iterator<Item = ServiceName>) -> Self {
        let services = services.map(|name| (name, Ring::default())).collect();
        Self {
            kept: Mutex::new(Kept { services, gone: VecDeque::new(), count: 0 }),
            followers: broadcast::Sender::new(FOLLOWER_LINES_MAX),
        }
    }

    /// Keeps a line and gives it to the followers.
    pub(crate) fn push(&self, service: &ServiceName, instance: &InstanceId, source: Source, text: String) {
        let line = Line {
            at: SystemTime::now(),
            service: service.clone(),
            instance: instance.clone(),
            source,
            text,
        };
        let line = Arc::new(line);
        let mut kept = self.kept();
        let number = kept.count;
        kept.count += 1;
        kept.services.entry(service.clone()).or_default().push(number, Arc::clone(&line));
        // Sent with the lock held, so that followers see the order that is kept. Nobody may be following.
        let _ = self.followers.send(line);
    }

    /// Notes that a service is there, perhaps again.
    pub(crate) fn open(&self, service: &ServiceName) {
        let mut kept = self.kept();
        kept.gone.retain(|gone| gone != service);
        kept.services.entry(service.clone()).or_default();
    }

    /// Notes that a service is gone: its lines are kept until too many others have gone after it.
    pub(crate) fn close(&self, service: &ServiceName) {
        let mut kept = self.kept();
        kept.gone.push_back(service.clone());
        if kept.gone.len() > GONE_SERVICES_MAX
            && let Some(oldest) = kept.gone.pop_front()
        {
            kept.services.remove(&oldest);
        }
    }

    /// The lines from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        self.followers.subscribe()
    }

    /// The last lines, oldest first, of a service, of a worker, or of all.
    pub(crate) fn last(&self, name: Option<&str>, lines_max: usize) -> Result<Vec<Line>, Error> {
        let kept = self.kept();
        let Some(name) = name else {
            let mut lines: Vec<_> =
                kept.services.values().flat_map(|ring| ring.last(lines_max, |_| true)).collect();
            lines.sort_by_key(|&(number, _)| number);
            return Ok(texts(&lines[lines.len().saturating_sub(lines_max)..]));
        };
        if let Some(ring) = kept.services.get(name) {
            return Ok(texts(&ring.last(lines_max, |_| true)));
        }
        let unknown = || Error::NoName { name: name.into(), known: known(&kept.services) };
        let (service, _) = name.rsplit_once('-').ok_or_else(unknown)?;
        let ring = kept.services.get(service).ok_or_else(unknown)?;
        let lines = ring.last(lines_max, |line| line.instance.as_str() == name);
        if lines.is_empty() && lines_max > 0 {
            Err(Error::NoWorker { name: name.into(), near: None })
        } else {
            Ok(texts(&lines))
        }
    }

    /// The last lines that a worker printed itself, at most `lines_max`, joined.
    pub(crate) fn last_printed(
        &self,
        instance: &InstanceId,
        service: &ServiceName,
        lines_max: usize,
    ) -> String {
        let printed = |line: &Line| line.instance == *instance && line.source != Source::Lethe;
        let lines =
            self.kept().services.get(service).map(|ring| ring.last(lines_max, printed)).unwrap_or_default();
        let lines: Vec<&str> = lines.iter().map(|(_, line)| line.text.as_str()).collect();
        lines.join("\n")
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, number: u64, line: Arc<Line>) {
        self.bytes += cost(&line);
        self.lines.push_back((number, line));
        while self.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = self.lines.pop_front() else { break };
            self.bytes -= cost(&oldest);
        }
    }

    fn last(&self, lines_max: usize, wanted: impl Fn(&Line) -> bool) -> Vec<(u64, Arc<Line>)> {
        let newest_first = self.lines.iter().rev().filter(|(_, line)| wanted(line)).take(lines_max);
        let mut lines: Vec<_> = newest_first.cloned().collect();
        lines.reverse();
        lines
    }
}

/// What it costs to keep a line: its text, itself with the counts of its `Arc`, and its entry in the ring.
fn cost(line: &Line) -> usize {
    line.text.len()
        + mem::size_of::<Line>()
        + 2 * mem::size_of::<usize>()
        + mem::size_of::<(u64, Arc<Line>)>()
}

fn texts(lines: &[(u64, Arc<Line>)]) -> Vec<Line> {
    lines.iter().map(|(_, line)| Line::clone(line)).collect()
}

/// The names of services, for an error.
pub(crate) fn known<T>(services: &BTreeMap<ServiceName, T>) -> String {
    services.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs() -> (Logs, ServiceName, ServiceName) {
        let (shop, mail) = (ServiceName::new("shop").unwrap(), ServiceName::new("mail").unwrap());
        (Logs::new([shop.clone(), mail.clone()].into_iter()), shop, mail)
    }

    fn last(logs: &Logs, name: Option<&str>, lines_max: usize) -> Vec<String> {
        logs.last(name, lines_max).unwrap().into_iter().map(|line| line.text).collect()
    }

    #[tokio::test]
    async fn last_lines_by_name() {
        let (logs, shop, mail) = logs();
        let mut follower = logs.follow();
        for n in 0..6 {
            let service = if n % 2 == 0 { &shop } else { &mail };
            logs.push(service, &InstanceId::new(service, n), Source::Stdout, n.to_string());
        }
        logs.push(&shop, &InstanceId::new(&shop, 4), Source::Lethe, "died".into());
        assert_eq!(last(&logs, None, 4), ["3", "4", "5", "died"]);
        assert_eq!(last(&logs, Some("shop"), 3), ["2", "4", "died"]);
        assert_eq!(last(&logs, Some("mail"), 100), ["1", "3", "5"]);
        assert_eq!(last(&logs, Some("shop-4"), 100), ["4", "died"]);
        assert_eq!(logs.last_printed(&InstanceId::new(&shop, 4), &shop, 10), "4");
        assert_eq!(follower.recv().await.unwrap().text, "0");
        assert!(matches!(logs.last(Some("shop-99"), 9), Err(Error::NoWorker { .. })));
        let error = logs.last(Some("shpo"), 9).unwrap_err().to_string();
        assert_eq!(error, "no service and no worker `shpo`; the services are: mail, shop");
        assert!(matches!(logs.last(Some("blog-1"), 9), Err(Error::NoName { .. })));
    }

    #[tokio::test]
    async fn bounded_and_laggards_learn_the_count() {
        let (logs, shop, _) = logs();
        let mut follower = logs.follow();
        let lines = 2 * FOLLOWER_LINES_MAX;
        for n in 0..lines {
            logs.push(&shop, &InstanceId::new(&shop, 1), Source::Stderr, format!("{n:01000}"));
        }
        let kept = last(&logs, Some("shop"), usize::MAX);
        let bytes: usize = kept.iter().map(String::len).sum();
        assert!(bytes <= KEPT_BYTES_MAX && bytes > KEPT_BYTES_MAX / 2, "{bytes}");
        assert_eq!(kept.last().unwrap().parse::<usize>().unwrap(), lines - 1);
        let missed = (lines - FOLLOWER_LINES_MAX) as u64;
        assert_eq!(follower.recv().await.unwrap_err(), broadcast::error::RecvError::Lagged(missed));
    }

    #[test]
    fn what_is_gone_is_kept_for_a_while() {
        let name = |number: usize| ServiceName::new(&format!("s{number}")).unwrap();
        let logs = Logs::new([].into_iter());
        let say = |number: usize| {
            logs.open(&name(number));
            logs.push(&name(number), &InstanceId::new(&name(number), 1), Source::Stdout, "hello".into());
        };
        for number in 0..=GONE_SERVICES_MAX {
            say(number);
            logs.close(&name(number));
            // The second one comes back each time, so that it is never the one that went longest ago.
            say(1);
            logs.close(&name(1));
        }
        let has = |number: usize| logs.last(Some(name(number).as_str()), 9).is_ok();
        assert_eq!((has(0), has(1), has(GONE_SERVICES_MAX)), (false, true, true));
        logs.open(&name(1));
        for number in 100..100 + GONE_SERVICES_MAX {
            say(number);
            logs.close(&name(number));
        }
        assert_eq!((has(1), has(2), has(100)), (true, false, true));
    }
}
