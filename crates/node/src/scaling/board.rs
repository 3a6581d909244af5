//! Numbers from elsewhere: what was last fetched or told of each metric of a service, and when. What is too old is not
//! believed; what is wrong with it is kept in words.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lethe_scaler::samples::Reading;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    config::scale::{External, Fetched},
    scaling::fetch::{Fetcher, PERIOD},
};

/// The numbers of one service. Dropping it ends what fetches them.
#[derive(Debug)]
pub struct Board {
    externals: Vec<External>,
    told: Arc<Mutex<BTreeMap<String, Told>>>,
    fetching: Vec<JoinHandle<()>>,
}

/// What was said of a metric.
#[derive(Clone, Debug)]
struct Told {
    /// The last number, and when it came.
    number: Option<(Instant, Reading)>,
    /// What is wrong with the last try.
    trouble: Option<String>,
}

/// What is known of all metrics now.
#[derive(Debug, Default)]
pub struct Known {
    /// Each number; what is away or too old is missing.
    pub readings: BTreeMap<String, Reading>,
    /// Of each that is missing or wrong, why.
    pub troubles: BTreeMap<String, String>,
}

impl Board {
    /// Begins to fetch what is to be fetched. Must be called within a runtime.
    pub fn new(externals: Vec<External>) -> Self {
        let told = Arc::<Mutex<BTreeMap<String, Told>>>::default();
        let fetched = externals.iter().filter_map(|external| Some((external, external.from.clone()?)));
        let fetching = fetched.map(|(external, from)| {
            let (name, told) = (external.name.clone(), Arc::clone(&told));
            tokio::spawn(keep_fetching(name, from, told))
        });
        let fetching = fetching.collect();
        Self { externals, told, fetching }
    }

    /// Whether it is of these metrics.
    pub fn is_of(&self, externals: &[External]) -> bool {
        self.externals == externals
    }

    /// Whether lethe fetches it itself.
    pub fn is_fetched(&self, name: &str) -> bool {
        self.externals.iter().any(|external| external.name == name && external.from.is_some())
    }

    /// Notes what somebody tells. Gives the names that can be told if this one cannot.
    pub fn tell(&self, name: &str, reading: Reading, now: Instant) -> Result<(), Vec<String>> {
        let tellable = || self.externals.iter().filter(|external| external.from.is_none());
        if !tellable().any(|external| external.name == name) {
            return Err(tellable().map(|external| external.name.clone()).collect());
        }
        note(&self.told, name, Ok(reading), now);
        Ok(())
    }

    /// What is known.
    pub fn known(&self, now: Instant) -> Known {
        let told = lock(&self.told);
        let mut known = Known::default();
        for External { name, from, max_age } in &self.externals {
            let (reading, trouble) = judge(told.get(name), from.as_ref(), *max_age, now);
            known.readings.insert(name.clone(), reading);
            known.troubles.extend(trouble.map(|trouble| (name.clone(), trouble)));
        }
        known
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.fetching.iter().for_each(JoinHandle::abort);
    }
}

/// What is to be believed of a metric, and what is wrong with it.
fn judge(
    told: Option<&Told>,
    from: Option<&Fetched>,
    max_age: Duration,
    now: Instant,
) -> (Reading, Option<String>) {
    let place = from.map_or_else(String::new, |from| format!("{}: ", from.url));
    let Some(Told { number, trouble }) = told else {
        let why = if from.is_some() { "not asked yet" } else { "nobody has told it yet" };
        return (Reading::Missing, Some(format!("{place}{why}")));
    };
    match number {
        Some((_, Reading::Bad(text))) => {
            (Reading::Bad(text.clone()), Some(format!("{place}{text:?} is no number of 0 or more")))
        }
        Some((at, reading)) if now.saturating_duration_since(*at) <= max_age => (reading.clone(), None),
        Some((at, _)) => {
            let age = now.saturating_duration_since(*at).as_secs();
            let last = match trouble {
                Some(trouble) => format!("{trouble}; "),
                None => String::new(),
            };
            (Reading::Missing, Some(format!("{place}{last}the last number is {age} s old")))
        }
        None => (Reading::Missing, trouble.as_ref().map(|trouble| format!("{place}{trouble}"))),
    }
}

fn note(told: &Mutex<BTreeMap<String, Told>>, name: &str, outcome: Result<Reading, String>, now: Instant) {
    let mut told = lock(told);
    let entry = told.entry(name.to_owned()).or_insert(Told { number: None, trouble: None });
    match outcome {
        Ok(reading) => *entry = Told { number: Some((now, reading)), trouble: None },
        // The last number is believed until it is too old.
        Err(trouble) => entry.trouble = Some(trouble),
    }
}

fn lock(told: &Mutex<BTreeMap<String, Told>>) -> MutexGuard<'_, BTreeMap<String, Told>> {
    // What is in it is valid at every moment, also after a panic of whoever held the lock.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task of its own for each source, so that a slow one keeps nobody waiting.
async fn keep_fetching(name: String, from: Fetched, told: Arc<Mutex<BTreeMap<String, Told>>>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut fetcher = Fetcher::new(from);
    loop {
        ticks.tick().await;
        let outcome = fetcher.number().await;
        note(&told, &name, outcome, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, max_age: u64) -> External {
        External { name: name.into(), from: None, max_age: Duration::from_secs(max_age) }
    }

    #[test]
    fn numbers_grow_old() {
        let board = Board::new(vec![told("emails", 10)]);
        let began = Instant::now();
        let check = |seconds, expected: (Reading, Option<&str>)| {
            let known = board.known(began + Duration::from_secs(seconds));
            let trouble = known.troubles.get("emails").map(String::as_str);
            assert_eq!((known.readings["emails"].clone(), trouble), expected);
        };
        check(0, (Reading::Missing, Some("nobody has told it yet")));
        board.tell("emails", Reading::Value(5_000), began).unwrap();
        check(10, (Reading::Value(5_000), None));
        check(11, (Reading::Missing, Some("the last number is 11 s old")));
        board.tell("emails", Reading::Bad("NaN".into()), began).unwrap();
        check(0, (Reading::Bad("NaN".into()), Some("\"NaN\" is no number of 0 or more")));
        assert_eq!(board.tell("mails", Reading::Value(1), began), Err(vec!["emails".into()]));
    }

    #[test]
    fn what_fails_is_named_with_its_place() {
        let from = Fetched { url: "http://h/queue".parse().unwrap(), pointer: String::new() };
        let (now, age) = (Instant::now(), Duration::from_secs(5));
        let trouble = || Some("connection refused".to_owned());
        let check = |told: Option<Told>, expected: (Reading, Option<&str>)| {
            let (reading, why) = judge(told.as_ref(), Some(&from), age, now + Duration::from_secs(7));
            assert_eq!((reading, why.as_deref()), expected);
        };
        check(None, (Reading::Missing, Some("http://h/queue: not asked yet")));
        check(
            Some(Told { number: None, trouble: trouble() }),
            (Reading::Missing, Some("http://h/queue: connection refused")),
        );
        check(
            Some(Told { number: Some((now, Reading::Value(1))), trouble: trouble() }),
            (Reading::Missing, Some("http://h/queue: connection refused; the last number is 7 s old")),
        );
        let young = now + Duration::from_secs(3);
        check(
            Some(Told { number: Some((young, Reading::Value(1))), trouble: trouble() }),
            (Reading::Value(1), None),
        );
    }
}
