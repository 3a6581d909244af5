//! Which file `lethe up [DIR|FILE]` means, and what to say when there is none.

use std::{ffi::OsStr, os::unix::fs::PermissionsExt, path::Path};

use super::{FILE_NAME, PROCFILE_NAME, draft::Draft, file, problem::Problem, procfile};

/// Reads the file at `path`, or the one that the folder at `path` has.
pub(super) fn read(path: &Path) -> Result<Draft, Vec<Problem>> {
    let problem = |message: String| vec![Problem::new(message)];
    let shown = path.display();
    let metadata = path.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            problem(format!("{shown}: no such file or folder; to run a program, write `lethe up -- {shown}`"))
        }
        _ => problem(format!("{shown}: cannot be read: {error}")),
    })?;
    let file = if metadata.is_dir() {
        let found =
            [FILE_NAME, PROCFILE_NAME].into_iter().map(|name| path.join(name)).find(|file| file.exists());
        found.ok_or_else(|| problem(nothing_found(path)))?
    } else {
        path.to_path_buf()
    };
    // `./lethe.toml` is shown without its first part, which says nothing.
    let shown = file.strip_prefix(".").unwrap_or(&file).display().to_string();
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder =
        folder.canonicalize().map_err(|error| problem(format!("{shown}: cannot be read: {error}")))?;
    if let Some(command) = command_for(&file, &shown) {
        return Err(problem(format!(
            "{shown}: is a program, not a configuration: to run it, write `lethe up -- {command}`"
        )));
    }
    let text = file::text_of(&file, &shown).map_err(|problem| vec![problem])?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match name.starts_with(PROCFILE_NAME) {
        true => procfile::read(&text, &shown, &folder),
        false => file::read(&text, &shown, &folder),
    }
}

/// How to run the file, as it would be typed, if it is rather a program than a configuration. `shown` is its name for who types.
pub fn command_for(file: &Path, shown: &str) -> Option<String> {
    /// Endings of scripts, and what runs them.
    const RUNNERS: [(&str, &str); 9] = [
        ("py", "python3"),
        ("js", "node"),
        ("mjs", "node"),
        ("cjs", "node"),
        ("ts", "deno run --allow-net --allow-env"),
        ("rb", "ruby"),
        ("php", "php"),
        ("pl", "perl"),
        ("sh", "sh"),
    ];
    let is_configuration = file.extension() == Some(OsStr::new("toml"))
        || file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PROCFILE_NAME));
    if is_configuration {
        return None;
    }
    let extension = file.extension().and_then(OsStr::to_str);
    if let Some((_, runner)) = RUNNERS.iter().find(|(ending, _)| Some(*ending) == extension) {
        return Some(format!("{runner} {}", shell_words::quote(shown)));
    }
    let is_executable = file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
    let path = if shown.contains('/') { shown.to_owned() } else { format!("./{shown}") };
    is_executable.then(|| shell_words::quote(&path).into_owned())
}

/// Three ways to begin, for someone whose folder has none of the files.
fn nothing_found(folder: &Path) -> String {
    let place = if folder == Path::new(".") { "here".into() } else { format!("in {}", folder.display()) };
    format!(
        "nothing to run: there is no {FILE_NAME} and no {PROCFILE_NAME} {place}. Three ways to begin:
  lethe up -- python3 app.py   runs any program, with no file at all
  lethe up path/to/folder      runs what the {FILE_NAME} or {PROCFILE_NAME} there says
  a {FILE_NAME} {place}, of two lines:
      [services.web]
      command = \"python3 app.py\""
    )
}
