//! `[services.NAME]`: one service of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use lethe_model::service::ServiceName;
use lethe_supervisor::service::{Listener, Spec};
use toml::de::DeValue;

use super::{
    BUILD_TIMEOUT_DEFAULT, Build, DRAIN_DEFAULT, INSTANCES_DEFAULT, Instances, ServiceConfig, duration,
    fetch, grant, policy,
    problem::{Report, nearest},
    program, resources, rollout, scale,
    table::{Table, Text, Value, bad_value, integer, wrong_type},
    warm_up,
};

/// What a service may say.
pub(super) const KEYS: &[&str] = &[
    "command",
    "source",
    "build",
    "build-timeout",
    "instances",
    "ready",
    "listener",
    "drain",
    "env",
    "directory",
    "protocol",
    "concurrency",
    "slow-start",
    "eject",
    "health",
    "state",
    "rollout",
    "warm-up",
    "start-wait",
    "resources",
    "scale",
];

/// How long a build may be allowed to take.
const BUILD_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const BUILD_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Environment variables that workers get from `lethe`, beside all that begin with `LETHE_`.
const ENV_RESERVED: [&str; 5] = ["PORT", "SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

const COMMAND_EXPECTED: &str = "a command such as `\"python3 app.py\"` or `[\"python3\", \"app.py\"]`";

/// Reads the service `name`; relative folders are relative to `folder`. `None` if something without which there is no
/// service is missing or wrong, which is then reported.
pub(super) fn read(
    name: &str,
    name_span: Range<usize>,
    value: &Value<'_>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<ServiceConfig> {
    let title = format!("[services.{name}]");
    let name = ServiceName::new(name).map_err(|invalid| report.at(name_span, invalid.to_string())).ok();
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type(&format!("`{title}`"), "a table with a `command`", value, report);
        return None;
    };
    let table = Table::open(title, value.span(), entries, KEYS, report);
    let (source, follow) = fetch::read(&table, folder, report).unzip();
    // Also when the source is wrong: what is there is not what it would bring.
    let is_fetched = table.value("source").is_some();
    let directory = match is_fetched {
        true => directory_in_source(&table, report),
        false => directory(&table, folder, report),
    };
    let command = command(&table, report);
    let build = build(&table, report);
    let build_timeout = table.duration("build-timeout", BUILD_TIMEOUT_MIN..=BUILD_TIMEOUT_MAX, report);
    let build_timeout = build_timeout.unwrap_or(BUILD_TIMEOUT_DEFAULT);
    let instances = instances(&table, report);
    let ready = table.parsed("ready", "a path such as `\"/healthz\"`", report, ready_path);
    let listener = table.parsed("listener", "`\"port\"`, `\"inherited\"` or `\"socket\"`", report, listener);
    let drain = table.parsed("drain", duration::EXPECTED, report, duration::parse);
    let env = env(&table, report);
    let policy = policy::read(&table, report);
    let grant = grant::read(name.as_ref(), &table, report);
    let rollout = rollout::read(&table, report);
    let resources = resources::read(&table, report);
    let scale = scale::read(&table, instances, policy.concurrency, folder, report);
    let instances = scale.as_ref().map(|scale| scale.instances).or(instances).unwrap_or(INSTANCES_DEFAULT);
    let (directory, command) = (directory?, command?);
    let service = ServiceConfig {
        spec: Spec {
            name: name?,
            command: command.words,
            instances: instances.first(),
            ready,
            warm_up: warm_up::read(&table, report),
            listener: listener.unwrap_or_default(),
            protocol: policy.protocol,
            drain: drain.unwrap_or(DRAIN_DEFAULT),
            env,
            release: 0,
            withheld: BTreeSet::new(),
            directory: directory.clone(),
            resources,
        },
        instances,
        scale: scale.map(|read| read.scale),
        policy,
        grant,
        rollout,
        build: build.map(|build| Build {
            command: build.words,
            directory,
            text: build.text,
            timeout: build_timeout,
            withheld: BTreeSet::new(),
        }),
        source,
        follow: follow.flatten(),
        command_quote: Some(report.quote(command.span.clone())),
    };
    if service.build.is_none()
        && !is_fetched
        && let Err(why) = service.find_program()
    {
        report.at(command.span, format!("`command`: {why}"));
    }
    Some(service)
}

/// A command of the file.
struct Written {
    words: Vec<String>,
    /// As it was written, for people.
    text: String,
    span: Range<usize>,
}

fn command(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Written> {
    let Some(value) = table.value("command") else {
        if !table.was_tried("command") {
            let title = &table.title;
            let message = format!("{title} has no `command`: add one, such as command = \"python3 app.py\"");
            report.at(table.span.clone(), message);
        }
        return None;
    };
    let written = words(table, "command", value, report, program::split)?;
    let suggestion = format!("[\"sh\", \"-c\", {:?}]", written.text);
    if let Some(why) = program::wants_shell(&written.words, &suggestion) {
        bad_value("command", &Text { text: &written.text, span: written.span }, &why, report);
        return None;
    }
    Some(written)
}

fn build(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Written> {
    let through_shell = |text: &str| match text.trim() {
        "" => Ok(Vec::new()),
        text => Ok(vec!["sh".into(), "-c".into(), text.into()]),
    };
    words(table, "build", table.value("build")?, report, through_shell)
}

/// The words of a command: an array as it is, a text as `split` does it. Nothing at all is no command.
fn words(
    table: &Table<'_, '_>,
    key: &str,
    value: &Value<'_>,
    report: &mut Report<'_>,
    split: impl FnOnce(&str) -> Result<Vec<String>, String>,
) -> Option<Written> {
    let span = value.span();
    let (words, text) = match value.get_ref() {
        DeValue::String(text) => match split(text) {
            Ok(words) => (words, text.to_string()),
            Err(why) => {
                bad_value(key, &Text { text, span }, &why, report);
                return None;
            }
        },
        DeValue::Array(items) => {
            let mut words = Vec::new();
            for item in items {
                let DeValue::String(word) = item.get_ref() else {
                    wrong_type(&format!("each word of `{key}` in {}", table.title), "a string", item, report);
                    return None;
                };
                words.push(word.to_string());
            }
            let text = shell_words::join(&words);
            (words, text)
        }
        _ => {
            table.wrong_type(key, COMMAND_EXPECTED, value, report);
            return None;
        }
    };
    if words.first().is_none_or(String::is_empty) {
        report.at(span, format!("`{key}` in {} is empty: write {COMMAND_EXPECTED}", table.title));
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        report.at(
            span,
            format!("`{key}` in {} has a NUL character, which no program can be given", table.title),
        );
        return None;
    }
    Some(Written { words, text, span })
}

fn directory(table: &Table<'_, '_>, folder: &Path, report: &mut Report<'_>) -> Option<PathBuf> {
    let Some(text) = table.text("directory", "a folder such as `\".\"`", report) else {
        // Of the wrong type is reported; not there is where the file is.
        return table.value("directory").is_none().then(|| folder.to_path_buf());
    };
    let path = folder.join(text.text);
    let why = match path.canonicalize() {
        Ok(path) if path.is_dir() => return Some(path),
        Ok(_) => "is a file, not a folder".into(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("is no folder in {}; it is relative to the file", folder.display())
        }
        Err(error) => format!("cannot be used: {error}"),
    };
    bad_value("directory", &text, &why, report);
    None
}

/// A folder of what is fetched, which is not there yet.
fn directory_in_source(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let Some(text) = table.text("directory", "a folder of the source such as `\".\"`", report) else {
        return table.value("directory").is_none().then(PathBuf::new);
    };
    let path = Path::new(text.text);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Some(path.into());
    }
    bad_value(
        "directory",
        &text,
        "must be a folder of the `source`: write it without `..` or a leading `/`",
        report,
    );
    None
}

fn instances(table: &Table<'_, '_>, report: &mut Report<'_>) -> Option<Instances> {
    let value = table.value("instances")?;
    let (text, parsed) = match value.get_ref() {
        DeValue::Integer(number) => (number.to_string(), Instances::exactly(integer(number))),
        DeValue::String(text) => (text.to_string(), Instances::parse(text)),
        _ => {
            table.wrong_type(
                "instances",
                "a number such as `3` or a range such as `\"2..8\"`",
                value,
                report,
            );
            return None;
        }
    };
    parsed.map_err(|why| bad_value("instances", &Text { text: &text, span: value.span() }, &why, report)).ok()
}

fn listener(text: &str) -> Result<Listener, String> {
    match text {
        "port" => Ok(Listener::Port),
        "inherited" => Ok(Listener::Inherited),
        "socket" => Ok(Listener::Socket),
        _ => Err(match nearest(text, ["port", "inherited", "socket"]) {
            Some(near) => format!("is no kind of listener; did you mean \"{near}\"?"),
            None => "is no kind of listener: write \"port\" (the worker opens $PORT itself), \"socket\" (it opens the \
                     unix socket $SOCKET) or \"inherited\" (it is given an open socket)"
                .into(),
        }),
    }
}

pub(super) fn ready_path(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err("is a URL: write the path alone, such as \"/healthz\"".into());
    }
    if !text.starts_with('/') {
        return Err(format!("must begin with `/`: write \"/{text}\""));
    }
    // What a request line may carry (RFC 9112, section 3.2): visible ASCII, and no fragment.
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains('#') {
        return Err(
            "is not a path: percent-encode spaces and letters outside ASCII, and leave out `#`".into()
        );
    }
    Ok(text.into())
}

fn env(table: &Table<'_, '_>, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(value) = table.value("env") else { return env };
    let DeValue::Table(entries) = value.get_ref() else {
        table.wrong_type("env", "a table such as `{ RUST_LOG = \"info\" }`", value, report);
        return env;
    };
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        if ENV_RESERVED.contains(&name) || name.starts_with("LETHE_") {
            report.at(key.span(), format!("`env`: `{name}` is given to each worker by lethe; remove it"));
        } else if name.is_empty() || name.contains(['=', '\0']) {
            report.at(key.span(), format!("`env`: `{name}` is no name: use letters, digits and `_`"));
        } else if let DeValue::String(text) = value.get_ref() {
            if text.contains('\0') {
                report.at(value.span(), format!("`env`: the value of `{name}` has a NUL character"));
            }
            env.insert(name.into(), text.to_string());
        } else {
            wrong_type(&format!("`{name}` in `env`"), "a string, such as `\"1\"`", value, report);
        }
    }
    env
}
