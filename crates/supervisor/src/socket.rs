//! The unix sockets that workers open: each worker gets a path that no other has had, in a folder that is closed to
//! other users. Whatever lies there is removed before the worker starts and after it has ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The longest path of a unix socket, in bytes, without the zero at its end (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// The folder of the workers' sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    folder: PathBuf,
    /// The number of the last one.
    last: AtomicU64,
}

/// A path that is kept for one worker until this is dropped, and then has no file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub(crate) path: Arc<Path>,
}

impl Sockets {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, last: AtomicU64::new(0) }
    }

    /// A path for the next worker. It has a number and not the worker's name, since names may be long.
    pub(crate) fn reserve(&self) -> io::Result<SocketFile> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.folder.join(format!("{number}.sock"));
        if path.as_os_str().len() > PATH_BYTES_MAX {
            let text = format!(
                "{} is longer than the {PATH_BYTES_MAX} bytes that a unix socket's path may have; set \
                 XDG_RUNTIME_DIR to a folder with a shorter path",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(SocketFile { path: path.into() }),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may never have been opened, or be removed by the worker itself.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn paths_are_free_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("1.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists(), "closing leaves the file");
        let sockets = Sockets::new(folder.path().into());
        let (first, second) = (sockets.reserve().unwrap(), sockets.reserve().unwrap());
        assert_eq!(*first.path, *stale);
        assert_ne!(first.path, second.path);
        let _listener = UnixListener::bind(&first.path).unwrap();
        let path = Arc::clone(&first.path);
        drop((first, second));
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let room = PATH_BYTES_MAX - folder.path().as_os_str().len() - "//1.sock".len();
        for (bytes, fits) in [(room, true), (room + 1, false)] {
            let folder = folder.path().join("x".repeat(bytes));
            fs::create_dir(&folder).unwrap();
            let reserved = Sockets::new(folder).reserve();
            assert_eq!(reserved.is_ok(), fits, "{reserved:?}");
            // The limit is the system's.
            if let Ok(file) = reserved {
                UnixListener::bind(&file.path).unwrap();
            }
        }
    }
}
