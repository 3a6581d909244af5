//! What can be typed: the verbs, and what those that talk to a running `lethe` have in common.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::verb;

const EXAMPLES: &str = "\
Examples:
  lethe up                      run the services of ./lethe.toml or ./Procfile
  lethe up -- python3 app.py    run any program, with no file at all
  lethe ps                      see the workers
  lethe kill shop-1             kill one with SIGKILL, and see that nobody notices";

/// Runs any web service as disposable, interchangeable workers.
#[derive(Debug, Parser)]
#[command(name = "lethe", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is documented where it is defined, and shown in the help from there")]
pub enum Verb {
    Up(verb::up::Up),
    Ps(verb::ps::Ps),
    Logs(verb::logs::Logs),
    Kill(verb::kill::Kill),
    Drain(verb::drain::Drain),
    Scale(verb::scale::Scale),
    Restart(verb::restart::Restart),
    Reload(verb::reload::Reload),
    Deploy(verb::deploy::Deploy),
    Rollback(verb::rollback::Rollback),
    History(verb::history::History),
    Upgrade(verb::upgrade::Upgrade),
    State(verb::state::State),
    Simulate(verb::simulate::Simulate),
    Prove(verb::prove::Prove),
    Record(verb::record::Record),
    Load(Box<verb::load::Load>),
    Export(verb::export::Export),
    Down(verb::down::Down),
    Completions(verb::completions::Completions),
}

impl Arguments {
    /// Reads the command line of this process, and whether its verb is to answer as JSON. Ends the process if it cannot
    /// be understood, or asks for help.
    pub fn read() -> (Self, bool) {
        let read = Self::command().try_get_matches().and_then(|mut matches| {
            let is_json = is_json(&matches);
            Ok((Self::from_arg_matches_mut(&mut matches)?, is_json))
        });
        read.unwrap_or_else(|error| {
            let line: Vec<_> = std::env::args_os().skip(1).collect();
            refuse(&with_hyphens(error, &line), line.into_iter())
        })
    }
}

/// Verbs that take a program behind `--`.
const RUNNING: [&str; 3] = ["up", "prove", "record"];

/// Where a program was typed without the `--` that belongs before it, says how the whole line is meant.
fn with_hyphens(mut error: clap::Error, line: &[OsString]) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument
        && error.get(ContextKind::SuggestedArg).is_none()
        && let Some(ContextValue::String(unexpected)) = error.get(ContextKind::InvalidArg)
        && let Some(meant) = hyphenated(line, unexpected)
    {
        let tip = format!("to run a program, write it behind `--`: `{meant}`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The line with `--` before the word that stands before `unexpected`, if that may be a program.
fn hyphenated(line: &[OsString], unexpected: &str) -> Option<String> {
    let words: Vec<&str> = line.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let (verb, rest) = words.split_first()?;
    let at = rest.iter().position(|word| *word == unexpected)?.checked_sub(1)?;
    let (before, program) = rest.split_at(at);
    let first = *program.first()?;
    let is_service = first.ends_with(".toml") || first.contains("Procfile") || Path::new(first).is_dir();
    if !RUNNING.contains(verb) || rest.contains(&"--") || first.starts_with('-') || is_service {
        return None;
    }
    Some(shell_words::join(["lethe", verb].iter().chain(before).chain(&["--"]).chain(program)))
}

/// Ends the process with what is wrong with its command line, as a JSON object if that was asked for.
fn refuse(error: &clap::Error, line: impl Iterator<Item = OsString>) -> ! {
    if error.use_stderr() && asks_for_json(line) {
        #[allow(clippy::print_stderr, reason = "this is where errors are shown")]
        {
            eprintln!("{}", as_json(error));
        }
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Whether a line that could not be understood has a `--json` of its own, before a program that is to be run.
fn asks_for_json(line: impl Iterator<Item = OsString>) -> bool {
    line.take_while(|word| word != "--").any(|word| word == "--json")
}

/// `{"error": …, "because": []}`, as other failures are told: what is wrong and what would be right, on one line.
fn as_json(error: &clap::Error) -> serde_json::Value {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage:"));
    let lines = lines.filter(|line| !line.starts_with("For more information"));
    // What follows a colon is listed below it.
    let text = lines.fold(String::new(), |text, line| match text.as_str() {
        "" => line.into(),
        said if said.ends_with(':') => format!("{said} {line}"),
        said => format!("{said}; {line}"),
    });
    serde_json::json!({ "error": text.strip_prefix("error: ").unwrap_or(&text), "because": [] })
}

/// Whether the verb has `--json` and was given it.
fn is_json(matches: &ArgMatches) -> bool {
    let mut verb = matches;
    while let Some((_, inner)) = verb.subcommand() {
        verb = inner;
    }
    verb.try_get_one::<bool>("json").ok().flatten() == Some(&true)
}

impl Verb {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Up(up) => up.run(),
            Self::Ps(ps) => ps.run(),
            Self::Logs(logs) => logs.run(),
            Self::Kill(kill) => kill.run(),
            Self::Drain(drain) => drain.run(),
            Self::Scale(scale) => scale.run(),
            Self::Restart(restart) => restart.run(),
            Self::Reload(reload) => reload.run(),
            Self::Deploy(deploy) => deploy.run(),
            Self::Rollback(rollback) => rollback.run(),
            Self::History(history) => history.run(),
            Self::Upgrade(upgrade) => upgrade.run(),
            Self::State(state) => state.run(),
            Self::Simulate(simulate) => simulate.run(),
            Self::Prove(prove) => prove.run(),
            Self::Record(record) => record.run(),
            Self::Load(load) => load.run(),
            Self::Export(export) => export.run(),
            Self::Down(down) => down.run(),
            Self::Completions(completions) => completions.run(),
        }
    }
}

/// Which running `lethe` is meant, and how it answers.
#[derive(Clone, Debug, Default, Args)]
pub struct Target {
    /// The state folder of the lethe that is meant [default: that of this folder, or the only one that runs]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Answer as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_status(line: &str) -> i32 {
        match Arguments::try_parse_from(line.split(' ')) {
            Ok(_) => 0,
            Err(error) => error.exit_code(),
        }
    }

    #[test]
    fn is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Lethe's own, such as a session's, may begin with a hyphen.
    #[test]
    fn a_handle_is_no_option() {
        assert_eq!(exit_status("lethe state sessions revoke ada --handle -u4wC4LEDUAB"), 0);
    }

    #[test]
    fn a_program_without_hyphens_is_recognized() {
        for (line, expected) in [
            ("lethe prove python3 app.py", Some("lethe prove -- python3 app.py")),
            (
                "lethe prove --seed 7 venv/bin/python -u app.py",
                Some("lethe prove --seed 7 -- venv/bin/python -u app.py"),
            ),
            ("lethe up --listen 80 gunicorn --bind x", Some("lethe up --listen 80 -- gunicorn --bind x")),
            ("lethe record ./serve x --json", Some("lethe record -- ./serve x --json")),
            ("lethe up src more", None),
            ("lethe up lethe.toml more", None),
            ("lethe prove --jurney x", None),
            ("lethe ps shop-1 more", None),
        ] {
            let words: Vec<OsString> = line.split(' ').skip(1).map(OsString::from).collect();
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            let text = with_hyphens(error, &words).render().to_string();
            match expected {
                Some(meant) => assert!(text.contains(&format!("behind `--`: `{meant}`")), "{line}: {text}"),
                None => assert!(!text.contains("behind `--`"), "{line}: {text}"),
            }
        }
    }

    #[test]
    fn json_is_asked_for() {
        for (line, expected) in [
            ("lethe ps --json", true),
            ("lethe ps", false),
            ("lethe up -- x --json", false),
            ("lethe state tables get a b --json", true),
            ("lethe simulate case.json --json", true),
        ] {
            let matches = Arguments::command().try_get_matches_from(line.split(' ')).unwrap();
            assert_eq!(is_json(&matches), expected, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_told_as_json_too() {
        for (line, expected) in [
            ("ps --json --nothing", true),
            ("kill", false),
            ("up -- x --json", false),
            ("state limits --json", true),
        ] {
            assert_eq!(asks_for_json(line.split(' ').map(OsString::from)), expected, "{line}");
        }
        let error = Arguments::try_parse_from("lethe scale shop --json".split(' ')).unwrap_err();
        let json = as_json(&error);
        let text = json["error"].as_str().unwrap();
        assert!(text.starts_with("invalid value 'shop'") && text.contains("shop=3"), "{text}");
        assert!(!text.contains('\n') && !text.contains("Usage:"), "{text}");
        assert_eq!(json["because"], serde_json::json!([]));
        let error = Arguments::try_parse_from("lethe simulate --json".split(' ')).unwrap_err();
        assert_eq!(as_json(&error)["error"], "the following required arguments were not provided: <CASE>");
    }

    #[test]
    fn what_is_understood() {
        for line in [
            "lethe up",
            "lethe up examples/shop --listen :80 --instances 2..8 --state-dir /x --log json --no-table",
            "lethe up -- python3 app.py --port 80",
            "lethe ps --json",
            "lethe logs -f shop --lines 10",
            "lethe drain shop-1",
            "lethe drain --host",
            "lethe drain --host --deadline 90s --settle 1s --json",
            "lethe kill shop-1",
            "lethe kill shop-1 --signal TERM",
            "lethe kill shop-1 --signal 9",
            "lethe scale shop=3 --state-dir .lethe",
            "lethe scale shop=auto mail=2",
            "lethe scale shop mail --why --json",
            "lethe scale shop --why --case 3",
            "lethe scale shop --tell emails=17.5 --json",
            "lethe restart shop",
            "lethe reload --json",
            "lethe deploy shop",
            "lethe deploy shop --source #v1.3 --message new --detach --json",
            "lethe deploy shop --wait",
            "lethe deploy shop --follow",
            "lethe deploy shop --abort",
            "lethe rollback shop --to 3",
            "lethe history shop --json",
            "lethe upgrade",
            "lethe upgrade --binary ./lethe --timeout 5 --json",
            "lethe up --tls-self-signed",
            "lethe state tables put a b - --ttl 5 --absent",
            "lethe state tables scan a --prefix b --limit 5 --json",
            "lethe state sessions revoke ada --all",
            "lethe state sessions revoke ada --handle x --json",
            "lethe state blobs cp a.png blob:b/k --type image/png",
            "lethe simulate case.json --json",
            "lethe simulate --trace load.csv --service-time 50ms --startup 2s --compare hpa,kpa,target,lethe",
            "lethe prove",
            "lethe prove --journey a.toml --journey b.toml -- node server.js",
            "lethe prove examples/shop --journey a.toml --reset true --workers 2 --seed 7 --json -",
            "lethe record",
            "lethe record examples/shop --service shop -o a.toml --listen 127.0.0.1:8080 --force",
            "lethe record --url http://127.0.0.1:3000 --assets",
            "lethe record -- node server.js",
            "lethe record --from shopping.har -o shopping.toml",
            "lethe export kubernetes",
            "lethe export kubernetes examples/shop --image shop:1 --secret A --secret B --with-lethe -o k8s",
            "lethe export aws -o -",
            "lethe down --now",
            "lethe completions bash",
            "lethe --help",
        ] {
            assert_eq!(exit_status(line), 0, "{line}");
        }
    }

    #[test]
    fn what_is_refused_with_status_2() {
        for line in [
            "lethe",
            "lethe nothing",
            "lethe up a b",
            "lethe up a -- b",
            "lethe up --log xml",
            "lethe drain",
            "lethe drain shop-1 --host",
            "lethe drain shop-1 --deadline 5s",
            "lethe drain --host --deadline soon",
            "lethe kill",
            "lethe kill shop-1 --signal FOO",
            "lethe kill shop-1 --signal 0",
            "lethe kill shop-1 --signal 65",
            "lethe upgrade --timeout 0",
            "lethe deploy",
            "lethe deploy shop --abort --source #v1",
            "lethe deploy shop --wait --detach",
            "lethe rollback shop --to 0",
            "lethe rollback shop --to x",
            "lethe history",
            "lethe scale shop",
            "lethe scale shop=",
            "lethe scale shop=many",
            "lethe scale =3",
            "lethe scale shop=-1",
            "lethe scale shop=100000",
            "lethe scale shop=3 --why",
            "lethe scale shop=3 --case 1",
            "lethe scale shop --tell emails",
            "lethe scale shop --tell emails=",
            "lethe scale shop=3 --tell emails=1",
            "lethe scale Shop=3",
            "lethe completions klingon",
            "lethe simulate",
            "lethe simulate case.json --slots 2",
            "lethe simulate --trace load.csv --startup 2s",
            "lethe simulate case.json --trace load.csv --service-time 50ms --startup 2s",
            "lethe simulate --trace load.csv --service-time 50ms --startup 2s --compare k8s",
            "lethe simulate --trace load.csv --service-time 50 --startup 2s",
            "lethe prove a --journey b -- c",
            "lethe prove --journey",
            "lethe prove --ci reports --json proof.json",
            "lethe prove --journey a --workers 1",
            "lethe record a --url http://127.0.0.1:3000",
            "lethe record --url http://127.0.0.1:3000 -- a",
            "lethe record --from a.har --listen 127.0.0.1:0",
            "lethe export",
            "lethe export nomad",
            "lethe export aws --image x",
            "lethe state",
            "lethe state tables put a b c --absent --revision 1",
            "lethe state sessions revoke ada",
            "lethe state sessions revoke ada --all --handle x",
            "lethe state sessions show AAAAAAAAAAAAAAAAAAAAAA",
            "lethe state tables put a b c --ttl 0",
        ] {
            assert_eq!(exit_status(line), 2, "{line}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        for (line, wanted) in [
            ("lethe scale shop", "shop=3"),
            ("lethe kill shop-1 --signal FOO", "TERM"),
            ("lethe up --log xml", "possible values: text, json"),
            ("lethe restrat shop", "restart"),
            ("lethe state sessions show AAAAAAAAAAAAAAAAAAAAAA", "is a secret"),
            ("lethe state tables put a b c --ttl 0", "above zero"),
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
