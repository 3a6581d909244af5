//! The HorizontalPodAutoscaler of a service: the inverse of what `lethe_scaler::manifest` reads.

use lethe_scaler::spec::{Amount, Behavior, Metric, Policy, Rules, Select, Source, Spec, Target};

use super::{Subject, object};
use crate::{scaling, yaml::Map};

/// It, if the number of workers follows the load.
pub(super) fn of(subject: &Subject<'_>) -> Option<Map> {
    Some(object_of(subject, &scaling::spec(subject.service)?))
}

fn object_of(subject: &Subject<'_>, spec: &Spec) -> Map {
    let target = Map::of("apiVersion", "apps/v1").with("kind", "Deployment").with("name", subject.name());
    let spec = Map::of("scaleTargetRef", target)
        .with("minReplicas", spec.min)
        .with("maxReplicas", spec.max)
        .with("metrics", spec.metrics.iter().map(|it| metric(it, subject.name())).collect::<Vec<_>>())
        .maybe("behavior", spec.behavior.as_ref().map(behavior));
    object("autoscaling/v2", "HorizontalPodAutoscaler", subject.metadata(subject.name())).with("spec", spec)
}

/// An Object metric is taken to be a number of the Service; here nothing says of what.
fn metric(metric: &Metric, service: &str) -> Map {
    let target = target(metric.target);
    let named = |name: &str| Map::of("name", name);
    let (kind, key, source) = match &metric.source {
        Source::Resource(name) => ("Resource", "resource", named(name)),
        Source::ContainerResource { resource, container } => {
            ("ContainerResource", "containerResource", named(resource).with("container", container.as_str()))
        }
        Source::Pods(name) => ("Pods", "pods", Map::of("metric", named(name))),
        Source::External(name) => ("External", "external", Map::of("metric", named(name))),
        Source::Object(name) => {
            let described = Map::of("apiVersion", "v1").with("kind", "Service").with("name", service);
            ("Object", "object", Map::of("describedObject", described).with("metric", named(name)))
        }
    };
    Map::of("type", kind).with(key, source.with("target", target))
}

fn target(target: Target) -> Map {
    match target {
        Target::Utilization(percent) => {
            Map::of("type", "Utilization").with("averageUtilization", i64::from(percent))
        }
        Target::AverageValue(milli) => Map::of("type", "AverageValue").with("averageValue", quantity(milli)),
        Target::Value(milli) => Map::of("type", "Value").with("value", quantity(milli)),
    }
}

/// Milli-units, as a quantity.
fn quantity(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn behavior(behavior: &Behavior) -> Map {
    Map::of("scaleUp", rules(&behavior.up)).with("scaleDown", rules(&behavior.down))
}

fn rules(rules: &Rules) -> Map {
    let select = match rules.select {
        Select::Max => "Max",
        Select::Min => "Min",
        Select::Disabled => "Disabled",
    };
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let policy = |policy: &Policy| {
        let (kind, value) = match policy.amount {
            Amount::Pods(pods) => ("Pods", pods),
            Amount::Percent(percent) => ("Percent", percent),
        };
        Map::of("type", kind).with("value", value).with("periodSeconds", seconds(policy.period))
    };
    Map::default()
        .maybe("stabilizationWindowSeconds", rules.window.map(seconds))
        .with("selectPolicy", select)
        .with("policies", rules.policies.iter().map(policy).collect::<Vec<_>>())
        .maybe("tolerance", rules.tolerance.map(|tolerance| quantity((tolerance * 1000.0).round() as i64)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lethe_scaler::{
        decision::decide,
        history::History,
        manifest,
        samples::{Instance, Phase, Reading, Samples},
        spec::Options,
        time::Time,
    };
    use proptest::prelude::*;

    use super::*;

    fn any_metric() -> impl Strategy<Value = Metric> {
        let value = 1_i64..5_000_000;
        prop_oneof![
            (1_i32..500).prop_map(|percent| Metric {
                source: Source::Resource("cpu".into()),
                target: Target::Utilization(percent)
            }),
            value.clone().prop_map(|milli| Metric {
                source: Source::Resource("memory".into()),
                target: Target::AverageValue(milli)
            }),
            value.clone().prop_map(|milli| Metric {
                source: Source::ContainerResource { resource: "cpu".into(), container: "web".into() },
                target: Target::AverageValue(milli)
            }),
            value.clone().prop_map(|milli| Metric {
                source: Source::Pods("requests".into()),
                target: Target::AverageValue(milli)
            }),
            (value.clone(), any::<bool>()).prop_map(|(milli, is_total)| Metric {
                source: Source::External("queue".into()),
                target: if is_total { Target::Value(milli) } else { Target::AverageValue(milli) }
            }),
            value.prop_map(|milli| Metric {
                source: Source::Object("hits".into()),
                target: Target::Value(milli)
            }),
        ]
    }

    fn any_rules(is_up: bool) -> impl Strategy<Value = Rules> {
        let amount = prop_oneof![(1_u32..50).prop_map(Amount::Pods), (1_u32..300).prop_map(Amount::Percent)];
        let policy = (amount, 1_u64..1800)
            .prop_map(|(amount, period)| Policy { amount, period: Duration::from_secs(period) });
        let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
        // Only the way down may be without one.
        let window = prop::option::of(0_u64..3600)
            .prop_map(move |seconds| seconds.or(is_up.then_some(0)).map(Duration::from_secs));
        let tolerance = prop::option::of((0_u32..500).prop_map(|milli| f64::from(milli) / 1000.0));
        (window, select, prop::collection::vec(policy, 1..4), tolerance)
            .prop_map(|(window, select, policies, tolerance)| Rules { window, select, policies, tolerance })
    }

    fn any_spec() -> impl Strategy<Value = Spec> {
        let behavior = (any_rules(true), any_rules(false)).prop_map(|(up, down)| Behavior { up, down });
        (1_u32..20, 0_u32..50, prop::collection::vec(any_metric(), 1..4), prop::option::of(behavior))
            .prop_map(|(min, more, metrics, behavior)| Spec {
                min,
                max: min + more,
                metrics,
                behavior,
                options: Options::default(),
            })
    }

    fn instance(number: usize, cpu: Option<i64>) -> Instance {
        Instance {
            name: format!("web-{number}"),
            phase: Phase::Running,
            ready: Some(true),
            ready_since: Time::default(),
            started: Some(Time::default()),
            deleted: false,
            cpu: cpu.map_or(Reading::Missing, Reading::Value),
            cpu_request: Some(500),
            sampled: None,
            metrics: [("requests".to_owned(), Reading::Value(cpu.unwrap_or(0) * 900))].into(),
            requests: [].into(),
        }
    }

    proptest! {
        #[test]
        fn what_is_read_back_decides_alike(
            spec in any_spec(),
            cpu in prop::collection::vec(prop::option::weighted(0.9, 0_i64..2000), 1..20),
            queue in 0_i64..9_000_000,
        ) {
            let written = object_of_spec(&spec).document();
            let read = manifest::read(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
            prop_assert_eq!(&read, &spec, "{}", written);
            let samples = Samples {
                replicas: u32::try_from(cpu.len()).unwrap(),
                instances: cpu.iter().enumerate().map(|(number, cpu)| instance(number, *cpu)).collect(),
                external: [("queue".to_owned(), Reading::Value(queue))].into(),
                object: [("hits".to_owned(), Reading::Value(queue))].into(),
            };
            let now = Time::default().plus(Duration::from_secs(4000));
            let decision = |spec: &Spec| decide(spec, &History::default(), &samples, now).map_err(|error| error.to_string());
            prop_assert_eq!(decision(&read).map(|it| it.desired), decision(&spec).map(|it| it.desired));
        }
    }

    /// From what a user writes, to none at all too: an autoscaler has one pod then, as it cannot hold requests.
    #[test]
    fn what_lethe_would_follow_is_followed_alike() {
        for scale in [
            "instances = '0..9'",
            "instances = '2..9'\n[services.web.scale]\ncpu = '60%'\nup = { percent = 50, every = '30s' }\ndown = { window = '1m', instances = 1, every = '10s' }",
            "[services.web.scale]\ninstances = '1..9'\nqueue = { name = 'queue', target = 40 }\ncpu = '70%'",
            "[services.web.scale]\ninstances = '0..9'\nqueue = { name = 'queue', per-instance = 3 }\ndown = 'off'",
        ] {
            let toml = format!("[services.web]\ncommand = 'sh'\n{scale}\n");
            let ours = crate::kubernetes::tests::load(&toml).services.remove(0).scale.unwrap().spec;
            let text = crate::kubernetes::tests::text(&toml, &Default::default());
            let written = text
                .split("---")
                .find(|document| document.contains("kind: HorizontalPodAutoscaler"))
                .unwrap();
            let read = manifest::read(written).unwrap();
            // The flags are a controller's, not an autoscaler's.
            let theirs = Spec { options: ours.options, ..read };
            let ours = Spec { min: ours.min.max(1), ..ours };
            for (count, queue) in (1..=9).flat_map(|count| [0, 7_000, 90_000].map(|queue| (count, queue))) {
                for cpu in [0, 200, 350, 500, 900] {
                    let samples = Samples {
                        replicas: count,
                        instances: (0..count as usize).map(|number| instance(number, Some(cpu))).collect(),
                        external: [("queue".to_owned(), Reading::Value(queue))].into(),
                        ..Samples::default()
                    };
                    let now = Time::default().plus(Duration::from_secs(4000));
                    let decided = |spec: &Spec| decide(spec, &History::default(), &samples, now);
                    assert_eq!(decided(&theirs), decided(&ours), "{scale}: {samples:?}");
                }
            }
        }
    }

    fn object_of_spec(spec: &Spec) -> Map {
        crate::kubernetes::tests::with_subject("web", |subject| object_of(subject, spec))
    }
}
