//! A world: what one worker sees of the machine, apart from every other worker. It has the same files, but what it writes
//! lands on a disk of its own; it has all ports for itself, and its own process numbers, so that ending it ends everything
//! it has started.
//!
//! `lethe` starts itself anew as the `outer` process, which makes the namespaces, and that one starts the `init` process, which
//! is the first inside: it makes the files, runs the service, and answers on the `channel`.

pub mod channel;
mod diag;
pub mod entropy;
mod init;
pub mod listening;
pub mod mounts;
mod outer;
mod root;
pub mod watch;
mod word;

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    init::init,
    outer::outer,
    watch::WatchMethod,
    word::{Reply, Request},
};

/// How well a worker is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Overlays over all file systems, own network and processes; made by root.
    Overlay,
    /// The same by whoever may make a user namespace. Files of others cannot be changed in it.
    UserOverlay,
    /// A copy of the service's folder, and nothing else: workers share the rest of the disk and the ports.
    Copied,
}

impl Level {
    /// As the coverage line names it, with what files are watched by.
    pub fn text(self, watch_method: WatchMethod) -> &'static str {
        match (self, watch_method) {
            (Self::Overlay, WatchMethod::Fanotify) => "overlay+fanotify+netns+pidns",
            (Self::Overlay, WatchMethod::Inotify) => "overlay+inotify+netns+pidns",
            (Self::Overlay, WatchMethod::None) => "overlay+netns+pidns",
            (Self::UserOverlay, WatchMethod::Inotify) => "overlay+inotify+netns+pidns (user namespace)",
            // In a user namespace the kernel allows fanotify on mounts to nobody.
            (Self::UserOverlay, _) => "overlay+netns+pidns (user namespace)",
            (Self::Copied, _) => Self::COPIED,
        }
    }

    /// The text of [`Level::Copied`].
    pub const COPIED: &str = "copied folder";

    /// Whether each file that a worker writes is its own, so that what it keeps in one can be seen.
    pub fn has_own_files(self) -> bool {
        self != Self::Copied
    }
}

/// What a world is made of, as its processes are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// How well it is kept apart.
    pub level: Level,
    /// The host name inside. It stays with the disk, as that of a machine.
    pub host: String,
    /// The folder of what is written: for the layer N, `N/upper` and `N/work`; for [`Level::Copied`], `app`.
    pub disk: PathBuf,
    /// An empty folder that the new root is put together on.
    pub root: PathBuf,
    /// What its files are.
    pub mounts: mounts::Mounts,
    /// The layers that can only be read, or are not there, in the worlds before this one: it must be as they are.
    pub weak: Option<Vec<PathBuf>>,
    /// A folder that is shown empty: where this and other worlds are made.
    pub hidden: PathBuf,
    /// Addresses that are listened on inside, for services beside that workers use.
    pub doors: Vec<SocketAddr>,
    /// The service: program and arguments. None is a world that is only tried.
    pub command: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// What its random numbers are drawn from, if they are to come again.
    pub entropy: Option<u64>,
    /// A file that is emptied before it is started.
    pub emptied: Option<PathBuf>,
    /// A library that is loaded into its programs.
    pub preload: Option<PathBuf>,
    /// Whether it is watched what is done with files.
    pub is_watched: bool,
}
