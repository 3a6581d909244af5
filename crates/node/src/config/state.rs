//! `state`: the folder that `lethe` keeps state in, and which engine keeps each kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
};

use lethe_state::{
    open,
    place::{Address, EngineName, Kind, Placement, expand},
};
use toml::de::DeValue;

use super::{
    problem::{Report, listed},
    table::{Table, Text, Value, bad_value},
};

/// What `[state]` may say: where all is that is not placed, and where each kind is.
pub(super) const KEYS: [&str; 8] =
    ["url", "sessions", "tables", "blobs", "limits", "idempotency", "locks", "cache"];

const EXPECTED: &str = "a folder such as `\".lethe\"`, or a URL such as `\"redis://127.0.0.1\"`";
const KIND_EXPECTED: &str = "`\"embedded\"`, or a URL such as `\"redis://127.0.0.1\"`";

/// What the file says of state.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The folder of the embedded engine, if it is named.
    pub(super) folder: Option<PathBuf>,
    /// The engine of each kind.
    pub(super) placement: Placement,
    /// The environment variables that stand in addresses.
    pub(super) variables: BTreeSet<String>,
}

/// Reads `state = "…"`, or `[state]`; a folder is relative to `folder`. What is wrong is reported.
pub(super) fn read(table: &Table<'_, '_>, folder: &Path, report: &mut Report<'_>) -> State {
    read_with(table, folder, &|name| std::env::var(name).ok(), report)
}

/// The same, where `env` gives the environment's variables.
fn read_with(
    table: &Table<'_, '_>,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    report: &mut Report<'_>,
) -> State {
    let Some(value) = table.value("state") else { return State::default() };
    let mut state = State::default();
    let DeValue::Table(entries) = value.get_ref() else {
        if let Some(text) = table.text("state", EXPECTED, report) {
            state.place_all("state", &text, folder, env, report);
            state.check(&BTreeMap::new(), (value.span(), false), report);
        }
        return state;
    };
    let inner = Table::open("[state]".into(), value.span(), entries, &KEYS, report);
    if let Some(text) = inner.text("url", EXPECTED, report) {
        state.place_all("url", &text, folder, env, report);
    }
    let mut spans = BTreeMap::new();
    for kind in Kind::ALL {
        let Some(text) = inner.text(kind.name(), KIND_EXPECTED, report) else { continue };
        spans.insert(kind, text.span.clone());
        state.variables.extend(variables(text.text));
        match address(text.text, env) {
            Ok(Address::Embedded(Some(_))) => {
                let why = "names a folder, which `url` in [state] does for all kinds: write `embedded`";
                bad_value(kind.name(), &text, why, report);
            }
            Ok(address) => {
                state.placement.kinds.insert(kind, address);
            }
            Err(why) => refuse(kind.name(), &text, &why, report),
        }
    }
    state.check(&spans, (inner.value("url").map_or(value.span(), Value::span), true), report);
    state
}

impl State {
    /// Reads where all kinds are that are not placed by themselves.
    fn place_all(
        &mut self,
        key: &str,
        text: &Text<'_>,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        report: &mut Report<'_>,
    ) {
        let embedded = match text.text.split_once(':') {
            None => Some(text.text),
            Some(("embedded", path)) => Some(path),
            // What has a `:` but no scheme before it is a folder with an odd name.
            Some((scheme, _)) if !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') => {
                Some(text.text)
            }
            Some(_) => None,
        };
        if let Some(path) = embedded {
            match state_folder(path, folder) {
                Ok(path) => self.folder = Some(path),
                Err(why) => bad_value(key, text, &why, report),
            }
            return;
        }
        self.variables.extend(variables(text.text));
        match address(text.text, env) {
            Ok(address) => self.placement.default = address,
            Err(why) => refuse(key, text, &why, report),
        }
    }

    /// Reports each kind whose engine does not keep it, where it is placed; `default` is where the others are, and `is_table`
    /// whether that is in a table, which can be added to.
    fn check(
        &self,
        spans: &BTreeMap<Kind, Range<usize>>,
        (default, is_table): (Range<usize>, bool),
        report: &mut Report<'_>,
    ) {
        let misplaced = |kind: &Kind| !self.placement.of(*kind).engine().keeps(*kind);
        let mut missing = Vec::new();
        for kind in Kind::ALL.into_iter().filter(misplaced) {
            let engine = self.placement.of(kind).engine();
            match spans.get(&kind) {
                Some(span) => {
                    let message = format!(
                        "the {} engine does not keep {}: {}",
                        engine.name(),
                        kind.name(),
                        keepers(kind)
                    );
                    report.at_secret(span.clone(), message);
                }
                None => missing.push(kind),
            }
        }
        if !missing.is_empty() {
            let kinds = listed(missing.iter().map(|kind| kind.name()));
            let lines: Vec<String> =
                missing.iter().map(|kind| format!("{} = \"embedded\"", kind.name())).collect();
            let first = if is_table { "" } else { "make it a table, [state] with this as its `url`, and " };
            let message = format!(
                "the {} engine does not keep {kinds}: {first}add to [state] {}; that is on this machine alone, and \
                 others are in docs/engines.md",
                self.placement.default.engine().name(),
                said(&lines),
            );
            report.at_secret(default, message);
        }
    }
}

/// Lines that are to be written, each on its own.
fn said(lines: &[String]) -> String {
    match lines {
        [line] => format!("the line `{line}`"),
        lines => format!("the lines {}", listed(lines.iter().map(String::as_str))),
    }
}

/// The engines that keep a kind.
fn keepers(kind: Kind) -> String {
    let engines = [
        EngineName::Embedded,
        EngineName::Redis,
        EngineName::Postgres,
        EngineName::S3,
        EngineName::Azure,
        EngineName::Gcs,
    ];
    let keepers = engines.into_iter().filter(|engine| engine.keeps(kind)).map(EngineName::name);
    format!("there are {} for it", listed(keepers))
}

/// Reports a value that may hold a password, without showing it.
fn refuse(key: &str, text: &Text<'_>, why: &str, report: &mut Report<'_>) {
    report.at_secret(text.span.clone(), format!("`{key}`: {why}"));
}

fn address(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Address, String> {
    let address = Address::parse(&expand(text, env)?).map_err(|why| format!("the address {why}"))?;
    open::check(&address)?;
    Ok(address)
}

/// The environment's variables that an address has in it.
fn variables(text: &str) -> impl Iterator<Item = String> {
    let names = text.split("${").skip(1);
    names.filter_map(|behind| behind.split_once('}')).map(|(name, _)| name.to_owned())
}

fn state_folder(path: &str, folder: &Path) -> Result<PathBuf, String> {
    if path.contains("//") {
        return Err(
            "is no folder: an address begins with `redis://`, `postgres://`, `s3://`, `azure://` or `gs://`"
                .into(),
        );
    }
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

#[cfg(test)]
mod tests {
    use super::{super::syntax, *};

    fn state(toml: &str) -> Result<State, String> {
        let mut report = Report::new("lethe.toml", toml);
        let root = syntax::parse(&mut report).unwrap();
        let table = Table::open(String::new(), 0..0, root.get_ref(), &["state"], &mut report);
        let env = |name: &str| (name == "PASSWORD").then(|| "se:cr@et".to_owned());
        let state = read_with(&table, Path::new("/shop"), &env, &mut report);
        let found: Vec<String> = report.finish().iter().map(ToString::to_string).collect();
        if found.is_empty() { Ok(state) } else { Err(found.join("\n")) }
    }

    #[test]
    fn a_folder_or_an_engine_is_for_all() {
        for (toml, folder) in [
            ("", None),
            ("state = 'data'", Some("/shop/data")),
            ("state = 'embedded:/srv/a b'", Some("/srv/a b")),
            ("[state]\nurl = 'embedded:data'", Some("/shop/data")),
        ] {
            let state = state(toml).unwrap();
            assert_eq!(state.folder.as_deref(), folder.map(Path::new), "{toml}");
            assert_eq!(state.placement, Placement::default());
        }
        let state = state("[state]\nurl = 'redis://cache'\nblobs = 'embedded'").unwrap();
        assert_eq!(state.folder, None);
        assert_eq!(state.placement.of(Kind::Tables).to_string(), "redis://cache");
        assert_eq!(state.placement.of(Kind::Blobs).to_string(), "embedded");
    }

    #[test]
    fn passwords_come_from_the_environment() {
        let state = state("[state]\ntables = 'postgres://app:${PASSWORD}@db/app'").unwrap();
        let Address::Url(_, url) = state.placement.of(Kind::Tables) else { panic!("a URL") };
        assert_eq!(url, "postgres://app:se:cr@et@db/app");
        assert_eq!(state.variables, ["PASSWORD".to_owned()].into());
        let twice = "a${B}c${D}e${F";
        assert_eq!(variables(twice).collect::<Vec<_>>(), ["B", "D"]);
    }

    #[test]
    fn mistakes_are_said_without_what_is_secret() {
        for (toml, expected) in [
            (
                "[state]\ntables = 'postgres://app:${MISSING}@db'",
                "lethe.toml:2:10: `tables`: the address needs the environment variable `MISSING`, which is not set: set \
                 it where lethe is started",
            ),
            (
                "[state]\ntables = 'mysql://app:secret@db'",
                "lethe.toml:2:10: `tables`: the address needs the engine `mysql`, which this version does not have; \
                 there are `embedded`, `redis://`, `postgres://`, `s3://`, `azure://` and `gs://`",
            ),
            (
                "[state]\nlimits = 'postgres://app:secret@db'",
                "lethe.toml:2:10: the postgres engine does not keep limits: there are `embedded` and `redis` for it",
            ),
            (
                "state = 'postgres://app:secret@db'",
                "lethe.toml:1:9: the postgres engine does not keep `blobs`, `limits` and `cache`: make it a table, \
                 [state] with this as its `url`, and add to [state] the lines `blobs = \"embedded\"`, `limits = \"embedded\"` and \
                 `cache = \"embedded\"`; that is on this machine alone, and others are in docs/engines.md",
            ),
            (
                "[state]\nurl = 'redis://:secret@cache'",
                "lethe.toml:2:7: the redis engine does not keep `blobs`: add to [state] the line `blobs = \"embedded\"`; that \
                 is on this machine alone, and others are in docs/engines.md",
            ),
            (
                "[state]\nblobs = 'embedded:x'",
                "lethe.toml:2:9: `blobs`: `embedded:x` names a folder, which `url` in [state] does for all kinds: write \
                 `embedded`\n  2 | blobs = 'embedded:x'\n    |         ^^^^^^^^^^^^",
            ),
        ] {
            assert_eq!(state(toml).unwrap_err(), expected);
        }
    }

    #[test]
    fn urls_are_read_as_their_engines_read_them() {
        for (toml, part) in [
            ("[state]\ntables = 'postgres://app:secret@db/app?pool=7'", "there is no parameter `pool`"),
            ("[state]\nlimits = 'redis://:secret@cache/?clusters'", "`clusters`"),
        ] {
            let said = state(toml).unwrap_err();
            assert!(said.contains(part) && !said.contains("secret"), "{said}");
        }
    }
}
