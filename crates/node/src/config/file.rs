//! `lethe.toml`, from its text to a draft of the configuration.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    FILE_BYTES_MAX, ServiceConfig,
    address::{self, Admin},
    draft::Draft,
    problem::{Problem, Report},
    route, service, syntax,
    table::{Table, Text, Value, bad_value, integer, wrong_type},
};

/// What a file may say.
pub(super) const KEYS: [&str; 5] = ["listen", "admin", "state", "services", "routes"];

const LISTEN_EXPECTED: &str = "an address such as `\"127.0.0.1:8080\"`";
const ADMIN_EXPECTED: &str = "an address such as `\"127.0.0.1:8081\"`, or `\"off\"`";
const STATE_EXPECTED: &str = "a folder such as `\".lethe\"` or `\"embedded:.lethe\"`";

/// Reads the text of a file of any kind that `lethe` knows.
pub(super) fn text_of(path: &Path, shown: &str) -> Result<String, Problem> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|error: std::io::Error| {
        Problem::new(format!("{shown}: cannot be read: {error}; check that it is a file and its permissions"))
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::new(format!(
            "{shown}: is larger than {} KiB, so it cannot be the file that was meant",
            FILE_BYTES_MAX >> 10
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let mut report = Report::new(shown, &good);
        report.at(good.len()..good.len(), "is not UTF-8 from here on; save the file in that encoding");
        report.finish().remove(0)
    })
}

/// Reads `lethe.toml`; `folder` is where it is, absolute.
pub(super) fn read(text: &str, shown: &str, folder: &Path) -> Result<Draft, Vec<Problem>> {
    let mut report = Report::new(shown, text);
    let draft = syntax::parse(&mut report).map(|root| draft(root.get_ref(), shown, folder, &mut report));
    match draft {
        Some(draft) if report.is_clean() => Ok(draft),
        _ => Err(report.finish()),
    }
}

fn draft(root: &DeTable<'_>, shown: &str, folder: &Path, report: &mut Report<'_>) -> Draft {
    let table = Table::open(String::new(), 0..0, root, &KEYS, report);
    let mut draft = Draft::new(folder);
    draft.file = Some(shown.into());
    draft.listen = listen(&table, report).unwrap_or(draft.listen);
    draft.admin = admin(&table, report).unwrap_or_default();
    draft.admin_quote = table.value("admin").map(|value| report.quote(value.span()));
    draft.state_dir = state_dir(&table, folder, report).unwrap_or(draft.state_dir);
    let (names, services) = services(&table, folder, report);
    draft.services = services;
    match table.value("routes") {
        Some(value) => {
            draft.routes = route::read_all(value, &names, report);
            draft.note_unrouted();
        }
        None if names.len() > 1 => {
            let at = table.value("services").map_or(0..0, |value| value.span());
            let (first, count) = (names[0], names.len());
            let message = format!(
                "{count} services and no route: add [[routes]] for each that gets requests, such as one with \
                 path = \"/\" and service = \"{first}\""
            );
            report.at(at, message);
        }
        None => {
            draft.routes.extend(draft.services.first().map(|it| route::everything_to(it.spec.name.clone())))
        }
    }
    draft
}

fn listen(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<std::net::SocketAddr> {
    match table.value("listen")?.get_ref() {
        DeValue::Integer(_) => port("listen", table, report),
        _ => table.parsed("listen", LISTEN_EXPECTED, report, address::parse),
    }
}

fn admin(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Admin> {
    match table.value("admin")?.get_ref() {
        DeValue::Integer(_) => port("admin", table, report).map(Admin::At),
        _ => table.parsed("admin", ADMIN_EXPECTED, report, Admin::parse),
    }
}

/// A port written as a number.
fn port(key: &str, table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<std::net::SocketAddr> {
    let value = table.value(key)?;
    let DeValue::Integer(number) = value.get_ref() else { return None };
    let text = integer(number).to_string();
    address::parse(&text)
        .map_err(|why| bad_value(key, &Text { text: &text, span: value.span() }, &why, report))
        .ok()
}

/// The folder of `state = "…"`, or of `[state]` and `url = "…"`.
fn state_dir(table: &Table<'_, '_>, folder: &Path, report: &mut Report<'_>) -> Option<PathBuf> {
    let parse = |text: &str| parse_state(text, folder);
    let value = table.value("state")?;
    let DeValue::Table(entries) = value.get_ref() else {
        return table.parsed("state", STATE_EXPECTED, report, parse);
    };
    let state = Table::open("[state]".into(), value.span(), entries, &["url"], report);
    state.parsed("url", STATE_EXPECTED, report, parse)
}

fn parse_state(text: &str, folder: &Path) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("embedded", path)) => path,
        Some((engine, _)) if engine.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            return Err(format!(
                "needs the engine `{engine}`, which this version does not have: write \"embedded:.lethe\""
            ));
        }
        _ => text,
    };
    if path.is_empty() {
        return Err("names no folder: write \".lethe\" or \"embedded:.lethe\"".into());
    }
    if path.contains('\0') {
        return Err("has a NUL character".into());
    }
    let path = folder.join(path);
    if path.exists() && !path.is_dir() {
        return Err("is a file, not a folder".into());
    }
    Ok(path)
}

/// The names of all services as they stand in the file, and those of them that are right, both in its order.
fn services<'v>(
    table: &Table<'v, '_>,
    folder: &Path,
    report: &mut Report<'_>,
) -> (Vec<&'v str>, Vec<ServiceConfig>) {
    const HOW: &str = "add [services.NAME] with a command = \"…\"";
    let Some(value) = table.value("services") else {
        if !table.was_tried("services") {
            report.at(0..0, format!("no service: {HOW}"));
        }
        return Default::default();
    };
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type("`services`", "tables, each begun by [services.NAME]", value, report);
        return Default::default();
    };
    if entries.is_empty() {
        report.at(value.span(), format!("no service: {HOW}"));
    }
    let mut entries: Vec<(&str, std::ops::Range<usize>, &Value<'_>)> =
        entries.into_iter().map(|(name, value)| (name.get_ref().as_ref(), name.span(), value)).collect();
    entries.sort_by_key(|(_, span, _)| span.start);
    let names = entries.iter().map(|(name, _, _)| *name).collect();
    let read = |(name, span, value)| service::read(name, span, value, folder, report);
    (names, entries.into_iter().filter_map(read).collect())
}
