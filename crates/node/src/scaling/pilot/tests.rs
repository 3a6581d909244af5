//! A service's decisions with a clock of the test's: what is seen, second by second, and what comes of it.

use std::time::Duration;

use lethe_gateway::config::Concurrency;
use lethe_scaler::{manifest, spec::Spec};

use super::*;
use crate::{
    config::{self, Overrides},
    scaling::gauge::Load,
};

/// What a file says of the one service in it.
fn scale(says: &str) -> (Scale, Instances) {
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("[services.web]\ncommand = 'sh'\n{says}\n");
    std::fs::write(folder.path().join("lethe.toml"), toml).unwrap();
    let config = config::load(config::Source::Path(folder.path().into()), Overrides::default()).unwrap();
    let service = config.services.into_iter().next().unwrap();
    assert_eq!(service.policy.concurrency, Concurrency::Unlimited);
    (service.scale.unwrap(), service.instances)
}

/// A service and its workers, which are ready as soon as they are wanted.
struct Stage {
    pilot: Pilot,
    now: Time,
    wanted: u32,
    /// CPU that each worker uses, in milli-cores.
    busy: u64,
    cpu_ms: u64,
    /// Resident, of each, in bytes.
    memory: u64,
    load: u64,
    waiting: u64,
    state: WorkerState,
    latency: Option<Buckets>,
    externals: BTreeMap<String, Reading>,
    /// What each decision said in the end.
    last: Option<Verdict>,
}

impl Stage {
    fn new(says: &str, wanted: u32) -> Self {
        let (scale, range) = scale(says);
        Self {
            pilot: Pilot::new(scale, range),
            now: Time::from_micros(1_790_000_000_000_000),
            wanted,
            busy: 0,
            cpu_ms: 0,
            memory: 1 << 20,
            load: 0,
            waiting: 0,
            state: WorkerState::Ready,
            latency: None,
            externals: BTreeMap::new(),
            last: None,
        }
    }

    fn observation(&self) -> Observation {
        let worker = |number: u32| Seen {
            instance: format!("web-{number}"),
            state: self.state,
            has_process: true,
            started: self.now.minus(Duration::from_secs(3_600)),
            ready_since: None,
            cpu_ms: self.cpu_ms,
            memory_bytes: self.memory,
        };
        Observation {
            now: self.now,
            wanted: self.wanted,
            waiting: self.waiting,
            workers: (1..=self.wanted).map(worker).collect(),
            latency: self.latency.clone(),
            externals: self.externals.clone(),
        }
    }

    /// Half a second: five glances and a decision, which is followed.
    fn half_a_second(&mut self) {
        for _ in 0..5 {
            self.now = self.now.plus(Duration::from_millis(100));
            self.cpu_ms += self.busy / 10;
            let load = Load { inside: self.load, waiting: self.waiting, shed: 0 };
            self.pilot.gauge.glance(self.now, load, std::iter::empty());
        }
        let verdict = self.pilot.decide(self.observation());
        // Whatever is decided can be decided again from what is kept of it.
        assert_eq!(again(&verdict.case), verdict.decided.as_ref().map_err(ToString::to_string).cloned());
        if let Ok(decision) = &verdict.decided {
            self.pilot.follow(decision, &verdict.case);
            self.wanted = decision.desired;
        }
        self.last = Some(verdict);
    }

    /// So many seconds; gives how many workers there were at the end of each.
    fn seconds(&mut self, seconds: usize) -> Vec<u32> {
        (0..seconds)
            .map(|_| {
                self.half_a_second();
                self.half_a_second();
                self.wanted
            })
            .collect()
    }

    fn failing(&self) -> &BTreeMap<String, String> {
        &self.last.as_ref().expect("something was decided").failing
    }
}

/// As `lethe simulate` decides what it is given.
fn again(case: &Case) -> Result<Decision, String> {
    let read = Case::read(&case.to_json().to_string()).unwrap();
    assert_eq!(&read, case);
    let SpecSource::Inline(spec) = &read.spec else { panic!("it is not in a file") };
    let spec = Spec { options: read.options, ..manifest::read_value(spec).unwrap() };
    zero::decide(read.zero.as_ref(), &spec, &read.history, &read.samples, read.now)
        .map_err(|error| error.to_string())
}

#[test]
fn a_step_of_load_is_followed_in_half_a_second_and_left_slowly() {
    let mut stage = Stage::new(
        "scale = { instances = '2..50', concurrency = 10, up = { percent = 1000 }, down = { window = '10s', percent = 50, every = '5s' } }",
        2,
    );
    stage.load = 4;
    assert_eq!(stage.seconds(3), [2, 2, 2]);
    stage.load = 200;
    stage.half_a_second();
    assert_eq!(stage.wanted, 20, "200 at once, 10 for each");
    assert_eq!(stage.seconds(20), [20; 20], "steady load, steady number");
    stage.load = 0;
    let counts = stage.seconds(30);
    assert_eq!(counts[..9], [20; 9], "for the window's ten seconds it stays");
    assert!(counts.is_sorted_by(|one, next| one >= next), "{counts:?}");
    assert!(counts.windows(2).all(|pair| pair[1] * 2 + 1 >= pair[0]), "by half at most: {counts:?}");
    assert_eq!(counts[29], 2);
}

#[test]
fn cpu_is_followed_and_what_starts_does_not_count() {
    let mut stage = Stage::new("instances = '2..8'", 2);
    stage.busy = 700;
    assert_eq!(stage.seconds(5), [2; 5], "within the tolerance");
    stage.busy = 1_000;
    // Over two seconds it is 78 %, within the tolerance, then 85 %: two workers at that want 2.4.
    stage.half_a_second();
    assert_eq!(stage.wanted, 2);
    stage.half_a_second();
    assert_eq!(stage.wanted, 3);
    let (mut pilot, observation) = (Stage::new("instances = '2..8'", 2).pilot, stage.observation());
    let starting = |worker: &mut Seen| {
        (worker.started, worker.cpu_ms) = (observation.now.minus(Duration::from_secs(1)), 1_000);
    };
    let mut young =
        Observation { workers: observation.workers.clone(), externals: BTreeMap::new(), ..observation };
    young.workers.iter_mut().for_each(starting);
    let verdict = pilot.decide(young);
    assert_eq!(verdict.failing["cpu"], "no worker that counts was measured; they may all be starting");
}

#[test]
fn a_metric_that_goes_away_keeps_workers_where_they_are() {
    let says = "scale = { instances = '1..20', concurrency = 10, metric = { name = 'emails', per-instance = 10 }, down = { window = '0s' } }";
    let mut stage = Stage::new(says, 1);
    stage.externals.insert("emails".into(), Reading::Value(60_000));
    assert_eq!(stage.seconds(30).last(), Some(&6));
    assert!(stage.failing().is_empty());
    // Away, and nothing else wants workers: they stay.
    stage.externals.insert("emails".into(), Reading::Missing);
    assert_eq!(stage.seconds(60), [6; 60]);
    assert_eq!(stage.failing()["emails"], "nobody gives a number for it");
    assert!(stage.last.as_ref().unwrap().decided.is_err());
    // But it keeps no others from coming.
    stage.load = 150;
    assert_eq!(stage.seconds(30).last(), Some(&15));
    assert_eq!(stage.failing()["emails"], "nobody gives a number for it");
    (stage.load, stage.externals) = (0, [("emails".to_owned(), Reading::Bad("NaN".into()))].into());
    assert_eq!(stage.seconds(5), [15; 5]);
    assert_eq!(stage.failing()["emails"], "what is given for it is \"NaN\", which is no number");
    stage.externals.insert("emails".into(), Reading::Value(10_000));
    assert_eq!(stage.seconds(2).last(), Some(&1));
}

#[test]
fn to_zero_and_back() {
    let mut stage = Stage::new("scale = { instances = '0..5', idle = '4s', down = { window = '0s' } }", 1);
    assert_eq!(stage.seconds(6), [1, 1, 1, 1, 0, 0], "nothing in flight for four seconds");
    stage.waiting = 1;
    stage.half_a_second();
    assert_eq!(stage.wanted, 1, "somebody waits");
    (stage.waiting, stage.load) = (0, 1);
    assert_eq!(stage.seconds(60), [1; 60], "one long request is not idle");
    stage.load = 0;
    assert_eq!(stage.seconds(5).last(), Some(&0));
}

/// The work of a queue is never in flight here.
#[test]
fn a_number_that_asks_for_a_worker_keeps_it() {
    let says = "scale = { instances = '0..5', idle = '4s', metric = { name = 'emails', per-instance = 10 }, down = { window = '0s' } }";
    let mut stage = Stage::new(says, 1);
    stage.externals.insert("emails".into(), Reading::Value(0));
    assert_eq!(stage.seconds(60).last(), Some(&0));
    stage.externals.insert("emails".into(), Reading::Value(3_000));
    assert_eq!(stage.seconds(60), [1; 60], "it is asked for all the time");
    stage.externals.insert("emails".into(), Reading::Value(0));
    assert_eq!(stage.seconds(5), [1, 1, 1, 0, 0], "its idle time begins when it has nothing more to do");
}

#[test]
fn the_last_worker_stays_while_a_number_fails() {
    let says = "scale = { instances = '0..5', cpu = '70%', idle = '2s', metric = { name = 'emails', per-instance = 10 }, down = { window = '0s' } }";
    let mut stage = Stage::new(says, 1);
    stage.busy = 100;
    stage.externals.insert("emails".into(), Reading::Missing);
    assert_eq!(stage.seconds(60), [1; 60], "CPU proposes one, and it might have been needed for the emails");
    assert_eq!(stage.failing()["emails"], "nobody gives a number for it");
    // Those that work are shown all the same.
    assert!(stage.last.as_ref().unwrap().ratios.contains_key("cpu"));
    stage.externals.insert("emails".into(), Reading::Value(0));
    assert_eq!(stage.seconds(3), [1, 0, 0], "its idle time begins when it is there again");
    assert!(stage.failing().is_empty(), "without workers, CPU is not missed: {:?}", stage.failing());
}

/// Nobody can tell the latency of a service without workers, or of one whose workers do not start.
#[test]
fn latency_is_not_missed_without_workers() {
    for more in ["", "concurrency = 10, ", "cpu = '70%', "] {
        let says = format!("scale = {{ instances = '0..5', idle = '2s', {more}latency = 'p99 < 100ms' }}");
        let mut stage = Stage::new(&says, 1);
        stage.state = WorkerState::Starting;
        stage.latency = Some(Vec::new());
        assert_eq!(stage.seconds(4).last(), Some(&0), "{says}");
        stage.seconds(20);
        assert_eq!((stage.wanted, stage.failing().len()), (0, 0), "{says}: {:?}", stage.failing());
        stage.waiting = 1;
        stage.half_a_second();
        assert_eq!(stage.wanted, 1, "{says}");
    }
}

#[test]
fn memory_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let hpa = folder.path().join("hpa.yaml");
    let yaml = "minReplicas: 1\nmaxReplicas: 9\nmetrics:\n- {type: Resource, resource: {name: memory, target: {type: Utilization, averageUtilization: 50}}}\n";
    std::fs::write(&hpa, yaml).unwrap();
    let says = format!(
        "resources = {{ requests = {{ memory = '64Mi' }} }}\nscale = {{ hpa = {:?} }}",
        hpa.display().to_string()
    );
    let mut stage = Stage::new(&says, 2);
    stage.memory = 32 << 20;
    assert_eq!(stage.seconds(5), [2; 5], "half of what is requested");
    stage.memory = 48 << 20;
    stage.half_a_second();
    assert_eq!(stage.wanted, 3, "three quarters of it are half of three");
}

#[test]
fn what_there_is_counts_as_proposed() {
    // As after an upgrade, or a start with more workers than the least.
    let mut stage = Stage::new("scale = { instances = '1..9', concurrency = 10 }", 6);
    assert_eq!(stage.seconds(290), [6; 290]);
    assert_eq!(stage.seconds(15).last(), Some(&1));
}

#[test]
fn a_changed_configuration_keeps_what_was_proposed_by_the_same_numbers() {
    let mut stage = Stage::new("scale = { instances = '1..9', concurrency = 10 }", 1);
    stage.load = 60;
    stage.seconds(40);
    assert_eq!(stage.wanted, 6);
    stage.load = 0;
    let (other, range) = scale("scale = { instances = '1..9', concurrency = 20 }");
    stage.pilot.configure(other, range);
    assert_eq!(stage.seconds(20), [6; 20], "it is remembered that six were wanted");
    // The bounds hold at once.
    let (other, range) = scale("scale = { instances = '1..4', concurrency = 20 }");
    stage.pilot.configure(other, range);
    assert_eq!(stage.seconds(1), [4]);
}

#[test]
fn numbers_of_each_worker_for_an_autoscalers_file() {
    let folder = tempfile::tempdir().unwrap();
    let hpa = folder.path().join("hpa.yaml");
    let pods = |name: &str, value: u32| {
        format!(
            "- {{type: Pods, pods: {{metric: {{name: {name}}}, target: {{type: AverageValue, averageValue: {value}}}}}}}\n"
        )
    };
    let yaml =
        format!("minReplicas: 1\nmaxReplicas: 9\nmetrics:\n{}{}", pods("concurrency", 10), pods("depth", 4));
    std::fs::write(&hpa, yaml).unwrap();
    let mut stage = Stage::new(&format!("scale = {{ hpa = {:?} }}", hpa.display().to_string()), 2);
    stage.load = 40;
    stage.externals.insert("depth".into(), Reading::Value(4_000));
    stage.half_a_second();
    assert_eq!(stage.wanted, 4, "twenty for each of two, instead of ten");
    let ratios = &stage.last.as_ref().unwrap().ratios;
    assert_eq!((ratios["concurrency"], ratios["depth"]), (2.0, 1.0));
}

#[test]
fn a_thousand_workers_are_decided_about_in_no_time() {
    let mut stage = Stage::new("scale = { instances = '1..1000', cpu = '70%' }", 1_000);
    stage.busy = 700;
    assert_eq!(stage.seconds(2), [1_000, 1_000]);
    let case = &stage.last.as_ref().unwrap().case;
    assert!(case.to_json().to_string().len() < 256 << 10, "a case fits into what is kept");
}
