//! The folder that worlds are made in, and the sweeper that removes it. The sweeper is a process of its own, which waits
//! for the end of a pipe: that comes however `lethe` goes, also by a signal that it cannot catch.

use std::{
    fs, io,
    io::Read,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The hidden verb that starts [`sweep`].
const SWEEP_VERB: &str = "sweep";

/// How the folder's name begins; the sweeper removes no other.
const PREFIX: &str = "lethe-prove-";

/// How long the sweeper tries again while processes that are being killed still write.
const SWEEPING_MAX: Duration = Duration::from_secs(60);

/// The folder. Removed, with all that is in it, when dropped or when this process ends in any other way.
pub struct Scratch {
    path: PathBuf,
    program: PathBuf,
    sweeper: Option<Child>,
    count: AtomicU64,
}

impl Scratch {
    /// Makes one below `parent`. `program` is `lethe` itself, which knows the hidden verbs.
    pub fn new(parent: &Path, program: &Path) -> io::Result<Self> {
        let parent = parent.canonicalize()?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)?
            .keep();
        let mut scratch = Self { path, program: program.to_owned(), sweeper: None, count: AtomicU64::new(0) };
        // Ctrl-C in a terminal goes to a whole process group; the sweeper is in another one.
        let sweeper = Command::new(program)
            .arg(SWEEP_VERB)
            .arg(&scratch.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        scratch.sweeper = Some(sweeper);
        Ok(scratch)
    }

    /// The folder itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `lethe` itself.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A new empty folder in it.
    pub fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{name}-{number}"));
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is not removed here, the sweeper removes.
        let _ = remove(&self.path);
        if let Some(mut sweeper) = self.sweeper.take() {
            drop(sweeper.stdin.take());
            let _ = sweeper.wait();
        }
    }
}

/// Runs as the sweeper of `folder`: waits for the end of standard input, then removes it.
pub fn sweep(folder: &Path) -> ExitCode {
    let is_ours =
        folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    if !is_ours || !folder.is_absolute() {
        return ExitCode::FAILURE;
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let began = Instant::now();
    while began.elapsed() < SWEEPING_MAX {
        match remove(folder) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    ExitCode::FAILURE
}

/// Removes a folder with all that is in it. The kernel makes folders for overlays that nobody may open; whoever is not root
/// must take leave first.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder);
            fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        open_up(&entry.path());
    }
}
