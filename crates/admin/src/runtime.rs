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

use lethe_model::service::NAME_BYTES_MAX;
use sha2::{Digest, Sha256};

use crate::api::Node;

/// The control API's socket in a node's folder.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Where a node that takes over from another has its control socket until it is in charge.
pub const NEXT_SOCKET: &str = "next.sock";

/// Nodes that may have a state API's socket in one folder at a time: the one in charge, and those before it that still
/// finish their requests.
const STATE_SOCKETS_MAX: usize = 100;

/// The folder of the workers' sockets has the name of the state API's socket, with this extension.
const WORKERS: &str = "workers";
/// That of the services' sockets has this one.
const SERVICES: &str = "services";

/// The note of who serves the sockets.
const NOTE: &str = "node.json";

/// The longest path of a unix socket, in bytes, without the zero at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a node's folder and the longest of its sockets' names add to the base: `/`, 12 digits, `/` and the name, which is
/// that of a service's socket.
const SUFFIX_BYTES: usize = 1 + 12 + 1 + "state-99.services/".len() + NAME_BYTES_MAX + ".sock".len();

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

/// Makes the folder of the workers' sockets, anew, for the node that serves this state API's socket, which is its alone:
/// what a `lethe` that was killed has left there is removed.
pub fn workers_in(state_socket: &Path) -> io::Result<PathBuf> {
    anew(state_socket.with_extension(WORKERS))
}

/// The same for the folder of the services' sockets of the state API, one for each service.
pub fn services_in(state_socket: &Path) -> io::Result<PathBuf> {
    anew(state_socket.with_extension(SERVICES))
}

fn anew(folder: PathBuf) -> io::Result<PathBuf> {
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => private(&folder)?,
    }
    Ok(folder)
}

/// Removes the folders that belong to a state API's socket, and the socket itself.
fn remove(state_socket: &Path) {
    for folder in [WORKERS, SERVICES] {
        let _ = fs::remove_dir_all(state_socket.with_extension(folder));
    }
    let _ = fs::remove_file(state_socket);
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

/// The paths that the state API's socket may have in a node's folder; the first that nobody serves is to be taken.
pub fn state_sockets(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let more = (1..STATE_SOCKETS_MAX).map(|number| format!("state-{number}.sock"));
    std::iter::once("state.sock".into()).chain(more).map(|name| directory.join(name))
}

/// Puts the node in charge whose control socket is [`NEXT_SOCKET`]: from now on it is the one that is found. Connections
/// to the one before it go on.
pub fn put_in_charge(directory: &Path, node: &Node) -> io::Result<()> {
    fs::rename(directory.join(NEXT_SOCKET), directory.join(CONTROL_SOCKET))?;
    announce(directory, node)
}

/// Removes what a node has in its folder, at its end, and the folder when it was the last one in it. `is_in_charge` is
/// false for one that another has taken over from. What cannot be removed is left: the next start replaces it.
pub fn withdraw(directory: &Path, state_socket: &Path, is_in_charge: bool) {
    remove(state_socket);
    if is_in_charge {
        let _ = fs::remove_file(directory.join(NOTE));
        let _ = fs::remove_file(directory.join(CONTROL_SOCKET));
        remove_dead(directory);
    }
    let _ = fs::remove_dir(directory);
}

/// Removes the sockets of nodes that were killed.
fn remove_dead(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let paths = entries.flatten().map(|entry| entry.path());
    for socket in paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")) {
        if UnixStream::connect(&socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            remove(&socket);
        }
    }
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

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
        time::UNIX_EPOCH,
    };

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("state")).unwrap();
            Self { folder }
        }

        fn base(&self) -> PathBuf {
            self.folder.path().join("base")
        }

        fn state(&self) -> PathBuf {
            self.folder.path().join("state")
        }

        fn directory(&self) -> io::Result<PathBuf> {
            directory_in(&self.base(), &self.state())
        }

        fn node(&self) -> Node {
            Node {
                pid: 7,
                version: "0.1.0".into(),
                listen: ([127, 0, 0, 1], 80).into(),
                tls: None,
                admin: None,
                state_dir: self.state(),
                state: None,
                started_at: UNIX_EPOCH.into(),
            }
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn one_private_folder_for_each_state_folder() {
        let place = Place::new();
        let directory = place.directory().unwrap();
        assert_eq!((mode(&place.base()), mode(&directory)), (0o700, 0o700));
        assert_eq!(directory.file_name().unwrap().len(), 12);
        // The same folder by another way is the same.
        let link = place.folder.path().join("link");
        symlink(place.state(), &link).unwrap();
        assert_eq!(directory_in(&place.base(), &link).unwrap(), directory);
        assert_ne!(directory_in(&place.base(), place.folder.path()).unwrap(), directory);
        assert!(directory_in(&place.base(), &place.folder.path().join("missing")).is_err());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let place = Place::new();
        fs::create_dir(place.base()).unwrap();
        for open in [0o777, 0o770, 0o701, 0o720] {
            fs::set_permissions(place.base(), fs::Permissions::from_mode(open)).unwrap();
            let error = place.directory().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("chmod 700"), "{error}");
            assert_eq!(running_in(&place.base()), []);
        }
        fs::set_permissions(place.base(), fs::Permissions::from_mode(0o700)).unwrap();
        place.directory().unwrap();
    }

    #[test]
    fn a_link_and_a_file_are_refused() {
        let place = Place::new();
        let elsewhere = place.folder.path().join("elsewhere");
        private(&elsewhere).unwrap();
        symlink(&elsewhere, place.base()).unwrap();
        assert!(place.directory().unwrap_err().to_string().contains("not a directory"));
        fs::remove_file(place.base()).unwrap();
        fs::write(place.base(), "").unwrap();
        assert!(place.directory().unwrap_err().to_string().contains("not a directory"));
    }

    #[test]
    fn somebody_elses_folder_is_refused() {
        // Only root can give a folder away; others have `/` itself, which is root's.
        let place = Place::new();
        let theirs = if rustix::process::geteuid().is_root() {
            fs::create_dir(place.base()).unwrap();
            std::os::unix::fs::chown(place.base(), Some(65_534), None).unwrap();
            place.base()
        } else {
            "/".into()
        };
        let error = directory_in(&theirs, &place.state()).unwrap_err();
        assert!(error.to_string().contains("another user"), "{error}");
        assert!(fs::read_dir(&theirs).unwrap().count() == 0 || theirs == Path::new("/"));
    }

    #[test]
    fn those_that_answer_are_found() {
        let place = Place::new();
        assert_eq!(running_in(&place.base()), []);
        let directory = place.directory().unwrap();
        let control = directory.join(CONTROL_SOCKET);
        let listener = UnixListener::bind(&control).unwrap();
        assert_eq!(running_in(&place.base()), []);
        announce(&directory, &place.node()).unwrap();
        assert_eq!(mode(&directory.join(NOTE)), 0o600);
        let found = vec![Running { node: place.node(), control }];
        assert_eq!(running_in(&place.base()), found);
        let workers = workers_in(&directory.join("state.sock")).unwrap();
        assert_eq!(mode(&workers), 0o700);
        fs::write(workers.join("1.sock"), "").unwrap();
        let services = services_in(&directory.join("state.sock")).unwrap();
        assert_eq!(mode(&services), 0o700);
        fs::write(services.join("web.sock"), "").unwrap();
        // A `lethe` that was killed leaves its files.
        drop(listener);
        assert_eq!(running_in(&place.base()), []);
        withdraw(&directory, &directory.join("state.sock"), true);
        assert!(!directory.exists());
    }

    #[test]
    fn another_is_put_in_charge() {
        let place = Place::new();
        let directory = place.directory().unwrap();
        let mut states = state_sockets(&directory);
        let (old_state, new_state) = (states.next().unwrap(), states.next().unwrap());
        assert!(usable(Path::new("/tmp"), 0) || !rustix::process::geteuid().is_root());
        let service = format!("{}.sock", "s".repeat(NAME_BYTES_MAX));
        let length = |path: PathBuf| path.as_os_str().len();
        let of_worker = |state: &Path| length(state.with_extension(WORKERS).join("12345678901.sock"));
        let of_service = |state: &Path| length(state.with_extension(SERVICES).join(&service));
        let longest = state_sockets(&directory).map(|state| of_worker(&state).max(of_service(&state))).max();
        let longest = longest.unwrap();
        assert_eq!(longest, place.base().as_os_str().len() + SUFFIX_BYTES);
        let bind = |path: &Path| UnixListener::bind(path).unwrap();
        let _old = (bind(&directory.join(CONTROL_SOCKET)), bind(&old_state));
        announce(&directory, &place.node()).unwrap();
        let new = (bind(&directory.join(NEXT_SOCKET)), bind(&new_state));
        // Of one that was killed.
        drop(bind(&states.next().unwrap()));
        assert_eq!(running_in(&place.base())[0].node.pid, 7, "not yet");
        put_in_charge(&directory, &Node { pid: 8, ..place.node() }).unwrap();
        assert_eq!(running_in(&place.base())[0].node.pid, 8);
        withdraw(&directory, &old_state, false);
        assert_eq!(running_in(&place.base())[0].node.pid, 8, "the old one takes only its own with it");
        assert!(!old_state.exists() && new_state.exists());
        drop(new);
        withdraw(&directory, &new_state, true);
        assert!(!directory.exists());
    }
}
