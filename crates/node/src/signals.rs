//! What signals ask for: to end, in steps, or to read the configuration again.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use lethe_admin::{
    interruption,
    stop::{Stop, Wish},
};
use tokio::sync::{Notify, watch};

use crate::{config, hangup::Terminal};

/// Turns `stop` at signals: SIGINT (Ctrl-C) one further each time, SIGTERM to drain. SIGHUP asks to reload;
/// but it drains when the terminal has gone in which `lethe` was started, and when `source` is a command, which cannot be
/// reloaded. A SIGHUP that is ignored, as under nohup(1), stays ignored. Ends with the runtime.
pub fn obey(stop: Stop, source: &config::Source, signals: Arc<Signals>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let hangup = SignalKind::hangup();
    let is_ignored =
        ignores(&fs::read_to_string("/proc/self/status").unwrap_or_default(), hangup.as_raw_value());
    let mut hangup = if is_ignored { None } else { Some(signal(hangup)?) };
    let terminal = Terminal::of_start();
    let can_reload = matches!(source, config::Source::Path(_));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => {
                    signals.came.send_modify(|came| came.interrupts += 1);
                    let interrupts = signals.came.borrow().interrupts;
                    signals.interrupted(&stop, interrupts);
                }
                Some(()) = terminate.recv() => signals.drain(&stop),
                Some(()) = async { hangup.as_mut()?.recv().await } => {
                    if can_reload && !terminal.has_gone() { signals.reload.notify_one() } else { signals.drain(&stop) }
                }
                else => return,
            }
        }
    });
    Ok(())
}

/// What signals have asked for, beside the end.
#[derive(Debug, Default)]
pub struct Signals {
    /// Notified when the configuration shall be read again.
    pub reload: Notify,
    /// Set when a second SIGINT came, so that open requests were not waited for.
    pub cut_short: AtomicBool,
    /// What came to this process.
    pub(crate) came: watch::Sender<Came>,
    /// How many SIGINTs had their effect.
    counted: AtomicU32,
}

/// Signals that asked for the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) interrupts: u32,
    /// One that asks to drain.
    pub(crate) is_drain: bool,
}

impl Signals {
    /// So many SIGINTs have come, to this process or to the one that waits for it: a Ctrl-C comes to both, and has its
    /// effect once.
    pub(crate) fn interrupted(&self, stop: &Stop, interrupts: u32) {
        for _ in self.counted.fetch_max(interrupts, Ordering::Relaxed)..interrupts {
            if stop.press() == Wish::Now {
                self.cut_short.store(true, Ordering::Relaxed);
            }
        }
    }

    fn drain(&self, stop: &Stop) {
        self.came.send_modify(|came| came.is_drain = true);
        match stop.terms() {
            // The second one waits for nobody.
            Some(terms) if !stop.is_leaving() => _ = interruption::heed(stop, "told to end", terms),
            _ => stop.ask(Wish::Drain),
        }
    }
}

/// Whether a process ignores a signal, by its `/proc/<pid>/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals() {
        let status = "Name:\tlethe\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        for (signal, ignored) in [(1, true), (2, false), (13, true), (64, false)] {
            assert_eq!(ignores(status, signal), ignored, "{signal}");
        }
        assert!(!ignores("", 1));
    }

    #[test]
    fn one_ctrl_c_that_comes_by_two_ways_counts_once() {
        let (stop, signals) = (Stop::new(), Signals::default());
        for (interrupts, wish) in [(1, Wish::Drain), (1, Wish::Drain), (2, Wish::Now), (2, Wish::Now)] {
            signals.interrupted(&stop, interrupts);
            assert_eq!(stop.wish(), wish);
        }
        assert!(signals.cut_short.load(Ordering::Relaxed));
    }
}
