//! The operations of a document: what is asked of each, in the order in which they are tried.

use http::Method;
use serde_json::Value;

use crate::openapi::reference::References;

/// The most operations that are read.
pub(super) const OPERATIONS_MAX: usize = 5000;

/// One operation.
pub(super) struct Operation<'d> {
    pub(super) method: Method,
    /// As in the document, as `/items/{id}`.
    pub(super) path: &'d str,
    /// Its own object.
    pub(super) object: &'d Value,
    /// Its parameters and those of its path, which it may replace; no references.
    pub(super) parameters: Vec<&'d Value>,
    /// What comes before its path, as `/v1`.
    pub(super) base: String,
}

/// When an operation is tried: what makes things first, what deletes them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    SignIn,
    Create,
    Read,
    Change,
    List,
    Delete,
}

impl<'d> Operation<'d> {
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether its path ends with a parameter, as that of one thing does.
    pub(super) fn is_of_item(&self) -> bool {
        self.path.trim_end_matches('/').ends_with('}')
    }

    pub(super) fn rank(&self) -> Rank {
        match self.method {
            Method::DELETE => Rank::Delete,
            Method::POST if !self.path.contains('{') => Rank::Create,
            Method::POST | Method::PUT | Method::PATCH => Rank::Change,
            _ if self.path.contains('{') => Rank::Read,
            _ => Rank::List,
        }
    }

    /// Its responses of success, references followed, those that cannot be left out.
    pub(super) fn successes(&self, references: References<'d>) -> Vec<&'d Value> {
        let responses = self.object.get("responses").and_then(Value::as_object);
        let is_success = |status: &str| status.starts_with('2') || status.starts_with('3');
        let successes = responses.into_iter().flatten().filter(|(status, _)| is_success(status));
        successes.filter_map(|(_, response)| references.follow(response).ok()).collect()
    }
}

/// All operations, by path, and notes of what cannot be played.
pub(super) fn all<'d>(references: References<'d>, notes: &mut Vec<String>) -> Vec<Operation<'d>> {
    let mut operations = Vec::new();
    let paths = references.root.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        if path.starts_with("x-") {
            continue;
        }
        if let Err(why) = of_path(path, item, references, &mut operations, notes) {
            notes.push(format!("{path}: not played: {why}"));
        }
        if operations.len() > OPERATIONS_MAX {
            operations.truncate(OPERATIONS_MAX);
            notes.push(format!("the operations after the first {OPERATIONS_MAX} are not played"));
            break;
        }
    }
    if references.root.get("webhooks").is_some() {
        notes.push("webhooks are sent by the service, and are not played".into());
    }
    operations
}

fn of_path<'d>(
    path: &'d str,
    item: &'d Value,
    references: References<'d>,
    operations: &mut Vec<Operation<'d>>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    const METHODS: [&str; 8] = ["post", "get", "head", "put", "patch", "delete", "options", "trace"];
    if !path.starts_with('/') || path.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#') {
        return Err("this is no path: it begins with `/` and has no spaces".into());
    }
    let item = references.follow(item)?;
    for name in METHODS {
        let Some(object) = item.get(name) else { continue };
        let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| "its method is unknown".to_owned())?;
        if [Method::OPTIONS, Method::TRACE].contains(&method) {
            notes.push(format!("{method} {path}: not played: it is asked by browsers and proxies"));
            continue;
        }
        match parameters(item, object, references) {
            Ok(parameters) => {
                let base = base(&[object, item, references.root]);
                operations.push(Operation { method, path, object, parameters, base });
            }
            Err(why) => notes.push(format!("{method} {path}: not played: {why}")),
        }
    }
    Ok(())
}

fn parameters<'d>(
    item: &'d Value,
    object: &'d Value,
    references: References<'d>,
) -> Result<Vec<&'d Value>, String> {
    let mut found: Vec<&Value> = Vec::new();
    for parameter in [object, item].into_iter().filter_map(|at| at.get("parameters")?.as_array()).flatten() {
        let parameter = references.follow(parameter)?;
        let key = |of: &Value| (of.get("name").cloned(), of.get("in").cloned());
        if !found.iter().any(|known| key(known) == key(parameter)) {
            found.push(parameter);
        }
    }
    Ok(found)
}

/// The path of the nearest server, with the defaults of its variables.
fn base(nearest_first: &[&Value]) -> String {
    let server = nearest_first.iter().find_map(|at| at.get("servers")?.as_array()?.first());
    let Some(server) = server else { return String::new() };
    let mut url = server.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (name, variable) in server.get("variables").and_then(Value::as_object).into_iter().flatten() {
        let default = variable.get("default").and_then(Value::as_str).unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), default);
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url.as_str(),
    };
    let path = path.trim_end_matches('/');
    if path.starts_with('/') { path.to_owned() } else { String::new() }
}
