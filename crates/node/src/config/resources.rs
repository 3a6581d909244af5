//! `[services.NAME.resources]`: what each worker may use, in Kubernetes' quantities (`500m`, `256Mi`) or in Lethe's own
//! sizes (`256MiB`).

use std::ops::Range;

use lethe_scaler::quantity::{Quantity, decimal};
use lethe_supervisor::resources::{CPU_LIMIT_MILLI_MIN, Enforce, MEMORY_LIMIT_BYTES_MIN, Resources};
use toml::de::DeValue;

use super::{
    problem::{Report, nearest},
    size,
    table::{Table, Text, Value, bad_value, integer},
};

/// What `resources` may say.
pub(super) const KEYS: [&str; 3] = ["requests", "limits", "enforce"];

const EXPECTED: &str = "a table such as `{ limits = { memory = \"512Mi\" } }`";
const AMOUNTS_EXPECTED: &str = "a table such as `{ cpu = \"500m\", memory = \"256Mi\" }`";
const CPU_EXPECTED: &str = "a number of cores such as `\"500m\"` (half a core), `1` or `\"1.5\"`";
const MEMORY_EXPECTED: &str = "a size such as `\"256Mi\"`, or a number of bytes";

/// The most that is believed: nobody has so many cores, or so much memory, in one machine.
const CPU_MILLI_MAX: u64 = 10_000 * 1000;
const MEMORY_BYTES_MAX: u64 = 1 << 50;

/// One of them, and where it stands.
struct Amount {
    number: u64,
    text: String,
    span: Range<usize>,
}

/// `requests` or `limits`.
#[derive(Default)]
struct Amounts {
    cpu_milli: Option<Amount>,
    memory_bytes: Option<Amount>,
}

/// Reads them from the table of a service. A request that is not said is as much as its limit, as in Kubernetes.
pub(super) fn read(table: &Table<'_, '_>, report: &mut Report<'_>) -> Resources {
    const KEY: &str = "resources";
    let Some(value) = table.value(KEY) else { return Resources::default() };
    let DeValue::Table(entries) = value.get_ref() else {
        table.wrong_type(KEY, EXPECTED, value, report);
        return Resources::default();
    };
    let table = table.inner(KEY, value, entries, &KEYS, report);
    let requests = amounts(&table, "requests", (1, 1), report);
    let limits = amounts(&table, "limits", (CPU_LIMIT_MILLI_MIN, MEMORY_LIMIT_BYTES_MIN), report);
    let enforce = table.parsed("enforce", "`\"always\"` or `\"if-possible\"`", report, enforce);
    within("cpu", requests.cpu_milli.as_ref(), limits.cpu_milli.as_ref(), report);
    within("memory", requests.memory_bytes.as_ref(), limits.memory_bytes.as_ref(), report);
    let number = |amount: &Option<Amount>| amount.as_ref().map(|amount| amount.number);
    let (cpu_limit_milli, memory_limit_bytes) = (number(&limits.cpu_milli), number(&limits.memory_bytes));
    Resources {
        cpu_request_milli: number(&requests.cpu_milli).or(cpu_limit_milli),
        memory_request_bytes: number(&requests.memory_bytes).or(memory_limit_bytes),
        cpu_limit_milli,
        memory_limit_bytes,
        enforce: enforce.unwrap_or_default(),
    }
}

/// `least` are the smallest that make sense, of CPU and of memory.
fn amounts(table: &Table<'_, '_>, key: &str, least: (u64, u64), report: &mut Report<'_>) -> Amounts {
    let Some(value) = table.value(key) else { return Amounts::default() };
    let DeValue::Table(entries) = value.get_ref() else {
        table.wrong_type(key, AMOUNTS_EXPECTED, value, report);
        return Amounts::default();
    };
    let table = table.inner(key, value, entries, &["cpu", "memory"], report);
    let cpu_bounds = (least.0, CPU_MILLI_MAX, (|milli| decimal_cores(milli)) as fn(u64) -> String);
    let memory_bounds = (least.1, MEMORY_BYTES_MAX, size::shown as fn(u64) -> String);
    Amounts {
        cpu_milli: amount(&table, "cpu", CPU_EXPECTED, cpu_bounds, cpu_milli, report),
        memory_bytes: amount(&table, "memory", MEMORY_EXPECTED, memory_bounds, memory_bytes, report),
    }
}

fn decimal_cores(milli: u64) -> String {
    decimal(i64::try_from(milli).unwrap_or(i64::MAX))
}

fn amount(
    table: &Table<'_, '_>,
    key: &str,
    expected: &str,
    (least, most, shown): (u64, u64, fn(u64) -> String),
    parse: fn(&str) -> Result<u64, String>,
    report: &mut Report<'_>,
) -> Option<Amount> {
    let value = table.value(key)?;
    let Some(text) = number_or_text(value) else {
        table.wrong_type(key, expected, value, report);
        return None;
    };
    let span = value.span();
    let read = parse(&text).and_then(|number| match number {
        0 => Err("is nothing: write more, or leave it out".into()),
        number if number < least => Err(format!("is too little: write at least \"{}\"", shown(least))),
        number if number > most => Err(format!("is too much: write at most \"{}\"", shown(most))),
        number => Ok(number),
    });
    match read {
        Ok(number) => Some(Amount { number, text, span }),
        Err(why) => {
            bad_value(key, &Text { text: &text, span }, &why, report);
            None
        }
    }
}

fn number_or_text(value: &Value<'_>) -> Option<String> {
    Some(match value.get_ref() {
        DeValue::Integer(number) => integer(number).to_string(),
        DeValue::Float(number) => number.as_str().into(),
        DeValue::String(text) => text.to_string(),
        _ => return None,
    })
}

/// Thousandths of a core.
fn cpu_milli(text: &str) -> Result<u64, String> {
    let quantity: Quantity = text.trim().parse().map_err(
        |_| "is no amount of CPU: write a number of cores, such as \"500m\" (half a core), \"1\" or \"1.5\"",
    )?;
    positive(quantity)
}

/// Bytes.
fn memory_bytes(text: &str) -> Result<u64, String> {
    if let Ok(bytes) = size::parse(text) {
        return Ok(bytes);
    }
    let no_size = "is no size: write \"256Mi\" as in Kubernetes, or \"256MiB\" (units of 1024)";
    let milli = positive(text.trim().parse::<Quantity>().map_err(|_| no_size)?)?;
    if text.ends_with('m') {
        let number = text.trim_end_matches('m');
        return Err(format!("is thousandths of a byte: write \"{number}Mi\" for mebibytes"));
    }
    Ok(milli.div_ceil(1000))
}

fn positive(quantity: Quantity) -> Result<u64, String> {
    u64::try_from(quantity.milli).map_err(|_| "is less than nothing".into())
}

fn enforce(text: &str) -> Result<Enforce, String> {
    match text {
        "always" => Ok(Enforce::Always),
        "if-possible" => Ok(Enforce::IfPossible),
        _ => Err(match nearest(text, ["always", "if-possible"]) {
            Some(near) => format!("is not known; did you mean \"{near}\"?"),
            None => "is not known: write \"always\" (without its limits, the service is not started) or \
                     \"if-possible\" (it runs without them where they cannot be set)"
                .into(),
        }),
    }
}

/// A worker cannot be reckoned with more than it may have.
fn within(what: &str, request: Option<&Amount>, limit: Option<&Amount>, report: &mut Report<'_>) {
    if let (Some(request), Some(limit)) = (request, limit)
        && request.number > limit.number
    {
        let message = format!(
            "`{what}` in `requests` ({}) is above that in `limits` ({}): lower it, or raise the limit",
            request.text, limit.text
        );
        report.at(request.span.clone(), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, tests::folder, tests::load_path};

    fn load(resources: &str) -> Result<Resources, String> {
        let toml = format!("[services.web]\ncommand = 'sh'\n[services.web.resources]\n{resources}\n");
        let (_kept, path) = folder(&[("lethe.toml", &toml)]);
        load_path(&path, Overrides::default()).map(|config| config.services[0].spec.resources)
    }

    #[test]
    fn amounts_are_read() {
        let read = load(
            "requests = { cpu = '500m', memory = '256Mi' }\nlimits = { cpu = 1.5, memory = '512MiB' }\n\
             enforce = 'if-possible'",
        );
        let expected = Resources {
            cpu_request_milli: Some(500),
            memory_request_bytes: Some(256 << 20),
            cpu_limit_milli: Some(1500),
            memory_limit_bytes: Some(512 << 20),
            enforce: Enforce::IfPossible,
        };
        assert_eq!(read, Ok(expected));
        assert_eq!(load(""), Ok(Resources::default()));
        for (cpu, milli) in [("1", 1000), ("'1'", 1000), ("0.25", 250), ("'2e3m'", 0), ("'10m'", 10)] {
            let read = load(&format!("limits.cpu = {cpu}")).map(|read| read.cpu_limit_milli);
            assert_eq!(read.ok().flatten(), (milli > 0).then_some(milli), "{cpu}");
        }
        for (memory, bytes) in
            [("'1G'", 1_000_000_000), ("'1.5Gi'", 3 << 29), ("1048576", 1 << 20), ("'2GiB'", 2 << 30)]
        {
            let read = load(&format!("limits.memory = {memory}")).unwrap();
            assert_eq!(read.memory_limit_bytes, Some(bytes), "{memory}");
            assert_eq!(read.memory_request_bytes, Some(bytes), "a request is as much as its limit");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (resources, at, why) in [
            ("limits = { cpu = '0' }", "4:18", "`cpu`: `0` is nothing"),
            ("limits = { cpu = -1 }", "4:18", "`cpu`: `-1` is less than nothing"),
            ("limits = { cpu = '5m' }", "4:18", "`cpu`: `5m` is too little: write at least \"0.01\""),
            ("limits = { cpu = '1 core' }", "4:18", "is no amount of CPU"),
            ("limits = { cpu = '1e9' }", "4:18", "is too much: write at most \"10000\""),
            ("limits = { cpu = true }", "4:18", "must be a number of cores"),
            ("limits = { memory = '512m' }", "4:21", "is thousandths of a byte: write \"512Mi\""),
            ("limits = { memory = '512MB' }", "4:21", "is no size: write \"256Mi\""),
            ("limits = { memory = '64k' }", "4:21", "is too little: write at least \"1MiB\""),
            ("limits = { memory = '9Ei' }", "4:21", "is too much"),
            ("limits = { disk = '1Gi' }", "4:12", "unknown key `disk` in [services.web.resources.limits]"),
            ("limits = '1Gi'", "4:10", "`limits` in [services.web.resources] must be a table"),
            (
                "limit = { cpu = 1 }",
                "4:1",
                "unknown key `limit` in [services.web.resources]; did you mean `limits`?",
            ),
            ("enforce = 'allways'", "4:11", "did you mean \"always\"?"),
            (
                "requests = { cpu = 2 }\nlimits = { cpu = '1500m' }",
                "4:20",
                "`cpu` in `requests` (2) is above that in `limits` (1500m)",
            ),
            (
                "requests = { memory = '1Gi' }\nlimits = { memory = '512Mi' }",
                "4:23",
                "`memory` in `requests` (1Gi) is above",
            ),
        ] {
            let error = load(resources).unwrap_err();
            assert!(
                error.contains(&format!("lethe.toml:{at}")) && error.contains(why),
                "{resources}\n{error}"
            );
        }
    }
}
