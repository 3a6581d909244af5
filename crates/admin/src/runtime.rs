//! Where a running `lethe` is found: one private folder for each state folder, with the sockets and a note of who
//! serves them. It is outside the state folder because a unix socket's path has at most 107 bytes (unix(7)), and a
//! project's path may be longer.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::api::Node;

/// The control API's socket in a node's folder.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The state API's socket in a node's folder.
pub const STATE_SOCKET: &str = "state.sock";

/// The note of who serves the sockets.
const NOTE: &str = "node.json";

/// The longest path of a unix socket, in bytes, without the zero at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a node's folder and the longer of its sockets' names add to the base: `/`, 12 digits, `/`, the name, and
/// `.new` while the socket is made.
const SUFFIX_BYTES: usize = 1 + 12 + 1 + CONTROL_SOCKET.len() + 4;

/// A `lethe` that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// What it says of itself.
    pub node: Node,
    /// Its control socket.
    pub control: PathBuf,
}

/// Makes, or checks, the folder of the node that keeps state in `state_dir`, which must exist.
///
/// # Errors
/// When the state folder cannot be resolved, or when the folder is not a directory of this user that is closed to
/// others: somebody else may have made it first.
pub fn directory_for(state_dir: &Path) -> io::Result<PathBuf> {
    let bases = bases();
    directory_in(&bases[0], state_dir)
}

/// The nodes of this user that run now. Folders of those that have ended are passed over.
pub fn running() -> Vec<Running> {
    bases().iter().flat_map(|base| running_in(base)).collect()
}

/// As [`directory_for`], under `base`.
pub fn directory_in(base: &Path, state_dir: &Path) -> io::Result<PathBuf> {
    let canonical = state_dir.canonicalize()?;
    let digest = Sha256::digest(canonical.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    private(base)?;
    let directory = base.join(name);
    private(&directory)?;
    Ok(directory)
}

/// As [`running`], under `base`.
pub fn running_in(base: &Path) -> Vec<Running> {
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    // Somebody else's folder says nothing that should be believed.
    if check(base).is_err() {
        return Vec::new();
    }
    let mut nodes: Vec<Running> =
        entries.filter_map(|entry| find(&entry.ok()?.path().join(CONTROL_SOCKET))).collect();
    nodes.sort_by(|a, b| a.node.state_dir.cmp(&b.node.state_dir));
    nodes
}

/// The node that serves this control socket, if one does.
pub fn find(control: &Path) -> Option<Running> {
    let note = fs::read(control.with_file_name(NOTE)).ok()?;
    let node = serde_json::from_slice(&note).ok()?;
    UnixStream::connect(control).ok()?;
    Some(Running { node, control: control.into() })
}

/// Writes the note into a node's folder. Called when the control socket is open.
pub fn announce(directory: &Path, node: &Node) -> io::Result<()> {
    let beside = directory.join("node.json.new");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    serde_json::to_writer_pretty(file, node)?;
    fs::rename(beside, directory.join(NOTE))
}

/// Removes a node's folder, at its end. What cannot be removed is left: the next start replaces it.
pub fn withdraw(directory: &Path) {
    for name in [NOTE, CONTROL_SOCKET, STATE_SOCKET] {
        let _ = fs::remove_file(directory.join(name));
    }
    let _ = fs::remove_dir(directory);
}

/// Where nodes' folders may be, the best place first: the session's runtime folder (XDG Base Directory
/// Specification) when it is this user's and not too long, and a folder in `/tmp`, where a session without one looks.
fn bases() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let session =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|session| usable(session, uid));
    let shared = PathBuf::from(format!("/tmp/lethe-{uid}"));
    session.map(|session| session.join("lethe")).into_iter().chain([shared]).collect()
}

fn usable(session: &Path, uid: u32) -> bool {
    let short = session.as_os_str().len() + "/lethe".len() + SUFFIX_BYTES <= SOCKET_PATH_BYTES_MAX;
    // `su` and `sudo -E` leave another user's folder in the environment.
    short
        && session.is_absolute()
        && fs::metadata(session).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
}

/// Makes `directory` with permissions 0700, or checks the one that is there.
fn private(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => check(directory),
    }
}

/// Refuses what is not a directory of this user that is closed to everybody else.
fn check(directory: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(directory)?;
    let own = rustix::process::geteuid().as_raw();
    let refused = if !meta.is_dir() {
        "it is not a directory; remove it"
    } else if meta.uid() != own {
        "it belongs to another user; set XDG_RUNTIME_DIR to a folder of your own"
    } else if meta.mode() & 0o077 != 0 {
        "others can enter it; run `chmod 700` on it if you know what it holds"
    } else {
        return Ok(());
    };
    let text = format!("{} is not safe for control sockets: {refused}", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
