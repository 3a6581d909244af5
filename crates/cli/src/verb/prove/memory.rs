//! What was asked of the last proof and what it found, so that `--replay F3` needs nothing else. It is kept in the user's own folder for
//! such things (XDG Base Directory, `XDG_STATE_HOME`), a file for each folder that proofs were started in, since nothing of the folder
//! itself is changed by a proof.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use lethe_prover::{proof::Proof, replay::Found};
use serde::{Deserialize, Serialize};

/// Most bytes of a file's name that stand for a folder; the file says in full which one it is.
const NAME_BYTES_MAX: usize = 200;

/// What a proof was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Where it was started; all paths are absolute or begin there.
    pub(super) folder: PathBuf,
    pub(super) path: PathBuf,
    pub(super) command: Vec<String>,
    /// Files; none where links and forms were followed.
    pub(super) journeys: Vec<PathBuf>,
    pub(super) service: Option<String>,
    pub(super) reset: Option<String>,
    pub(super) workers: u16,
    pub(super) seed: u64,
    pub(super) copied: bool,
    pub(super) start_timeout: u64,
    /// Seconds, if that was asked for.
    #[serde(default)]
    pub(super) idle: Option<u64>,
}

/// A report as it is written: with what was asked.
#[derive(Serialize)]
pub(super) struct Written<'p> {
    #[serde(flatten)]
    pub(super) proof: &'p Proof,
    pub(super) asked: &'p Asked,
}

/// What is read of it again.
#[derive(Deserialize)]
pub(super) struct Earlier {
    findings: Vec<Found>,
    pub(super) asked: Asked,
}

/// Keeps the last proof of its folder.
pub(super) fn keep(written: &Written<'_>) -> anyhow::Result<()> {
    let path = file(&written.asked.folder)?;
    let folder = path.parent().context("it has no folder")?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Responses may have what is nobody else's business.
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    serde_json::to_writer(&mut file, written)?;
    fs::rename(new, path)?;
    Ok(())
}

/// Reads the last proof that was started in this folder, or the report in `from`.
pub(super) fn read(from: Option<&Path>) -> anyhow::Result<Earlier> {
    let here = env::current_dir()?;
    let path = from.map_or_else(|| file(&here), |from| Ok(from.to_owned()))?;
    let text = fs::read(&path).with_context(|| match from {
        Some(_) => format!("cannot read {}", path.display()),
        None => format!(
            "no proof of {} is remembered ({}); prove first, or give the JSON of an earlier proof with --from FILE",
            here.display(),
            path.display()
        ),
    })?;
    let earlier: Earlier = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no report of `lethe prove --json`", path.display()))?;
    if from.is_none() && earlier.asked.folder != here {
        bail!("{} is of another folder, {}", path.display(), earlier.asked.folder.display());
    }
    Ok(earlier)
}

impl Earlier {
    /// The finding of this id.
    pub(super) fn finding(&self, id: &str) -> anyhow::Result<&Found> {
        let ids: Vec<_> = self.findings.iter().map(|found| found.id.as_str()).collect();
        let found = self.findings.iter().find(|found| found.id.eq_ignore_ascii_case(id));
        found.ok_or_else(|| match ids.as_slice() {
            [] => anyhow!("there is no finding {id}: that proof found nothing"),
            ids => anyhow!("there is no finding {id}: that proof found {}", ids.join(", ")),
        })
    }
}

/// Where the last proof of a folder is kept.
fn file(folder: &Path) -> anyhow::Result<PathBuf> {
    let given = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = given("XDG_STATE_HOME")
        .or_else(|| Some(given("HOME")?.join(".local/state")))
        .context("neither XDG_STATE_HOME nor HOME says where proofs are remembered")?;
    Ok(state.join("lethe/proofs").join(name(folder)))
}

fn name(folder: &Path) -> String {
    let text: Vec<char> = folder.to_string_lossy().chars().collect();
    let mut name = String::new();
    // The end of a path says more than its beginning.
    for char in text.iter().rev() {
        if name.len() + char.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        name.push(if *char == '/' { '%' } else { *char });
    }
    name.chars().rev().collect::<String>() + ".json"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_has_a_file_of_its_own() {
        assert_eq!(name(Path::new("/srv/shop")), "%srv%shop.json");
        let long = name(Path::new(&"/ä".repeat(300)));
        assert!(long.len() <= NAME_BYTES_MAX + ".json".len() && !long.contains('/'), "{long}");
    }
}
