//! What a worker prints: the last of it, to be shown when the worker does not start.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How much is kept, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// How long the end of the output is waited for, should somebody who outlives the worker hold it open.
const END_MAX: Duration = Duration::from_secs(20);

/// The last that was printed. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Output {
    printed: Arc<Mutex<Printed>>,
    /// One for each pipe that is still open.
    open: Arc<()>,
}

#[derive(Debug, Default)]
struct Printed {
    kept: VecDeque<u8>,
    /// Whether what comes goes to standard error at once.
    is_shown: bool,
}

impl Output {
    /// Collects `from` until its end, on a thread of its own. A worker never waits for it.
    pub fn collect(&self, from: Option<impl Read + Send + 'static>) -> std::io::Result<()> {
        let (Some(mut from), output) = (from, self.clone()) else { return Ok(()) };
        thread::Builder::new().name("output".into()).spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                output.push(&bytes[..read]);
            }
        })?;
        Ok(())
    }

    /// Waits until all that was printed before the worker's end is here; not for long, since somebody else may hold the pipe.
    pub fn until_the_end(&self) {
        let began = Instant::now();
        while Arc::strong_count(&self.open) > 1 && began.elapsed() < END_MAX {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The last `lines` lines.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let text = String::from_utf8_lossy(self.printed().kept.make_contiguous()).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Shows on standard error what was kept, and from now on what comes.
    pub fn show(&self) {
        let mut printed = self.printed();
        printed.is_shown = true;
        show(printed.kept.make_contiguous());
    }

    fn push(&self, bytes: &[u8]) {
        let mut printed = self.printed();
        if printed.is_shown {
            show(bytes);
        }
        printed.kept.extend(bytes);
        let beyond = printed.kept.len().saturating_sub(KEPT_BYTES_MAX);
        printed.kept.drain(..beyond);
    }

    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service goes on when nobody reads.
fn show(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_kept() {
        let output = Output::default();
        output.push(b"one\ntwo\nthr");
        output.push(b"ee");
        assert_eq!(output.tail(2), ["two", "three"]);
        output.push(&vec![b'x'; KEPT_BYTES_MAX * 2]);
        assert_eq!(output.tail(9).concat().len(), KEPT_BYTES_MAX);
    }
}
