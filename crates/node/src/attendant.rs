//! What is left of a process from which another has taken over. Whoever has started it, a shell, a container or a
//! supervisor, knows this process alone; so it stays, small, until the one that serves has ended: it passes on the signals
//! it gets, and ends with the same status. However often another takes over, there is one attendant: it becomes the parent
//! of each next one when the one before it has ended (`PR_SET_CHILD_SUBREAPER`).

use std::{
    io,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::ExitStatus,
    sync::{Arc, PoisonError},
    time::Duration,
};

use lethe_admin::stop::Stop;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, waitid, waitpid};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    config::Source,
    handover::{self, Ear, Word},
    heir::Heir,
    signals::{self, Came, Signals},
};

/// How long the last word of a process that has ended is waited for, should somebody else have its connection.
const LAST_WORD_WAIT: Duration = Duration::from_secs(2);

impl Heir {
    /// Passes on what signals ask of this process, and have asked. Never returns.
    pub async fn forward(&self, signals: &Signals) {
        match &self.attended {
            Some(heir) => forward(heir, signals).await,
            None => std::future::pending().await,
        }
    }

    /// Waits until the process that serves has ended, and gives its exit status, as a shell has it. If somebody else
    /// waits for it, returns at once, with 0 unless it has ended already.
    ///
    /// Must not be called within a runtime; all other children must have ended.
    pub fn attend(&self, stop: &Stop, source: &Source, signals: &Arc<Signals>) -> io::Result<u8> {
        if self.attended.is_none() {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = child.as_mut().map(|child| child.try_wait()).transpose()?.flatten();
            return Ok(ended.map_or(0, status));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.attend_within(stop, source, signals))
    }

    async fn attend_within(&self, stop: &Stop, source: &Source, signals: &Arc<Signals>) -> io::Result<u8> {
        let Some(stream) = &self.attended else { return Ok(0) };
        let mut children = signal(SignalKind::child())?;
        signals::obey(stop.clone(), source, Arc::clone(signals))?;
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
                    // Begun anew, `forward` repeats what the one before may have heard when it was not its to do.
                    waited.next = pid(next);
                },
                () = forward(stream, signals) => {}
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

async fn forward(heir: &UnixStream, signals: &Signals) {
    let mut came = signals.came.subscribe();
    loop {
        let Came { interrupts, is_drain } = *came.borrow_and_update();
        // What it has heard before has no effect again.
        if interrupts > 0 {
            tell(heir, &Word::Interrupted(interrupts));
        }
        if is_drain {
            tell(heir, &Word::Drain);
        }
        tokio::select! {
            // It cannot fail: the sender is borrowed here.
            _ = came.changed() => {}
            () = signals.reload.notified() => tell(heir, &Word::Reload),
        }
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
