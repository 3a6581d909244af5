//! What holds for every input.

mod any;

use std::{collections::BTreeMap, time::Duration};

use lethe_scaler::{
    concurrency,
    decision::decide,
    history::History,
    manifest,
    proposal::propose,
    quantity::Quantity,
    samples::{Instance, Phase, Reading, Samples},
    spec::{Amount, Behavior, Metric, Policy, Rules, Select, Source, Spec, Target},
    time::Time,
    tracking,
    zero::{self, Zero},
};
use proptest::prelude::*;

use any::any_rules;

const NOW: Time = Time::from_micros(1_000_000_000_000);

fn spec(metrics: Vec<Metric>, (min, max): (u32, u32), behavior: Option<Behavior>) -> Spec {
    Spec { min, max, metrics, behavior, options: Default::default() }
}

fn cpu(target: i32) -> Metric {
    Metric { source: Source::Resource("cpu".into()), target: Target::Utilization(target) }
}

fn queue(target: Target) -> Metric {
    Metric { source: Source::External("queue".into()), target }
}

fn worker(milli: i64) -> Instance {
    Instance { cpu: Reading::Value(milli), cpu_request: Some(1_000), ..Instance::default() }
}

fn ago(seconds: u64) -> Time {
    NOW.minus(Duration::from_secs(seconds))
}

/// A worker in any state.
fn any_instance() -> impl Strategy<Value = Instance> {
    let phase = prop_oneof![6 => Just(Phase::Running), 1 => Just(Phase::Pending), 1 => Just(Phase::Failed), 1 => Just(Phase::Succeeded)];
    let states = (
        phase,
        prop::option::weighted(0.9, any::<bool>()),
        0..700_u64,
        0..700_u64,
        prop::bool::weighted(0.1),
    );
    let numbers = (prop::option::weighted(0.8, 0..5_000_i64), 0..3_000_i64);
    (states, numbers).prop_map(|((phase, ready, since, started, deleted), (used, requested))| Instance {
        phase,
        ready,
        ready_since: ago(since),
        started: Some(ago(started)),
        deleted,
        cpu: used.map_or(Reading::Missing, Reading::Value),
        cpu_request: Some(requested),
        ..Instance::default()
    })
}

fn any_behavior() -> impl Strategy<Value = Option<Behavior>> {
    prop::option::of((any_rules(), any_rules()).prop_map(|(up, down)| Behavior { up, down }))
}

fn any_history() -> impl Strategy<Value = History> {
    let event = || prop::collection::vec((0..4_000_u64, 0..60_u32), 0..6);
    (event(), event(), event()).prop_map(|(proposed, ups, downs)| {
        let change = |(s, by): (u64, u32)| lethe_scaler::history::Change { t: ago(s), change: by.into() };
        let proposed = proposed.into_iter();
        History {
            recommendations: proposed
                .map(|(s, replicas)| lethe_scaler::history::Recommendation { t: ago(s), replicas })
                .collect(),
            scale_ups: ups.into_iter().map(change).collect(),
            scale_downs: downs.into_iter().map(change).collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_outside_of_the_bounds(
        (min, more) in (0..10_u32, 0..40_u32),
        replicas in 0..60_u32,
        instances in prop::collection::vec(any_instance(), 0..30),
        target in 1..300_i32,
        in_line in prop::option::of(-10_000..200_000_i64),
        behavior in any_behavior(),
        history in any_history(),
    ) {
        let max = (min + more).max(1);
        let spec = spec(vec![cpu(target), queue(Target::AverageValue(1_000))], (min, max), behavior);
        let external = in_line.map(|milli| ("queue".into(), Reading::Value(milli))).into_iter().collect();
        let samples = Samples { replicas, instances, external, object: BTreeMap::new() };
        if let Ok(decision) = decide(&spec, &history, &samples, NOW) {
            let is_paused = replicas == 0 && min > 0;
            prop_assert!(is_paused && decision.desired == 0 || (min..=max).contains(&decision.desired), "{decision:?}");
        }
    }

    #[test]
    fn more_load_never_means_fewer_workers(
        mut instances in prop::collection::vec(any_instance(), 1..20),
        target in 5..200_i32,
        behavior in any_behavior(),
        history in any_history(),
        more in 1..3_000_i64,
    ) {
        // Those that count are as many as there should be; else Kubernetes' rules themselves are not monotone.
        instances.retain(|instance| !instance.deleted && instance.phase != Phase::Failed);
        let replicas = instances.len() as u32;
        prop_assume!(replicas > 0);
        let spec = spec(vec![cpu(target)], (1, 1_000), behavior);
        let less = Samples { replicas, instances, ..Samples::default() };
        let mut loaded = less.clone();
        for instance in &mut loaded.instances {
            if let Reading::Value(milli) = &mut instance.cpu {
                *milli += more;
            }
        }
        if let (Ok(before), Ok(after)) = (decide(&spec, &history, &less, NOW), decide(&spec, &history, &loaded, NOW)) {
            prop_assert!(after.desired >= before.desired, "{before:?}\n{after:?}");
        }
    }

    #[test]
    fn a_longer_queue_never_means_fewer_workers(
        replicas in 0..50_u32,
        ready in 0..50_usize,
        (one, other) in (0..500_000_i64, 0..500_000_i64),
        is_shared in any::<bool>(),
        behavior in any_behavior(),
        history in any_history(),
    ) {
        let target = if is_shared { Target::AverageValue(3_000) } else { Target::Value(90_000) };
        let spec = spec(vec![queue(target)], (0, 100), behavior);
        // A number as a whole is monotone where those that are ready are as many as there should be.
        let ready = if is_shared { ready } else { (replicas as usize).max(1) };
        let decided = |milli: i64| {
            let external = [("queue".into(), Reading::Value(milli))].into();
            let samples = Samples { replicas, instances: vec![worker(0); ready], external, ..Samples::default() };
            decide(&spec, &history, &samples, NOW).unwrap().desired
        };
        prop_assert!(decided(one.min(other)) <= decided(one.max(other)));
    }

    #[test]
    fn within_the_tolerance_nothing_changes(
        replicas in 1..60_u32,
        count in 1..60_usize,
        target in 20..150_i32,
        share in 0.0..1.0_f64,
        pending in 0..5_usize,
        missing in 0..5_usize,
        behavior in any_behavior(),
    ) {
        let behavior = behavior.map(|Behavior { up, down }| Behavior {
            up: Rules { tolerance: Some(0.1), ..up },
            down: Rules { tolerance: Some(0.1), ..down },
        });
        let spec = spec(vec![cpu(target)], (1, 60), behavior);
        // Somewhere from 0.9 to 1.1 times the target, in whole percent.
        let (low, high) = ((f64::from(target) * 0.9).ceil(), (f64::from(target) * 1.1).floor());
        let percent = (low + (high - low) * share).round() as i64;
        let mut instances = vec![worker(percent * 10); count];
        instances.extend(vec![Instance { phase: Phase::Pending, ..worker(0) }; pending]);
        instances.extend(vec![Instance { cpu: Reading::Missing, ..worker(0) }; missing]);
        let samples = Samples { replicas, instances, ..Samples::default() };
        let decision = decide(&spec, &History::default(), &samples, NOW).unwrap();
        prop_assert_eq!(decision.desired, replicas, "{:?}", decision);
    }

    #[test]
    fn no_faster_than_the_policy(
        queues in prop::collection::vec(0..100_000_i64, 1..80),
        amount in 1..8_u32,
        period in 2..60_u64,
    ) {
        let policies = vec![Policy { amount: Amount::Pods(amount), period: Duration::from_secs(period) }];
        let up = Rules { policies, ..Rules::up() };
        let down = Rules { select: Select::Disabled, ..Rules::down() };
        let spec = spec(vec![queue(Target::AverageValue(1_000))], (1, 100), Some(Behavior { up, down }));
        let (mut replicas, mut history) = (1, History::default());
        let mut counts = Vec::new();
        for (second, milli) in (0..).zip(queues) {
            let now = NOW.plus(Duration::from_secs(second));
            let external = [("queue".into(), Reading::Value(milli))].into();
            let samples = Samples { replicas, external, ..Samples::default() };
            let decision = decide(&spec, &history, &samples, now).unwrap();
            history.note(&spec, replicas, &decision, now);
            replicas = decision.desired;
            counts.push(replicas);
        }
        for window in counts.windows(period as usize) {
            prop_assert!(window.last().unwrap() - window[0] <= amount, "{counts:?}");
        }
    }

    #[test]
    fn what_is_forgotten_changes_nothing(
        queues in prop::collection::vec((0..60_000_i64, 1..120_u64), 1..60),
        behavior in any_behavior(),
    ) {
        let spec = spec(vec![queue(Target::AverageValue(1_000))], (0, 100), behavior);
        let (mut replicas, mut now) = (5, NOW);
        let (mut all, mut kept) = (History::default(), History::default());
        for (milli, seconds) in queues {
            now = now.plus(Duration::from_secs(seconds));
            let external = [("queue".into(), Reading::Value(milli))].into();
            let samples = Samples { replicas, external, ..Samples::default() };
            let decision = decide(&spec, &kept, &samples, now).unwrap();
            prop_assert_eq!(&decision, &decide(&spec, &all, &samples, now).unwrap());
            kept.note(&spec, replicas, &decision, now);
            let mut newest = History::default();
            newest.note(&spec, replicas, &decision, now);
            all.recommendations.extend(newest.recommendations);
            all.scale_ups.extend(newest.scale_ups);
            all.scale_downs.extend(newest.scale_downs);
            replicas = decision.desired;
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}", lines in "[a-z:\\- \\[\\]{}&*!\"'\n0-9.]{0,120}") {
        let _ = manifest::read(&text);
        let _ = manifest::read(&lines);
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn any_number_is_proposed_from_without_overflow(
        numbers in prop::collection::vec(any::<i64>(), 1..6),
        request in any::<i64>(),
        target in 1..i64::MAX,
        replicas in any::<u32>(),
    ) {
        let instances: Vec<_> =
            numbers.iter().map(|milli| Instance { cpu_request: Some(request), ..worker(*milli) }).collect();
        let external: BTreeMap<_, _> = [("queue".into(), Reading::Value(numbers[0]))].into();
        let percent = i32::try_from(target % 1_000 + 1).unwrap();
        for metric in [cpu(percent), queue(Target::AverageValue(target)), queue(Target::Value(target))] {
            let spec = spec(vec![metric], (0, u32::MAX), None);
            let samples = Samples { replicas, instances: instances.clone(), external: external.clone(), ..Samples::default() };
            let _ = propose(&spec, &samples, NOW);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn steady_load_comes_to_rest(
        start in 1..80_u32,
        load in 0..40_000_i64,
        target in 10..120_i32,
        behavior in any_behavior(),
        amounts in (1..8_u32, 20..200_u32),
    ) {
        // Whatever the windows are; the policies let it arrive within the time.
        let policies = vec![
            Policy { amount: Amount::Pods(amounts.0), period: Duration::from_secs(30) },
            Policy { amount: Amount::Percent(amounts.1), period: Duration::from_secs(60) },
        ];
        let quick = |rules: Rules| Rules { policies: policies.clone(), ..rules };
        let behavior = behavior.map(|Behavior { up, down }| Behavior { up: quick(up), down: quick(down) });
        let spec = spec(vec![cpu(target)], (1, 100), behavior);
        let (mut replicas, mut history, mut now) = (start, History::begin(start, NOW), NOW);
        let mut changes = Vec::new();
        // Four hours, of which the last one sees no change.
        for step in 0..960 {
            now = now.plus(Duration::from_secs(15));
            let instances = vec![worker(load / i64::from(replicas)); replicas as usize];
            let samples = Samples { replicas, instances, ..Samples::default() };
            let decision = decide(&spec, &history, &samples, now).unwrap();
            history.note(&spec, replicas, &decision, now);
            if decision.desired != replicas {
                changes.push((step, decision.desired));
            }
            replicas = decision.desired;
        }
        let counts: Vec<u32> = std::iter::once(start).chain(changes.iter().map(|(_, count)| *count)).collect();
        // Shares are whole percents, so that it may come from 6 to 8 and then to 7; but what was left once is not right again.
        let different: std::collections::BTreeSet<_> = counts.iter().collect();
        prop_assert_eq!(different.len(), counts.len(), "{:?}", counts);
        prop_assert!(changes.last().is_none_or(|(step, _)| *step < 720), "{changes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is steady comes to rest, also where there may be no workers, whatever is measured beside: a number from elsewhere, CPU that
    /// each worker uses by itself, and one number that may be away for good.
    #[test]
    fn what_is_steady_comes_to_rest_at_zero_too(
        in_line in prop::option::weighted(0.8, 0..90_000_i64),
        own_cpu in 0..1_500_i64,
        with_cpu in any::<bool>(),
        idle in 1..600_u64,
        begin in 0..9_u32,
    ) {
        let mut metrics = vec![queue(Target::AverageValue(10_000))];
        metrics.extend(with_cpu.then(|| cpu(70)));
        let spec = spec(metrics, (0, 9), Some(Behavior::quick()));
        let (mut history, mut replicas, mut idle_since) = (History::default(), begin, ago(0));
        let mut counts = Vec::new();
        for round in 0..4_000_u64 {
            let now = NOW.plus(Duration::from_millis(500 * round));
            let external = in_line.map(|milli| ("queue".into(), Reading::Value(milli))).into_iter().collect();
            let instances = (0..replicas).map(|_| worker(own_cpu)).collect();
            let samples = Samples { replicas, instances, external, object: BTreeMap::new() };
            if in_line != Some(0) {
                idle_since = now;
            }
            let zero = Zero { idle: Duration::from_secs(idle), idle_for: now - idle_since, waiting: 0 };
            if let Ok(decision) = zero::decide(Some(&zero), &spec, &history, &samples, now) {
                history.note(&spec, replicas, &decision, now);
                replicas = decision.desired;
            }
            counts.push(replicas);
        }
        let (changing, rest) = counts.split_at(3_000);
        prop_assert!(rest.iter().all(|count| *count == replicas), "{:?}", &counts[2_900..]);
        // Nor does it go to and fro from one decision to the next before that.
        let turns = changing.windows(3).filter(|three| three[0] == three[2] && three[0] != three[1]);
        prop_assert_eq!(turns.count(), 0, "{:?}", changing);
    }
}

/// Of [`concurrency`]: any wishes, and what it may remember.
fn any_concurrency() -> impl Strategy<Value = (concurrency::Spec, concurrency::History)> {
    let bounds = (0..20_u32, 1..200_u32);
    let panic = prop::option::of((0..120_u64, 0..300_u32));
    (bounds, 1..200_u32, 0..60_u64, panic).prop_map(|((min, more), target, delay, panic)| {
        let mut spec = concurrency::Spec::new(min, min + more, f64::from(target) / 10.0);
        spec.down_delay = Duration::from_secs(delay);
        let panic = panic.map(|(seconds, most)| concurrency::Panic { last: ago(seconds), most });
        (spec, concurrency::History { panic, decided: Vec::new() })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn concurrency_keeps_to_its_bounds_and_more_in_flight_never_means_fewer(
        (spec, history) in any_concurrency(),
        ready in 0..200_u32,
        (stable, panic) in (0.0..5_000.0, 0.0..5_000.0),
        more in 0.0..1_000.0,
    ) {
        let decided = |more: f64| {
            let samples = concurrency::Samples { ready, stable: stable + more, panic: panic + more };
            concurrency::decide(&spec, &history, &samples, NOW).desired
        };
        prop_assert!((spec.min..=spec.max).contains(&decided(0.0)));
        prop_assert!(decided(more) >= decided(0.0), "{} and {}", decided(0.0), decided(more));
    }

    /// As long as it stays as it is, and no panic is left from before.
    #[test]
    fn concurrency_comes_to_rest_under_steady_load((spec, _) in any_concurrency(), in_flight in 0.0..2_000.0) {
        let (mut history, mut ready) = (concurrency::History::default(), spec.min);
        let counts: Vec<u32> = (0..200_u64)
            .map(|round| {
                let samples = concurrency::Samples { ready, stable: in_flight, panic: in_flight };
                let now = NOW.plus(Duration::from_secs(2 * round));
                let decision = concurrency::decide(&spec, &history, &samples, now);
                (history, ready) = (decision.history, decision.desired);
                ready
            })
            .collect();
        prop_assert!(counts[150..].iter().all(|count| *count == ready), "{counts:?}");
    }

    #[test]
    fn tracking_keeps_to_its_bounds_and_does_nothing_about_what_is_right(
        (min, more) in (0..20_u32, 1..200_u32),
        (current, target) in (0..300_u32, 1.0..1_000.0),
        points in prop::collection::vec(0.0..3_000.0, 0..20),
        (out, in_) in (prop::option::of((0..600_u64, 0..200_u32)), prop::option::of(0..600_u64)),
    ) {
        let spec = tracking::Spec::new(min, min + more, target);
        let out = out.map(|(seconds, base)| (ago(seconds), base));
        let history = tracking::History { out, in_: in_.map(ago) };
        let desired = tracking::decide(&spec, &history, current, &points, NOW).desired;
        prop_assert!((spec.min..=spec.max).contains(&desired), "{desired}");
        // Between the two alarms nothing is done.
        let right = vec![target * 0.95; 15];
        let kept = tracking::decide(&spec, &history, current, &right, NOW).desired;
        prop_assert_eq!(kept, current.clamp(spec.min, spec.max));
    }

    #[test]
    fn tracking_never_takes_away_what_more_load_needs(
        (current, target) in (1..200_u32, 1.0..1_000.0),
        points in prop::collection::vec(0.0..3_000.0, 15..20),
        more in 0.0..1_000.0,
    ) {
        let spec = tracking::Spec::new(1, 1_000_000, target);
        let decided = |more: f64| {
            let points: Vec<f64> = points.iter().map(|point| point + more).collect();
            tracking::decide(&spec, &tracking::History::default(), current, &points, NOW).desired
        };
        prop_assert!(decided(more) >= decided(0.0));
    }
}
