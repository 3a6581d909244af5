//! `lethe export aws`: Terraform for a group of machines behind a load balancer, each of which runs all of the file by
//! `lethe up`. The group grows by target tracking, and a new image is rolled out by instance refresh.

use std::time::Duration;

use lethe_node::config::{Config, ServiceConfig};
use lethe_scaler::spec::{Source, Spec, Target};
use lethe_state::place::{EngineName, Kind};
use lethe_supervisor::rollout::policy::Policy;

use crate::{
    Exported, File,
    hcl::{Body, Value, quoted, raw},
    scaling,
};

/// Where lethe listens on each machine.
const PORT: u32 = 8080;
/// The CPU of a group whose services are scaled by something else, in percent, as of a service in `lethe up`.
const CPU_DEFAULT: i32 = 70;
/// The fewest machines of which one may be lost.
const MACHINES_MIN: u32 = 2;
/// Most machines that a group is given by itself; whoever needs more says so in the variable.
const MACHINES_MAX: u32 = 100;
/// What AWS takes (`deregistration_delay.timeout_seconds`, in seconds).
const DEREGISTRATION_SECONDS_MAX: u64 = 3600;
/// `slow_start.duration_seconds` is 0, or in these bounds.
const SLOW_START_SECONDS: std::ops::RangeInclusive<u64> = 30..=900;
/// How long a machine may take to have started everything before its health counts.
const GRACE_SECONDS: u32 = 120;

/// Writes it.
pub fn export(config: &Config) -> Exported {
    let mut notices = vec![
        "the image (ami_id) needs lethe as /usr/local/bin/lethe, and in /srv/app the lethe.toml and what that runs".to_owned(),
        "the files were written for terraform's AWS provider from version 5 on; look at `terraform plan` before you apply them".into(),
    ];
    let here: Vec<&str> = Kind::ALL
        .into_iter()
        .filter(|kind| config.placement.of(*kind).engine() == EngineName::Embedded)
        .map(Kind::name)
        .collect();
    if !here.is_empty() {
        notices.push(format!(
            "WARNING: {} would be kept on each machine for itself, and end with it: give URLs of engines that all machines \
             reach (redis://, postgres://, s3://, azure://, gs://) under [state]",
            here.join(", ")
        ));
    }
    if !is_public(config) {
        notices.push(format!(
            "write admin = \"0.0.0.0:{}\" into lethe.toml: the load balancer then asks /readyz, which is not ready as soon as a \
             machine drains; until then it asks {} of the service itself",
            PORT + 1,
            health(config).1
        ));
    }
    if config.gateway.tls.is_some() {
        notices.push(
            "TLS ends at the load balancer, with the certificate in certificate_arn; [tls] is not exported"
                .into(),
        );
    }
    let untracked = untracked(config);
    if !untracked.is_empty() {
        notices.push(format!(
            "the group goes by CPU alone, at {} %; lethe still counts its workers on each machine by {}",
            tracked(config).unwrap_or(CPU_DEFAULT),
            untracked.join(", ")
        ));
    }
    if config.gateway.trusted_proxies.is_empty() {
        notices.push(
            "add the network of the load balancer to trusted-proxies in lethe.toml, or every client is the load balancer".into(),
        );
    }
    let file = |name: &str, text: String| File { name: name.into(), text };
    let head = "Written by `lethe export aws`.";
    let files = vec![
        file("variables.tf", variables(config).saying_first(head)),
        file("main.tf", main(config).saying_first(head)),
        file("user-data.sh", user_data(config)),
    ];
    Exported { files, notices }
}

impl Body {
    fn saying_first(self, comment: &str) -> String {
        format!("# {comment}\n\n{}", self.text())
    }
}

/// Whether others than this machine reach the admin address.
fn is_public(config: &Config) -> bool {
    config.admin.is_some_and(|admin| !admin.ip().is_loopback())
}

/// What the load balancer asks: the port and the path.
fn health(config: &Config) -> (u32, String) {
    if let Some(admin) = config.admin.filter(|_| is_public(config)) {
        return (admin.port().into(), "/readyz".into());
    }
    let everything = config.gateway.routes.iter().find(|route| route.host.is_none() && route.path == "/");
    let service = everything
        .and_then(|route| config.services.iter().find(|service| service.spec.name == route.service));
    (PORT, service.and_then(|service| service.spec.ready.clone()).unwrap_or_else(|| "/".into()))
}

/// The longest of all services, in whole seconds.
fn longest(config: &Config, of: impl Fn(&ServiceConfig) -> Duration) -> u64 {
    let longest = config.services.iter().map(of).max().unwrap_or_default();
    longest.as_secs() + u64::from(longest.subsec_nanos() > 0)
}

/// By how much the number of workers may grow in the file, the group may grow too.
fn machines_max(config: &Config) -> u32 {
    let growth =
        config.services.iter().filter_map(scaling::spec).map(|spec| spec.max.div_ceil(spec.min.max(1)));
    (MACHINES_MIN * growth.max().unwrap_or(1)).min(MACHINES_MAX)
}

fn number(number: u64) -> Value {
    Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
}

fn variable(name: &str, description: &str, kind: &str, default: Option<Value>) -> (String, Body) {
    let body = Body::default().set("description", description).set("type", raw(kind));
    let body = match default {
        Some(default) => body.set("default", default),
        None => body,
    };
    (format!("variable {}", quoted(name)), body)
}

fn variables(config: &Config) -> Body {
    let name = config.services.first().map_or("lethe", |service| service.spec.name.as_str());
    let mut all = vec![
        variable("region", "Where everything is.", "string", None),
        variable("name", "What the names of everything begin with.", "string", Some(name.into())),
        variable("vpc_id", "The network.", "string", None),
        variable(
            "subnet_ids",
            "Subnets of the load balancer and the machines, in at least two zones.",
            "list(string)",
            None,
        ),
        variable("ami_id", "An image with systemd, lethe, and /srv/app.", "string", None),
        variable("instance_type", "The kind of machine.", "string", Some("t3.medium".into())),
        variable(
            "instance_profile",
            "The IAM instance profile of the machines, if they need one.",
            "string",
            Some(raw("null")),
        ),
        variable("machines_min", "The fewest machines.", "number", Some(MACHINES_MIN.into())),
        variable(
            "machines_max",
            "The most machines: as many times more as workers may become in lethe.toml.",
            "number",
            Some(machines_max(config).into()),
        ),
    ];
    if config.gateway.tls.is_some() {
        all.push(variable("certificate_arn", "The certificate of the load balancer.", "string", None));
    }
    all.into_iter().fold(Body::default(), |body, (head, variable)| body.block(&head, variable))
}

fn main(config: &Config) -> Body {
    let provider =
        Value::Object(vec![("source".into(), "hashicorp/aws".into()), ("version".into(), ">= 5.0".into())]);
    let terraform = Body::default()
        .set("required_version", ">= 1.5")
        .block("required_providers", Body::default().set("aws", provider));
    let body = Body::default()
        .block("terraform", terraform)
        .block("provider \"aws\"", Body::default().set("region", raw("var.region")));
    let body = networks(config, body);
    let body = balancer(config, body);
    let body = group(config, body);
    let body = policy(config, body);
    let address = Body::default()
        .set("description", "Where everything is reached.")
        .set("value", raw("aws_lb.lethe.dns_name"));
    body.block("output \"address\"", address)
}

fn resource(kind: &str) -> String {
    format!("resource \"{kind}\" \"lethe\"")
}

fn networks(config: &Config, body: Body) -> Body {
    let everywhere = || Value::List(vec!["0.0.0.0/0".into()]);
    let all_out = || {
        Body::default()
            .set("from_port", 0_i64)
            .set("to_port", 0_i64)
            .set("protocol", "-1")
            .set("cidr_blocks", everywhere())
    };
    let of = |port: u32| Body::default().set("from_port", port).set("to_port", port).set("protocol", "tcp");
    let public = if config.gateway.tls.is_some() { 443 } else { 80 };
    let balancer = Body::default()
        .set("name_prefix", raw("\"${var.name}-lb-\""))
        .set("vpc_id", raw("var.vpc_id"))
        .block("ingress", of(public).set("cidr_blocks", everywhere()))
        .block("egress", all_out())
        .block("lifecycle", Body::default().set("create_before_destroy", true));
    let from_balancer =
        |port| of(port).set("security_groups", Value::List(vec![raw("aws_security_group.balancer.id")]));
    let machines = Body::default()
        .set("name_prefix", raw("\"${var.name}-\""))
        .set("vpc_id", raw("var.vpc_id"))
        .block("ingress", from_balancer(PORT));
    let machines = match health(config).0 {
        PORT => machines,
        admin => machines.block("ingress", from_balancer(admin)),
    };
    let machines = machines
        .block("egress", all_out())
        .block("lifecycle", Body::default().set("create_before_destroy", true));
    body.block("resource \"aws_security_group\" \"balancer\"", balancer)
        .saying("Only the load balancer reaches the machines.")
        .block("resource \"aws_security_group\" \"machines\"", machines)
}

fn balancer(config: &Config, body: Body) -> Body {
    let is_tls = config.gateway.tls.is_some();
    let lb = Body::default()
        .set("name_prefix", raw("substr(var.name, 0, 6)"))
        .set("load_balancer_type", "application")
        .set("security_groups", Value::List(vec![raw("aws_security_group.balancer.id")]))
        .set("subnets", raw("var.subnet_ids"));
    let (port, path) = health(config);
    let check = Body::default()
        .set("path", path)
        .set("port", port.to_string())
        .set("interval", 5_i64)
        .set("timeout", 3_i64)
        .set("healthy_threshold", 2_i64)
        .set("unhealthy_threshold", 2_i64);
    let drain = longest(config, |service| service.spec.drain).min(DEREGISTRATION_SECONDS_MAX);
    let slow = longest(config, |service| service.policy.slow_start);
    let slow = if slow == 0 { 0 } else { slow.clamp(*SLOW_START_SECONDS.start(), *SLOW_START_SECONDS.end()) };
    let group = Body::default()
        .set("name_prefix", raw("substr(var.name, 0, 6)"))
        .set("vpc_id", raw("var.vpc_id"))
        .set("port", PORT)
        .set("protocol", "HTTP")
        .saying("The longest `drain`: for so long requests may end after a machine was told to leave.")
        .set("deregistration_delay", number(drain))
        .set("slow_start", number(slow))
        .block("health_check", check)
        .block("lifecycle", Body::default().set("create_before_destroy", true));
    let listener = Body::default().set("load_balancer_arn", raw("aws_lb.lethe.arn"));
    let listener = match is_tls {
        true => listener
            .set("port", 443_i64)
            .set("protocol", "HTTPS")
            .set("ssl_policy", "ELBSecurityPolicy-TLS13-1-2-2021-06")
            .set("certificate_arn", raw("var.certificate_arn")),
        false => listener.set("port", 80_i64).set("protocol", "HTTP"),
    };
    let forward =
        Body::default().set("type", "forward").set("target_group_arn", raw("aws_lb_target_group.lethe.arn"));
    body.block(&resource("aws_lb"), lb)
        .block(&resource("aws_lb_target_group"), group)
        .block(&resource("aws_lb_listener"), listener.block("default_action", forward))
}

/// The most careful of all services' rollouts is that of the group.
fn refresh(config: &Config) -> Body {
    let policies: Vec<&Policy> = config.services.iter().map(|service| &service.rollout.policy).collect();
    let least =
        policies.iter().map(|policy| u32::from(policy.min_healthy_percent)).max().unwrap_or(90).min(100);
    let surge = policies.iter().map(|policy| u32::from(policy.max_surge_percent)).min().unwrap_or(10).max(1);
    // What AWS allows: from 100 to 200, and no more than 100 apart.
    let most = (100 + surge).min(200).min(least + 100);
    let warm_up = longest(config, |service| service.rollout.policy.warm_up);
    let pause = longest(config, |service| service.rollout.policy.pause);
    let checkpoints = policies.iter().map(|policy| &policy.checkpoints).max_by_key(|it| it.len());
    let mut preferences = Body::default()
        .set("min_healthy_percentage", least)
        .set("max_healthy_percentage", most)
        .set("instance_warmup", number(warm_up));
    if let Some(checkpoints) = checkpoints.filter(|it| !it.is_empty()) {
        // It ends at the last one, which must be all of it.
        let until_all = checkpoints.iter().copied().filter(|percent| *percent < 100).chain([100]);
        let percentages = until_all.map(|percent| u32::from(percent).into()).collect();
        preferences = preferences
            .set("checkpoint_percentages", Value::List(percentages))
            .set("checkpoint_delay", pause.to_string());
    }
    let preferences = preferences
        .set("auto_rollback", policies.iter().all(|policy| policy.goes_back))
        .set("skip_matching", true);
    Body::default().set("strategy", "Rolling").block("preferences", preferences)
}

fn group(config: &Config, body: Body) -> Body {
    let profile = Body::default()
        .set("for_each", raw("var.instance_profile == null ? [] : [var.instance_profile]"))
        .block("content", Body::default().set("name", raw("iam_instance_profile.value")));
    let metadata = Body::default()
        .set("http_endpoint", "enabled")
        .set("http_tokens", "required")
        .set("http_put_response_hop_limit", 1_i64);
    let template = Body::default()
        .set("name_prefix", raw("\"${var.name}-\""))
        .set("image_id", raw("var.ami_id"))
        .set("instance_type", raw("var.instance_type"))
        .set("vpc_security_group_ids", Value::List(vec![raw("aws_security_group.machines.id")]))
        .set("user_data", raw("filebase64(\"${path.module}/user-data.sh\")"))
        .set("update_default_version", true)
        .block("dynamic \"iam_instance_profile\"", profile)
        .block("metadata_options", metadata);
    let launch = Body::default()
        .set("id", raw("aws_launch_template.lethe.id"))
        .saying("A number and not $Latest, or nothing would be rolled out, and nothing back.")
        .set("version", raw("aws_launch_template.lethe.latest_version"));
    let tag =
        Body::default().set("key", "Name").set("value", raw("var.name")).set("propagate_at_launch", true);
    let life = Body::default()
        .set("create_before_destroy", true)
        .set("ignore_changes", Value::List(vec![raw("desired_capacity")]));
    let group = Body::default()
        .set("name_prefix", raw("\"${var.name}-\""))
        .set("vpc_zone_identifier", raw("var.subnet_ids"))
        .set("target_group_arns", Value::List(vec![raw("aws_lb_target_group.lethe.arn")]))
        .set("min_size", raw("var.machines_min"))
        .set("max_size", raw("var.machines_max"))
        .set("health_check_type", "ELB")
        .set("health_check_grace_period", GRACE_SECONDS)
        .set("wait_for_capacity_timeout", "10m")
        .block("launch_template", launch)
        .block("instance_refresh", refresh(config))
        .block("tag", tag)
        .block("lifecycle", life);
    body.block(&resource("aws_launch_template"), template).block(&resource("aws_autoscaling_group"), group)
}

/// What the group goes by, if any service does.
fn policy(config: &Config, body: Body) -> Body {
    let Some(percent) = tracked(config) else { return body };
    let metric = Body::default().set("predefined_metric_type", "ASGAverageCPUUtilization");
    let tracking = Body::default()
        .block("predefined_metric_specification", metric)
        .set("target_value", i64::from(percent));
    let policy = Body::default()
        .set("name", raw("\"${var.name}-cpu\""))
        .set("autoscaling_group_name", raw("aws_autoscaling_group.lethe.name"))
        .set("policy_type", "TargetTrackingScaling")
        .block("target_tracking_configuration", tracking);
    body.block(&resource("aws_autoscaling_policy"), policy)
}

/// At which CPU the group is to be kept, in percent, if load decides how many workers any service has.
fn tracked(config: &Config) -> Option<i32> {
    let specs = config.services.iter().filter_map(scaling::spec);
    // A group that nobody lets grow would end where its workers do.
    specs.map(|spec| cpu(&spec).unwrap_or(CPU_DEFAULT)).min()
}

/// What services are scaled by that a group cannot be.
fn untracked(config: &Config) -> Vec<String> {
    let specs: Vec<_> = config.services.iter().filter_map(scaling::spec).collect();
    let mut names: Vec<String> =
        specs.iter().flat_map(scaling::foreign).map(|name| format!("`{name}`")).collect();
    names.sort();
    names.dedup();
    names
}

/// The percentage of CPU that a service goes by. A machine has no more than all of its own.
fn cpu(spec: &Spec) -> Option<i32> {
    spec.metrics.iter().find_map(|metric| match (&metric.source, metric.target) {
        (Source::Resource(name), Target::Utilization(percent)) if name == "cpu" => Some(percent.min(90)),
        _ => None,
    })
}

/// What a machine does at its first start.
fn user_data(config: &Config) -> String {
    let drain = longest(config, |service| service.spec.drain);
    let gateway = config.gateway.limits.drain_timeout.as_secs();
    let stop = (2 * drain).max(gateway) + 10;
    format!(
        "#!/bin/sh\n\
         # Written by `lethe export aws`.\n\
         set -eu\n\
         \n\
         cat >/etc/systemd/system/lethe.service <<'UNIT'\n\
         [Unit]\n\
         Description=lethe\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         NotifyAccess=all\n\
         WorkingDirectory=/srv/app\n\
         # Secrets, as NAME=value lines, put there by the image or by what fetches them.\n\
         EnvironmentFile=-/etc/lethe/env\n\
         ExecStart=/usr/local/bin/lethe up /srv/app --listen 0.0.0.0:{PORT} --state-dir /var/lib/lethe\n\
         ExecReload=/usr/local/bin/lethe reload --state-dir /var/lib/lethe\n\
         StateDirectory=lethe\n\
         # Workers get cgroups of their own, for their limits.\n\
         Delegate=yes\n\
         KillMode=mixed\n\
         TimeoutStopSec={stop}\n\
         Restart=always\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n\
         UNIT\n\
         \n\
         systemctl daemon-reload\n\
         systemctl enable --now lethe\n"
    )
}
