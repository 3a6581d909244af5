//! Whether the engine is used by one caller at a time. To hand a command over to a writer's thread and to be told of its end costs two wakes
//! of threads, a fourth of the time of a lone write, so who is alone does it at once. But a thread that waits for the disk hears of no
//! others meanwhile, who could share that wait, or would only read: so this is for who has long been alone, and now and then a command
//! is handed over all the same, to see whether there are others.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::runtime::{Handle, RuntimeFlavor};

/// How many commands in a row must have been alone.
const ALONE_MIN: u32 = 16;
/// Of so many that may be done at once, about one is handed over. A power of two.
const LOOKED_EACH: u32 = 16;
/// How long a transaction may take at most: it holds up a thread that other tasks wait for.
const BRIEF: Duration = Duration::from_millis(1);

/// What all users of an engine share.
#[derive(Default)]
pub(super) struct Solitude {
    /// Brief groups in a row, of one command, while which nobody came.
    count: AtomicU32,
    /// Groups that are being done.
    busy: AtomicU32,
}

impl Solitude {
    /// Somebody wants something. Cheap while nobody writes.
    pub(super) fn disturb(&self) {
        if self.busy.load(Relaxed) != 0 {
            self.count.store(0, Relaxed);
        }
    }

    /// A group begins to be done.
    pub(super) fn begin(&self) {
        self.busy.fetch_add(1, Relaxed);
    }

    /// A group was done in so much time; `was_alone` says whether it was of one command, with no other behind it.
    pub(super) fn end(&self, was_alone: bool, took: Duration) {
        self.busy.fetch_sub(1, Relaxed);
        if was_alone && took < BRIEF {
            self.count.fetch_add(1, Relaxed);
        } else {
            self.count.store(0, Relaxed);
        }
    }

    /// Whether a command may be done where it comes from: nobody has come for long, and this thread is not the only one of its runtime.
    pub(super) fn is_certain(&self) -> bool {
        let count = self.count.load(Relaxed);
        // At a regular distance, they could be missed for ever by who looks. By Fibonacci hashing (Knuth, volume 3, section 6.4) it is none.
        let is_look = count.wrapping_mul(0x9E37_79B9) >> (u32::BITS - LOOKED_EACH.ilog2()) == 0;
        count >= ALONE_MIN && !is_look && has_other_threads()
    }
}

fn has_other_threads() -> bool {
    Handle::try_current().is_ok_and(|runtime| {
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has so many commands done that are alone; how many of them where they come from.
    fn alone(solitude: &Solitude, count: u32) -> usize {
        let mut certain = 0;
        for _ in 0..count {
            certain += usize::from(solitude.is_certain());
            solitude.begin();
            solitude.end(true, Duration::ZERO);
        }
        certain
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_takes_long_to_be_certain_and_one_to_doubt() {
        type Doubt = fn(&Solitude);
        let doubts: [(&str, Doubt); 3] = [
            ("a command behind it", |solitude| solitude.end(false, Duration::ZERO)),
            ("a slow disk", |solitude| solitude.end(true, BRIEF)),
            ("a read meanwhile", |solitude| {
                solitude.disturb();
                solitude.end(true, Duration::ZERO);
            }),
        ];
        for (what, doubt) in doubts {
            let solitude = Solitude::default();
            assert_eq!(alone(&solitude, ALONE_MIN - 1), 0);
            let certain = alone(&solitude, 1600);
            assert!((1400..=1550).contains(&certain), "{certain} of 1600");
            solitude.disturb();
            assert!(alone(&solitude, 40) > 30, "who comes between two commands disturbs nobody");
            solitude.begin();
            doubt(&solitude);
            assert_eq!(alone(&solitude, ALONE_MIN - 2), 0, "{what}");
        }
    }
}
