//! Text on its way from a core to a thread that may block on a disk or on a network. Each core writes into a tray of
//! its own and hands it over now and then, through a bounded channel that it never waits for: what does not fit is
//! dropped and counted, and no request is the slower for it.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::Thread,
};

/// A tray as large as this is handed over, and takes no more if it cannot be.
pub(crate) const TRAY_BYTES: usize = 32 << 10;

/// Batches that may wait for their thread: 2 MiB if all are full.
pub(crate) const BATCHES_MAX: usize = 64;

/// Items that were handed over together.
pub(crate) struct Batch {
    pub(crate) text: Box<[u8]>,
    /// How many items.
    pub(crate) items: u64,
    /// How many the tray has dropped before these.
    pub(crate) dropped: u64,
}

/// Where batches wait, and the thread that takes them.
pub(crate) fn channel() -> (SyncSender<Batch>, Receiver<Batch>) {
    sync_channel(BATCHES_MAX)
}

/// What one core has written and not yet handed over.
pub(crate) struct Tray {
    text: Vec<u8>,
    items: u64,
    dropped: u64,
    sender: SyncSender<Batch>,
    /// Parked while there is nothing to do.
    thread: Thread,
}

impl Tray {
    pub(crate) fn new(sender: SyncSender<Batch>, thread: Thread) -> Self {
        Self { text: Vec::new(), items: 0, dropped: 0, sender, thread }
    }

    /// Adds `items` items that `write` appends, or drops them and returns false.
    #[must_use = "what is dropped is counted"]
    pub(crate) fn add(&mut self, items: u64, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.text.len() >= TRAY_BYTES {
            self.hand_over();
        }
        if self.text.len() >= TRAY_BYTES {
            self.dropped += items;
            return false;
        }
        write(&mut self.text);
        self.items += items;
        true
    }

    /// Hands over what there is, if there is room for it; otherwise it stays.
    pub(crate) fn hand_over(&mut self) {
        if self.text.is_empty() {
            return;
        }
        let batch = Batch { text: self.text.as_slice().into(), items: self.items, dropped: self.dropped };
        if self.sender.try_send(batch).is_ok() {
            self.text.clear();
            (self.items, self.dropped) = (0, 0);
            self.thread.unpark();
        }
    }
}

impl Drop for Tray {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (sender, receiver) = channel();
        let mut tray = Tray::new(sender, std::thread::current());
        let item = [b'x'; 1000];
        let (mut kept, mut dropped) = (0, 0);
        while dropped < 10 {
            if tray.add(1, |text| text.extend_from_slice(&item)) { kept += 1 } else { dropped += 1 }
        }
        let room = (BATCHES_MAX + 1) * TRAY_BYTES.next_multiple_of(item.len());
        assert_eq!(kept, (room / item.len()) as u64);
        // Room again: what the tray still has comes first, and says what is missing.
        let batches: Vec<Batch> = receiver.try_iter().collect();
        assert!(batches.iter().all(|batch| batch.dropped == 0));
        assert!(tray.add(1, |text| text.extend_from_slice(&item)));
        drop(tray);
        let rest: Vec<Batch> = receiver.try_iter().collect();
        assert_eq!(rest.iter().map(|batch| batch.dropped).collect::<Vec<_>>(), [10, 0]);
        let items: u64 = batches.iter().chain(&rest).map(|batch| batch.items).sum();
        assert_eq!(items, kept + 1);
    }
}
