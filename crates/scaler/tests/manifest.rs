//! What is read as a HorizontalPodAutoscaler, and what is refused, with the path of its field. The rules are those of
//! `pkg/apis/autoscaling/validation` in kubernetes/kubernetes.

use std::time::Duration;

use lethe_scaler::{
    manifest::{self, Error},
    spec::{Amount, Behavior, Metric, Policy, Rules, Select, Source, Spec, Target},
};

const WHOLE: &str = r#"
# As `kubectl get hpa web -o yaml` gives it.
apiVersion: v1
kind: Service
metadata: { name: web }
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: web
  namespace: shop
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: web }
  minReplicas: 2
  maxReplicas: 50
  metrics:
  - type: Resource
    resource: { name: cpu, target: { type: Utilization, averageUtilization: 70 } }
  - type: ContainerResource
    containerResource: { name: memory, container: app, target: { type: AverageValue, averageValue: 1.5Gi } }
  - type: Pods
    pods:
      metric: { name: requests_per_second, selector: { matchLabels: { verb: GET } } }
      target: { type: AverageValue, averageValue: 1k }
  - type: Object
    object:
      describedObject: { apiVersion: networking.k8s.io/v1, kind: Ingress, name: main }
      metric: { name: hits }
      target: { type: Value, value: 500m }
  - type: External
    external: { metric: { name: queue }, target: { type: AverageValue, averageValue: 30 } }
  behavior:
    scaleUp:
      tolerance: 0.05
      policies:
      - { type: Percent, value: 100, periodSeconds: 15 }
    scaleDown:
      stabilizationWindowSeconds: 60
      selectPolicy: Min
status:
  currentReplicas: 3
"#;

#[test]
fn a_file_as_it_is() {
    let metric = |source, target| Metric { source, target };
    let spec = Spec {
        min: 2,
        max: 50,
        metrics: vec![
            metric(Source::Resource("cpu".into()), Target::Utilization(70)),
            metric(
                Source::ContainerResource { resource: "memory".into(), container: "app".into() },
                Target::AverageValue(1_610_612_736_000),
            ),
            metric(Source::Pods("requests_per_second".into()), Target::AverageValue(1_000_000)),
            metric(Source::Object("hits".into()), Target::Value(500)),
            metric(Source::External("queue".into()), Target::AverageValue(30_000)),
        ],
        behavior: Some(Behavior {
            up: Rules {
                policies: vec![Policy { amount: Amount::Percent(100), period: Duration::from_secs(15) }],
                tolerance: Some(0.05),
                ..Rules::up()
            },
            down: Rules { window: Some(Duration::from_secs(60)), select: Select::Min, ..Rules::down() },
        }),
        options: Default::default(),
    };
    assert_eq!(manifest::read(WHOLE).unwrap(), spec);
}

#[test]
fn only_the_spec_in_yaml_or_json() {
    let spec = manifest::read("maxReplicas: 3\n").unwrap();
    assert_eq!((spec.min, spec.max, spec.behavior, spec.metrics), (1, 3, None, vec![Metric::default()]));
    let json = r#"{"minReplicas": 2, "maxReplicas": 3, "behavior": {}}"#;
    assert_eq!(manifest::read(json).unwrap().behavior, Some(Behavior::default()));
    let version_1 = "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nspec: { maxReplicas: 9, targetCPUUtilizationPercentage: 50 }";
    assert_eq!(manifest::read(version_1).unwrap().metrics[0].target, Target::Utilization(50));
}

/// A spec around these metrics.
fn metrics(metrics: &str) -> String {
    format!("maxReplicas: 9\nmetrics: [{metrics}]")
}

/// A spec with these rules for the way up.
fn up(rules: &str) -> String {
    format!("maxReplicas: 9\nbehavior: {{ scaleUp: {{ {rules} }} }}")
}

#[test]
fn what_cannot_be_is_refused_with_its_path() {
    for (text, refusal) in [
        ("{}".into(), "spec.maxReplicas: must be set"),
        ("maxReplicas: 0".into(), "spec.maxReplicas: must be a whole number from 1 to 2147483647, not 0"),
        ("maxReplicas: -1".into(), "spec.maxReplicas: must be a whole number"),
        ("maxReplicas: 1.5".into(), "spec.maxReplicas: must be a whole number"),
        (
            "maxReplicas: many".into(),
            "spec.maxReplicas: must be a whole number from 1 to 2147483647, not \"many\"",
        ),
        ("maxReplicas: 4294967296".into(), "spec.maxReplicas: must be a whole number"),
        (
            "minReplicas: 5\nmaxReplicas: 2".into(),
            "spec.maxReplicas: must be no less than minReplicas, which is 5, not 2",
        ),
        ("minReplicas: -1\nmaxReplicas: 2".into(), "spec.minReplicas: must be a whole number from 0"),
        (
            "minReplicas: 0\nmaxReplicas: 2".into(),
            "spec.metrics: must hold at least one Object or External metric",
        ),
        (
            "maxReplica: 2\nmaxReplicas: 2".into(),
            "spec.maxReplica: is no field here; did you mean maxReplicas?",
        ),
        ("maxReplicas: 2\nzzz: 1".into(), "spec.zzz: is no field here; known are behavior, maxReplicas"),
        ("- 1".into(), "spec: must be a map, not [1]"),
        ("maxReplicas: 2\nmetrics: {}".into(), "spec.metrics: must be a list, not {}"),
        (
            "maxReplicas: 2\ntargetCPUUtilizationPercentage: 0".into(),
            "spec.targetCPUUtilizationPercentage: must be",
        ),
        (
            "kind: Deployment\nspec: {maxReplicas: 2}".into(),
            "kind: must be HorizontalPodAutoscaler, not \"Deployment\"",
        ),
        (
            "apiVersion: autoscaling/v2beta1\nspec: {maxReplicas: 2}".into(),
            "apiVersion: must be one of autoscaling/v2,",
        ),
        ("kind: HorizontalPodAutoscaler".into(), "spec: must be a map, not null"),
        (metrics("{}"), "spec.metrics[0].type: must be set, to Resource"),
        (
            metrics("{type: Ressource, resource: {}}"),
            "spec.metrics[0].type: must be one of ContainerResource, External, Object, Pods, Resource, not \"Ressource\"",
        ),
        (metrics("{type: Resource}"), "spec.metrics[0].resource: must be set, since type is \"Resource\""),
        (
            metrics("{type: Resource, pods: {}, resource: {}}"),
            "spec.metrics[0].pods: does not go with type \"Resource\"",
        ),
        (
            metrics("{type: Resource, resource: {target: {type: Utilization, averageUtilization: 50}}}"),
            "spec.metrics[0].resource.name: must be set",
        ),
        (
            metrics(
                "{type: Resource, resource: {name: '', target: {type: Utilization, averageUtilization: 50}}}",
            ),
            "spec.metrics[0].resource.name: must be a text",
        ),
        (metrics("{type: Resource, resource: {name: cpu}}"), "spec.metrics[0].resource.target: must be set"),
        (
            metrics("{type: Resource, resource: {name: cpu, target: {type: Utilization}}}"),
            "spec.metrics[0].resource.target.averageUtilization: must be set, or averageValue",
        ),
        (
            metrics("{type: Resource, resource: {name: cpu, target: {}}}"),
            "spec.metrics[0].resource.target.type: must be set",
        ),
        (
            metrics(
                "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0}}}",
            ),
            "spec.metrics[0].resource.target.averageUtilization: must be a whole number from 1",
        ),
        (
            metrics(
                "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: -5}}}",
            ),
            "averageUtilization: must be a whole number from 1 to 2147483647, not -5",
        ),
        (
            metrics("{type: Resource, resource: {name: cpu, target: {type: Share, averageUtilization: 5}}}"),
            "spec.metrics[0].resource.target.type: must be one of AverageValue, Utilization, Value, not \"Share\"",
        ),
        (
            metrics(
                "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 5, averageValue: 1}}}",
            ),
            "spec.metrics[0].resource.target.averageValue: may not be set beside averageUtilization",
        ),
        (
            metrics("{type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: 0}}}"),
            "averageValue: must be greater than 0, not 0",
        ),
        (
            metrics(
                "{type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: -1m}}}",
            ),
            "averageValue: must be greater than 0, not \"-1m\"",
        ),
        (
            metrics(
                "{type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: 5x}}}",
            ),
            "averageValue: \"5x\" is no quantity",
        ),
        (
            metrics(
                "{type: ContainerResource, containerResource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}",
            ),
            "spec.metrics[0].containerResource.container: must be set",
        ),
        (
            metrics("{type: Pods, pods: {metric: {name: rps}, target: {type: Value, value: 5}}}"),
            "spec.metrics[0].pods.target.averageValue: must be set for a metric of each worker",
        ),
        (
            metrics(
                "{type: Pods, pods: {metric: {name: a/b}, target: {type: AverageValue, averageValue: 5}}}",
            ),
            "spec.metrics[0].pods.metric.name: may not be . or .. nor hold / or %, as a/b does",
        ),
        (
            metrics("{type: Pods, pods: {metric: {}, target: {type: AverageValue, averageValue: 5}}}"),
            "spec.metrics[0].pods.metric.name: must be set",
        ),
        (
            metrics("{type: Object, object: {metric: {name: hits}, target: {type: Value, averageValue: 5}}}"),
            "spec.metrics[0].object.target.value: must be set, since the target's type says so",
        ),
        (
            metrics(
                "{type: Object, object: {metric: {name: hits}, target: {type: Utilization, averageUtilization: 5}}}",
            ),
            "spec.metrics[0].object.target.type: must be Value or AverageValue",
        ),
        (
            metrics(
                "{type: External, external: {metric: {name: q}, target: {type: Value, value: 5, averageValue: 5}}}",
            ),
            "spec.metrics[0].external.target.value: may not be set beside averageValue",
        ),
        (
            metrics(
                "{type: External, external: {metric: {name: q}, target: {type: Utilization, averageUtilization: 5}}}",
            ),
            "spec.metrics[0].external.target.averageValue: must be set, or value",
        ),
        (
            metrics("{type: External, external: {metric: {name: q}, target: {type: Value, value: 0}}}"),
            "spec.metrics[0].external.target.value: must be greater than 0",
        ),
        (
            metrics("{type: External, external: {metric: {name: q}, target: {type: Value, valeu: 5}}}"),
            "spec.metrics[0].external.target.valeu: is no field here; did you mean value?",
        ),
        (
            up("stabilizationWindowSeconds: -1"),
            "spec.behavior.scaleUp.stabilizationWindowSeconds: must be a whole number from 0 to 3600, not -1",
        ),
        (
            up("stabilizationWindowSeconds: 3601"),
            "stabilizationWindowSeconds: must be a whole number from 0 to 3600, not 3601",
        ),
        (
            up("selectPolicy: Most"),
            "spec.behavior.scaleUp.selectPolicy: must be one of Max, Min, Disabled, not \"Most\"",
        ),
        (up("policies: []"), "spec.behavior.scaleUp.policies: must hold at least one policy"),
        (
            up("policies: [{value: 1, periodSeconds: 1}]"),
            "spec.behavior.scaleUp.policies[0].type: must be set",
        ),
        (
            up("policies: [{type: Pod, value: 1, periodSeconds: 1}]"),
            "spec.behavior.scaleUp.policies[0].type: must be one of Pods, Percent, not \"Pod\"",
        ),
        (
            up("policies: [{type: Pods, value: 0, periodSeconds: 1}]"),
            "spec.behavior.scaleUp.policies[0].value: must be a whole number from 1",
        ),
        (
            up("policies: [{type: Pods, value: 1, periodSeconds: 0}]"),
            "spec.behavior.scaleUp.policies[0].periodSeconds: must be a whole number from 1 to 1800, not 0",
        ),
        (
            up("policies: [{type: Pods, value: 1, periodSeconds: 1801}]"),
            "periodSeconds: must be a whole number from 1 to 1800, not 1801",
        ),
        (up("tolerance: -0.1"), "spec.behavior.scaleUp.tolerance: must be 0 or greater, not -0.1"),
        (up("tolerance: some"), "spec.behavior.scaleUp.tolerance: \"some\" is no quantity"),
    ] {
        match manifest::read(&text) {
            Err(error @ Error::Refused(_)) => assert!(error.to_string().contains(refusal), "{text}\n{error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = "minReplicas: x\nmaxReplicas: 0\nmetrics: [{type: Pods}, {type: X}]\nbehavior: { scaleDown: { tolerance: -1, selectPolicy: All } }";
    let Err(Error::Refused(problems)) = manifest::read(text) else { panic!("it was not refused") };
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let expected = [
        "spec.minReplicas",
        "spec.maxReplicas",
        "spec.metrics[0].pods",
        "spec.metrics[1].type",
        "spec.behavior.scaleDown.selectPolicy",
        "spec.behavior.scaleDown.tolerance",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn which_of_several_objects() {
    let one = "kind: HorizontalPodAutoscaler\nmetadata: { name: a }\nspec: { maxReplicas: 2 }\n";
    for (text, what) in [
        ("", "there is no HorizontalPodAutoscaler in it"),
        ("kind: Service\n---\nkind: Deployment\n", "there is no HorizontalPodAutoscaler in it"),
        (&format!("{one}---\n{one}"), "more than one HorizontalPodAutoscaler in it (a, a); leave one"),
        ("a: [", "line "),
    ] {
        let error = manifest::read(text).unwrap_err().to_string();
        assert!(error.contains(what), "{text}: {error}");
    }
    assert_eq!(manifest::read(&format!("kind: Service\n---\n{one}")).unwrap().max, 2);
}
