//! `limit` of a route: how often its requests may come.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use lethe_gateway::config::{
    Route,
    limit::{By, Limit, Outage},
};
use lethe_http::limit::{TIMEOUT_DEFAULT, is_name};
use lethe_state::limits::{LIMIT_NAME_BYTES_MAX, Quota, TAKES_MAX};
use toml::de::{DeTable, DeValue};

use super::{
    duration,
    problem::{Report, nearest},
    table::{Table, Value, wrong_type},
};

/// What a limit may say.
pub(super) const KEYS: [&str; 7] = ["rate", "burst", "by", "name", "leased", "on-outage", "timeout"];

/// How long a request may wait for being counted.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

const EXPECTED: &str = "a rate such as `\"100/min\"`, a table such as `{ rate = \"100/min\", by = \"address\" }`, or a \
                        list of such tables";
const RATE_EXPECTED: &str = "a rate such as `\"100/min\"`";
const BY_EXPECTED: &str =
    "`\"address\"`, `\"session\"`, `\"everyone\"` or a header such as `\"header:x-api-key\"`";
const BY_HEADER: &str = "header:";

/// A limit, and where it is said.
pub(super) struct Said {
    limit: Limit,
    /// It has no name of its own, but one that was made of its route.
    is_unnamed: bool,
    span: Range<usize>,
}

/// Reads the limits of a route. The names of those that have none are made of `route`, which is read but for its limits.
pub(super) fn read(table: &Table<'_, '_>, route: &Route, report: &mut Report<'_>) -> Vec<Said> {
    const KEY: &str = "limit";
    let Some(value) = table.value(KEY) else { return Vec::new() };
    let title = format!("[{}.{KEY}]", table.title.trim_matches(['[', ']']));
    let one = |value: &Value<'_>, what: &str, report: &mut Report<'_>| match value.get_ref() {
        DeValue::Table(entries) => read_one(&title, value, entries, route, report),
        DeValue::String(_) => {
            read_rate(KEY, value, report).map(|rate| Said::new(plain(rate), None, value.span(), route))
        }
        _ => {
            wrong_type(what, EXPECTED, value, report);
            None
        }
    };
    let said: Vec<Said> = match value.get_ref() {
        DeValue::Array(items) => {
            items.iter().filter_map(|item| one(item, "each of `limit`", report)).collect()
        }
        _ => one(value, "`limit` in [[routes]]", report).into_iter().collect(),
    };
    if said.len() > TAKES_MAX {
        report.at(
            value.span(),
            format!("`limit`: a route has at most {TAKES_MAX} of them, not {}", said.len()),
        );
    }
    for (index, later) in said.iter().enumerate() {
        if said[..index].iter().any(|earlier| earlier.limit.name == later.limit.name) {
            let name = &later.limit.name;
            report.at(
                later.span.clone(),
                format!("`limit`: this route has one called `{name}` already; give this one another `name`"),
            );
        }
    }
    said
}

/// Reports limits of different routes that would count together and do not mean to: those of the same name share their
/// counts, which is of use only if they are alike.
pub(super) fn check_names<'s>(routes: impl Iterator<Item = &'s [Said]>, report: &mut Report<'_>) {
    let of_route = |(route, limits): (usize, &'s [Said])| limits.iter().map(move |said| (route, said));
    let all: Vec<(usize, &Said)> = routes.enumerate().flat_map(of_route).collect();
    for (index, (route, later)) in all.iter().enumerate() {
        let same =
            |(other, earlier): &&(usize, &Said)| other != route && earlier.limit.name == later.limit.name;
        let Some((_, earlier)) = all[..index].iter().find(same) else { continue };
        let (name, line) = (&later.limit.name, report.line_of(earlier.span.start));
        if earlier.is_unnamed || later.is_unnamed {
            let message = format!(
                "`limit`: it would be called `{name}`, as the one on line {line}; give it a `name` of its own, or both \
                 the same one to have them counted together"
            );
            report.at(later.span.clone(), message);
        } else if earlier.limit != later.limit {
            let message = format!(
                "`limit`: the one called `{name}` on line {line} is another; those that are counted together must be \
                 alike"
            );
            report.at(later.span.clone(), message);
        }
    }
}

impl Said {
    /// Without a `name` it gets one that is made of its route.
    fn new(limit: Limit, name: Option<String>, span: Range<usize>, route: &Route) -> Self {
        let is_unnamed = name.is_none();
        let name = name.unwrap_or_else(|| name_of(route, &limit.by));
        Self { limit: Limit { name, ..limit }, is_unnamed, span }
    }

    pub(super) fn into_limit(self) -> Limit {
        self.limit
    }
}

fn read_one(
    title: &str,
    value: &Value<'_>,
    entries: &DeTable<'_>,
    route: &Route,
    report: &mut Report<'_>,
) -> Option<Said> {
    let table = Table::open(title.to_owned(), value.span(), entries, &KEYS, report);
    let rate = table.value("rate").and_then(|rate| read_rate("rate", rate, report));
    if !table.was_tried("rate") {
        report.at(value.span(), format!("{title} has no `rate`: add one, such as rate = \"100/min\""));
    }
    let burst = table.count("burst", 1..=u32::MAX.into(), report);
    let by = table.parsed("by", BY_EXPECTED, report, parse_by);
    let name = table.parsed("name", "a name such as `\"sign-in\"`", report, parse_name);
    let leased = table.boolean("leased", report).unwrap_or(true);
    let outage = table.parsed("on-outage", "`\"allow\"` or `\"refuse\"`", report, parse_outage);
    let timeout = table.duration("timeout", TIMEOUT, report);
    let mut limit = plain(rate?);
    limit.burst = burst.unwrap_or(limit.burst);
    if let Err(error) = Quota::per(limit.calls, limit.period).burst(limit.burst).pace() {
        report.at(value.span(), format!("`limit`: {error}"));
        return None;
    }
    limit.by = by.unwrap_or_default();
    limit.leased = leased;
    limit.on_outage = outage.unwrap_or_default();
    limit.timeout = timeout.unwrap_or(limit.timeout);
    Some(Said::new(limit, name, value.span(), route))
}

/// With nothing said but the rate, and no name yet.
fn plain((calls, period): (u32, Duration)) -> Limit {
    Limit {
        name: String::new(),
        calls,
        period,
        burst: calls,
        by: By::default(),
        leased: true,
        on_outage: Outage::default(),
        timeout: TIMEOUT_DEFAULT,
    }
}

/// What a limit is called that has no name: service, host, path and what is counted, as far as they are made of what a name
/// may have. A long one is cut, in front, where it says least.
fn name_of(route: &Route, by: &By) -> String {
    let by = match by {
        By::Everyone => "everyone",
        By::Address => "address",
        By::Session => "session",
        By::Header(name) => name,
    };
    let parts = [route.service.as_str(), route.host.as_deref().unwrap_or_default(), &route.path, by];
    let words = parts.iter().flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect();
    let name = words.join("-");
    // It is ASCII.
    name[name.len().saturating_sub(LIMIT_NAME_BYTES_MAX)..].to_owned()
}

fn read_rate(key: &str, value: &Value<'_>, report: &mut Report<'_>) -> Option<(u32, Duration)> {
    let DeValue::String(text) = value.get_ref() else {
        wrong_type(&format!("`{key}`"), RATE_EXPECTED, value, report);
        return None;
    };
    let rate = parse_rate(text).and_then(|(calls, period)| match Quota::per(calls, period).pace() {
        Ok(_) => Ok((calls, period)),
        Err(error) => Err(format!("cannot be: {error}")),
    });
    rate.map_err(|why| report.at(value.span(), format!("`{key}`: `{text}` {why}"))).ok()
}

/// `100/min`: a number, and what it is in.
fn parse_rate(text: &str) -> Result<(u32, Duration), String> {
    const WHY: &str = "is not a rate: write how many in what time, such as \"100/min\", \"5/s\", \"1000/day\" or \"20/10s\"";
    let (calls, period) = text.split_once('/').ok_or(WHY)?;
    let calls = calls.trim().parse().map_err(|_| WHY)?;
    let period = match period.trim() {
        "s" | "second" => Duration::from_secs(1),
        "min" | "m" | "minute" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(3600),
        "d" | "day" => Duration::from_secs(24 * 3600),
        period => duration::parse(period).map_err(|_| WHY)?,
    };
    Ok((calls, period))
}

fn parse_by(text: &str) -> Result<By, String> {
    if let Some(name) = text.strip_prefix(BY_HEADER) {
        let name = http::HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| "names no header: write it as in \"header:x-api-key\"".to_owned())?;
        return Ok(By::Header(name.as_str().to_owned()));
    }
    match text {
        "everyone" => Ok(By::Everyone),
        "address" => Ok(By::Address),
        "session" => Ok(By::Session),
        _ => Err(match nearest(text, ["everyone", "address", "session", BY_HEADER]) {
            Some(BY_HEADER) => "names no header: write it as in \"header:x-api-key\"".into(),
            Some(near) => format!("is nothing to count by; did you mean \"{near}\"?"),
            None => format!("is nothing to count by: write {}", BY_EXPECTED.replace('`', "")),
        }),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "is no name of a limit: write up to {LIMIT_NAME_BYTES_MAX} lower-case letters, digits, `-` and `_`"
        )),
    }
}

fn parse_outage(text: &str) -> Result<Outage, String> {
    match text {
        "allow" => Ok(Outage::Allow),
        "refuse" => Ok(Outage::Refuse),
        _ => Err("is not known: write \"allow\" (requests pass uncounted) or \"refuse\" (they are answered with 503)"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use lethe_model::service::ServiceName;

    use super::*;

    #[test]
    fn rates() {
        for (text, calls, seconds) in [
            ("5/s", 5, 1),
            ("100/min", 100, 60),
            ("100 / minute", 100, 60),
            ("7/h", 7, 3600),
            ("1000/day", 1000, 86_400),
            ("20/10s", 20, 10),
        ] {
            assert_eq!(parse_rate(text), Ok((calls, Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "5", "/s", "5/", "5/x", "x/s", "-5/s", "5/s/s", "99999999999/s", "1.5/s"] {
            assert!(parse_rate(text).is_err_and(|why| why.contains("100/min")), "{text}");
        }
    }

    #[test]
    fn what_is_counted_by() {
        assert_eq!(parse_by("header:X-Api-Key"), Ok(By::Header("x-api-key".into())));
        assert_eq!(parse_by("session"), Ok(By::Session));
        for (text, why) in [
            ("adress", "did you mean \"address\"?"),
            ("header:", "names no header"),
            ("header", "names no header"),
            ("header:a b", "names no header"),
            ("user", "header:x-api-key"),
        ] {
            let error = parse_by(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_that_are_made() {
        let route = |host: Option<&str>, path: &str| Route {
            host: host.map(Into::into),
            path: path.into(),
            ..Route::everything_to(ServiceName::new("shop").unwrap())
        };
        let check = |host, path: &str, by, expected: &str| {
            let name = name_of(&route(host, path), &by);
            assert!(is_name(&name), "{name}");
            assert_eq!(name, expected);
        };
        check(None, "/", By::Address, "shop-address");
        check(None, "/sign-in", By::Everyone, "shop-sign-in-everyone");
        check(
            Some("shop.example"),
            "/a%20B/c",
            By::Header("x-api-key".into()),
            "shop-shop-example-a-20b-c-x-api-key",
        );
        let long = "x".repeat(100);
        check(None, &format!("/{long}"), By::Session, &format!("{}-session", "x".repeat(56)));
    }
}
