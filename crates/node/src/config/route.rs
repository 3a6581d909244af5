//! `[[routes]]`: which host and path lead to which service.

use std::{ops::Range, time::Duration};

use lethe_gateway::config::{Balance, Class, ResponseStall, RetryOn, Route};
use lethe_model::service::ServiceName;
use toml::de::DeValue;

use super::{
    TIMEOUT_DEFAULT, duration, limit,
    problem::{Report, listed, nearest},
    table::{Table, Text, Value, bad_value, integer, wrong_type},
};

/// What a route may say.
pub(super) const KEYS: [&str; 12] = [
    "host",
    "path",
    "service",
    "idempotent",
    "balance",
    "timeout",
    "response-stall-timeout",
    "class",
    "limit",
    "retry-on",
    "resume",
    "server-timing",
];

const BALANCE_EXPECTED: &str = "`\"round-robin\"`, `\"least-loaded\"` or `\"random\"`";
const STALL_EXPECTED: &str = "a duration such as `\"75s\"`, or `\"off\"`";
const RETRY_ON_EXPECTED: &str = "a list such as `[\"503\", \"timeout\"]`";

const SERVICE_EXPECTED: &str =
    "a service such as `\"shop\"`, or several with weights such as `{ shop = 9, next = 1 }`";

/// The largest weight of a service.
const WEIGHT_MAX: i64 = 1000;

/// Shortest `response-stall-timeout`.
const STALL_MIN: Duration = Duration::from_millis(100);

/// Longest host name, in bytes (RFC 1035, section 2.3.4, as text).
const HOST_BYTES_MAX: usize = 253;

/// Everything to `service`, treated in the usual way.
pub(super) fn everything_to(service: ServiceName) -> Route {
    Route { timeout: TIMEOUT_DEFAULT, ..Route::everything_to(service) }
}

/// Reads all routes. `services` are the names in the file, be they valid or not: what is wrong with a service is said
/// of the service, not again of each route to it.
pub(super) fn read_all(value: &Value<'_>, services: &[&str], report: &mut Report<'_>) -> Vec<Route> {
    let DeValue::Array(items) = value.get_ref() else {
        wrong_type("`routes`", "a list, each begun by [[routes]] with two brackets", value, report);
        return Vec::new();
    };
    let mut routes: Vec<Said> = Vec::new();
    for item in items {
        let Some(said) = read(item, services, report) else { continue };
        let place = |said: &Said| (said.route.host.clone(), said.route.path.clone());
        match routes.iter().find(|other| place(other) == place(&said)) {
            None => routes.push(said),
            Some(first) => {
                let first = report.line_of(first.span.start);
                let (host, path) = place(&said);
                let host = host.unwrap_or_default();
                let message = format!("two routes for `{host}{path}`, first on line {first}; remove one");
                report.at(said.span, message);
            }
        }
    }
    limit::check_names(routes.iter().map(|said| &said.limits[..]), report);
    routes.into_iter().flat_map(Said::each).collect()
}

/// A service, and its weight where it is one of several.
type Share = (ServiceName, Option<u32>);

/// What one of `routes` says.
struct Said {
    /// The route to the first service, without its limits.
    route: Route,
    shares: Vec<Share>,
    limits: Vec<limit::Said>,
    span: Range<usize>,
}

impl Said {
    /// The route to each of its services, all behind the same limits.
    fn each(self) -> impl Iterator<Item = Route> {
        let limits = self.limits.into_iter().map(limit::Said::into_limit).collect();
        let route = Route { limits, ..self.route };
        self.shares.into_iter().map(move |(service, weight)| Route { service, weight, ..route.clone() })
    }
}

/// Reads one.
fn read(value: &Value<'_>, services: &[&str], report: &mut Report<'_>) -> Option<Said> {
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type(
            "each of `routes`",
            "a table such as `{ path = \"/\", service = \"shop\" }`",
            value,
            report,
        );
        return None;
    };
    let table = Table::open("[[routes]]".into(), value.span(), entries, &KEYS, report);
    let host = table.parsed("host", "a host such as `\"shop.example\"`", report, parse_host);
    let path = table.parsed("path", "a path such as `\"/\"`", report, parse_path);
    let idempotent = table.boolean("idempotent", report);
    let balance = table.parsed("balance", BALANCE_EXPECTED, report, parse_balance);
    let timeout = table.parsed("timeout", duration::EXPECTED, report, |text| match duration::parse(text) {
        Ok(timeout) if timeout.is_zero() => Err("is no time at all: write at least \"1ms\"".into()),
        parsed => parsed,
    });
    let response_stall = table.parsed("response-stall-timeout", STALL_EXPECTED, report, parse_stall);
    let class = table.parsed("class", "`\"timely\"` or `\"batch\"`", report, parse_class);
    let retry_on = retry_on(&table, report);
    let resume = table.boolean("resume", report);
    let server_timing = table.boolean("server-timing", report);
    let shares = shares(&table, services, report)?;
    // A host or path that is there and wrong must not be compared as if it were not there.
    if (host.is_none() && table.value("host").is_some()) || (path.is_none() && table.value("path").is_some())
    {
        return None;
    }
    let mut route = everything_to(shares.first()?.0.clone());
    route.host = host;
    route.path = path.unwrap_or(route.path);
    route.idempotent = idempotent.unwrap_or(route.idempotent);
    route.balance = balance.unwrap_or(route.balance);
    route.timeout = timeout.unwrap_or(route.timeout);
    route.response_stall = response_stall.unwrap_or(route.response_stall);
    route.class = class.unwrap_or(route.class);
    route.retry_on = retry_on.unwrap_or(route.retry_on);
    route.resume = resume.unwrap_or(route.resume);
    route.server_timing = server_timing.unwrap_or(route.server_timing);
    let limits = limit::read(&table, &route, report);
    Some(Said { route, shares, limits, span: table.span })
}

/// Looked at ten times a second.
fn parse_stall(text: &str) -> Result<ResponseStall, String> {
    match text {
        "off" => Ok(ResponseStall::Never),
        _ => match duration::parse(text)? {
            timeout if timeout < STALL_MIN => {
                Err("is too short: write at least \"100ms\", or \"off\" for no bound".into())
            }
            timeout => Ok(ResponseStall::After(timeout)),
        },
    }
}

/// What beside a lost worker is tried again.
fn retry_on(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<RetryOn> {
    const KEY: &str = "retry-on";
    let value = table.value(KEY)?;
    let DeValue::Array(items) = value.get_ref() else {
        table.wrong_type(KEY, RETRY_ON_EXPECTED, value, report);
        return None;
    };
    let mut retry_on = RetryOn::default();
    for item in items {
        match item.get_ref() {
            DeValue::String(text) if text == "503" => retry_on.unavailable = true,
            DeValue::Integer(number) if integer(number) == 503 => retry_on.unavailable = true,
            DeValue::String(text) if text == "timeout" => retry_on.timeout = true,
            DeValue::String(text) => {
                let why =
                    "is no reason to try again: write \"503\" or \"timeout\"; lost workers need not be named";
                bad_value(KEY, &Text { text, span: item.span() }, why, report);
            }
            _ => wrong_type(&format!("each of `{KEY}`"), "`\"503\"` or `\"timeout\"`", item, report),
        }
    }
    Some(retry_on)
}

/// Who answers, of several each with its weight; those that are to get nothing are left out.
fn shares(table: &Table<'_, '_>, services: &[&str], report: &mut Report<'_>) -> Option<Vec<Share>> {
    const KEY: &str = "service";
    let Some(DeValue::Table(entries)) = table.value(KEY).map(Value::get_ref) else {
        return service(table, services, report).map(|service| vec![(service, None)]);
    };
    let mut shares = Some(Vec::new());
    for (name, weight) in entries {
        let text = Text { text: name.get_ref(), span: name.span() };
        let known = known(&text, services, report);
        let number = match weight.get_ref() {
            DeValue::Integer(number) => {
                Some(integer(number)).filter(|number| (0..=WEIGHT_MAX).contains(number))
            }
            _ => None,
        };
        if number.is_none() {
            let expected = format!("a number from 0 to {WEIGHT_MAX}");
            wrong_type(&format!("the weight of `{}`", text.text), &expected, weight, report);
        }
        shares = match (shares, known, number.and_then(|number| u32::try_from(number).ok())) {
            (Some(mut shares), Some(service), Some(weight)) => {
                if weight > 0 {
                    shares.push((service, Some(weight)));
                }
                Some(shares)
            }
            _ => None,
        };
    }
    let shares = shares?;
    if shares.is_empty() {
        let value = table.value(KEY)?;
        report
            .at(value.span(), "nobody has a share of this route: give one of its services a weight above 0");
        return None;
    }
    Some(shares)
}

/// The service of a route; where there is only one it need not be named.
fn service(table: &Table<'_, '_>, services: &[&str], report: &mut Report<'_>) -> Option<ServiceName> {
    if !table.was_tried("service") {
        if let [] | [_] = services {
            return ServiceName::new(services.first()?).ok();
        }
        let message = format!("this route has no `service`: add one of {}", listed(services.iter().copied()));
        report.at(table.span.clone(), message);
        return None;
    }
    known(&table.text("service", SERVICE_EXPECTED, report)?, services, report)
}

/// The service of this name, if the file has it.
fn known(text: &Text<'_>, services: &[&str], report: &mut Report<'_>) -> Option<ServiceName> {
    if services.is_empty() {
        // That there is no service at all is said once, not of each route.
        return None;
    }
    if services.contains(&text.text) {
        return ServiceName::new(text.text).ok();
    }
    let next = match nearest(text.text, services.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", listed(services.iter().copied())),
    };
    bad_value("service", text, &format!("is no service of this file; {next}"), report);
    None
}

fn parse_host(text: &str) -> Result<String, String> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host.contains("://") || host.contains('/') {
        return Err("is not a host: write it without scheme and path, such as \"shop.example\"".into());
    }
    if host.contains('*') {
        return Err(
            "is not a host: there are no wildcards; write a route for each, or leave `host` out for all"
                .into(),
        );
    }
    if let Some((host, port)) = host.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(format!("is not a host: leave the port out, such as \"{host}\""));
    }
    if !host.is_ascii() {
        return Err("is not a host: write it in its ASCII form, which begins with `xn--`".into());
    }
    // RFC 1123, section 2.1, and `_`, which is in use.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(label) {
        return Err(
            "is not a host: write a name such as \"shop.example\", of letters, digits, `-` and `.`".into()
        );
    }
    Ok(host)
}

/// A path prefix, without the slash at its end, which would mean the same.
fn parse_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("must begin with `/`: write \"/{text}\""));
    }
    if text.contains(['?', '#']) {
        return Err("is not a path: routes look at the path alone, so leave out `?` and `#`".into());
    }
    if text.contains('*') {
        return Err("is not a path: a path leads to all below it, so leave out `*`".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("is not a path: percent-encode spaces and letters outside ASCII".into());
    }
    let path = text.trim_end_matches('/');
    if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("is not a path: no request has an empty segment, `.` or `..`".into());
    }
    Ok(if path.is_empty() { "/".into() } else { path.into() })
}

fn parse_balance(text: &str) -> Result<Balance, String> {
    match text {
        "round-robin" => Ok(Balance::RoundRobin),
        "least-loaded" => Ok(Balance::LeastLoaded),
        "random" => Ok(Balance::Random),
        _ => Err("is no way to balance: write \"round-robin\", \"least-loaded\" or \"random\"".into()),
    }
}

fn parse_class(text: &str) -> Result<Class, String> {
    match text {
        "timely" => Ok(Class::Timely),
        "batch" => Ok(Class::Batch),
        _ => Err("is no class: write \"timely\" (somebody waits) or \"batch\" (nobody does)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("shop.example", "shop.example"),
            ("Shop.Example.", "shop.example"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("my_app.internal", "my_app.internal"),
        ] {
            assert_eq!(parse_host(text), Ok(expected.into()), "{text}");
        }
        for (text, why) in [
            ("", "write a name"),
            (".", "write a name"),
            ("a..b", "write a name"),
            ("-a.b", "write a name"),
            ("a b", "write a name"),
            ("http://shop.example", "scheme"),
            ("shop.example/x", "scheme"),
            ("shop.example:8080", "\"shop.example\""),
            ("*.shop.example", "wildcards"),
            ("bücher.example", "xn--"),
        ] {
            let error = parse_host(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse_host(&["a"; 200].join(".")).is_err());
        assert!(parse_host(&"a".repeat(64)).is_err());
    }

    #[test]
    fn paths() {
        for (text, expected) in [("/", "/"), ("/api", "/api"), ("/api/", "/api"), ("/a%20b/c", "/a%20b/c")] {
            assert_eq!(parse_path(text), Ok(expected.into()), "{text}");
        }
        for (text, why) in [
            ("", "begin with `/`"),
            ("api", "\"/api\""),
            ("/a?b", "`?`"),
            ("/a/*", "`*`"),
            ("/a b", "percent"),
            ("/é", "percent"),
            ("/a//b", "empty"),
            ("/a/../b", "`..`"),
        ] {
            let error = parse_path(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
