//! What a worker prints: the last of it, to be shown when the worker does not start.

use std::{
    collections::VecDeque,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
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
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// One for each pipe that is still open.
    open: Arc<()>,
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
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let beyond = kept.len().saturating_sub(KEPT_BYTES_MAX);
        kept.drain(..beyond);
    }
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
