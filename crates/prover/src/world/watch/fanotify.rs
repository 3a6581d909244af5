//! Events of the kernel for whole mounts (`fanotify(7)`): they cost the service next to nothing, since those of one process and file
//! become one while they wait, and whatever way it writes they come, io_uring too. What comes is an open file, whose name is asked for.
//!
//! Writes are asked for everywhere, reads only of files that were written: a mark of its own for each of them.

use std::{
    ffi::CString,
    fs, io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    ptr,
};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::written::{Id, WrittenFiles};

/// Bytes of events that are read at a time.
const BATCH_BYTES: usize = 16 << 10;

/// Batches that are read before questions are looked at again.
const BATCHES_MAX: usize = 64;

/// What is asked for of a mount.
const WRITES: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;

/// What the kernel puts behind the name of a file that has none any more.
const UNNAMED: &str = " (deleted)";

/// What is watched together.
pub(super) struct Group {
    listener: OwnedFd,
    batch: Vec<u8>,
}

impl Group {
    /// Asks for writes below `points`.
    pub(super) fn new(points: &[PathBuf]) -> io::Result<Self> {
        let kind = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let files = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE) as libc::c_uint;
        // SAFETY: it takes two numbers; the result is a new descriptor.
        let listener = match unsafe { libc::fanotify_init(kind, files) } {
            listener if listener >= 0 => unsafe { OwnedFd::from_raw_fd(listener) },
            _ => return Err(io::Error::last_os_error()),
        };
        for point in points {
            // Opening for reading could wait, as for a file system that is mounted when it is first used.
            // What could not be shown in this world is not there.
            if point.exists() {
                let point = CString::new(point.as_os_str().as_bytes())?;
                mark(&listener, libc::FAN_MARK_MOUNT, WRITES, libc::AT_FDCWD, point.as_ptr())?;
            }
        }
        Ok(Self { listener, batch: vec![0; BATCH_BYTES] })
    }

    /// Notes all that has come, up to a bound.
    pub(super) fn read(&mut self, written: &mut WrittenFiles) {
        for _ in 0..BATCHES_MAX {
            let Ok(length) = rustix::io::read(&self.listener, &mut *self.batch) else { return };
            let mut rest = &self.batch[..length];
            while let Some((event, after)) = next(rest) {
                rest = after;
                self.note(&event, written);
            }
        }
    }

    fn note(&self, event: &libc::fanotify_event_metadata, written: &mut WrittenFiles) {
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            written.cut();
        }
        if event.fd < 0 {
            return;
        }
        // SAFETY: the kernel has opened it for whoever reads the event, and nobody else knows of it.
        let file = unsafe { OwnedFd::from_raw_fd(event.fd) };
        let Ok((id, has_name)) = identity(&file) else { return written.cut() };
        let (wrote, read) = (event.mask & WRITES != 0, event.mask & libc::FAN_ACCESS != 0);
        if has_name && written.is_noted(&id, wrote, read) {
            return;
        }
        let Ok(path) = name(&file) else { return written.cut() };
        let was_known = written.knows(&id);
        let is_known = written.note(id, path, wrote, read, !has_name);
        if is_known && !was_known && has_name {
            let marked =
                mark(&self.listener, libc::FAN_MARK_INODE, libc::FAN_ACCESS, file.as_raw_fd(), ptr::null());
            if marked.is_err() {
                written.cut();
            }
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn mark(listener: &OwnedFd, kind: u32, events: u64, at: i32, path: *const libc::c_char) -> io::Result<()> {
    // SAFETY: `path` is null or ends with a zero, and lives until after the call.
    match unsafe { libc::fanotify_mark(listener.as_raw_fd(), libc::FAN_MARK_ADD | kind, events, at, path) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes an event off the beginning.
fn next(bytes: &[u8]) -> Option<(libc::fanotify_event_metadata, &[u8])> {
    if bytes.len() < size_of::<libc::fanotify_event_metadata>() {
        return None;
    }
    // SAFETY: there are as many bytes, all values of which are valid, and it is read wherever it lies.
    let event = unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<libc::fanotify_event_metadata>()) };
    let is_understood = event.vers == libc::FANOTIFY_METADATA_VERSION;
    let rest = bytes.get(usize::try_from(event.event_len).ok()?..)?;
    is_understood.then_some((event, rest))
}

/// Which file it is, and whether any name leads to it.
fn identity(file: &OwnedFd) -> io::Result<(Id, bool)> {
    let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::BTIME;
    let of = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let born = match of.stx_mask & StatxFlags::BTIME.bits() {
        0 => (0, 0),
        _ => (of.stx_btime.tv_sec, of.stx_btime.tv_nsec),
    };
    let id = Id { device: (of.stx_dev_major, of.stx_dev_minor), inode: of.stx_ino, born };
    Ok((id, of.stx_nlink > 0))
}

/// What it is called, or was.
fn name(file: &OwnedFd) -> io::Result<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let path = path.to_string_lossy();
    Ok(match path.strip_suffix(UNNAMED) {
        Some(former) if !Path::new(&*path).exists() => former.to_owned(),
        _ => path.into_owned(),
    })
}
