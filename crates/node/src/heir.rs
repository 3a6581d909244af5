//! Another program takes over from this process: it is started as a child that inherits the listeners and the claim on
//! the state folder, starts its own workers beside the old ones, and begins to accept. Only then does this process accept
//! no more. Whatever goes wrong before leaves all as it was.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use lethe_admin::{api, handles, runtime, stop::Wish};
use lethe_state::embedded::Claim;
use rustix::process::getpid;
use tokio::{sync::watch, time::timeout};

use crate::{
    coming::{Coming, Parcel},
    folder::Charge,
    handover::{self, Deed, FORMAT, Kept, Listeners, Word, Workers},
    notify,
    reload::{Reloader, Running},
};

/// The longest time a program may be given to get ready.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program cannot be run.
    #[error("{} cannot take over: {reason}", .binary.display())]
    Binary {
        /// The program.
        binary: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else is going on.
    #[error("a reload or another upgrade is under way; try again when it has ended")]
    Busy,
    /// A release of a service is on its way, which the other process would know nothing of.
    #[error(
        "{0}: a rollout is under way; upgrade when it has ended, or call it off (`lethe deploy {0} --abort`)"
    )]
    Rolling(lethe_model::service::ServiceName),
    /// Another process is in charge already.
    #[error("another process has taken over already; ask that one")]
    Over,
    /// It gave up; the text is its own.
    #[error("the new lethe did not start: {0}")]
    Refused(String),
    /// It ended.
    #[error("{} ended ({status}){}", .binary.display(), said(.lines))]
    Ended {
        /// The program.
        binary: PathBuf,
        /// How.
        status: String,
        /// What it printed last.
        lines: Vec<String>,
    },
    /// It took too long.
    #[error("{} was not ready within {} s, and was killed{}", .binary.display(), .timeout.as_secs(), said(.lines))]
    Late {
        /// The program.
        binary: PathBuf,
        /// How long it had.
        timeout: Duration,
        /// What it printed last.
        lines: Vec<String>,
    },
    /// The system refused.
    #[error("cannot hand over")]
    System(#[from] io::Error),
    /// `lethe` is to stop.
    #[error("lethe is stopping")]
    Stopping,
}

fn said(lines: &[String]) -> String {
    if lines.is_empty() {
        "; it printed nothing".into()
    } else {
        format!("; its last lines:\n{}", lines.join("\n"))
    }
}

/// What is handed over, and to whom it was.
pub(crate) struct Upgrader {
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) claim: Claim,
    /// With the address as it was configured.
    pub(crate) admin: Option<(SocketAddr, TcpListener)>,
    /// The folder of the sockets, and whether those in it are this process's.
    pub(crate) folder: PathBuf,
    pub(crate) charge: Arc<Mutex<Charge>>,
    /// Who waits for the end of this process, if it has itself taken over from another.
    pub(crate) attendant: Option<UnixStream>,
    pub(crate) heir: watch::Sender<Option<Arc<Heir>>>,
}

/// The process that has taken over.
#[derive(Debug)]
pub struct Heir {
    /// Its process id.
    pub pid: u32,
    pub(crate) child: Mutex<Option<Child>>,
    /// Where it waits for the terminal.
    link: UnixStream,
    /// Where it is told of signals; `None` if somebody else waits for its end.
    pub(crate) attended: Option<UnixStream>,
}

impl Heir {
    /// Lets it use the terminal. To be called when this process does not any more.
    pub fn welcome(&self) {
        // If it has gone, its end is seen elsewhere.
        let _ = handover::say(&self.link, &Word::Yours);
    }
}

impl Upgrader {
    /// The hook for the control API.
    pub(crate) fn hook(self: Arc<Self>) -> handles::Upgrade {
        Arc::new(move |request| {
            let upgrader = Arc::clone(&self);
            // In a task of its own: whoever asked may go away, and it goes on all the same.
            let task = tokio::spawn(async move { upgrader.upgrade(request).await });
            async move { task.await.unwrap_or(Err(Error::Stopping)).map_err(|error| problem(&error)) }.boxed()
        })
    }

    /// Waits until another process is in charge. Cancellation safe.
    pub(crate) async fn taken_over(&self) -> Arc<Heir> {
        match self.heir.subscribe().wait_for(Option::is_some).await.map(|heir| heir.clone()) {
            Ok(Some(heir)) => heir,
            _ => std::future::pending().await,
        }
    }

    async fn upgrade(&self, request: api::Upgrade) -> Result<api::Upgraded, Error> {
        let mut running = self.reloader.unless_reloading().await.ok_or(Error::Busy)?;
        if running.is_over {
            return Err(Error::Over);
        }
        if let Some(service) = self.reloader.deploys.all_under_way().into_iter().next() {
            return Err(Error::Rolling(service));
        }
        if self.reloader.stop.wish() != Wish::Run {
            return Err(Error::Stopping);
        }
        let binary = request.binary;
        check(&binary).map_err(|reason| Error::Binary { binary: binary.clone(), reason })?;
        tracing::info!("upgrade: running {}", binary.display());
        let taken = self.take_over(&binary, &running, Duration::from_secs(request.timeout_s)).await;
        match &taken {
            Ok((_, node)) => {
                running.is_over = true;
                tracing::info!("upgrade: pid {} (lethe {}) has taken over", node.pid, node.version);
            }
            Err(error) => {
                self.claim.hold();
                tracing::error!("not upgraded: {}", in_full(error));
            }
        }
        let (heir, node) = taken?;
        self.heir.send_replace(Some(heir));
        Ok(api::Upgraded { before: std::process::id(), pid: node.pid, version: node.version })
    }

    async fn take_over(
        &self,
        binary: &Path,
        running: &Running,
        time: Duration,
    ) -> Result<(Arc<Heir>, api::Node), Error> {
        let mut coming = self.start(binary, running)?;
        let time = time.min(TIMEOUT_MAX);
        let heard = tokio::select! {
            biased;
            () = self.reloader.stop.asked(Wish::Drain) => return Err(Error::Stopping),
            heard = timeout(time, coming.ear.hear()) => heard,
        };
        let binary = binary.to_owned();
        match heard {
            Ok(Some(Word::Serving(node))) => {
                let link = coming.link.try_clone()?;
                // A program between the two, such as a shell, may be the child, and is the one whose end is seen.
                let pid = coming.child.as_ref().map_or(node.pid, Child::id);
                self.leave_charge(&node, pid)?;
                let heir = Heir {
                    pid,
                    child: Mutex::new(coming.child.take()),
                    link,
                    attended: coming.attended.take(),
                };
                Ok((Arc::new(heir), node))
            }
            Ok(Some(Word::Failed(reason))) => Err(Error::Refused(reason)),
            Ok(_) => {
                let status = coming.ended().await;
                Err(Error::Ended { binary, status, lines: coming.last_lines().await })
            }
            Err(_elapsed) => {
                coming.kill();
                Err(Error::Late { binary, timeout: time, lines: coming.last_lines().await })
            }
        }
    }

    /// From here on the other process is the one that is found, waited for, and told of.
    fn leave_charge(&self, node: &api::Node, pid: u32) -> io::Result<()> {
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        runtime::put_in_charge(&self.folder, node)?;
        *charge = Charge::Left;
        if let Some(attendant) = &self.attendant {
            let _ = handover::say(attendant, &Word::Heir(pid));
        }
        // Of two processes, systemd by default believes only the main one, which this is for the last time.
        notify::notify(&format!("MAINPID={pid}"));
        Ok(())
    }

    /// Starts the program with the arguments of this process.
    fn start(&self, binary: &Path, running: &Running) -> Result<Coming, Error> {
        let (link, its_link) = UnixStream::pair()?;
        let mut parcel = Parcel::default();
        let (attended, its_attendant) = match &self.attendant {
            Some(attendant) => (None, Some(attendant.try_clone()?)),
            // Whoever supervises this process is told which one comes after it.
            None if notify::is_wanted() => (None, None),
            None => {
                let (ours, its) = UnixStream::pair()?;
                ours.set_nonblocking(true)?;
                (Some(ours), Some(its))
            }
        };
        let listeners = self.reloader.gateway.listeners()?.into_iter().map(|listeners| Listeners {
            address: listeners.address,
            sockets: listeners.sockets.into_iter().map(|socket| parcel.put(socket.into())).collect(),
        });
        let deed = Deed {
            format: FORMAT,
            listeners: listeners.collect(),
            link: parcel.put(its_link.into()),
            attendant: its_attendant.map(|stream| parcel.put(stream.into())),
            lock: parcel.put(self.claim.share()?),
            admin: match &self.admin {
                Some((address, socket)) => Some(Listeners {
                    address: *address,
                    sockets: vec![parcel.put(socket.try_clone()?.into())],
                }),
                None => None,
            },
            output: [
                parcel.put(io::stdout().as_fd().try_clone_to_owned()?),
                parcel.put(io::stderr().as_fd().try_clone_to_owned()?),
            ],
            workers: self.workers(running),
            kept: Some(Kept::by(&running.config)),
        };
        if self.attendant.is_none() && attended.is_some() {
            // What comes after the new one is to become a child of this process too, once the new one has ended.
            rustix::process::set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
        }
        Ok(Coming::start(binary, &deed, parcel, link, attended)?)
    }

    fn workers(&self, running: &Running) -> BTreeMap<lethe_model::service::ServiceName, Workers> {
        let (wanted, numbers) = (self.reloader.supervisor.wanted(), self.reloader.supervisor.numbers());
        let pinned = self.reloader.scaling.pinned();
        let workers = running.config.services.iter().map(|service| {
            let (name, configured) = (&service.spec.name, service.spec.instances);
            let wanted = wanted.get(name).copied().unwrap_or(configured);
            let (last, pinned) = (numbers.get(name).copied().unwrap_or(0), pinned.contains(name));
            (name.clone(), Workers { configured, wanted, last, pinned })
        });
        workers.collect()
    }
}

/// What is wrong with a program that is to be run.
fn check(binary: &Path) -> Result<(), String> {
    if !binary.is_absolute() {
        return Err("its path must be absolute".into());
    }
    let meta = fs::metadata(binary).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("it is not executable".into());
    }
    Ok(())
}

fn in_full(error: &Error) -> String {
    match error {
        Error::System(cause) => format!("{error}: {cause}"),
        error => error.to_string(),
    }
}

fn problem(error: &Error) -> api::Problem {
    let (status, title) = match error {
        Error::Binary { .. } => (422, "Cannot be run"),
        Error::Busy | Error::Over | Error::Rolling(_) => (409, "Not now"),
        Error::Stopping => (503, "Stopping"),
        _ => (500, "Not upgraded"),
    };
    let detail =
        format!("{}\nnothing was changed; lethe (pid {}) goes on", in_full(error), std::process::id());
    api::Problem { status, title: title.into(), detail }
}
