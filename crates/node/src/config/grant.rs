//! `state` of `[services.NAME]`: what a service may use of what is kept.

use lethe_model::service::ServiceName;
use lethe_state::{
    grant::{Grant, NAMES_MAX, Pattern, Resource},
    realm::{self, Realm},
};
use toml::de::DeValue;

use super::{
    problem::Report,
    table::{Table, Text, Value, bad_value, wrong_type},
};

/// What a grant may say.
pub(super) const KEYS: [&str; 7] =
    ["tables", "buckets", "caches", "limits", "locks", "idempotency", "sessions"];

const EXPECTED: &str =
    "a table of what the service may use, such as `{ tables = [\"orders\"], sessions = true }`";
const SESSIONS_EXPECTED: &str = "`true`, for sessions of its own, or a name such as `\"shop\"`, for those of all services that have this name";
const NAMES_EXPECTED: &str = "a list of names, such as `[\"orders\", \"cart-*\"]`";

/// Reads it from the table of a service. `None` if it is not there: then the service may use everything.
pub(super) fn read(
    service: Option<&ServiceName>,
    table: &Table<'_, '_>,
    report: &mut Report<'_>,
) -> Option<Grant> {
    let value = table.value("state")?;
    let DeValue::Table(entries) = value.get_ref() else {
        match value.get_ref() {
            // In TOML a key goes to the table last opened.
            DeValue::String(_) => {
                let message = format!(
                    "`state`{} must be {EXPECTED}; where all state is kept is said by `state` at the top of the file, \
                     before the first [table]",
                    table.inside()
                );
                report.at(value.span(), message);
            }
            _ => table.wrong_type("state", EXPECTED, value, report),
        }
        return None;
    };
    let inner = table.inner("state", value, entries, &KEYS, report);
    let mut grant = Grant::default();
    grant.sessions = sessions(service, &inner, report);
    for resource in Resource::ALL {
        if let Some(value) = inner.value(resource.name()) {
            grant.give(resource, names(&inner, resource, value, report));
        }
    }
    Some(grant)
}

// A service's own sessions have its name.
const _: () = assert!(lethe_model::service::NAME_BYTES_MAX <= realm::NAME_BYTES_MAX);

/// The sessions of a service: `true` for those of its own, or the name of some that others may have too.
fn sessions(service: Option<&ServiceName>, table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Realm> {
    let value = table.value("sessions")?;
    let name = match value.get_ref() {
        DeValue::Boolean(false) => return None,
        DeValue::Boolean(true) if service.is_some_and(|name| name.as_str() == realm::COMMON) => {
            let message = format!(
                "`sessions`{}: \"{}\" are those of services without `state`: write `sessions = \"{}\"` if they are meant, or \
                 another name",
                table.inside(),
                realm::COMMON,
                realm::COMMON
            );
            report.at(value.span(), message);
            return None;
        }
        DeValue::Boolean(true) => service?.as_str(),
        DeValue::String(name) => name,
        _ => {
            table.wrong_type("sessions", SESSIONS_EXPECTED, value, report);
            return None;
        }
    };
    Realm::named(name)
        .map_err(|error| report.at(value.span(), format!("`sessions`{}: {error}", table.inside())))
        .ok()
}

fn names(
    table: &Table<'_, '_>,
    resource: Resource,
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Vec<Pattern> {
    let key = resource.name();
    let items = match value.get_ref() {
        DeValue::Array(items) => items,
        DeValue::String(text) => {
            let message = format!("`{key}`{} must be a list: write [\"{text}\"]", table.inside());
            report.at(value.span(), message);
            return Vec::new();
        }
        _ => {
            table.wrong_type(key, NAMES_EXPECTED, value, report);
            return Vec::new();
        }
    };
    if items.len() > NAMES_MAX {
        let message = format!(
            "`{key}`{} has {} names, over the limit of {NAMES_MAX}: give those that begin alike as one, such as \"cart-*\"",
            table.inside(),
            items.len()
        );
        report.at(value.span(), message);
        return Vec::new();
    }
    let pattern = |item: &Value<'_>| {
        let DeValue::String(text) = item.get_ref() else {
            wrong_type(
                &format!("each of `{key}`{}", table.inside()),
                "a name such as `\"orders\"`",
                item,
                report,
            );
            return None;
        };
        let parsed = Pattern::parse(resource, text);
        parsed.map_err(|why| bad_value(key, &Text { text, span: item.span() }, &why, report)).ok()
    };
    items.iter().filter_map(pattern).collect()
}
