//! The Deployment of a service.

use std::time::Duration;

use lethe_model::roster::Protocol;
use sha2::{Digest, Sha256};

use super::{PORT, Subject, object, only};
use crate::{
    scaling,
    yaml::{Map, Yaml},
};

/// How long a pod goes on after it was told to leave, so that everybody who sends it requests has heard of that.
const SETTLE_SECONDS: u64 = 5;
/// Kubernetes' own patience with a rollout in which nothing moves.
const PROGRESS_SECONDS_MIN: u64 = 600;
/// Requested where load is measured in percent of the request and none is said.
const CPU_REQUEST_MILLI: u64 = 1000;

pub(super) fn of(subject: &Subject<'_>) -> Map {
    let instances = scaling::spec(subject.service).is_none().then_some(subject.service.spec.instances);
    let rollout = &subject.service.rollout.policy;
    // With none of either, nothing could ever move.
    let rolling = Map::of("maxSurge", percent(rollout.max_surge_percent.max(1).into()))
        .with("maxUnavailable", percent(subject.unavailable_percent()));
    let warm_up = seconds(rollout.warm_up);
    let patience = PROGRESS_SECONDS_MIN.max(seconds(rollout.grace) + warm_up + SETTLE_SECONDS);
    let spec = Map::default()
        .maybe("replicas", instances)
        .with("selector", Map::of("matchLabels", subject.selector()))
        .with("strategy", Map::of("type", "RollingUpdate").with("rollingUpdate", rolling))
        .maybe("minReadySeconds", (warm_up > 0).then(|| number(warm_up)))
        .with("progressDeadlineSeconds", number(patience))
        .with("template", template(subject));
    object("apps/v1", "Deployment", subject.metadata(subject.name())).with("spec", spec)
}

fn template(subject: &Subject<'_>) -> Map {
    let metadata = Map::default()
        .maybe("annotations", checksum(subject).map(|sum| Map::of("checksum/config", sum)))
        .with("labels", subject.selector().with("app.kubernetes.io/managed-by", "lethe"));
    let drain = seconds(subject.service.spec.drain);
    let user = Map::of("runAsNonRoot", true)
        .saying("The image must name a user by number; pods as root are refused.")
        .with("seccompProfile", Map::of("type", "RuntimeDefault"));
    let mut volumes = vec![volume("tmp")];
    if subject.options.with_lethe {
        volumes.push(volume("lethe"));
    }
    let spec = Map::of("automountServiceAccountToken", false)
        .with("enableServiceLinks", false)
        .with("terminationGracePeriodSeconds", number(SETTLE_SECONDS + 2 * drain))
        .saying("preStop, `drain` for open requests, and as long again for the process to end.")
        .with("securityContext", user)
        .with("topologySpreadConstraints", spread(subject))
        .with("containers", only(container(subject)))
        .with("volumes", volumes);
    Map::of("metadata", metadata).with("spec", spec)
}

/// Changes with what the pods read only when they start.
fn checksum(subject: &Subject<'_>) -> Option<String> {
    let data = subject.data();
    let sum = Sha256::digest(data.document());
    (!data.is_empty()).then(|| sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn container(subject: &Subject<'_>) -> Map {
    let (service, spec) = (subject.service, &subject.service.spec);
    let command: Vec<String> = match subject.options.with_lethe {
        true => {
            let listen = format!("0.0.0.0:{PORT}");
            let words =
                ["lethe", "up", "--listen", &listen, "--instances", "1", "--state-dir", "/var/lib/lethe"];
            words.map(Into::into).into()
        }
        false => spec.command.iter().map(|word| literal(word)).collect(),
    };
    let probe = probe(subject);
    let startup = probe
        .clone()
        .with("periodSeconds", 1_i64)
        .with("failureThreshold", number(seconds(service.rollout.policy.grace).max(1)));
    let readiness = probe.with("periodSeconds", 2_i64).with("failureThreshold", 2_i64);
    let stop = Map::of("sleep", Map::of("seconds", number(SETTLE_SECONDS)));
    let mut mounts = vec![mount("tmp", "/tmp")];
    if subject.options.with_lethe {
        mounts.push(mount("lethe", "/var/lib/lethe"));
    }
    let is_scaled = scaling::spec(service).is_some();
    Map::of("name", subject.name())
        .with("image", subject.image())
        .with("command", command)
        .with("ports", only(Map::of("name", "http").with("containerPort", PORT)))
        .with("env", environment(subject))
        .maybe("envFrom", env_from(subject))
        .with("startupProbe", startup)
        .with("readinessProbe", readiness)
        .saying(
            "There is no livenessProbe: a process that ends is started again anyway, and one that waits for something\n\
             else must not be killed for that, with all others at the same time.",
        )
        .with("lifecycle", Map::of("preStop", stop))
        .saying("Requests still come for a moment after a pod was told to leave.")
        .maybe("resources", resources(subject, is_scaled))
        .with("securityContext", least())
        .with("volumeMounts", mounts)
}

/// A word of a command in which Kubernetes replaces nothing: it would take `$(NAME)` for a variable, and `$$` for `$`.
fn literal(word: &str) -> String {
    match word.contains("$(") || word.contains("$$") {
        true => word.replace('$', "$$"),
        false => word.into(),
    }
}

/// What a worker is told in its environment.
fn environment(subject: &Subject<'_>) -> Vec<Map> {
    let of_pod = Map::of("fieldRef", Map::of("fieldPath", "metadata.name"));
    let mut variables = Vec::new();
    // Under lethe, lethe tells them.
    if !subject.options.with_lethe {
        variables.push(Map::of("name", "PORT").with("value", PORT.to_string()));
        variables.push(Map::of("name", "LETHE_SERVICE").with("value", subject.name()));
        variables.push(Map::of("name", "LETHE_INSTANCE").with("valueFrom", of_pod));
    }
    variables.extend(subject.secrets.iter().map(|name| {
        let key = Map::of("name", subject.secret()).with("key", *name);
        Map::of("name", *name).with("valueFrom", Map::of("secretKeyRef", key))
    }));
    variables
}

fn env_from(subject: &Subject<'_>) -> Option<Yaml> {
    let is_open = !subject.open.is_empty();
    is_open.then(|| only(Map::of("configMapRef", Map::of("name", subject.config_map()))))
}

/// Who asks, and what.
fn probe(subject: &Subject<'_>) -> Map {
    let spec = &subject.service.spec;
    let is_h2c = spec.protocol == Protocol::H2c && !subject.options.with_lethe;
    match &spec.ready {
        Some(path) if !is_h2c => Map::of("httpGet", Map::of("path", path.as_str()).with("port", "http")),
        _ => Map::of("tcpSocket", Map::of("port", "http")),
    }
}

fn resources(subject: &Subject<'_>, is_scaled: bool) -> Option<Map> {
    let resources = &subject.service.spec.resources;
    let amounts = |cpu: Option<u64>, memory: Option<u64>| {
        Map::default().maybe("cpu", cpu.map(cores)).maybe("memory", memory.map(bytes))
    };
    let cpu = resources.cpu_request_milli.or(is_scaled.then_some(CPU_REQUEST_MILLI));
    let requests = amounts(cpu, resources.memory_request_bytes);
    let limits = amounts(resources.cpu_limit_milli, resources.memory_limit_bytes);
    let some = |amounts: Map| Some(amounts).filter(|amounts| !amounts.is_empty());
    some(Map::default().maybe("requests", some(requests)).maybe("limits", some(limits)))
}

/// Thousandths of a core, as Kubernetes writes them.
fn cores(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// Bytes, in the largest unit that gives a whole number.
fn bytes(bytes: u64) -> String {
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let unit = units.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// No more rights than a worker needs.
fn least() -> Map {
    Map::of("allowPrivilegeEscalation", false)
        .with("readOnlyRootFilesystem", true)
        .with("capabilities", Map::of("drop", vec!["ALL"]))
}

/// Pods are spread over nodes and zones, as far as there are any.
fn spread(subject: &Subject<'_>) -> Vec<Map> {
    let over = |key: &str| {
        Map::of("maxSkew", 1_i64)
            .with("topologyKey", key)
            .with("whenUnsatisfiable", "ScheduleAnyway")
            .with("labelSelector", Map::of("matchLabels", subject.selector()))
    };
    vec![over("kubernetes.io/hostname"), over("topology.kubernetes.io/zone")]
}

fn volume(name: &str) -> Map {
    Map::of("name", name).with("emptyDir", Map::default())
}

fn mount(name: &str, path: &str) -> Map {
    Map::of("name", name).with("mountPath", path)
}

fn percent(percent: u32) -> String {
    format!("{percent}%")
}

/// Whole seconds, no fewer than there are.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn number(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_command_is_replaced() {
        for (word, written) in [
            ("a", "a"),
            ("${x}", "${x}"),
            ("echo $(date) $x", "echo $$(date) $$x"),
            ("echo $$ ${x}", "echo $$$$ $${x}"),
        ] {
            assert_eq!(literal(word), written);
        }
    }

    #[test]
    fn amounts_are_written_as_kubernetes_does() {
        for (milli, text) in [(500, "500m"), (1000, "1"), (1500, "1500m"), (2000, "2")] {
            assert_eq!(cores(milli), text);
        }
        for (size, text) in [(512 << 20, "512Mi"), (3 << 30, "3Gi"), (1000, "1000"), (1536, "1536")] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!([0, 250, 1000, 1001].map(|ms| seconds(Duration::from_millis(ms))), [0, 1, 1, 2]);
    }
}
