//! A journey out of a description of a service (OpenAPI 3.0 and 3.1, JSON or YAML). What makes things is asked first; what its responses
//! are said to hold, by links or by properties that are called like an id, is what the paths of later steps need. What cannot be played
//! is named in a note.

mod operation;
mod reference;
mod request;
mod sample;

use std::path::Path;

use serde_json::Value;

use crate::{
    journey::{Journey, STEPS_MAX},
    openapi::{
        operation::{Operation, Rank},
        reference::References,
        request::Maker,
    },
    problem::{Problem, Problems},
};

/// The most bytes of a file.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Whether `bytes`, of the file at `path`, are meant to be such a description. No journey in TOML begins so.
pub fn is_meant(path: &Path, bytes: &[u8]) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    ["json", "yaml", "yml"].iter().any(|known| extension == *known)
        || text.starts_with('{')
        || text.lines().any(|line| line.starts_with("openapi:") || line.starts_with("swagger:"))
}

/// Makes a journey of the description. `file` is what it is called in messages, and `name` what the journey is called.
///
/// # Errors
/// Why there is no journey in it.
pub fn read(bytes: &[u8], file: &str, name: &str) -> Result<Journey, Problems> {
    let root = parse(bytes, file)?;
    let problem = |message: String| Problems::from(Problem { file: file.to_owned(), place: None, message });
    check_version(&root).map_err(problem)?;
    let mut notes = Vec::new();
    let references = References { root: &root };
    let operations = operation::all(references, &mut notes);
    if operations.is_empty() {
        return Err(problem(format!("there is no operation under `paths`{}", because(&notes))));
    }
    let mut maker = Maker::new(references, name);
    play(operations, &mut maker, &mut notes);
    if maker.journey.steps.is_empty() {
        return Err(problem(format!("no operation can be played{}", because(&notes))));
    }
    let mut journey = maker.journey;
    journey.notes.extend(notes);
    for note in &mut journey.notes {
        // A note quotes the document, and no document may write to a terminal as it likes.
        *note = note.replace(|c: char| c.is_control(), "\u{fffd}");
    }
    Ok(journey)
}

fn because(notes: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    let shown: String = notes.iter().take(SHOWN_MAX).map(|note| format!("; {note}")).collect();
    shown.replace(|c: char| c.is_control(), "\u{fffd}")
}

fn parse(bytes: &[u8], file: &str) -> Result<Value, Problems> {
    let problem = |place, message: String| {
        let message = message.replace(|c: char| c.is_control(), "\u{fffd}");
        Problems::from(Problem { file: file.to_owned(), place, message })
    };
    let text =
        std::str::from_utf8(bytes).map_err(|_| problem(None, "this is no UTF-8: save it as UTF-8".into()))?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| {
            let place = (error.line() > 0).then(|| (error.line(), error.column().max(1)));
            let message = match error.is_eof() {
                true => "the document ends in the middle: it was cut off when it was saved or copied".into(),
                false => format!("not valid JSON: {error}"),
            };
            problem(place, message)
        });
    }
    let documents =
        lethe_yaml::documents(text).map_err(|error| problem(None, format!("not valid YAML: {error}")))?;
    documents.into_iter().next().ok_or_else(|| problem(None, "the document is empty".into()))
}

fn check_version(root: &Value) -> Result<(), String> {
    // Without quotes, YAML has a number there.
    let version = root.get("openapi").map(crate::template::text);
    match version.as_deref() {
        Some(version) if version.starts_with("3.") => Ok(()),
        Some(version) => Err(format!("OpenAPI {version:?} is not read: 3.0 and 3.1 are")),
        None if root.get("swagger").is_some() => {
            Err("this is Swagger 2, which is not read: convert it to OpenAPI 3".into())
        }
        None if root.get("log").is_some() => {
            Err("this is a recording: call the file .har".into())
        }
        None => Err("this is no OpenAPI document: there is no `openapi: 3.…` at its top; a journey that you write is a .toml file".into()),
    }
}

/// Makes steps of operations: again and again the first in the order of ranks whose parameters have values.
fn play<'d>(operations: Vec<Operation<'d>>, maker: &mut Maker<'d>, notes: &mut Vec<String>) {
    let mut pending: Vec<Operation<'d>> = operations;
    pending.sort_by_key(|operation| {
        let depth = operation.path.matches('/').count();
        let rank = if maker.is_sign_in(operation) { Rank::SignIn } else { operation.rank() };
        // A part is deleted before the whole.
        (rank, if rank == Rank::Delete { usize::MAX - depth } else { depth })
    });
    while let Some(at) = pending.iter().position(|operation| maker.is_ready(operation)) {
        let operation = pending.remove(at);
        if maker.journey.steps.len() == STEPS_MAX {
            notes.push(format!("{}: not played: a journey has {STEPS_MAX} steps at most", operation.title()));
            continue;
        }
        if let Err(why) = maker.add(&operation) {
            notes.push(format!("{}: not played: {why}", operation.title()));
        }
    }
    for operation in pending {
        notes.push(format!("{}: not played: {}", operation.title(), maker.missing(&operation)));
    }
}

#[cfg(test)]
mod tests;
