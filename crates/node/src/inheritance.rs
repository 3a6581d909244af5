//! What a `lethe` has from the one it takes over from. It is claimed first of all, before anything else is opened or
//! started, so that no other child ever sees it.

use std::{
    collections::BTreeMap,
    env,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use anyhow::{Context, bail};
use lethe_admin::stop::{Stop, Wish};
use lethe_gateway::gateway;
use lethe_model::service::ServiceName;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{
    handover::{self, Deed, Ear, FORMAT, Kept, Listeners, VARIABLE, Word, Workers},
    signals::Signals,
};

/// What was inherited.
#[derive(Debug)]
pub struct Inheritance {
    /// The connection to the process that is taken over from.
    pub(crate) link: UnixStream,
    pub(crate) estate: Estate,
}

/// What is to be gone on with.
#[derive(Debug)]
pub(crate) struct Estate {
    /// The connection to the process that waits for the end.
    pub(crate) attendant: Option<UnixStream>,
    /// The claim on the state folder.
    pub(crate) lock: OwnedFd,
    pub(crate) listeners: Vec<gateway::Listeners>,
    /// Where health and metrics are, with the address as it was configured.
    pub(crate) admin: Option<(SocketAddr, TcpListener)>,
    pub(crate) workers: BTreeMap<ServiceName, Workers>,
    /// Where state is kept; `None` if the other one could not tell.
    pub(crate) kept: Option<Kept>,
}

/// Claims what this process has inherited; `None` if it was started by hand.
///
/// # Safety
/// Called once, before the process has a second thread, and before it has opened any descriptor itself.
pub unsafe fn claim() -> anyhow::Result<Option<Inheritance>> {
    let Some(text) = env::var_os(VARIABLE) else { return Ok(None) };
    // SAFETY: there is no other thread.
    unsafe { env::remove_var(VARIABLE) };
    // The process that has started this one may leave from now on.
    rustix::process::set_parent_process_death_signal(None)?;
    let deed: Deed = serde_json::from_slice(text.as_encoded_bytes())
        .with_context(|| format!("{VARIABLE} is of another lethe, whose format is not known"))?;
    if deed.format != FORMAT {
        bail!(
            "the running lethe hands over in format {}, and this one knows {FORMAT}; restart instead",
            deed.format
        );
    }
    // SAFETY: the numbers were opened for this process, which has nothing else open yet, and each is claimed once.
    unsafe { claim_all(deed) }.map(Some).with_context(|| format!("what {VARIABLE} names was not inherited"))
}

unsafe fn claim_all(deed: Deed) -> anyhow::Result<Inheritance> {
    // SAFETY: as demanded of the caller.
    let own = |number| unsafe { own(number) };
    let listeners = |listeners: Listeners| {
        let sockets = listeners.sockets.into_iter().map(|number| Ok(own(number)?.into()));
        let sockets = sockets.collect::<anyhow::Result<Vec<TcpListener>>>()?;
        anyhow::Ok(gateway::Listeners { address: listeners.address, sockets })
    };
    let [stdout, stderr] = [own(deed.output[0])?, own(deed.output[1])?];
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    let admin = deed.admin.map(listeners).transpose()?;
    let admin = admin.and_then(|mut admin| Some((admin.address, admin.sockets.pop()?)));
    let estate = Estate {
        attendant: deed.attendant.map(own).transpose()?.map(UnixStream::from),
        lock: own(deed.lock)?,
        listeners: deed.listeners.into_iter().map(listeners).collect::<Result<_, _>>()?,
        admin,
        workers: deed.workers,
        kept: deed.kept,
    };
    let link = UnixStream::from(own(deed.link)?);
    link.set_nonblocking(true)?;
    Ok(Inheritance { link, estate })
}

/// Takes a descriptor, so that no child has it.
unsafe fn own(number: RawFd) -> anyhow::Result<OwnedFd> {
    anyhow::ensure!(number > 2, "descriptor {number} is not one of those");
    // SAFETY: only used to find out whether it is open at all.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed.as_fd(), FdFlags::CLOEXEC).with_context(|| format!("descriptor {number}"))?;
    // SAFETY: it is open, and by the caller's word nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

impl Inheritance {
    /// Tells the other process that nothing comes of it, and why. For what goes wrong before [`crate::node::start`].
    pub fn refuse(&self, error: &anyhow::Error) {
        let _ = handover::say(&self.link, &Word::Failed(handover::reason(&format!("{error:#}"))));
    }
}

/// Does what the attendant says, for as long as it is there. Never returns otherwise.
pub(crate) async fn obey(mut attendant: Ear, stop: Stop, signals: Arc<Signals>) {
    while let Some(word) = attendant.hear().await {
        match word {
            Word::Drain => stop.ask(Wish::Drain),
            Word::Interrupted(interrupts) => signals.interrupted(&stop, interrupts),
            Word::Reload => signals.reload.notify_one(),
            Word::Serving(_) | Word::Failed(_) | Word::Yours | Word::Heir(_) => {}
        }
    }
}
