//! How the gateway treats the workers of a service: the keys of `[services.NAME]` that are for the gateway.

use std::time::Duration;

use lethe_gateway::config::{Concurrency, Ejection, Health, Service};
use lethe_model::roster::Protocol;
use toml::de::DeValue;

use super::{
    Instances,
    problem::{Report, nearest},
    service::ready_path,
    table::{Table, Text, bad_value, integer},
};

/// [`Concurrency::Adaptive`] when only that is said: few enough to be found soon, and far beyond what a worker can do.
const ADAPTIVE_DEFAULT: Concurrency = Concurrency::Adaptive { min: 2, max: 1000 };
/// Most requests that a worker may be said to take at a time.
const CONCURRENCY_MAX: u64 = 1_000_000;
/// [`Health`] when only its path is said.
const HEALTH_DEFAULT: Health = Health {
    path: String::new(),
    every: Duration::from_secs(5),
    timeout: Duration::from_secs(2),
    failures: 3,
    successes: 2,
};
/// The shortest time a worker is put out for, and the shortest between two checks.
const SHORTEST: Duration = Duration::from_millis(10);
/// [`Service::start_wait`] of a service that may have no worker.
const START_WAIT_DEFAULT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
/// Failures or successes in a row that may be asked for.
const IN_A_ROW_MAX: u64 = 1000;

const CONCURRENCY_EXPECTED: &str =
    "a number such as `40`, `\"unlimited\"`, `\"adaptive\"` or `{ min = 4, max = 200 }`";
const EJECT_EXPECTED: &str = "a table such as `{ failures = 5 }`, or `\"off\"`";
const HEALTH_EXPECTED: &str =
    "a path such as `\"/healthz\"`, or a table such as `{ path = \"/healthz\", every = \"5s\" }`";

/// Reads them from the table of a service; what is not said, or wrong and reported, has its default.
pub(super) fn read(table: &Table<'_, '_>, report: &mut Report<'_>) -> Service {
    let usual = Service::default();
    let slow_start = table.duration("slow-start", Duration::ZERO..=HOUR, report);
    let start_wait = table.duration("start-wait", SHORTEST..=HOUR, report);
    Service {
        protocol: table
            .parsed("protocol", "`\"http1\"` or `\"h2c\"`", report, protocol)
            .unwrap_or(usual.protocol),
        concurrency: concurrency(table, report).unwrap_or(usual.concurrency),
        slow_start: slow_start.unwrap_or(usual.slow_start),
        start_wait,
        from_zero: usual.from_zero,
        ejection: ejection(table, report).unwrap_or(usual.ejection),
        health: health(table, report),
    }
}

/// What follows from how many workers there may be.
pub(super) fn follow(policy: &mut Service, instances: Instances) {
    policy.from_zero = instances.may_be_none();
    if policy.from_zero {
        policy.start_wait.get_or_insert(START_WAIT_DEFAULT);
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "http1" => Ok(Protocol::Http1),
        "h2c" => Ok(Protocol::H2c),
        "http/1.1" | "HTTP/1.1" | "http" => Err("is no protocol: write \"http1\"".into()),
        "h2" | "http2" | "HTTP/2" | "http/2" | "grpc" => {
            Err("is no protocol: write \"h2c\" (HTTP/2 without TLS, which gRPC uses)".into())
        }
        _ => Err("is no protocol: write \"http1\" or \"h2c\"".into()),
    }
}

fn concurrency(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Concurrency> {
    const KEY: &str = "concurrency";
    let value = table.value(KEY)?;
    match value.get_ref() {
        DeValue::Integer(_) => {
            let limit = table.number(KEY, 1..=CONCURRENCY_MAX, report)?;
            Some(Concurrency::Limited(u32::try_from(limit).ok()?))
        }
        DeValue::String(_) => table.parsed(KEY, CONCURRENCY_EXPECTED, report, |text| match text {
            "unlimited" => Ok(Concurrency::Unlimited),
            "adaptive" => Ok(ADAPTIVE_DEFAULT),
            _ => Err(match nearest(text, ["unlimited", "adaptive"]) {
                Some(near) => format!("is no limit; did you mean \"{near}\"?"),
                None => format!("is no limit: write {CONCURRENCY_EXPECTED}"),
            }),
        }),
        DeValue::Table(entries) => {
            let bounds = table.inner(KEY, value, entries, &["min", "max"], report);
            let Concurrency::Adaptive { min, max } = ADAPTIVE_DEFAULT else { return None };
            let min = bounds.count("min", 1..=CONCURRENCY_MAX, report).unwrap_or(min);
            let max = bounds.count("max", 1..=CONCURRENCY_MAX, report).unwrap_or(max);
            if min > max {
                report.at(value.span(), format!("`{KEY}`: `min` ({min}) is above `max` ({max})"));
            }
            Some(Concurrency::Adaptive { min, max })
        }
        _ => {
            table.wrong_type(KEY, CONCURRENCY_EXPECTED, value, report);
            None
        }
    }
}

fn ejection(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Ejection> {
    const KEY: &str = "eject";
    let value = table.value(KEY)?;
    let usual = Ejection::default();
    match value.get_ref() {
        DeValue::String(text) if text == "off" => Some(Ejection { failures: 0, ..usual }),
        DeValue::String(text) => {
            let why = format!("is not known: write {EJECT_EXPECTED}");
            bad_value(KEY, &Text { text, span: value.span() }, &why, report);
            None
        }
        DeValue::Table(entries) => {
            let known = ["failures", "shortest", "longest", "out-percent"];
            let eject = table.inner(KEY, value, entries, &known, report);
            if let Some(zero) = eject.value("failures")
                && matches!(zero.get_ref(), DeValue::Integer(number) if integer(number) == 0)
            {
                report.at(zero.span(), "`failures`: `0` ejects at nothing: write eject = \"off\"");
                return None;
            }
            let failures = eject.count("failures", 1..=IN_A_ROW_MAX, report).unwrap_or(usual.failures);
            let shortest = eject.duration("shortest", SHORTEST..=HOUR, report);
            let longest = eject.duration("longest", SHORTEST..=HOUR, report);
            let share =
                eject.number("out-percent", 1..=100, report).and_then(|share| u8::try_from(share).ok());
            let ejection = Ejection {
                failures,
                // One that was said moves the default of the other along.
                shortest: shortest.unwrap_or_else(|| usual.shortest.min(longest.unwrap_or(usual.longest))),
                longest: longest.unwrap_or_else(|| usual.longest.max(shortest.unwrap_or(usual.shortest))),
                out_percent_max: share.unwrap_or(usual.out_percent_max),
            };
            if ejection.shortest > ejection.longest {
                report.at(value.span(), format!("`{KEY}`: `shortest` is longer than `longest`; swap them"));
            }
            Some(ejection)
        }
        _ => {
            table.wrong_type(KEY, EJECT_EXPECTED, value, report);
            None
        }
    }
}

fn health(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Health> {
    const KEY: &str = "health";
    let value = table.value(KEY)?;
    let entries = match value.get_ref() {
        DeValue::Table(entries) => entries,
        DeValue::String(_) => {
            let path = table.parsed(KEY, HEALTH_EXPECTED, report, ready_path)?;
            return Some(Health { path, ..HEALTH_DEFAULT });
        }
        _ => {
            table.wrong_type(KEY, HEALTH_EXPECTED, value, report);
            return None;
        }
    };
    let known = ["path", "every", "timeout", "failures", "successes"];
    let check = table.inner(KEY, value, entries, &known, report);
    let path = check.parsed("path", "a path such as `\"/healthz\"`", report, ready_path);
    if !check.was_tried("path") {
        report.at(
            check.span.clone(),
            format!("{} has no `path`: add one, such as path = \"/healthz\"", check.title),
        );
    }
    let every = check.duration("every", SHORTEST..=HOUR, report);
    let timeout = check.duration("timeout", SHORTEST..=HOUR, report);
    let failures = check.count("failures", 1..=IN_A_ROW_MAX, report).unwrap_or(HEALTH_DEFAULT.failures);
    let successes = check.count("successes", 1..=IN_A_ROW_MAX, report).unwrap_or(HEALTH_DEFAULT.successes);
    let health = Health {
        path: path?,
        every: every.unwrap_or_else(|| HEALTH_DEFAULT.every.max(timeout.unwrap_or_default())),
        timeout: timeout.unwrap_or_else(|| HEALTH_DEFAULT.timeout.min(every.unwrap_or(HEALTH_DEFAULT.every))),
        failures,
        successes,
    };
    if health.timeout > health.every {
        let message = format!("`{KEY}`: `timeout` is longer than `every`, so that checks would overlap");
        report.at(value.span(), message);
    }
    Some(health)
}
