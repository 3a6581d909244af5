//! What is left of a process from which another has taken over. Whoever has started it, a shell, a container or a
//! supervisor, knows this process alone; so it stays, small, until the one that serves has ended: it passes on the signals
//! it gets, and ends with the same status. However often another takes over, there is one attendant: it becomes the parent
//! of each next one when the one before it has ended (`PR_SET_CHILD_SUBREAPER`).

use std::{
    io,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::ExitStatus,
    sync::PoisonError,
    time::Duration,
};

use lethe_admin::stop::{Stop, Wish};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, waitid, waitpid};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    config::Source,
    handover::{self, Ear, Word},
    heir::Heir,
    node::{self, Signals},
};

/// How long the last word of a process that has ended is waited for, should somebody else have its connection.
const LAST_WORD_WAIT: Duration = Duration::from_secs(2);

impl Heir {
    /// Passes on what signals have asked of this process, from now on. Never returns.
    pub async fn forward(&self, stop: &Stop, signals: &Signals) {
        let Some(heir) = &self.attended else { return std::future::pending().await };
        forward(heir, stop, signals).await
    }

    /// Waits until the process that serves has ended, and gives its exit status, as a shell has it. If somebody else
    /// waits for it, returns at once, with 0 unless it has ended already.
    ///
    /// Must not be called within a runtime; all other children must have ended.
    pub fn attend(&self, stop: &Stop, source: &Source) -> io::Result<u8> {
        if self.attended.is_none() {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = child.as_mut().map(|child| child.try_wait()).transpose()?.flatten();
            return Ok(ended.map_or(0, status));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.attend_within(stop, source))
    }

    async fn attend_within(&self, stop: &Stop, source: &Source) -> io::Result<u8> {
        let Some(stream) = &self.attended else { return Ok(0) };
        let mut children = signal(SignalKind::child())?;
        let signals = node::obey_signals(stop.clone(), source)?;
        let mut ear = Ear::at(stream.try_clone()?)?;
        let mut waited = Waited { serving: pid(self.pid), next: None, ended: None };
        loop {
            waited.reap();
            if !waited.is_served() {
                // It may have named its heir as the last it did. Nobody else has the other end of this connection.
                match timeout(LAST_WORD_WAIT, ear.hear()).await {
                    Ok(Some(Word::Heir(next))) => waited.serving = pid(next),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(waited.ended.unwrap_or(0)),
                }
                continue;
            }
            tokio::select! {
                _ = children.recv() => {}
                Some(word) = ear.hear() => if let Word::Heir(next) = word {
                    waited.next = pid(next);
                    // The one before may have been told to stop when it was not its to do any more.
                    repeat(stream, stop);
                },
                () = forward(stream, stop, &signals) => {}
            }
        }
    }
}

/// Whose end is waited for.
struct Waited {
    serving: Option<Pid>,
    /// Who has taken over from that one, and is its child until it ends.
    next: Option<Pid>,
    /// The status of the last of them.
    ended: Option<u8>,
}

impl Waited {
    /// Reaps all children that have ended: what the workers of others left behind comes here too.
    fn reap(&mut self) {
        while let Ok(Some((child, status))) = waitpid(None, WaitOptions::NOHANG) {
            if Some(child) == self.serving {
                self.serving = self.next.take();
            } else if Some(child) == self.next {
                self.next = None;
            } else {
                continue;
            }
            self.ended = Some(status_of(status));
        }
    }

    /// Whether somebody serves.
    fn is_served(&self) -> bool {
        // Not if it ended before its parent did, which then has seen it.
        self.serving.is_some_and(is_child)
    }
}

/// Whether it is a child of this process that was not reaped.
fn is_child(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), look).is_ok()
}

async fn forward(heir: &UnixStream, stop: &Stop, signals: &Signals) {
    loop {
        let wish = stop.wish();
        repeat(heir, stop);
        let further = if wish == Wish::Run { Wish::Drain } else { Wish::Now };
        tokio::select! {
            () = stop.asked(further), if wish != Wish::Now => {}
            () = signals.reload.notified() => tell(heir, &Word::Reload),
        }
    }
}

/// Says how far the wish to stop goes, if there is one; saying it twice does no harm.
fn repeat(heir: &UnixStream, stop: &Stop) {
    match stop.wish() {
        Wish::Run => {}
        Wish::Drain => tell(heir, &Word::Drain),
        Wish::Now => tell(heir, &Word::Now),
    }
}

fn tell(heir: &UnixStream, word: &Word) {
    // If nobody hears it, the end is near.
    let _ = handover::say(heir, word);
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.cast_signed())
}

fn status_of(wait: WaitStatus) -> u8 {
    status(ExitStatus::from_raw(wait.as_raw()))
}

/// As a shell has it: 128 and the signal for a process that was killed.
fn status(status: ExitStatus) -> u8 {
    const SIGNALLED: i32 = 128;
    let code = status.code().or(status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
