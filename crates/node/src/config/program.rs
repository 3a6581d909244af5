//! A service's command: the text split into words, and the program looked up the way it will be started, so that a slip
//! is named before anything runs.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Words by which a shell is meant. Without one, they would reach the program as arguments.
const SHELL_WORDS: [&str; 11] = ["|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>"];

/// Splits a command as a shell does, quotes and backslashes included, and nothing else. The error is a sentence that
/// goes after the value.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    shell_words::split(text)
        .map_err(|_| "has a quote that is not closed: close it, or put `\\` before it".into())
}

/// What `command` expects of a shell though it is started without one, as a sentence that goes after the value.
/// `suggestion` is how to write it with a shell.
pub(super) fn wants_shell(command: &[String], suggestion: &str) -> Option<String> {
    let program = command.first()?;
    if is_shell(program) {
        return None;
    }
    if let Some((name, _)) = program.split_once('=').filter(|(name, _)| !name.contains('/')) {
        return Some(format!("sets `{name}` before the program: put it in `env`, or write {suggestion}"));
    }
    if let Some(word) = command.iter().find(|word| SHELL_WORDS.contains(&word.as_str())) {
        return Some(format!("uses `{word}`, and is started without a shell: write {suggestion}"));
    }
    let used = ["PORT", "SOCKET"].into_iter().find(|name| {
        let forms = [format!("${name}"), format!("${{{name}}}")];
        command.iter().any(|word| forms.iter().any(|form| word.contains(form)))
    })?;
    Some(format!(
        "uses `${used}`, which only a shell replaces, and is started without one: write {suggestion}"
    ))
}

fn is_shell(program: &str) -> bool {
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or(program);
    matches!(name, "sh" | "bash" | "dash" | "zsh" | "ksh" | "fish" | "ash")
}

/// Where the program of a command is: one with `/` relative to `directory`, another in `path`. The error is a sentence
/// that goes after the program's name, in which `absent` is what to do about a file that is not there.
pub(super) fn find(
    program: &str,
    directory: &Path,
    path: Option<&OsStr>,
    absent: &str,
) -> Result<PathBuf, String> {
    if program.contains('/') {
        let file = directory.join(program);
        return match file.metadata() {
            Err(_) => Err(format!("is not in {}: {absent}", directory.display())),
            Ok(metadata) if metadata.is_dir() => Err("is a folder, not a program".into()),
            Ok(metadata) if !executable(&metadata) => {
                Err(format!("is not executable: `chmod +x {program}`, or name the program that runs it"))
            }
            Ok(_) => Ok(file),
        };
    }
    let path = path.unwrap_or_default();
    if let Some(file) = look_up(program, path) {
        return Ok(file);
    }
    let here = directory.join(program);
    let next = if here.is_file() {
        format!(": write `./{program}` for the file in {}", directory.display())
    } else if program.contains(char::is_whitespace) {
        ": give the program and each argument as a word of its own".into()
    } else if look_up(&format!("{program}3"), path).is_some() {
        format!(": did you mean `{program}3`?")
    } else {
        ": install it, or write its path".into()
    };
    Err(format!("is no program in PATH{next}"))
}

fn look_up(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| file.metadata().is_ok_and(|metadata| metadata.is_file() && executable(&metadata)))
}

/// Whether anyone may execute it. Who exactly is left to the system, which says so when the worker is started.
fn executable(metadata: &std::fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap()
    }

    #[test]
    fn splits_as_a_shell_does() {
        assert_eq!(words(r#"a "b c" 'd e' f\ g"#), ["a", "b c", "d e", "f g"]);
        assert_eq!(words("  "), Vec::<String>::new());
        assert!(split("a 'b").is_err());
    }

    #[test]
    fn shells_are_missed() {
        for (text, why) in [
            ("cd x && ./run", "`&&`"),
            ("RUST_LOG=info ./run", "`RUST_LOG`"),
            ("gunicorn -b 127.0.0.1:$PORT app:app", "`$PORT`"),
            ("x ${PORT}", "`$PORT`"),
        ] {
            let found = wants_shell(&words(text), "THIS").unwrap_or_default();
            assert!(found.contains(why) && found.contains("THIS"), "{text}: {found}");
        }
        for text in [
            "sh -c 'x $PORT'",
            "/bin/bash -c 'a && b'",
            "env A=b x",
            "./a=b/run",
            "run --x=y",
            "run '&&x'",
            "",
        ] {
            assert_eq!(wants_shell(&words(text), ""), None, "{text}");
        }
    }

    #[test]
    fn programs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let good = file("good", 0o755);
        file("good3", 0o755);
        let text = file("text", 0o644);
        file("python3", 0o755);
        let at = |program: &str| find(program, folder.path(), Some(folder.path().as_os_str()), "THIS");
        assert_eq!(at("good"), Ok(good.clone()));
        assert_eq!(at("./good"), Ok(folder.path().join("./good")));
        assert_eq!(at(good.to_str().unwrap()), Ok(good));
        for (program, why) in [
            ("absent", "is no program in PATH: install it"),
            ("python", "did you mean `python3`?"),
            ("text", "write `./text`"),
            ("python3 app.py", "a word of its own"),
            ("./absent", ": THIS"),
            ("./text", "chmod +x ./text"),
            (text.to_str().unwrap(), "is not executable"),
            ("./", "is a folder"),
        ] {
            let error = at(program).unwrap_err();
            assert!(error.contains(why), "{program}: {error}");
        }
        assert!(find("good", folder.path(), None, "").is_err());
    }
}
