//! What is measured, by name: the one list of the `lethe_*` families.

use std::time::SystemTime;

use lethe_gateway::stats::{RouteStats, ServiceStats, Snapshot, WorkerStats};
use lethe_model::roster::WorkerState;
use lethe_supervisor::supervisor::WorkerStatus;

use crate::{
    api,
    exposition::{
        Exposition, Family,
        Kind::{Counter, Gauge, Histogram},
        Label,
    },
    process,
};

/// Upper bounds of the latency histograms, in seconds.
const LATENCY_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Status classes, as the gateway counts them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All families as text.
pub(crate) fn text(
    node: &api::Node,
    services: &[api::Service],
    workers: &[WorkerStatus],
    traffic: &Snapshot,
    state: &dyn Fn(&mut Exposition),
) -> String {
    let mut text = Exposition::default();
    own(&mut text, node);
    gateway(&mut text, traffic);
    of_services(&mut text, services);
    of_choice(&mut text, traffic);
    of_workers(&mut text, workers);
    of_routes(&mut text, traffic);
    of_traffic(&mut text, workers, traffic);
    state(&mut text);
    text.finish()
}

fn own(text: &mut Exposition, node: &api::Node) {
    text.family("lethe_build_info", Gauge, "Always 1; the version is its label.")
        .sample(&[("version", &node.version)], 1);
    let started = node.started_at.unix_ms() as f64 / 1000.0;
    text.family("lethe_start_time_seconds", Gauge, "When lethe started, in seconds since 1970.")
        .sample(&[], started);
    text.family("lethe_process_cpu_seconds_total", Counter, "CPU time of lethe itself, without the workers.")
        .sample(&[], process::cpu().as_secs_f64());
    let mut memory =
        text.family("lethe_process_resident_memory_bytes", Gauge, "Resident memory of lethe itself.");
    if let Some(bytes) = process::resident_bytes() {
        memory.sample(&[], bytes);
    }
}

fn gateway(text: &mut Exposition, traffic: &Snapshot) {
    let mut responses = text.family("lethe_responses_total", Counter, "Requests answered, by status class.");
    for (class, count) in CLASSES.into_iter().zip(traffic.responses) {
        responses.sample(&[("class", class)], count);
    }
    let mut retries =
        text.family("lethe_retries_total", Counter, "Attempts made again, by what made them necessary.");
    for (why, count) in &traffic.retries_by {
        retries.sample(&[("reason", why.as_str())], count);
    }
    let mut shed = text.family(
        "lethe_shed_total",
        Counter,
        "Requests turned away for want of capacity, by what was wanting.",
    );
    for (why, count) in &traffic.shed_by {
        shed.sample(&[("reason", why.as_str())], count);
    }
    let mut connections =
        text.family("lethe_client_connections_total", Counter, "Client connections, by what they spoke.");
    for (protocol, count) in &traffic.connections_by {
        connections.sample(&[("protocol", protocol.as_str())], count);
    }
    let mut handshakes = text.family("lethe_tls_handshakes_total", Counter, "TLS handshakes with clients.");
    handshakes.sample(&[("result", "done")], traffic.tls_handshakes);
    handshakes.sample(&[("result", "failed")], traffic.tls_failed);
    for (name, help, count) in [
        ("lethe_unknown_total", "Requests answered with Lethe-Outcome: unknown.", traffic.unknown),
        ("lethe_cut_total", "Responses cut half-way because a worker was lost.", traffic.cut),
        (
            "lethe_resumed_total",
            "Responses continued from another worker after theirs was lost.",
            traffic.resumed,
        ),
        (
            "lethe_client_gone_total",
            "Requests whose client went away before it had the whole response.",
            traffic.client_gone,
        ),
        (
            "lethe_upstream_connections_total",
            "Connections to workers that were opened.",
            traffic.upstream_opened,
        ),
        (
            "lethe_upstream_reused_total",
            "Attempts made on a connection that had served another one before.",
            traffic.upstream_reused,
        ),
        ("lethe_access_log_dropped_total", "Lines that the access log lacks.", traffic.log_dropped),
        ("lethe_spans_dropped_total", "Spans that were not exported.", traffic.spans_dropped),
    ] {
        text.family(name, Counter, help).sample(&[], count);
    }
    text.family("lethe_queued_requests", Gauge, "Requests that wait for a worker now.")
        .sample(&[], traffic.queued);
    let help = "How long requests waited for a worker, those that did.";
    let mut queue = text.family("lethe_queue_duration_seconds", Histogram, help);
    latency(&mut queue, &[], &traffic.queue_us, traffic.queue_sum_us);
    text.family("lethe_connections", Gauge, "Open client connections.").sample(&[], traffic.connections);
}

fn of_routes(text: &mut Exposition, traffic: &Snapshot) {
    let service = |route: &RouteStats| route.service.as_ref().map(|name| name.as_str().to_owned());
    let routes: Vec<(&str, String, &RouteStats)> = traffic
        .routes
        .iter()
        .map(|(label, route)| (label.as_str(), service(route).unwrap_or_default(), route))
        .collect();
    let help = "Requests answered, by route and status class; `none` is what met no route.";
    let mut requests = text.family("lethe_route_requests_total", Counter, help);
    for (label, service, route) in &routes {
        for (class, count) in CLASSES.into_iter().zip(route.responses) {
            requests.sample(&[("route", label), ("service", service), ("class", class)], count);
        }
    }
    let mut each = |name, help, value: fn(&RouteStats) -> u64| {
        let mut family = text.family(name, Counter, help);
        for (label, service, route) in &routes {
            family.sample(&[("route", label), ("service", service)], value(route));
        }
    };
    each(
        "lethe_route_limited_total",
        "Requests that the limits of their route refused, as they came too early.",
        |route| route.limited,
    );
    each("lethe_route_limits_away_total", "Requests refused because they could not be counted.", |route| {
        route.limits_away
    });
    each(
        "lethe_route_uncounted_total",
        "Requests that passed the limits of their route although they could not be counted.",
        |route| route.uncounted,
    );
    each(
        "lethe_route_replayed_total",
        "Requests given the answer of an earlier one with the same Idempotency-Key.",
        |route| route.replayed,
    );
    each("lethe_route_idempotency_refused_total", "Requests refused for their Idempotency-Key.", |route| {
        route.once_refused
    });
    each(
        "lethe_route_idempotency_away_total",
        "Requests refused because it could not be told whether they were done before.",
        |route| route.once_away,
    );
    each("lethe_route_request_bytes_total", "Bytes of request bodies.", |route| route.bytes_in);
    each("lethe_route_response_bytes_total", "Bytes of response bodies.", |route| route.bytes_out);
    let help = "From a request's head to the head of its response, waiting and retries included.";
    let mut duration = text.family("lethe_route_duration_seconds", Histogram, help);
    for (label, service, route) in &routes {
        let labels = [("route", *label), ("service", service.as_str())];
        latency(&mut duration, &labels, &route.latency_us, route.latency_sum_us);
    }
}

fn of_services(text: &mut Exposition, services: &[api::Service]) {
    let mut wanted =
        text.family("lethe_service_wanted_workers", Gauge, "Workers that the service shall have.");
    for service in services {
        wanted.sample(&[("service", service.name.as_str())], service.wanted);
    }
    let mut ready = text.family("lethe_service_ready_workers", Gauge, "Workers that may get requests.");
    for service in services {
        ready.sample(&[("service", service.name.as_str())], service.ready);
    }
}

/// How the gateway treats the workers of each service, and who waits for them.
fn of_choice(text: &mut Exposition, traffic: &Snapshot) {
    let mut each = |name, kind, help, value: fn(&ServiceStats) -> u64| {
        let mut family = text.family(name, kind, help);
        for (service, stats) in &traffic.services {
            family.sample(&[("service", service.as_str())], value(stats));
        }
    };
    let help = "Workers that live and are passed over, as they keep failing or their health check fails.";
    each("lethe_service_ejected_workers", Gauge, help, |stats| stats.out);
    each("lethe_service_ejections_total", Counter, "How often a worker was passed over.", |stats| {
        stats.ejections
    });
    let mut by_class = |name, kind, help, value: fn(&ServiceStats) -> [u64; 2]| {
        let mut family = text.family(name, kind, help);
        for (service, stats) in &traffic.services {
            for (class, value) in ["timely", "batch"].into_iter().zip(value(stats)) {
                family.sample(&[("service", service.as_str()), ("class", class)], value);
            }
        }
    };
    by_class("lethe_service_queued_requests", Gauge, "Requests that wait for a worker now.", |stats| {
        [stats.queued_timely, stats.queued_batch]
    });
    let help = "Requests turned away because too many waited or waited too long.";
    by_class("lethe_service_shed_total", Counter, help, |stats| [stats.shed_timely, stats.shed_batch]);
    let help = "Requests that one worker gets at a time; not there without a limit.";
    let mut limit = text.family("lethe_service_concurrency_limit", Gauge, help);
    for (service, stats) in &traffic.services {
        if let Some(each) = stats.concurrency_limit {
            limit.sample(&[("service", service.as_str())], each);
        }
    }
}

fn of_workers(text: &mut Exposition, workers: &[WorkerStatus]) {
    let mut state =
        text.family("lethe_worker_state", Gauge, "1 for the state that the worker is in, else 0.");
    for worker in workers {
        for each in [WorkerState::Starting, WorkerState::Ready, WorkerState::Draining, WorkerState::Gone] {
            let [service, instance] = labels(worker);
            let labels = [service, instance, ("state", each.as_str())];
            state.sample(&labels, u8::from(worker.state == each));
        }
    }
    let mut each = |name, kind, help, value: fn(&WorkerStatus) -> f64| {
        let mut family = text.family(name, kind, help);
        for worker in workers {
            family.sample(&labels(worker), value(worker));
        }
    };
    each("lethe_worker_restarts", Gauge, "Workers that died in this one's place before it.", |worker| {
        worker.restarts as f64
    });
    each("lethe_worker_in_flight_requests", Gauge, "Requests inside the worker now.", |worker| {
        worker.in_flight as f64
    });
    each("lethe_worker_cpu_seconds_total", Counter, "CPU time of the worker's processes.", |worker| {
        worker.cpu_ms as f64 / 1000.0
    });
    each("lethe_worker_resident_memory_bytes", Gauge, "Resident memory of the worker.", |worker| {
        worker.memory_bytes as f64
    });
    each(
        "lethe_worker_memory_kills",
        Gauge,
        "Workers in this one's place that the kernel killed for memory.",
        |worker| worker.memory_kills as f64,
    );
    let help = "Memory beyond which the worker is killed, where that is kept up.";
    let mut limit = text.family("lethe_worker_memory_limit_bytes", Gauge, help);
    for worker in workers {
        if let Some(bytes) = worker.memory_limit_bytes {
            limit.sample(&labels(worker), bytes);
        }
    }
    let now = SystemTime::now();
    let mut age = text.family("lethe_worker_age_seconds", Gauge, "Since when the worker runs.");
    for worker in workers {
        age.sample(&labels(worker), now.duration_since(worker.started_at).unwrap_or_default().as_secs_f64());
    }
}

fn of_traffic(text: &mut Exposition, workers: &[WorkerStatus], traffic: &Snapshot) {
    let counted: Vec<([(&str, &str); 2], &WorkerStats)> = workers
        .iter()
        .filter_map(|worker| Some((labels(worker), traffic.workers.get(&worker.instance)?)))
        .collect();
    let mut requests = text.family("lethe_worker_requests_total", Counter, "Responses that the worker gave.");
    for (labels, stats) in &counted {
        requests.sample(labels, stats.requests);
    }
    let help = "Attempts at the worker that ended without a response.";
    let mut failures = text.family("lethe_worker_failures_total", Counter, help);
    for (labels, stats) in &counted {
        failures.sample(labels, stats.failures);
    }
    let help = "Responses of the worker that say that it failed, 5xx but for 501 and 505, or broke off.";
    let mut errors = text.family("lethe_worker_errors_total", Counter, help);
    for (labels, stats) in &counted {
        errors.sample(labels, stats.errors);
    }
    let help = "From the request sent to the worker to the head of its response.";
    let mut family = text.family("lethe_worker_latency_seconds", Histogram, help);
    for (labels, stats) in &counted {
        latency(&mut family, labels, &stats.latency_us, stats.latency_sum_us);
    }
}

/// One of the gateway's histograms, which are finer and in microseconds.
fn latency(family: &mut Family<'_>, labels: &[Label<'_>], buckets_us: &[(u64, u64)], sum_us: u64) {
    family.histogram(labels, &LATENCY_BOUNDS, &by_bounds(buckets_us), sum_us as f64 / 1e6);
}

fn labels(worker: &WorkerStatus) -> [(&str, &str); 2] {
    [("service", worker.service.as_str()), ("instance", worker.instance.as_str())]
}

/// Sorts the gateway's finer buckets into those of [`LATENCY_BOUNDS`] and one above them, by their upper bound.
fn by_bounds(latency_us: &[(u64, u64)]) -> [u64; LATENCY_BOUNDS.len() + 1] {
    let mut counts = [0; LATENCY_BOUNDS.len() + 1];
    for &(bound_us, count) in latency_us {
        counts[LATENCY_BOUNDS.partition_point(|bound| bound * 1e6 < bound_us as f64)] += count;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use lethe_gateway::stats::{Protocol, Retry, Shed, UNROUTED};
    use lethe_model::service::{InstanceId, ServiceName};

    use super::*;

    /// What a reader of the format understands: values by name and labels, after every rule that it relies on.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with('\n'));
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let (mut family, mut kind) = ("", "");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} is there twice");
                let types = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                kind = types.strip_prefix(family).unwrap().trim();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{types}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(family).unwrap();
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{series} in {family}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} twice");
        }
        samples
    }

    fn text() -> String {
        let shop = ServiceName::new("shop").unwrap();
        let worker = |number| WorkerStatus {
            service: shop.clone(),
            instance: InstanceId::new(&shop, number),
            pid: Some(7),
            port: Some(1),
            socket: None,
            state: WorkerState::Draining,
            started_at: SystemTime::now(),
            release: 1,
            ready_at: None,
            restarts: 3,
            in_flight: 2,
            cpu_ms: 1500,
            memory_bytes: 4096,
            memory_limit_bytes: (number == 1).then_some(8192),
            memory_kills: 2,
            trouble: None,
        };
        let node = api::Node {
            pid: 7,
            version: "0.1.0 \"odd\" \\ \n".into(),
            listen: ([127, 0, 0, 1], 80).into(),
            tls: None,
            admin: None,
            state_dir: "/x".into(),
            state: None,
            started_at: SystemTime::now().into(),
        };
        // 500 us is on a bound, 501 above it, a minute above all.
        let latency_us = vec![(100, 1), (500, 2), (501, 4), (60_000_000, 8)];
        let stats = WorkerStats {
            requests: 15,
            failures: 5,
            errors: 6,
            latency_us: latency_us.clone(),
            latency_sum_us: 2_500_000,
        };
        let route = RouteStats {
            service: Some(shop.clone()),
            responses: [0, 11, 0, 2, 1],
            limited: 31,
            limits_away: 32,
            uncounted: 33,
            replayed: 34,
            once_refused: 35,
            once_away: 36,
            bytes_in: 7,
            bytes_out: 8,
            latency_us,
            latency_sum_us: 3_000_000,
        };
        let choice = ServiceStats {
            out: 1,
            ejections: 21,
            queued_timely: 22,
            queued_batch: 23,
            shed_timely: 24,
            shed_batch: 25,
            concurrency_limit: Some(26),
        };
        let traffic = Snapshot {
            responses: [0, 11, 0, 3, 1],
            retries_by: [(Retry::Lost, 4), (Retry::Unsent, 2)].into(),
            shed_by: [(Shed::QueueFull, 5)].into(),
            connections_by: [(Protocol::Http2, 3)].into(),
            tls_failed: 1,
            resumed: 2,
            upstream_reused: 12,
            log_dropped: 13,
            queue_us: vec![(2_000, 3)],
            queue_sum_us: 6_000,
            routes: [("shop.example/api".into(), route), (UNROUTED.into(), RouteStats::default())].into(),
            queued: 9,
            workers: [(InstanceId::new(&shop, 1), stats)].into(),
            services: [(shop.clone(), choice), (ServiceName::new("free").unwrap(), ServiceStats::default())]
                .into(),
            ..Snapshot::default()
        };
        let services = [api::Service { name: shop.clone(), wanted: 3, ready: 0, workers: 2, scale: None }];
        let state = |text: &mut Exposition| {
            text.family("lethe_state_paper", Gauge, "Sheets.").sample(&[("engine", "paper")], 37);
        };
        super::text(&node, &services, &[worker(1), worker(2)], &traffic, &state)
    }

    #[test]
    fn every_sample_can_be_read_back() {
        let samples = parse(&text());
        let of_route =
            |name: &str, more: &str| format!("{name}{{route=\"shop.example/api\",service=\"shop\"{more}}}");
        let shop_1 = |name: &str| format!("{name}{{service=\"shop\",instance=\"shop-1\"}}");
        for (series, wanted) in [
            (r#"lethe_build_info{version="0.1.0 \"odd\" \\ \n"}"#.into(), 1.0),
            (r#"lethe_responses_total{class="2xx"}"#.into(), 11.0),
            (r#"lethe_responses_total{class="4xx"}"#.into(), 3.0),
            (r#"lethe_retries_total{reason="lost"}"#.into(), 4.0),
            (r#"lethe_retries_total{reason="unsent"}"#.into(), 2.0),
            (r#"lethe_shed_total{reason="queue_full"}"#.into(), 5.0),
            (r#"lethe_client_connections_total{protocol="HTTP/2"}"#.into(), 3.0),
            (r#"lethe_tls_handshakes_total{result="failed"}"#.into(), 1.0),
            ("lethe_resumed_total".into(), 2.0),
            ("lethe_upstream_reused_total".into(), 12.0),
            ("lethe_access_log_dropped_total".into(), 13.0),
            (r#"lethe_queue_duration_seconds_bucket{le="0.001"}"#.into(), 0.0),
            (r#"lethe_queue_duration_seconds_bucket{le="0.0025"}"#.into(), 3.0),
            ("lethe_queue_duration_seconds_sum".into(), 0.006),
            (of_route("lethe_route_requests_total", ",class=\"4xx\""), 2.0),
            (of_route("lethe_route_limited_total", ""), 31.0),
            (of_route("lethe_route_limits_away_total", ""), 32.0),
            (of_route("lethe_route_uncounted_total", ""), 33.0),
            (of_route("lethe_route_replayed_total", ""), 34.0),
            (of_route("lethe_route_idempotency_refused_total", ""), 35.0),
            (of_route("lethe_route_idempotency_away_total", ""), 36.0),
            (of_route("lethe_route_request_bytes_total", ""), 7.0),
            (of_route("lethe_route_response_bytes_total", ""), 8.0),
            (of_route("lethe_route_duration_seconds_bucket", ",le=\"0.0005\""), 3.0),
            (of_route("lethe_route_duration_seconds_sum", ""), 3.0),
            (of_route("lethe_route_duration_seconds_count", ""), 15.0),
            (r#"lethe_route_requests_total{route="none",service="",class="2xx"}"#.into(), 0.0),
            (shop_1("lethe_worker_latency_seconds_sum"), 2.5),
            (r#"lethe_state_paper{engine="paper"}"#.into(), 37.0),
            ("lethe_queued_requests".into(), 9.0),
            (r#"lethe_service_wanted_workers{service="shop"}"#.into(), 3.0),
            (r#"lethe_service_ready_workers{service="shop"}"#.into(), 0.0),
            (r#"lethe_service_ejected_workers{service="shop"}"#.into(), 1.0),
            (r#"lethe_service_ejections_total{service="shop"}"#.into(), 21.0),
            (r#"lethe_service_queued_requests{service="shop",class="timely"}"#.into(), 22.0),
            (r#"lethe_service_queued_requests{service="shop",class="batch"}"#.into(), 23.0),
            (r#"lethe_service_shed_total{service="shop",class="timely"}"#.into(), 24.0),
            (r#"lethe_service_shed_total{service="shop",class="batch"}"#.into(), 25.0),
            (r#"lethe_service_concurrency_limit{service="shop"}"#.into(), 26.0),
            (r#"lethe_service_ejected_workers{service="free"}"#.into(), 0.0),
            (shop_1("lethe_worker_requests_total"), 15.0),
            (shop_1("lethe_worker_failures_total"), 5.0),
            (shop_1("lethe_worker_cpu_seconds_total"), 1.5),
            (shop_1("lethe_worker_restarts"), 3.0),
            (r#"lethe_worker_state{service="shop",instance="shop-2",state="draining"}"#.into(), 1.0),
            (r#"lethe_worker_state{service="shop",instance="shop-2",state="ready"}"#.into(), 0.0),
        ] {
            assert_eq!(samples.get(&series), Some(&wanted), "{series} in {samples:#?}");
        }
        assert!(samples["lethe_process_resident_memory_bytes"] > 100_000.0);
        assert!(samples["lethe_process_cpu_seconds_total"] > 0.0);
        assert!(!samples.contains_key(r#"lethe_service_concurrency_limit{service="free"}"#), "any number");
        // The second worker has had no request, and the gateway says nothing about it.
        assert!(!samples.keys().any(|series| series.contains("requests_total") && series.contains("shop-2")));
    }

    #[test]
    fn latency_is_cumulative() {
        let samples = parse(&text());
        let bucket = |le: &str| {
            let labels = format!("{{service=\"shop\",instance=\"shop-1\",le=\"{le}\"}}");
            samples[&format!("lethe_worker_latency_seconds_bucket{labels}")]
        };
        let counts = ["0.0005", "0.001", "0.0025", "1", "10", "+Inf"].map(bucket);
        assert_eq!(counts, [3.0, 7.0, 7.0, 7.0, 7.0, 15.0]);
        let name = "lethe_worker_latency_seconds_bucket";
        let buckets = samples.keys().filter(|series| series.starts_with(name)).count();
        assert_eq!(buckets, LATENCY_BOUNDS.len() + 1);
        let count = r#"lethe_worker_latency_seconds_count{service="shop",instance="shop-1"}"#;
        assert_eq!(samples[count], 15.0);
    }
}
