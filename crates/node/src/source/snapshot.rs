//! A copy of a folder of this machine: what git would commit, where git keeps it, so that caches and secrets that are
//! ignored there stay behind; else everything. `.git` and lethe's own state never are part of it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::{Bounds, Fault};
use crate::store::copy;

/// Copies `folder` into `tree`, an empty folder; `except` is left out. Blocks.
pub(super) fn take(folder: &Path, tree: &Path, except: &Path, bounds: Bounds) -> Result<(), Fault> {
    if !folder.is_dir() {
        return Err(Fault::Refused("it is no folder: check the path, which is relative to the file".into()));
    }
    // However they are written: the one may be in the other.
    let folder = &fs::canonicalize(folder).map_err(|error| unreadable(folder, &error))?;
    let except = &fs::canonicalize(except).unwrap_or_else(|_| except.into());
    let listed = listed_by_git(folder)?;
    let mut copying = Copying { folder, tree, except, bounds, entries: 0, bytes: 0 };
    match listed {
        Some(paths) => paths.iter().try_for_each(|path| copying.one(path))?,
        None => copying.one(Path::new(""))?,
    }
    // The folder itself is counted where all of it is copied.
    match copying.entries {
        0 | 1 if fs::read_dir(tree)?.next().is_none() => Err(Fault::Refused("there is nothing in it".into())),
        _ => Ok(()),
    }
}

/// What git keeps there, or would; `None` where it keeps nothing, as in a folder that is ignored as a whole.
fn listed_by_git(folder: &Path) -> Result<Option<BTreeSet<PathBuf>>, Fault> {
    if !folder.ancestors().any(|above| above.join(".git").exists()) {
        return Ok(None);
    }
    // Without git's word, what is ignored would be copied too, and secrets often are.
    let unknown = |why: &str| {
        Fault::Refused(format!(
            "git keeps that folder, and cannot be asked what of it is to be released: {why}"
        ))
    };
    let listed = git(folder, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = listed.map_err(|error| unknown(&error.to_string()))?;
    if !output.status.success() {
        return Err(unknown(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let paths = output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    let paths: BTreeSet<PathBuf> = paths.map(|path| OsStr::from_bytes(path).into()).collect();
    let is_ignored =
        || git(folder, &["check-ignore", "--quiet", "."]).is_ok_and(|said| said.status.success());
    Ok(if paths.is_empty() && is_ignored() { None } else { Some(paths) })
}

fn git(folder: &Path, arguments: &[&str]) -> io::Result<Output> {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(arguments);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    git.stdin(Stdio::null()).output()
}

struct Copying<'a> {
    folder: &'a Path,
    tree: &'a Path,
    except: &'a Path,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
}

impl Copying<'_> {
    /// Copies what is at `path`, a folder with all that is in it. What has gone meanwhile is left out.
    fn one(&mut self, path: &Path) -> Result<(), Fault> {
        let (from, to) = (self.folder.join(path), self.tree.join(path));
        if from.starts_with(self.except) || from.file_name() == Some(OsStr::new(".git")) {
            return Ok(());
        }
        let there = match fs::symlink_metadata(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            there => there.map_err(|error| unreadable(&from, &error))?,
        };
        self.entries += 1;
        self.bytes += if there.is_file() { there.len() } else { 0 };
        self.bounds.check(self.entries, self.bytes)?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        if there.is_symlink() {
            symlink(fs::read_link(&from).map_err(|error| unreadable(&from, &error))?, &to)?;
        } else if there.is_dir() {
            fs::create_dir_all(&to)?;
            let names = fs::read_dir(&from).map_err(|error| unreadable(&from, &error))?;
            for name in names {
                self.one(&path.join(name?.file_name()))?;
            }
        } else if there.is_file() {
            copy::file(&from, &to, &there).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => unreadable(&from, &error),
                _ => Fault::Written(error),
            })?;
        }
        // Sockets, pipes and devices are of whoever runs there.
        Ok(())
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::Refused(format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::BOUNDS;

    #[test]
    fn what_git_ignores_stays_behind_and_so_does_the_state() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("app");
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::create_dir_all(folder.join(".lethe/releases")).unwrap();
        for (name, text) in [("src/app.py", "1"), (".env", "secret"), ("new.py", "2"), (".lethe/db", "3")] {
            fs::write(folder.join(name), text).unwrap();
        }
        symlink("src/app.py", folder.join("link")).unwrap();
        let copy = |name: &str| {
            let tree = place.path().join(name);
            fs::create_dir(&tree).unwrap();
            take(&folder, &tree, &folder.join(".lethe"), BOUNDS).unwrap();
            tree
        };
        let plain = copy("plain");
        assert!(plain.join(".env").exists() && plain.join("src/app.py").exists());
        assert!(!plain.join(".lethe").exists());
        fs::write(folder.join(".gitignore"), ".env\n").unwrap();
        let script = "git init -q && git add src && rm -f gone";
        assert!(Command::new("sh").current_dir(&folder).args(["-c", script]).status().unwrap().success());
        let kept = copy("kept");
        assert!(kept.join("src/app.py").exists() && kept.join("new.py").exists());
        assert!(!kept.join(".env").exists() && !kept.join(".git").exists() && !kept.join(".lethe").exists());
        assert_eq!(fs::read_link(kept.join("link")).unwrap(), Path::new("src/app.py"));
    }

    #[test]
    fn a_folder_that_git_ignores_is_meant_as_a_whole_and_one_that_git_cannot_tell_of_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("app");
        fs::create_dir_all(folder.join("dist")).unwrap();
        fs::write(folder.join("dist/app.py"), "1").unwrap();
        fs::write(folder.join(".gitignore"), "dist\nempty\n").unwrap();
        let run = |script: &str| {
            assert!(Command::new("sh").current_dir(&folder).args(["-c", script]).status().unwrap().success());
        };
        run("git init -q && mkdir -p empty/.lethe tree tree2 tree3");
        let (state, tree) = (folder.join("empty/.lethe"), |name: &str| place.path().join("app").join(name));
        take(&folder.join("dist"), &tree("tree"), &state, BOUNDS).unwrap();
        assert!(tree("tree").join("app.py").exists());
        let fault = take(&folder.join("empty"), &tree("tree2"), &state, BOUNDS).unwrap_err();
        assert!(matches!(&fault, Fault::Refused(why) if why.contains("nothing in it")), "{fault:?}");
        run("echo broken > .git/index");
        let fault = take(&folder, &tree("tree3"), &state, BOUNDS).unwrap_err();
        assert!(matches!(&fault, Fault::Refused(why) if why.contains("cannot be asked")), "{fault:?}");
    }

    /// Else the copy would be copied, and the copy of it.
    #[test]
    fn the_state_is_left_out_however_the_folder_is_written() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join(".lethe");
        fs::create_dir_all(state.join("tree")).unwrap();
        fs::create_dir(place.path().join("ops")).unwrap();
        fs::write(place.path().join("app.py"), "1").unwrap();
        take(&place.path().join("ops/.."), &state.join("tree"), &state, BOUNDS).unwrap();
        assert!(state.join("tree/app.py").exists() && !state.join("tree/.lethe").exists());
    }

    #[test]
    fn bounds_hold() {
        let place = tempfile::tempdir().unwrap();
        let (folder, tree) = (place.path().join("app"), place.path().join("tree"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&tree).unwrap();
        fs::write(folder.join("large"), [0; 100]).unwrap();
        let bounds = Bounds { entries_max: 10, bytes_max: 99 };
        let fault = take(&folder, &tree, Path::new("/nowhere"), bounds).unwrap_err();
        assert!(matches!(&fault, Fault::Refused(why) if why.contains("99")), "{fault:?}");
    }
}
