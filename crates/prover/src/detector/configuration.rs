//! Configuration that is read only at start. A file beside the program is emptied for one worker before it starts, which shows whether
//! anything depends on it; and for another one when it has started, which shows whether it is read again. A hint: who changes such a file
//! has workers with the old one until they are replaced, and those that start meanwhile have the new one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    content,
    finding::{Confidence, Finding, KeptFile, Kind, Replay},
    proof::Progress,
    schedule::Schedule,
    stage::{Outcome, Run, emptied::Emptied},
    trial::{Found, Trial},
    worker::Error,
};

/// Most files that are tried.
const FILES_MAX: usize = 3;

/// Most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 1000;

/// Largest file that is taken for configuration, in bytes.
const BYTES_MAX: u64 = 256 << 10;

/// Folders beside the program whose files are configuration.
const FOLDERS: [&str; 3] = ["config", "conf", "etc"];

/// How names of configuration begin, and how they end; within the folders of [`FOLDERS`] the end alone counts.
const BEGINNINGS: [&str; 6] = ["config", "conf", "settings", "application", "app", "appsettings"];
const ENDS: [&str; 9] = ["json", "yaml", "yml", "toml", "ini", "conf", "cfg", "properties", "xml"];

impl Trial<'_> {
    /// Looks at the files of the service's folder.
    pub(crate) fn configuration(&mut self, found: &mut Found) -> Result<(), Error> {
        let yard = self.stage.pool().yard();
        if !yard.level().has_own_files() || !self.stage.may_be_without_configuration() {
            return Ok(());
        }
        let files = files(yard.directory());
        if files.is_empty() {
            return Ok(());
        }
        let title = "without its configuration";
        (self.progress)(Progress::Begins { title });
        let mut read_at_start = Vec::new();
        for file in files {
            // A worker that once did not start, for another reason, says nothing: it is seen twice.
            if self.is_read_at_start(&file)? && self.is_read_at_start(&file)? {
                read_at_start.push(file);
            }
        }
        let finding = read_at_start.first().map(|file| self.at_start(file, &read_at_start));
        let why = finding.as_ref().map(|finding| finding.proof.clone());
        let schedule = Schedule { title: title.into(), ..Schedule::single(self.journey.steps.len()) };
        self.row_apart(&schedule, why);
        found.findings.extend(finding);
        Ok(())
    }

    /// What cannot be emptied says nothing.
    fn is_read_at_start(&self, file: &Path) -> Result<bool, Error> {
        let is_needed = self.misses(file, Emptied::BeforeStart)? == Some(true);
        Ok(is_needed && self.misses(file, Emptied::AfterStart)? == Some(false))
    }

    /// Whether a worker that does not have what is in the file does not start, or answers differently; `None` where it cannot be emptied.
    fn misses(&self, file: &Path, when: Emptied) -> Result<Option<bool>, Error> {
        let ends = |step: usize, outcome: &Outcome| !self.noise.differences(step, outcome, false).is_empty();
        match self.stage.play_emptied(&self.journey, file, when, &ends) {
            Ok(run) => Ok(Some(self.differs(&run))),
            Err(Error::NotListening { .. }) if when == Emptied::BeforeStart => Ok(Some(true)),
            Err(Error::World(_) | Error::Io(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn differs(&self, run: &Run) -> bool {
        self.fails_at(&Schedule::single(self.journey.steps.len()), run).is_some()
    }

    fn at_start(&self, file: &Path, files: &[PathBuf]) -> Finding {
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        let bytes = fs::metadata(file).map_or(0, |metadata| metadata.len());
        Finding {
            file: Some(KeptFile {
                path: file.display().to_string(),
                kind: content::of(file),
                bytes,
                canary: None,
            }),
            ..Finding::new(
                Kind::Configuration,
                Confidence::Hint,
                self.place(1),
                format!(
                    "a worker that starts while {} is empty does not start or answers differently, and one for which it is emptied when it \
                 has started answers as before",
                    names.join(" or ")
                ),
                Replay {
                    journey: self.journey.name.clone(),
                    workers: "one without its configuration".into(),
                    fails_at: 1,
                },
            )
        }
    }
}

/// The first few files that are called as configuration is: those of the folder itself, then those of its folders for that.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_of(folder, is_configuration);
    for name in FOLDERS {
        files.extend(files_of(&folder.join(name), has_its_end));
    }
    files.truncate(FILES_MAX);
    files
}

fn files_of(folder: &Path, is_meant: fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_small = |path: &PathBuf| {
        fs::symlink_metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && (1..=BYTES_MAX).contains(&metadata.len()))
    };
    let named =
        entries.flatten().take(ENTRIES_MAX).filter(|entry| is_meant(&entry.file_name().to_string_lossy()));
    let mut files: Vec<PathBuf> = named.map(|entry| entry.path()).filter(is_small).collect();
    files.sort();
    files
}

fn is_configuration(name: &str) -> bool {
    let begins = |beginning: &&str| {
        name.strip_prefix(*beginning).is_some_and(|rest| rest.starts_with(['.', '-', '_']))
    };
    // Names of environments follow a dot: `.env`, `.env.local`, `config.production.json`.
    name == ".env" || name.starts_with(".env.") || (has_its_end(name) && BEGINNINGS.iter().any(begins))
}

fn has_its_end(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| ENDS.contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_configuration() {
        for (name, expected) in [
            ("config.json", true),
            ("config.production.yaml", true),
            ("settings.toml", true),
            ("app-local.ini", true),
            (".env", true),
            (".env.local", true),
            ("package.json", false),
            ("config.py", false),
            ("configure.toml", false),
            ("environment", false),
            ("apple.json", false),
            ("lethe.toml", false),
        ] {
            assert_eq!(is_configuration(name), expected, "{name}");
        }
    }
}
