//! `lethe.toml`, from its text to a draft of the configuration.

use std::{io::Read, path::Path};

use lethe_gateway::config::{AccessLog, Network};

use toml::de::{DeTable, DeValue};

use super::{
    FILE_BYTES_MAX, ServiceConfig,
    address::{self, Admin},
    draft::Draft,
    interruption, limits, network,
    problem::{Problem, Report},
    route, service, state, syntax,
    table::{Table, Text, Value, bad_value, wrong_type},
    tls,
};

/// What a file may say.
pub(super) const KEYS: [&str; 13] = [
    "listen",
    "admin",
    "state",
    "cores",
    "proxy-protocol",
    "trusted-proxies",
    "via",
    "access-log",
    "tls",
    "limits",
    "interruption",
    "services",
    "routes",
];

/// The longest name in `Via`, in bytes: each message carries it.
const VIA_BYTES_MAX: usize = 64;

/// Most runtimes that may be asked for.
const CORES_MAX: u64 = 1024;

const LISTEN_EXPECTED: &str = "an address such as `\"127.0.0.1:8080\"`";
const ADMIN_EXPECTED: &str = "an address such as `\"127.0.0.1:8081\"`, or `\"off\"`";
const VIA_EXPECTED: &str = "a name such as `\"edge-1\"`, or `\"off\"`";
const ACCESS_LOG_EXPECTED: &str = "`\"off\"`, `\"stdout\"` or a file such as `\"access.log\"`";

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
    draft.listen = table.address("listen", LISTEN_EXPECTED, report, address::parse).unwrap_or(draft.listen);
    draft.admin = table.address("admin", ADMIN_EXPECTED, report, Admin::parse).unwrap_or_default();
    draft.admin_quote = table.value("admin").map(|value| report.quote(value.span()));
    let state = state::read(&table, folder, report);
    draft.state_dir = state.folder.unwrap_or(draft.state_dir);
    draft.placement = state.placement;
    draft.withheld = state.variables;
    draft.cores = table.number("cores", 1..=CORES_MAX, report).and_then(|cores| cores.try_into().ok());
    draft.tls = table.value("tls").and_then(|value| tls::read(value, folder, report));
    draft.trusted_proxies = trusted_proxies(&table, report).unwrap_or_default();
    draft.proxy_protocol = proxy_protocol(&table, report);
    draft.via = table.parsed("via", VIA_EXPECTED, report, parse_via).flatten();
    draft.access_log = access_log(&table, folder, report).unwrap_or_default();
    draft.limits = table.value("limits").map(|value| limits::read(value, report)).unwrap_or_default();
    draft.interruption =
        table.value("interruption").and_then(|value| interruption::read(value, folder, report));
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

/// The networks whose word about the client is taken. `None` if one of them is wrong, which is then reported.
fn trusted_proxies(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Vec<Network>> {
    const KEY: &str = "trusted-proxies";
    let value = table.value(KEY)?;
    let DeValue::Array(items) = value.get_ref() else {
        table.wrong_type(KEY, "a list such as `[\"10.0.0.0/8\", \"::1\"]`", value, report);
        return None;
    };
    let network = |item: &Value<'_>| {
        let DeValue::String(text) = item.get_ref() else {
            wrong_type(&format!("each of `{KEY}`"), "a network such as `\"10.0.0.0/8\"`", item, report);
            return None;
        };
        let parsed = network::parse(text);
        parsed.map_err(|why| bad_value(KEY, &Text { text, span: item.span() }, &why, report)).ok()
    };
    let networks: Vec<Option<Network>> = items.iter().map(network).collect();
    networks.into_iter().collect()
}

/// Whether connections begin with a PROXY protocol header. Without anybody to believe it of, none would be served.
fn proxy_protocol(table: &Table<'_, '_>, report: &mut Report<'_>) -> bool {
    const KEY: &str = "proxy-protocol";
    let is_on = table.boolean(KEY, report).unwrap_or_default();
    let nobody = match table.value("trusted-proxies").map(Value::get_ref) {
        None => !table.was_tried("trusted-proxies"),
        Some(DeValue::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    if let Some(value) = table.value(KEY).filter(|_| is_on && nobody) {
        let message = format!(
            "`{KEY}` is on and nobody is trusted, so every connection would be closed: name the proxies, such as \
             trusted-proxies = [\"10.0.0.0/8\"]"
        );
        report.at(value.span(), message);
    }
    is_on
}

/// A name that can stand in `Via`: a token (RFC 9110, sections 5.6.2 and 7.6.3).
fn parse_via(text: &str) -> Result<Option<String>, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match text {
        "off" => Ok(None),
        _ if text.len() > VIA_BYTES_MAX => {
            Err(format!("is too long: each request carries it, so write at most {VIA_BYTES_MAX} letters"))
        }
        _ if !text.is_empty() && text.bytes().all(is_token) => Ok(Some(text.into())),
        _ => {
            Err("is no name for `Via`: write one of letters, digits, `-`, `.` and `_`, such as \"edge-1\""
                .into())
        }
    }
}

fn access_log(table: &Table<'_, '_>, folder: &Path, report: &mut Report<'_>) -> Option<AccessLog> {
    table.parsed("access-log", ACCESS_LOG_EXPECTED, report, |text| match text {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        "" => Err(format!("is no file: write {ACCESS_LOG_EXPECTED}")),
        _ if text.contains('\0') => Err("has a NUL character".into()),
        path => {
            let path = folder.join(path);
            if path.is_dir() {
                return Err("is a folder, not a file".into());
            }
            match path.parent() {
                Some(parent) if !parent.is_dir() => {
                    Err(format!("cannot be written: there is no folder {}; make it first", parent.display()))
                }
                _ => Ok(AccessLog::File(path)),
            }
        }
    })
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
