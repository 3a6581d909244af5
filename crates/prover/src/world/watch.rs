//! What the service does with files, seen as it does it: which files are written, also those that are gone before anybody looks at
//! the disk, and which of them are read again. Nothing of it decides or holds up anything: what is not seen is missing in a report.
//!
//! A thread of the first process collects events while the service runs, and answers what there was since it was asked last. It is
//! given a bounded time for that, so that a file system that hangs is no proof that hangs.

mod fanotify;
mod inotify;
mod written;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde::{Deserialize, Serialize};

pub(super) use self::inotify::Uppers;
use self::written::WrittenFiles;

/// How long events may gather before they are read: those of one process and file become one meanwhile, which is what makes them
/// cheap for a service that writes with each request.
const GATHERING: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// By what means files are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchMethod {
    /// `fanotify(7)` on all overlays, which needs the rights of root over the machine. It sees whatever way a file is written, but for
    /// memory that is mapped to it.
    Fanotify,
    /// `inotify(7)` on the folders that are written in, which needs no rights. It does not see memory that is mapped either, and no
    /// more folders than it has a bound for.
    Inotify,
    /// By none.
    #[default]
    None,
}

/// What was done with a file since somebody asked before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// A number of its own, whatever it is called by now.
    pub number: u32,
    /// What it was called when that was seen.
    pub path: String,
    /// Its inode, and when that was made (seconds and nanoseconds since 1970), by which it is known again under a later name.
    pub inode: (u64, i64, u32),
    /// Whether it was written.
    pub wrote: bool,
    /// Whether something was read out of it; seen only after it was written.
    pub read: bool,
}

/// What was seen since somebody asked before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Files that were written in this world, and what was done with them.
    pub files: Vec<Touched>,
    /// Whether something was missed.
    pub is_cut: bool,
}

/// Watches until it is dropped.
pub(super) struct Watch {
    questions: mpsc::Sender<mpsc::Sender<Seen>>,
    /// A byte in it wakes the thread for a question.
    bell: OwnedFd,
    watch_method: WatchMethod,
}

/// What events come from.
enum Group {
    Fanotify(fanotify::Group),
    Inotify(inotify::Group),
}

impl Watch {
    /// Watches all mounts at `points`.
    ///
    /// # Errors
    /// Where the kernel does not allow it, as in a user namespace.
    pub(super) fn mounts(points: &[PathBuf]) -> io::Result<Self> {
        let group = fanotify::Group::new(points)?;
        Self::start(Group::Fanotify(group), WrittenFiles::default(), WatchMethod::Fanotify)
    }

    /// Watches the folders that are written in, for a service that runs in `home`.
    ///
    /// # Errors
    /// Where the user has no watches left.
    pub(super) fn folders(uppers: Uppers, home: &Path) -> io::Result<Self> {
        let mut written = WrittenFiles::default();
        let group = inotify::Group::new(uppers, home, &mut written)?;
        Self::start(Group::Inotify(group), written, WatchMethod::Inotify)
    }

    fn start(group: Group, written: WrittenFiles, watch_method: WatchMethod) -> io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        let (rings, bell) = io::pipe()?;
        let collecting = move || collect(group, written, &asked, &rings.into());
        thread::Builder::new().name("watch".into()).spawn(collecting)?;
        Ok(Self { questions, bell: bell.into(), watch_method })
    }

    /// By what means it watches.
    pub(super) fn watch_method(&self) -> WatchMethod {
        self.watch_method
    }

    /// What was seen since this was asked before. What cannot be told in time is cut.
    pub(super) fn seen(&self) -> Seen {
        let (answer, answered) = mpsc::channel();
        let is_asked = self.questions.send(answer).is_ok() && rustix::io::write(&self.bell, b"?").is_ok();
        let seen = if is_asked { answered.recv_timeout(ANSWER_MAX).ok() } else { None };
        seen.unwrap_or(Seen { files: Vec::new(), is_cut: true })
    }
}

/// Notes what comes until nobody can ask any more.
fn collect(
    mut group: Group,
    mut written: WrittenFiles,
    asked: &mpsc::Receiver<mpsc::Sender<Seen>>,
    bell: &OwnedFd,
) {
    loop {
        let Ok(is_asked) = wait(&group, bell) else { return };
        group.read(&mut written);
        if !is_asked {
            continue;
        }
        // One byte is one question; none is the end.
        if !matches!(rustix::io::read(bell, &mut [0_u8]), Ok(1)) {
            return;
        }
        let Ok(answer) = asked.try_recv() else { return };
        group.settle(&mut written);
        // Who asked may have had enough of waiting.
        let _ = answer.send(written.take());
    }
}

/// Waits for events, and a while longer for more of them, or for a question; whether it is one.
fn wait(group: &Group, bell: &OwnedFd) -> rustix::io::Result<bool> {
    loop {
        let mut waiting = [PollFd::new(bell, PollFlags::IN), PollFd::new(group, PollFlags::IN)];
        let woken = match poll(&mut waiting, None) {
            Ok(_) if waiting[0].revents().is_empty() => poll(&mut waiting[..1], Some(&GATHERING)),
            woken => woken,
        };
        match woken {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(!waiting[0].revents().is_empty()),
        }
    }
}

impl Group {
    fn read(&mut self, written: &mut WrittenFiles) {
        match self {
            Self::Fanotify(group) => group.read(written),
            Self::Inotify(group) => group.read(written),
        }
    }

    /// What is to be done before an answer.
    fn settle(&mut self, written: &mut WrittenFiles) {
        match self {
            Self::Fanotify(_) => {}
            Self::Inotify(group) => group.settle(written),
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Fanotify(group) => group.as_fd(),
            Self::Inotify(group) => group.as_fd(),
        }
    }
}
