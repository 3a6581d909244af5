//! A `Procfile`: lines of `name: command`, of which `web` is the one that receives requests.

use std::path::Path;

use lethe_model::service::ServiceName;

use super::{
    ServiceConfig,
    draft::Draft,
    problem::{Problem, Report, listed},
    program, route,
};

/// The process type that receives requests, and the name of its service.
const WEB: &str = "web";

/// Characters that only a shell understands; a line with one of them is given to it, any other is started directly.
const SHELL_CHARS: [char; 19] =
    ['$', '&', '|', ';', '<', '>', '(', ')', '{', '}', '[', ']', '*', '?', '~', '`', '!', '#', '='];

/// One line of it.
struct Line<'t> {
    name: &'t str,
    command: &'t str,
    /// Where the command begins in the text.
    command_at: usize,
}

/// Reads a `Procfile`; `folder` is where it is, absolute.
pub(super) fn read(text: &str, shown: &str, folder: &Path) -> Result<Draft, Vec<Problem>> {
    let mut report = Report::new(shown, text);
    let lines = lines(&mut report);
    let Some(web) = lines.iter().find(|line| line.name == WEB) else {
        if report.is_clean() {
            let there = match lines.is_empty() {
                true => "nothing".into(),
                false => listed(lines.iter().map(|line| line.name)),
            };
            let message = format!(
                "no `{WEB}` line: it is the one that receives requests, such as `{WEB}: python3 app.py`; there is \
                 {there}"
            );
            report.at(0..0, message);
        }
        return Err(report.finish());
    };
    let Some(service) = service(web, folder, &mut report).filter(|_| report.is_clean()) else {
        return Err(report.finish());
    };
    let others: Vec<&str> = lines.iter().map(|line| line.name).filter(|name| *name != WEB).collect();
    let mut draft = Draft::new(folder);
    draft.routes.push(route::everything_to(service.spec.name.clone()));
    draft.services.push(service);
    draft.file = Some(shown.into());
    if !others.is_empty() {
        draft.notices.push(format!(
            "{shown}: not run: {}; only `{WEB}` is, since the others listen for no requests",
            listed(others)
        ));
    }
    Ok(draft)
}

/// The lines that name a process, without blank ones and comments. Those that do not are reported.
fn lines<'t>(report: &mut Report<'t>) -> Vec<Line<'t>> {
    let mut lines: Vec<Line<'t>> = Vec::new();
    let mut at = 0;
    for source in report.text().split_inclusive('\n') {
        let start = at;
        at += source.len();
        let line = source.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line_at = start + (source.len() - source.trim_start().len());
        let span = line_at..line_at + line.len();
        let (name, command) = line.split_once(':').unwrap_or(("", line));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(plain) {
            report.at(
                span,
                "this is no `name: command`, such as `web: python3 app.py`; a comment begins with `#`",
            );
            continue;
        }
        let command_at = line_at + name.len() + 1 + (command.len() - command.trim_start().len());
        let command = command.trim();
        if command.is_empty() {
            report.at(span, format!("`{name}` has no command: write it after the `:`"));
        } else if let Some(first) = lines.iter().find(|other| other.name == name) {
            let first = report.line_of(first.command_at);
            report.at(span, format!("`{name}` is there twice, first on line {first}; remove one"));
        } else {
            lines.push(Line { name, command, command_at });
        }
    }
    lines
}

fn service(web: &Line<'_>, folder: &Path, report: &mut Report<'_>) -> Option<ServiceConfig> {
    let span = web.command_at..web.command_at + web.command.len();
    let command = if web.command.contains(SHELL_CHARS) {
        vec!["sh".into(), "-c".into(), web.command.into()]
    } else {
        match program::split(web.command) {
            Ok(words) => words,
            Err(why) => {
                report.at(span, format!("`{}` {why}", web.command));
                return None;
            }
        }
    };
    let name = ServiceName::new(WEB).ok()?;
    let mut service = ServiceConfig::new(name, command, folder.into());
    if let Err(why) = service.find_program() {
        report.at(span.clone(), why);
    }
    service.command_quote = Some(report.quote(span));
    Some(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Vec<String> {
        let draft = read(text, "Procfile", Path::new("/")).unwrap();
        assert_eq!(draft.routes[0].service, draft.services[0].spec.name);
        draft.services[0].spec.command.clone()
    }

    #[test]
    fn web_is_run() {
        assert_eq!(command("web: sh run.sh 'a b'"), ["sh", "run.sh", "a b"]);
        assert_eq!(command("# first\n\nweb:sh run.sh\r\n"), ["sh", "run.sh"]);
        assert_eq!(command("web: gunicorn -b :$PORT app:app"), ["sh", "-c", "gunicorn -b :$PORT app:app"]);
        assert_eq!(command("web: A=b sh run.sh"), ["sh", "-c", "A=b sh run.sh"]);
    }

    #[test]
    fn other_lines_are_named() {
        let draft = read("worker: x\nweb: sh y\nclock: z\n", "Procfile", Path::new("/")).unwrap();
        assert_eq!(draft.services.len(), 1);
        assert_eq!(
            draft.notices,
            [
                "Procfile: not run: `worker` and `clock`; only `web` is, since the others listen for no requests"
            ]
        );
    }

    fn check(text: &str, expected: &str) {
        let problems = read(text, "Procfile", Path::new("/")).err().unwrap();
        assert_eq!(
            super::super::Errors(problems).to_string(),
            expected.strip_prefix('\n').unwrap(),
            "{text}"
        );
    }

    #[test]
    fn says_exactly_what_is_wrong() {
        check(
            "",
            r#"
Procfile:1:1: no `web` line: it is the one that receives requests, such as `web: python3 app.py`; there is nothing"#,
        );
        check(
            "worker: x\nclock: y",
            r#"
Procfile:1:1: no `web` line: it is the one that receives requests, such as `web: python3 app.py`; there is `worker` and `clock`
  1 | worker: x
    | ^"#,
        );
        check(
            "web: sh\n  python3 app.py\nweb: sh\nclock:\nmy app: sh",
            r#"
Procfile:2:3: this is no `name: command`, such as `web: python3 app.py`; a comment begins with `#`
  2 |   python3 app.py
    |   ^^^^^^^^^^^^^^
Procfile:3:1: `web` is there twice, first on line 1; remove one
  3 | web: sh
    | ^^^^^^^
Procfile:4:1: `clock` has no command: write it after the `:`
  4 | clock:
    | ^^^^^^
Procfile:5:1: this is no `name: command`, such as `web: python3 app.py`; a comment begins with `#`
  5 | my app: sh
    | ^^^^^^^^^^"#,
        );
        check(
            "web: no-such-program",
            r#"
Procfile:1:6: `no-such-program` is no program in PATH: install it, or write its path
  1 | web: no-such-program
    |      ^^^^^^^^^^^^^^^"#,
        );
        check(
            "web: sh 'x",
            r#"
Procfile:1:6: `sh 'x` has a quote that is not closed: close it, or put `\` before it
  1 | web: sh 'x
    |      ^^^^^"#,
        );
    }
}
