//! What a decision was taken from, written down and read again, leads to the same decision; and what is forgotten of
//! the past would have changed none.

mod any;

use std::{collections::BTreeMap, time::Duration};

use lethe_scaler::{
    case::{Case, SpecSource},
    decision::{Decision, decide},
    history::{Change, History, Recommendation},
    manifest::{self, writing},
    samples::{Instance, Phase, Reading, Samples},
    spec::{Behavior, Metric, Options, Source, Spec, Target},
    time::Time,
    zero::{self, Zero},
};
use proptest::prelude::*;

use any::any_rules;

/// A day in 2026, with microseconds.
const NOW: Time = Time::from_micros(1_790_000_000_123_457);

fn ago(ms: u64) -> Time {
    NOW.minus(Duration::from_millis(ms))
}

fn any_metric() -> impl Strategy<Value = Metric> {
    let average = || (1..10_000_000_i64).prop_map(Target::AverageValue);
    let whole = || prop_oneof![average(), (1..10_000_000_i64).prop_map(Target::Value)];
    let utilization = || (1..300_i32).prop_map(Target::Utilization);
    let resource = ("cpu|memory", prop_oneof![utilization(), average()])
        .prop_map(|(name, target)| Metric { source: Source::Resource(name), target });
    let container = (utilization()).prop_map(|target| Metric {
        source: Source::ContainerResource { resource: "cpu".into(), container: "main".into() },
        target,
    });
    let pods = average().prop_map(|target| Metric { source: Source::Pods("hits".into()), target });
    let object = whole().prop_map(|target| Metric { source: Source::Object("latency p99".into()), target });
    let external =
        ("queue|mails", whole()).prop_map(|(name, target)| Metric { source: Source::External(name), target });
    prop_oneof![3 => resource, 1 => container, 1 => pods, 1 => object, 3 => external]
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let behavior = prop::option::of((any_rules(), any_rules()).prop_map(|(up, down)| Behavior { up, down }));
    let spans = (0..100_000_u64, 0..100_000_u64, 0..100_000_u64, 0..100_000_u64);
    // As people write it: of the last bits of a long fraction, JSON's reader is not sure.
    let options = (0..1_000_u32, spans).prop_map(|(milli, spans)| Options {
        tolerance: f64::from(milli) / 1_000.0,
        cpu_initialization: Duration::from_millis(spans.0),
        initial_readiness: Duration::from_millis(spans.1),
        downscale_stabilization: Duration::from_millis(spans.2),
        sample: Duration::from_millis(spans.3),
    });
    let metrics = prop::collection::vec(any_metric(), 1..4);
    (1..10_u32, 0..40_u32, metrics, behavior, options).prop_map(|(min, more, metrics, behavior, options)| {
        Spec { min, max: min + more, metrics, behavior, options }
    })
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let bad = prop_oneof![Just("NaN".to_owned()), Just(String::new()), Just("a \"b\" ☃".to_owned())];
    prop_oneof![
        6 => (-1_000..50_000_i64).prop_map(Reading::Value),
        1 => Just(Reading::Missing),
        1 => bad.prop_map(Reading::Bad),
    ]
}

fn any_readings() -> impl Strategy<Value = BTreeMap<String, Reading>> {
    prop::collection::btree_map("queue|mails|latency p99|hits|memory", any_reading(), 0..5)
}

fn any_instance() -> impl Strategy<Value = Instance> {
    let phase = prop_oneof![
        6 => Just(Phase::Running), 1 => Just(Phase::Pending), 1 => Just(Phase::Failed), 1 => Just(Phase::Succeeded), 1 => Just(Phase::Unknown)
    ];
    let time = || prop_oneof![Just(Time::LONG_AGO), (0..700_000_u64).prop_map(ago)];
    let life = (phase, any::<Option<bool>>(), time(), prop::option::of(time()), any::<bool>());
    let numbers = (any_reading(), prop::option::of(0..3_000_i64), prop::option::of(0..9_000_u64));
    let requests = prop::collection::btree_map("memory|main/cpu", 0..9_000_i64, 0..2);
    ("[a-z]{1,5}-[0-9]", life, numbers, any_readings(), requests).prop_map(
        |(
            name,
            (phase, ready, ready_since, started, deleted),
            (cpu, cpu_request, sampled),
            metrics,
            requests,
        )| {
            let sampled = sampled.map(ago);
            Instance {
                name,
                phase,
                ready,
                ready_since,
                started,
                deleted,
                cpu,
                cpu_request,
                sampled,
                metrics,
                requests,
            }
        },
    )
}

fn any_history() -> impl Strategy<Value = History> {
    let events = || prop::collection::vec((0..4_000_000_u64, 0..60_u32), 0..6);
    (events(), events(), events()).prop_map(|(proposed, ups, downs)| {
        let changes = |events: Vec<(u64, u32)>| -> Vec<Change> {
            events.into_iter().map(|(ms, by)| Change { t: ago(ms), change: by.into() }).collect()
        };
        let proposed = proposed.into_iter().map(|(ms, replicas)| Recommendation { t: ago(ms), replicas });
        History { recommendations: proposed.collect(), scale_ups: changes(ups), scale_downs: changes(downs) }
    })
}

fn any_zero() -> impl Strategy<Value = Option<Zero>> {
    let zero = (0..600_000_u64, 0..900_000_u64, 0..3_u64).prop_map(|(idle, idle_for, waiting)| Zero {
        idle: Duration::from_millis(idle),
        idle_for: Duration::from_millis(idle_for),
        waiting,
    });
    prop::option::of(zero)
}

/// As `lethe simulate` decides.
fn again(case: &Case) -> Result<Decision, String> {
    let SpecSource::Inline(spec) = &case.spec else { return Err("the spec is elsewhere".into()) };
    let spec = manifest::read_value(spec).map_err(|error| error.to_string())?;
    let spec = Spec { options: case.options, ..spec };
    zero::decide(case.zero.as_ref(), &spec, &case.history, &case.samples, case.now)
        .map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_can_be_taken_again(
        spec in any_spec(),
        replicas in 0..50_u32,
        instances in prop::collection::vec(any_instance(), 0..8),
        (external, object) in (any_readings(), any_readings()),
        history in any_history(),
        zero in any_zero(),
    ) {
        let samples = Samples { replicas, instances, external, object };
        let decided = zero::decide(zero.as_ref(), &spec, &history, &samples, NOW).map_err(|error| error.to_string());
        let case = Case {
            spec: SpecSource::Inline(writing::write(&spec)),
            options: spec.options,
            is_raw: false,
            now: NOW,
            samples,
            history,
            zero,
            unknown: Vec::new(),
        };
        let read = Case::read(&case.to_json().to_string()).unwrap();
        prop_assert_eq!(&read, &case);
        prop_assert_eq!(again(&read), decided);
    }

    #[test]
    fn what_is_forgotten_would_change_nothing(
        behavior in prop::option::of((any_rules(), any_rules())),
        proposals in prop::collection::vec((1..200_000_u64, 1..12_i64), 1..60),
    ) {
        let behavior = behavior.map(|(up, down)| Behavior { up, down });
        let metric = Metric { source: Source::External("queue".into()), target: Target::AverageValue(1_000) };
        let spec = Spec { min: 1, max: 20, metrics: vec![metric], behavior, options: Options::default() };
        let (mut now, mut current) = (NOW, 4);
        let (mut brief, mut whole) = (History::begin(current, now), History::begin(current, now));
        for (later, queue) in proposals {
            now = now.plus(Duration::from_millis(later));
            let external = [("queue".to_owned(), Reading::Value(queue * 1_000))].into();
            let samples = Samples { replicas: current, external, ..Samples::default() };
            let decision = decide(&spec, &brief, &samples, now).unwrap();
            prop_assert_eq!(&decision, &decide(&spec, &whole, &samples, now).unwrap());
            brief.note(&spec, current, &decision, now);
            whole.scale_ups = brief.scale_ups.clone();
            whole.scale_downs = brief.scale_downs.clone();
            whole.recommendations.extend(decision.proposal.map(|replicas| Recommendation { t: now, replicas }));
            current = decision.desired;
            prop_assert!(brief.recommendations.len() <= 12);
        }
    }
}
