//! `lethe up -- COMMAND…`: one service, with no file at all.

use std::{ffi::OsStr, path::Path};

use lethe_model::service::{NAME_BYTES_MAX, ServiceName};

use super::{ServiceConfig, draft::Draft, problem::Problem, program, route};

/// Programs that say nothing about the service they run.
const RUNNERS: [&str; 26] = [
    "bash", "bun", "bundle", "cargo", "dash", "deno", "dotnet", "env", "go", "java", "make", "mix", "node",
    "npm", "npx", "perl", "php", "pnpm", "poetry", "python", "ruby", "sh", "uv", "uvx", "yarn", "zsh",
];

/// The name where nothing else gives one.
const NAME_FALLBACK: &str = "app";

/// Makes one service of `command`, which runs in `directory`.
pub(super) fn read(command: Vec<String>, directory: &Path) -> Result<Draft, Vec<Problem>> {
    let problem = |message: String| vec![Problem::new(message)];
    if command.first().is_none_or(String::is_empty) {
        return Err(problem("no command: write one after `--`, such as `lethe up -- python3 app.py`".into()));
    }
    let folder = directory.canonicalize().map_err(|error| {
        problem(format!("{}: cannot be used: {error}; go to a folder that is there", directory.display()))
    })?;
    let text = shell_words::join(&command);
    let suggestion = format!("`lethe up -- sh -c {}`", shell_words::quote(&command.join(" ")));
    if let Some(why) = program::wants_shell(&command, &suggestion) {
        return Err(problem(format!("`{text}` {why}")));
    }
    let name = service_name(&command, &folder);
    let service = ServiceConfig::new(name, command, folder.clone());
    service.find_program().map_err(problem)?;
    let mut draft = Draft::new(&folder);
    draft.routes.push(route::everything_to(service.spec.name.clone()));
    draft.services.push(service);
    Ok(draft)
}

/// A service is named after its program; where that only runs another, after the script (`python3 app.py`) or module
/// (`python3 -m http.server`); where there is none (`npm start`), after the folder.
fn service_name(command: &[String], folder: &Path) -> ServiceName {
    let stem = |text: &str| Path::new(text).file_stem().and_then(OsStr::to_str).map(str::to_owned);
    let program = command.first().and_then(|program| stem(program)).unwrap_or_default();
    // `python3.12` has the stem `python3`.
    let runner = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let said = if RUNNERS.contains(&runner) { script(&command[1..], stem) } else { Some(program) };
    let folder_name = folder.file_name().and_then(OsStr::to_str).map(str::to_owned);
    [said, folder_name, Some(NAME_FALLBACK.into())]
        .into_iter()
        .flatten()
        .find_map(|text| ServiceName::new(&sanitised(&text)).ok())
        .expect("the last one is a service name")
}

/// What an interpreter with these arguments runs.
fn script(arguments: &[String], stem: impl Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(at) = arguments.iter().position(|argument| matches!(argument.as_str(), "-m" | "-c" | "-e")) {
        // What follows `-c` and `-e` is a program's text, not its name.
        return arguments.get(at + 1).filter(|_| arguments[at] == "-m").cloned();
    }
    let file = arguments.iter().find(|it| !it.starts_with('-') && Path::new(it).extension().is_some())?;
    stem(file)
}

/// `text` with all that a service name may not have replaced or left out; perhaps nothing is left.
fn sanitised(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        let keep = if name.is_empty() {
            c.is_ascii_lowercase()
        } else {
            c.is_ascii_lowercase() || c.is_ascii_digit()
        };
        if keep {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(NAME_BYTES_MAX);
    name.trim_end_matches('-').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (command, expected) in [
            ("python3 app.py", "app"),
            ("python3.12 -u src/my_app.py --x=y.z", "my-app"),
            ("/usr/bin/python3 -m http.server 8000", "http-server"),
            ("node server.js", "server"),
            ("deno run --allow-net main.ts", "main"),
            ("npm start", "guest-book"),
            ("cargo run", "guest-book"),
            ("sh -c 'exec ./x.sh'", "guest-book"),
            ("./target/release/Shop", "shop"),
            ("./serve.sh", "serve"),
            ("java -jar build/api-1.0.jar", "api-1-0"),
            ("./123", "guest-book"),
            (&"x".repeat(60), &"x".repeat(40)),
        ] {
            let words = program::split(command).unwrap();
            let name = service_name(&words, Path::new("/srv/2 Guest_Book!"));
            assert_eq!(name.as_str(), expected, "{command}");
        }
        assert_eq!(service_name(&["npm".into()], Path::new("/")).as_str(), "app");
    }

    #[test]
    fn one_service_gets_everything() {
        let folder = tempfile::tempdir().unwrap();
        let draft = read(program::split("sh run.sh").unwrap(), folder.path()).unwrap();
        let folder = folder.path().canonicalize().unwrap();
        assert_eq!(draft.state_dir, folder.join(".lethe"));
        assert_eq!(draft.services[0].spec.directory, folder);
        assert_eq!(draft.services[0].spec.name.as_str(), "run");
        assert_eq!((draft.routes.len(), draft.routes[0].path.as_str()), (1, "/"));
    }

    #[test]
    fn what_cannot_run_is_said() {
        for (command, expected) in [
            (&[][..], "no command: write one after `--`, such as `lethe up -- python3 app.py`"),
            (&["no-such-program"], "`no-such-program` is no program in PATH: install it, or write its path"),
            (
                &["gunicorn", "-b", ":$PORT"],
                "`gunicorn -b ':$PORT'` uses `$PORT`, which only a shell replaces, and is started without one: write \
                 `lethe up -- sh -c 'gunicorn -b :$PORT'`",
            ),
            (&["./absent"], "`./absent` is not in /: check the path, or build it first"),
            (
                &["sh -c true"],
                "`sh -c true` is no program in PATH: give the program and each argument as a word of its own",
            ),
        ] {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            let problems = read(command, Path::new("/")).err().unwrap();
            assert_eq!(super::super::Errors(problems).to_string(), expected);
        }
    }
}
