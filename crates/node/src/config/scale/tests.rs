//! What each key becomes: the spec of an autoscaler, as it would be written for Kubernetes.

use std::fs;

use lethe_scaler::manifest::{self, writing};
use serde_json::{Value, json};

use super::*;
use crate::config::{Overrides, ServiceConfig, Source as Origin, load};

/// The service of a file that says this of it.
fn service(says: &str, flags: Overrides) -> ServiceConfig {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lethe.toml"), format!("[services.web]\ncommand = 'sh'\n{says}\n")).unwrap();
    fs::write(
        folder.path().join("hpa.yaml"),
        "minReplicas: 3\nmaxReplicas: 9\nmetrics:\n\
         - {type: External, external: {metric: {name: mails}, target: {type: Value, value: 30}}}\n\
         - {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: 1k}}}\n",
    )
    .unwrap();
    let loaded = load(Origin::Path(folder.path().into()), flags);
    loaded.unwrap_or_else(|errors| panic!("{says}\n{errors}")).services.remove(0)
}

fn spec(says: &str) -> Value {
    let scale = service(says, Overrides::default()).scale.expect("load decides");
    let written = writing::write(&scale.spec);
    let again = Spec { options: OPTIONS, ..manifest::read_value(&written).unwrap() };
    assert_eq!(again, scale.spec, "{says}: it is one that Kubernetes could follow");
    written
}

fn cpu(percent: i32) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } } })
}

fn external(name: &str, target: Value) -> Value {
    json!({ "type": "External", "external": { "metric": { "name": name }, "target": target } })
}

fn each(value: &str) -> Value {
    json!({ "type": "AverageValue", "averageValue": value })
}

fn whole(value: &str) -> Value {
    json!({ "type": "Value", "value": value })
}

#[test]
fn metrics() {
    let latency = |value: &str| json!({ "type": "Object", "object": { "metric": { "name": "latency" }, "target": whole(value) } });
    for (says, expected) in [
        ("instances = '2..8'", vec![cpu(70)]),
        ("instances = '2..8'\nconcurrency = 10", vec![cpu(70), external("concurrency", each("7"))]),
        ("scale = { instances = '2..8' }", vec![cpu(70)]),
        ("instances = '2..8'\nscale = { cpu = '45%' }", vec![cpu(45)]),
        ("scale = { instances = '2..8', cpu = '150 %' }", vec![cpu(150)]),
        ("scale = { instances = '2..8', requests = '1000/s' }", vec![external("requests", each("1000"))]),
        ("scale = { instances = '2..8', requests = '90/min' }", vec![external("requests", each("1500m"))]),
        ("scale = { instances = '2..8', concurrency = 40 }", vec![external("concurrency", each("40"))]),
        ("scale = { instances = '2..8', concurrency = 0.7 }", vec![external("concurrency", each("700m"))]),
        ("scale = { instances = '2..8', latency = 'p99 < 100ms' }", vec![latency("100")]),
        ("scale = { instances = '2..8', latency = 'p50<2s' }", vec![latency("2000")]),
        (
            "scale = { instances = '2..8', metric = { name = 'emails', per-instance = 10 } }",
            vec![external("emails", each("10"))],
        ),
        (
            "scale = { instances = '2..8', queue = { name = 'emails', per-instance = 10 } }",
            vec![external("emails", each("10"))],
        ),
        (
            // All at once, as of the first example in docs/scaling.md.
            "[services.web.scale]
            instances   = '2..50'
            cpu         = '70%'
            requests    = '1000/s'
            latency     = 'p99 < 100ms'
            concurrency = 40
            queue = { name = 'emails', per-instance = 10 }
            up    = { window = '0s', percent = 100, every = '15s' }
            down  = { window = '5m', percent = 10, every = '60s' }",
            vec![
                cpu(70),
                external("requests", each("1000")),
                external("concurrency", each("40")),
                latency("100"),
                external("emails", each("10")),
            ],
        ),
        (
            "scale = { instances = '2..8', cpu = '70%', queue = [{ url = 'http://h:1/q/mails', target = 100 }, { name = 'b', url = 'http://h', per-instance = 2.5 }] }",
            vec![cpu(70), external("mails", whole("100")), external("b", each("2500m"))],
        ),
    ] {
        assert_eq!(spec(says)["metrics"], json!(expected), "{says}");
    }
}

#[test]
fn ranges() {
    for (says, least, most, in_spec, first) in [
        ("instances = '2..8'", 2, 8, 2, 2),
        ("scale = { instances = '2..50', cpu = '70%' }", 2, 50, 2, 2),
        // CPU is measured at workers, so the rules have no zero for it.
        ("instances = '0..8'", 0, 8, 1, 1),
        ("scale = { instances = '0..8', idle = '30s' }", 0, 8, 1, 1),
        ("scale = { instances = '0..8', concurrency = 1 }", 0, 8, 0, 1),
        ("scale = { hpa = 'hpa.yaml' }", 3, 9, 3, 3),
    ] {
        let read = service(says, Overrides::default());
        let scale = read.scale.unwrap();
        assert_eq!(read.instances, Instances { min: least, max: most }, "{says}");
        assert_eq!((scale.spec.min, scale.spec.max, read.spec.instances), (in_spec, most, first), "{says}");
    }
    assert_eq!(
        service("scale = { instances = '0..8', idle = '30s' }", Overrides::default()).scale.unwrap().idle,
        Duration::from_secs(30)
    );
    assert_eq!(service("instances = 3", Overrides::default()).scale, None);
    assert_eq!(service("", Overrides::default()).scale, None);
}

#[test]
fn the_command_line_wins() {
    let flags = |instances: &str| Overrides { instances: Some(instances.into()), ..Overrides::default() };
    let fixed = service("scale = { instances = '2..8', cpu = '50%' }", flags("4"));
    assert_eq!((fixed.scale, fixed.spec.instances), (None, 4));
    let other = service("scale = { instances = '2..8', cpu = '50%' }", flags("3..5"));
    let scale = other.scale.unwrap();
    assert_eq!((scale.spec.min, scale.spec.max, other.spec.instances), (3, 5, 3));
    assert_eq!(scale.spec.metrics[0].target, Target::Utilization(50));
    assert_eq!(service("", flags("1..5")).scale.unwrap().spec.max, 5);
}

#[test]
fn behavior() {
    let policy = |kind: &str, value: u32, period: u32| json!({ "type": kind, "value": value, "periodSeconds": period });
    let usual_up = json!([policy("Pods", 4, 1), policy("Percent", 100, 1)]);
    let check = |says: &str, up: Value, down: Value| {
        let behavior = &spec(&format!("scale = {{ instances = '2..8', {says} }}"))["behavior"];
        assert_eq!((&behavior["scaleUp"], &behavior["scaleDown"]), (&up, &down), "{says}");
    };
    let (up, down) = (
        json!({ "selectPolicy": "Max", "policies": usual_up, "stabilizationWindowSeconds": 0 }),
        json!({ "selectPolicy": "Max", "policies": [policy("Percent", 100, 15)] }),
    );
    check("cpu = '70%'", up.clone(), down.clone());
    check(
        "up = { window = '0s', percent = 100, every = '15s' }, down = { window = '5m', percent = 10, every = '60s' }",
        json!({ "selectPolicy": "Max", "policies": [policy("Percent", 100, 15)], "stabilizationWindowSeconds": 0 }),
        json!({ "selectPolicy": "Max", "policies": [policy("Percent", 10, 60)], "stabilizationWindowSeconds": 300 }),
    );
    check(
        "up = { percent = 50, instances = 2, select = 'min', tolerance = 0.25 }, down = 'off'",
        json!({
            "selectPolicy": "Min", "policies": [policy("Percent", 50, 15), policy("Pods", 2, 15)],
            "stabilizationWindowSeconds": 0, "tolerance": 0.25
        }),
        json!({ "selectPolicy": "Disabled", "policies": [policy("Percent", 100, 15)] }),
    );
    check(
        "down = { window = '10s' }",
        up,
        json!({ "selectPolicy": "Max", "policies": [policy("Percent", 100, 15)], "stabilizationWindowSeconds": 10 }),
    );
}

#[test]
fn where_numbers_come_from() {
    let told = |name: &str, seconds| External {
        name: name.into(),
        from: None,
        max_age: Duration::from_secs(seconds),
    };
    let says = "scale = { instances = '2..8', metric = [{ name = 'a', per-instance = 1 }, { name = 'b', per-instance = 1, max-age = '5m' }] }";
    assert_eq!(service(says, Overrides::default()).scale.unwrap().externals, [told("a", 60), told("b", 300)]);
    let says = "scale = { instances = '2..8', queue = { url = 'http://h:9/q', pointer = '/a/0', per-instance = 1 } }";
    let from = Fetched { url: "http://h:9/q".parse().unwrap(), pointer: "/a/0".into() };
    let fetched = External { name: "q".into(), from: Some(from), max_age: Duration::from_secs(5) };
    assert_eq!(service(says, Overrides::default()).scale.unwrap().externals, [fetched]);
    let hpa = service("scale = { hpa = 'hpa.yaml' }", Overrides::default()).scale.unwrap();
    assert_eq!(hpa.externals, [told("mails", 60)], "requests are known here");
    assert_eq!((hpa.spec.metrics.len(), hpa.spec.behavior), (2, None));
}

#[test]
fn what_workers_request() {
    let request = |says: &str, flags: Overrides| {
        let scale = service(says, flags).scale.unwrap();
        (scale.cpu_request, scale.memory_request)
    };
    let resources = "resources = { requests = { cpu = '500m', memory = '64Mi' } }";
    assert_eq!(request("instances = '2..8'", Overrides::default()), (1_000, None));
    let expected = (500, Some(64 << 20));
    assert_eq!(request(&format!("instances = '2..8'\n{resources}"), Overrides::default()), expected);
    assert_eq!(
        request(&format!("scale = {{ hpa = 'hpa.yaml' }}\n{resources}"), Overrides::default()),
        expected
    );
    let flags = Overrides { instances: Some("2..8".into()), ..Overrides::default() };
    assert_eq!(request(resources, flags), expected);
}

#[test]
fn a_file_that_cannot_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "[services.web]\ncommand = 'sh'\nscale = { hpa = 'hpa.yaml' }\n";
    fs::write(folder.path().join("lethe.toml"), toml).unwrap();
    for (yaml, expected) in [
        (
            "minReplicas: 3\nmaxReplicas: 2\nmetrics: [{type: Resource, resource: {name: cpu, target: {averageUtilization: 0}}}]",
            "`hpa.yaml` cannot be followed: spec.maxReplicas: must be no less than minReplicas, which is 3, not 2; \
             spec.metrics[0].resource.target.averageUtilization: must be a whole number from 1 to 2147483647, not 0",
        ),
        (
            "maxReplicas: 5000",
            "`hpa.yaml` cannot be followed: spec.maxReplicas: a service has at most 1000 workers, not 5000",
        ),
        ("a: [", "`hpa.yaml` cannot be followed: "),
        (
            "maxReplicas: 5\nmetrics: [{type: Resource, resource: {name: gpu, target: {averageUtilization: 50}}}]",
            "`hpa.yaml` cannot be followed: spec.metrics: of a worker, `cpu` and `memory` are measured, and not `gpu`",
        ),
    ] {
        fs::write(folder.path().join("hpa.yaml"), yaml).unwrap();
        let said = load(Origin::Path(folder.path().into()), Overrides::default()).unwrap_err().to_string();
        let expected = format!("lethe.toml:3:17: [services.web.scale] `hpa`: {expected}");
        assert!(said.contains(&expected), "{yaml}: {said}");
    }
}

/// What `docs/scaling.md` shows can be written.
#[test]
fn every_example_of_the_page() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scaling.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    for block in blocks {
        let name =
            block.split_once("[services.").and_then(|(_, rest)| rest.split(['.', ']']).next()).unwrap();
        let program = format!("[services.{name}]\ncommand = 'sh'\n");
        let toml = match block.contains("command") {
            true => block.replace("\"./web\"", "'sh'"),
            false => program + block,
        };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lethe.toml"), &toml).unwrap();
        fs::write(folder.path().join("hpa.yaml"), "maxReplicas: 9").unwrap();
        let loaded = load(Origin::Path(folder.path().into()), Overrides::default());
        let services = loaded.unwrap_or_else(|errors| panic!("{toml}\n{errors}")).services;
        assert!(services[0].scale.is_some(), "{toml}");
    }
}
