//! A journey as a person writes it: `lethe`'s own format, in TOML. `docs/journeys.md` describes it.

mod channel;
mod field;
mod step;

use std::{fs, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

pub(crate) use self::step::DECIDED;
use crate::{
    journey::{Journey, STEPS_MAX},
    problem::{Problem, Problems, Report},
    template::{self, Template},
};

/// The most bytes of a file.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

const KEYS: [&str; 5] = ["name", "host", "headers", "variables", "steps"];

/// Reads the journey in the file at `path`; files that it sends are looked for beside it.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path) -> Result<Journey, Problems> {
    let file = path.display().to_string();
    let problem = |message: String| Problems::from(Problem { file: file.clone(), place: None, message });
    of_bytes(bytes(path, FILE_BYTES_MAX).map_err(problem)?, path)
}

/// Reads the journey in `bytes`, which are those of the file at `path`.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn of_bytes(bytes: Vec<u8>, path: &Path) -> Result<Journey, Problems> {
    let file = path.display().to_string();
    let problem = |message: String| Problems::from(Problem { file: file.clone(), place: None, message });
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(problem(format!("is longer than {} MiB, the most that is read", FILE_BYTES_MAX >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let whole = String::from_utf8_lossy(error.as_bytes());
        let place = Some(crate::problem::place(&whole, at));
        Problem { file: file.clone(), place, message: "this is no UTF-8: save the file as UTF-8".into() }
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new(""));
    read(&text, &file, &name, folder)
}

/// Reads a journey. `file` is what it is called in messages, `name` what the journey is called unless it says so itself, and `folder`
/// where the files are that it sends.
///
/// # Errors
/// All that is wrong with it.
pub fn read(text: &str, file: &str, name: &str, folder: &Path) -> Result<Journey, Problems> {
    let mut report = Report::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if let Some(error) = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)) {
        report.at(error.span().unwrap_or(0..0), format!("not valid TOML: {}", error.message()));
        return report.finish(None);
    }
    let journey = journey(table.get_ref(), name, folder, &mut report);
    report.finish(Some(journey))
}

fn journey(table: &DeTable<'_>, name: &str, folder: &Path, report: &mut Report<'_>) -> Journey {
    field::check_keys(table, &KEYS, "", report);
    let name =
        field::text(table, "name", report).map_or_else(|| name.to_owned(), |(name, _)| name.to_owned());
    let host = field::text(table, "host", report).and_then(|(host, span)| {
        let is_host = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        if !is_host {
            report.at(
                span,
                format!("`{host}` is no host: write one as \"shop.example\" or \"localhost:8080\""),
            );
        }
        is_host.then(|| host.to_owned())
    });
    let headers = table.get("headers").map(|value| step::headers(value, report)).unwrap_or_default();
    let variables = table.get("variables").map(|value| variables(value, report)).unwrap_or_default();
    let mut journey = Journey { name, host, variables, steps: Vec::new(), notes: Vec::new() };
    let steps = match table.get("steps").map(|value| (value.get_ref(), value.span())) {
        Some((DeValue::Array(steps), _)) if !steps.is_empty() => steps,
        Some((_, span)) => {
            report.at(span, "`steps` must be a list of tables: write [[steps]] above each step");
            return journey;
        }
        None => {
            report.whole("there are no steps: write [[steps]] and below it, for example, get = \"/\"");
            return journey;
        }
    };
    for (at, value) in steps.iter().enumerate() {
        if at == STEPS_MAX {
            report.at(value.span(), format!("a journey has {STEPS_MAX} steps at most: make several of it"));
            break;
        }
        let DeValue::Table(entries) = value.get_ref() else {
            report.at(value.span(), "a step is a table: write [[steps]] above it");
            continue;
        };
        let mut step = step::read(entries, value.span(), at + 1, folder, &journey.steps, report);
        // A step's own field stands for the journey's.
        let own: Vec<_> = step.headers.iter().map(|(name, _)| name.clone()).collect();
        step.headers.splice(0..0, headers.iter().filter(|(name, _)| !own.contains(name)).cloned());
        check_variables(&journey, &step, value.span(), report);
        journey.steps.push(step);
    }
    journey
}

/// Each may use those above it.
fn variables(value: &field::Value<'_>, report: &mut Report<'_>) -> Vec<(String, Template)> {
    let mut variables: Vec<(String, Template)> = Vec::new();
    for (name, span, value) in field::entries(value, "variables", "user = \"ada-{{identity}}\"", report) {
        if !template::is_name(name) {
            report.at(span, format!("`{name}` is no name of a variable: use letters, digits, `_` and `-`"));
            continue;
        }
        if [template::IDENTITY, template::ORIGIN].contains(&name) {
            report.at(span, format!("`{name}` is given to each run: call the variable something else"));
            continue;
        }
        let Some(template) = variable(name, value, report) else { continue };
        let builtin = [template::IDENTITY, template::ORIGIN];
        let known = || variables.iter().map(|(name, _)| name.as_str()).chain(builtin);
        for unknown in template.names().filter(|name| !known().any(|known| known == *name)) {
            let next = crate::problem::suggestion(unknown, known().collect::<Vec<_>>());
            report.at(value.span(), format!("the variable `{unknown}` is not there yet; {next}"));
        }
        variables.push((name.to_owned(), template));
    }
    variables
}

/// A text with variables; or `{ env = "NAME" }`, for what is not to stand in a file.
fn variable(name: &str, value: &field::Value<'_>, report: &mut Report<'_>) -> Option<Template> {
    let DeValue::Table(table) = value.get_ref() else { return field::template(name, value, report) };
    field::check_keys(table, &["env"], &format!(" in `{name}`"), report);
    let Some((key, span)) = field::text(table, "env", report) else {
        report.at(value.span(), format!("`{name}` must be a text, or {{ env = \"NAME\" }}"));
        return None;
    };
    match std::env::var(key) {
        Ok(text) => Some(Template::literal(text)),
        Err(_) => {
            report.at(
                span,
                format!("`{key}` is not in the environment, as a text: put {key}=… before the command"),
            );
            None
        }
    }
}

/// Reports each variable that the step uses and that has no value by then.
fn check_variables(
    journey: &Journey,
    step: &crate::journey::Step,
    span: Range<usize>,
    report: &mut Report<'_>,
) {
    let is_own = |name: &&str| step.captures.iter().any(|capture| capture.variable == *name);
    // What this step takes out of its response can be expected of it, but not be sent with it.
    let (mut awaited, mut arriving) = (Vec::new(), Vec::new());
    for name in step.arrives.iter().flat_map(|arrival| arrival.text.names()) {
        // A step that opens a channel takes its variables out of what arrives.
        if step.act.is_request() { awaited.push(name) } else { arriving.push(name) }
    }
    let expected = step.expect.names().chain(awaited).filter(|name| !is_own(name)).chain(arriving);
    let mut unknown: Vec<&str> =
        step.uses().chain(expected).filter(|name| !journey.knows(name, step.number)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    for name in unknown {
        let captures =
            journey.steps.iter().flat_map(|step| &step.captures).map(|capture| capture.variable.as_str());
        let known: Vec<&str> = journey
            .variables
            .iter()
            .map(|(name, _)| name.as_str())
            .chain(captures)
            .chain([template::IDENTITY, template::ORIGIN])
            .collect();
        let next = crate::problem::suggestion(name, known);
        report.at(
            span.clone(),
            format!("step {} uses the variable `{name}`, which has no value by then; {next}", step.number),
        );
    }
}

/// The bytes of a file, which may not be longer than `bytes_max`. The error is a sentence.
pub(crate) fn bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let too_long = || format!("is longer than {} MiB, the most that is read", bytes_max >> 20);
    // Nothing is read of what is too long by its own account.
    if file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > bytes_max) {
        return Err(too_long());
    }
    // One more than may be, to see whether there is more; a size that the file tells may be that of a pipe.
    let read = file.by_ref().take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    match bytes.len() as u64 > bytes_max {
        true => Err(too_long()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
