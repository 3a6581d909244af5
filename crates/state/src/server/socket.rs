//! The unix socket of the state API: only its owner may connect, from the first moment it exists.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _, net},
    path::Path,
};

use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::UnixListener;

/// Longest path of a unix socket on Linux, in bytes (`sun_path` of unix(7), less its closing NUL).
pub const PATH_BYTES_MAX: usize = 107;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Creates the socket `path` with permissions 0600 and listens on it. What a dead process left there is removed; a
/// socket that a live one serves is an error, as is a file of another kind. Must be called within a tokio runtime.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let length = path.as_os_str().as_bytes().len();
    if length > PATH_BYTES_MAX {
        let text = format!(
            "the socket path {} is {length} bytes, and a unix socket's may have {PATH_BYTES_MAX}; \
             choose a state folder with a shorter path",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    remove_stale(path)?;
    let within = |error: rustix::io::Errno| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("cannot create the socket {}: {error}", path.display()))
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(within)?;
    // Linux gives the file that `bind` makes the permissions of the socket itself, less the umask. Set before,
    // they leave no moment in which another user could connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(within)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).map_err(within)?).map_err(within)?;
    rustix::net::listen(&socket, BACKLOG).map_err(within)?;
    UnixListener::from_std(net::UnixListener::from(socket))
}

/// The URL of the socket `path`, as `LETHE_STATE` holds it.
pub fn url(path: &Path) -> String {
    // The few characters that mean something in a URL are escaped, so that most paths can be read as they are.
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("unix://{path}")
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(io::Error::new(error.kind(), format!("cannot look at {}: {error}", path.display())));
        }
    };
    if !kind.is_socket() {
        let text = format!("{} is in the way: it is not a socket; move it elsewhere", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot try {}: {error}", path.display()))),
        Ok(_) => {
            let text = format!("another process serves {}; stop it or choose another folder", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_connect() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sock");
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sock");
        drop(net::UnixListener::bind(&path).unwrap());
        let live = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind(&path).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_long_path_is_named_with_the_limit() {
        let path = Path::new("/tmp").join("x".repeat(PATH_BYTES_MAX));
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("112 bytes") && error.contains("107"), "{error}");
        // The longest one that is allowed works.
        let directory = tempfile::tempdir().unwrap();
        let rest = PATH_BYTES_MAX - directory.path().as_os_str().len() - 1;
        bind(&directory.path().join("x".repeat(rest))).unwrap();
    }

    #[test]
    fn urls_escape_little() {
        assert_eq!(url(Path::new("/a b/50%?#.sock")), "unix:///a b/50%25%3F%23.sock");
    }
}
