//! `warm-up` of a service: the paths that a new worker is asked for before it gets requests.

use toml::de::DeValue;

use super::{
    problem::Report,
    service::ready_path,
    table::{Table, Text, bad_value, wrong_type},
};

/// Most paths: a warm-up is bounded in time, and a longer list would not come to its end.
const PATHS_MAX: usize = 100;

const KEY: &str = "warm-up";
const EXPECTED: &str = "paths such as `[\"/\", \"/catalogue\"]`";

/// Reads them; what is wrong is reported and left out.
pub(super) fn read(table: &Table<'_, '_>, report: &mut Report<'_>) -> Vec<String> {
    let Some(value) = table.value(KEY) else { return Vec::new() };
    let items: Vec<_> = match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        DeValue::String(_) => vec![value],
        _ => {
            table.wrong_type(KEY, EXPECTED, value, report);
            return Vec::new();
        }
    };
    if items.len() > PATHS_MAX {
        report.at(value.span(), format!("`{KEY}`: {} paths are too many; at most {PATHS_MAX}", items.len()));
    }
    let mut paths = Vec::new();
    for item in items {
        let DeValue::String(text) = item.get_ref() else {
            wrong_type(
                &format!("each path of `{KEY}` in {}", table.title),
                "a path such as `\"/\"`",
                item,
                report,
            );
            continue;
        };
        match ready_path(text) {
            Ok(path) => paths.push(path),
            Err(why) => bad_value(KEY, &Text { text, span: item.span() }, &why, report),
        }
    }
    paths
}
