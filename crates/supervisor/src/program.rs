//! Finds the program of a service before anything is started, so that a misspelt command is an error with a
//! next step and not a worker that dies over and over.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{self, Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::{service::Spec, supervisor::Error};

/// Checks that the command of `spec` can be started: its directory exists, and its program is found and is
/// executable. Its paths for readiness and warm-up must be such that can be sent.
pub fn check(spec: &Spec) -> Result<(), Error> {
    let ready = spec.ready.iter().map(|path| ("ready", path));
    for (key, path) in ready.chain(spec.warm_up.iter().map(|path| ("warm-up", path))) {
        let is_sound = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_sound {
            let reason = format!("its {key} path {path:?} must begin with / and hold visible ASCII only");
            return Err(Error::Command { service: spec.name.clone(), reason });
        }
    }
    locate(spec).map(drop)
}

/// The absolute path of the program of `spec`.
pub(crate) fn locate(spec: &Spec) -> Result<PathBuf, Error> {
    let refuse = |reason: String| Error::Command { service: spec.name.clone(), reason };
    let directory = directory(spec).map_err(|error| refuse(error.to_string()))?;
    if !directory.is_dir() {
        return Err(refuse(format!("its directory {} does not exist", directory.display())));
    }
    let Some(program) = spec.command.first().filter(|program| !program.is_empty()) else {
        return Err(refuse("its command is empty; name the program to run".into()));
    };
    if program.contains('/') {
        let path = directory.join(program);
        return executable(&path).map(|()| path).map_err(|why| refuse(format!("command `{program}`: {why}")));
    }
    search(program, &directory, &search_path(spec)).map_err(refuse)
}

/// The working directory of `spec` as an absolute path.
pub(crate) fn directory(spec: &Spec) -> io::Result<PathBuf> {
    // An empty path means here, as in the shell.
    if spec.directory.as_os_str().is_empty() { env::current_dir() } else { path::absolute(&spec.directory) }
}

fn search_path(spec: &Spec) -> OsString {
    let own = spec.env.get("PATH").map(OsString::from);
    own.or_else(|| env::var_os("PATH")).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

fn search(program: &str, directory: &Path, search_path: &OsStr) -> Result<PathBuf, String> {
    let mut refused = None;
    for folder in env::split_paths(search_path) {
        let path = directory.join(folder).join(program);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(why) if path.is_file() => refused = refused.or(Some(why)),
            Err(_) => {}
        }
    }
    if let Some(why) = refused {
        return Err(format!("command `{program}`: {why}"));
    }
    let here = directory.join(program);
    let next = if executable(&here).is_ok() {
        format!("there is one in {}: write `./{program}`", directory.display())
    } else {
        "check its spelling, or write the path to it".into()
    };
    Err(format!("command `{program}` was not found in PATH ({}); {next}", search_path.display()))
}

fn executable(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("{shown} does not exist")),
        Err(error) => Err(format!("{shown}: {error}")),
        Ok(found) if !found.is_file() => Err(format!("{shown} is not a file")),
        Ok(_) => access(path, Access::EXEC_OK)
            .map_err(|_| format!("{shown} is not executable; allow it with `chmod +x {shown}`")),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use lethe_model::{roster::Protocol, service::ServiceName};

    use super::*;
    use crate::{resources::Resources, service::Listener};

    fn spec(directory: &Path, command: &[&str]) -> Spec {
        Spec {
            name: ServiceName::new("shop").unwrap(),
            command: command.iter().map(|&part| part.to_owned()).collect(),
            instances: 1,
            ready: None,
            warm_up: Vec::new(),
            listener: Listener::Port,
            protocol: Protocol::Http1,
            drain: Duration::from_secs(1),
            env: [("PATH".to_owned(), "/nowhere:bin:/bin".to_owned())].into(),
            release: 0,
            withheld: [].into(),
            directory: directory.into(),
            resources: Resources::default(),
        }
    }

    #[test]
    fn programs() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::create_dir(at.join("bin")).unwrap();
        for (name, mode) in [("run", 0o755), ("plain", 0o644), ("bin/tool", 0o755), ("bin/broken", 0o600)] {
            fs::write(at.join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let found = |command: &str| locate(&spec(at, &[command])).map_err(|error| error.to_string());
        assert_eq!(found("./run").unwrap(), at.join("./run"));
        assert_eq!(found("tool").unwrap(), at.join("bin/tool"), "PATH entries are relative to the directory");
        assert_eq!(found("sh").unwrap(), Path::new("/bin/sh"));
        let refused = [
            ("pyton3", "was not found in PATH (/nowhere:bin:/bin); check its spelling"),
            ("run", "write `./run`"),
            ("./plain", "plain is not executable; allow it with `chmod +x "),
            ("broken", "bin/broken is not executable"),
            ("./absent", "absent does not exist"),
            ("./bin", "bin is not a file"),
            ("", "its command is empty"),
        ];
        for (command, text) in refused {
            let error = found(command).unwrap_err();
            assert!(error.starts_with("shop: ") && error.contains(text), "{command}: {error}");
        }
        assert!(check(&spec(at, &[])).is_err());
        for (path, sound) in [("/up?x=%20", true), ("up", false), ("/a b", false), ("/\r\nX: y", false)] {
            let spec = Spec { ready: Some(path.into()), ..spec(at, &["sh"]) };
            assert_eq!(check(&spec).is_ok(), sound, "{path}");
            let warm_up = vec!["/".into(), path.into()];
            assert_eq!(check(&Spec { ready: None, warm_up, ..spec }).is_ok(), sound, "{path}");
        }
        let error = check(&spec(&at.join("gone"), &["sh"])).unwrap_err().to_string();
        assert!(error.contains("gone does not exist"), "{error}");
    }
}
