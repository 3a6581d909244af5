//! Where a journey is written: a file that nobody else may read, there as a whole or not at all.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use lethe_journey::{
    document,
    journey::Journey,
    written::{self, Written},
};
use tempfile::NamedTempFile;

/// What is written may have been typed by somebody.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Where it is written.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    name: String,
    force: bool,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) steps: usize,
    pub(super) files: usize,
    /// Where these are.
    pub(super) folder: PathBuf,
    pub(super) notes: Vec<String>,
}

impl Place {
    /// A file at `path`. That something is there already, or nothing can be, is found out before anything is recorded.
    pub(super) fn new(path: PathBuf, force: bool) -> anyhow::Result<Self> {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|_| path.extension().is_some_and(|extension| extension == "toml"))
        else {
            bail!("{} is no place for a journey: call it, for example, journey.toml", path.display());
        };
        let place = Self { path, name, force };
        for path in [place.path.clone(), place.folder()] {
            if !force && fs::symlink_metadata(&path).is_ok() {
                bail!("{} is there already; --force writes over it, -o writes elsewhere", path.display());
            }
        }
        place.temporary(place.parent())?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the journey is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes it, and reads it again.
    pub(super) fn keep(&self, journey: &Journey) -> anyhow::Result<Kept> {
        let journey = Journey { name: self.name.clone(), ..journey.clone() };
        let written = written::write(&journey, &self.folder_name());
        let former =
            if self.force { fs::read_to_string(&self.path).unwrap_or_default() } else { String::new() };
        if !written.files.is_empty() {
            // That it cannot be made is said of each file that is not there for it.
            let _ = DirBuilder::new().mode(FOLDER_MODE).create(self.folder());
        }
        // The journey is more than a file that it sends: what was clicked is nowhere else.
        let failed: Vec<String> = written
            .files
            .iter()
            .filter_map(|file| self.write(&self.parent().join(&file.path), &file.bytes).err())
            .map(|error| format!("{error:#}"))
            .collect();
        self.write(&self.path, written.text.as_bytes())?;
        self.remove_former(&former, &written);
        ensure!(
            failed.is_empty(),
            "{} is written, but not all files that it sends: {}; put them there before you use it",
            self.path.display(),
            failed.join("; ")
        );
        // Nobody is told to use what cannot be used.
        document::load(&self.path).context("what was written cannot be read; this is an error of lethe")?;
        Ok(Kept {
            path: self.path.clone(),
            steps: journey.steps.len(),
            files: written.files.len(),
            folder: self.folder(),
            notes: journey.notes,
        })
    }

    /// Removes the files that the journey sent which stood here before, and this one does not. What else is in the folder is somebody's.
    fn remove_former(&self, former: &str, written: &Written) {
        for entry in fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{}/{name}", self.folder_name());
            let is_sent = written.files.iter().any(|file| Path::new(&file.path) == Path::new(&path));
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && !is_sent && former.contains(&format!("\"{path}\"")) {
                // What cannot be removed does no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
        // It stays where anything is in it.
        let _ = fs::remove_dir(self.folder());
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let mut file = self.temporary(path.parent().unwrap_or(Path::new("")))?;
        file.write_all(bytes).with_context(cannot)?;
        file.as_file().sync_all().with_context(cannot)?;
        if self.force {
            file.persist(path).with_context(cannot)?;
            return Ok(());
        }
        // Whoever has written there meanwhile keeps what is there, and nothing is lost.
        if let Err(refused) = file.persist_noclobber(path) {
            let (_, kept) = refused.file.keep().with_context(cannot)?;
            return Err(refused.error).with_context(|| {
                format!("cannot write {}; it is kept in {}", path.display(), kept.display())
            });
        }
        Ok(())
    }

    fn temporary(&self, folder: &Path) -> anyhow::Result<NamedTempFile> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".lethe-record-").suffix(".toml").permissions(Permissions::from_mode(MODE));
        builder
            .tempfile_in(folder)
            .with_context(|| format!("cannot write in the folder {}", folder.display()))
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn folder_name(&self) -> String {
        format!("{}-files", self.name)
    }

    /// Where files are that were sent.
    fn folder(&self) -> PathBuf {
        self.parent().join(self.folder_name())
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use lethe_journey::{
        body::{Body, Content, Part},
        journey::Step,
        template::Template,
    };

    use super::*;

    fn journey() -> Journey {
        let mut step = Step::new(1, Method::POST, Template::literal("/"));
        step.body = Body::Multipart(vec![Part {
            name: "photo".into(),
            file_name: Some(Template::literal("../a.png")),
            content_type: None,
            content: Content::Bytes(b"\x89PNG".as_slice().into()),
        }]);
        Journey { name: "x".into(), host: None, variables: Vec::new(), steps: vec![step], notes: Vec::new() }
    }

    /// With one file that is called so.
    fn sends(name: &str) -> Journey {
        let mut journey = journey();
        let Body::Multipart(parts) = &mut journey.steps[0].body else { unreachable!() };
        parts[0].file_name = Some(Template::literal(name));
        journey
    }

    #[test]
    fn files_of_the_former_recording_go_and_those_of_somebody_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let names = || {
            let entries = fs::read_dir(folder.path().join("x-files")).into_iter().flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        Place::new(path.clone(), false).unwrap().keep(&sends("a.png")).unwrap();
        fs::write(folder.path().join("x-files/own.png"), "of somebody").unwrap();
        Place::new(path.clone(), true).unwrap().keep(&sends("b.png")).unwrap();
        assert_eq!(names(), ["b.png", "own.png"]);
        fs::remove_file(folder.path().join("x-files/own.png")).unwrap();
        let none = Journey { steps: vec![Step::new(1, Method::GET, Template::literal("/"))], ..journey() };
        Place::new(path, true).unwrap().keep(&none).unwrap();
        assert!(names().is_empty() && !folder.path().join("x-files").exists());
    }

    #[test]
    fn what_was_clicked_is_kept_where_a_file_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let place = Place::new(path.clone(), false).unwrap();
        // In the place of the folder.
        fs::write(folder.path().join("x-files"), "of somebody").unwrap();
        let refusal = place.keep(&journey()).unwrap_err().to_string();
        assert!(
            refusal.contains("x.toml is written, but not all files") && refusal.contains("x-files"),
            "{refusal}"
        );
        assert!(fs::read_to_string(path).unwrap().contains("x-files/a.png"));
    }

    #[test]
    fn nothing_is_written_over_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shopping.toml");
        let place = Place::new(path.clone(), false).unwrap();
        let kept = place.keep(&journey()).unwrap();
        assert_eq!((kept.steps, kept.files), (1, 1));
        let sent = folder.path().join("shopping-files");
        for (path, mode) in [(&path, MODE), (&sent, FOLDER_MODE), (&sent.join("a.png"), MODE)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        assert_eq!(document::load(&path).unwrap().name, "shopping");
        let text = fs::read(&path).unwrap();
        let refusal = Place::new(path.clone(), false).unwrap_err().to_string();
        assert!(refusal.contains("--force"), "{refusal}");
        // Somebody has written there since it began.
        let refusal =
            format!("{:#}", place.keep(&Journey { notes: vec!["n".into()], ..journey() }).unwrap_err());
        assert!(refusal.contains("it is kept in"), "{refusal}");
        assert_eq!(fs::read(&path).unwrap(), text);
        Place::new(path.clone(), true)
            .unwrap()
            .keep(&Journey { notes: vec!["n".into()], ..journey() })
            .unwrap();
        assert_ne!(fs::read(&path).unwrap(), text);
        for (path, said) in [("a", "no place"), ("none/a.toml", "cannot write in the folder")] {
            let refusal = format!("{:#}", Place::new(folder.path().join(path), false).unwrap_err());
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
