//! Reads what a worker prints, line by line, until its end. The pipe outlives the worker, so what it had
//! written when it was killed is still read.

use std::{mem, time::Duration};

use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch, task::JoinSet, time::sleep};

/// A longer line is cut into several.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long after its death its output is read. Only a process that has left its process group, and lives on,
/// keeps it open that long.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// The output of one worker, being read.
#[derive(Debug)]
pub(crate) struct Output {
    readers: JoinSet<()>,
    over: watch::Sender<bool>,
}

impl Output {
    /// Nothing to read yet.
    pub(crate) fn new() -> Self {
        Self { readers: JoinSet::new(), over: watch::Sender::new(false) }
    }

    /// Reads `pipe` in the background, and gives each line to `keep`.
    pub(crate) fn read(&mut self, pipe: pipe::Receiver, keep: impl FnMut(String) + Send + 'static) {
        self.readers.spawn(read(pipe, self.over.subscribe(), keep));
    }

    /// Reads to the end, for a worker that has died. Returns when `enough` ends at the latest; what is left then is read
    /// in the background, for a while.
    pub(crate) async fn finish(mut self, enough: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = all(&mut self.readers) => return,
            () = enough => {}
        }
        tokio::spawn(async move {
            sleep(LONG_WAIT).await;
            self.over.send_replace(true);
            all(&mut self.readers).await;
        });
    }
}

async fn all(readers: &mut JoinSet<()>) {
    while readers.join_next().await.is_some() {}
}

async fn read(mut pipe: pipe::Receiver, mut over: watch::Receiver<bool>, mut keep: impl FnMut(String)) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // Biased to reading: what is there is read before "over" is looked at.
        let read = tokio::select! {
            biased;
            read = pipe.read(&mut buffer) => read.unwrap_or(0),
            _ = over.wait_for(|over| *over) => 0,
        };
        if read == 0 {
            break;
        }
        lines.push(&buffer[..read], &mut keep);
        if *over.borrow() {
            break;
        }
    }
    lines.end(&mut keep);
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end was not read yet; at most [`LINE_BYTES_MAX`].
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], keep: &mut impl FnMut(String)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (piece, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |piece| (piece, true));
            self.begin(piece, keep);
            if ended {
                let line = mem::take(&mut self.begun);
                keep(text(line.strip_suffix(b"\r").unwrap_or(&line)));
            }
        }
    }

    /// What was printed last, without a line end.
    fn end(&mut self, keep: &mut impl FnMut(String)) {
        if !self.begun.is_empty() {
            keep(text(&mem::take(&mut self.begun)));
        }
    }

    fn begin(&mut self, mut piece: &[u8], keep: &mut impl FnMut(String)) {
        while self.begun.len() + piece.len() > LINE_BYTES_MAX {
            let (first, rest) = piece.split_at(LINE_BYTES_MAX - self.begun.len());
            self.begun.extend_from_slice(first);
            let left = self.begun.split_off(character_end(&self.begun));
            keep(text(&mem::replace(&mut self.begun, left)));
            piece = rest;
        }
        self.begun.extend_from_slice(piece);
    }
}

/// Where to cut so that no character is cut in two.
fn character_end(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        // An incomplete character at the end has no `error_len`; it is at most 3 bytes.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when `bytes` come in by pieces of `step`.
    fn cut(bytes: &[u8], step: usize) -> Vec<String> {
        let mut kept = Vec::new();
        let mut lines = Lines::default();
        for piece in bytes.chunks(step) {
            lines.push(piece, &mut |line| kept.push(line));
        }
        lines.end(&mut |line| kept.push(line));
        kept
    }

    #[test]
    fn lines_of_all_kinds() {
        let cases: [(&[u8], &[&str]); 6] = [
            (b"", &[]),
            (b"a\nb\n", &["a", "b"]),
            (b"a\n\nb", &["a", "", "b"]),
            (b"a\r\nb\rc\r\n", &["a", "b\rc"]),
            ("naïve €\n".as_bytes(), &["naïve €"]),
            (b"\xff\xfe\n", &["\u{fffd}\u{fffd}"]),
        ];
        for (bytes, expected) in cases {
            for step in 1..=bytes.len().max(1) {
                assert_eq!(cut(bytes, step), expected, "{bytes:?} by {step}");
            }
        }
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        for unit in ["a", "é", "€", "🐌"] {
            let line = unit.repeat(3 * LINE_BYTES_MAX / unit.len() + 5);
            for step in [1, 1000, LINE_BYTES_MAX, line.len()] {
                let kept = cut(format!("{line}\nnext\n").as_bytes(), step);
                assert!(kept.iter().all(|piece| piece.len() <= LINE_BYTES_MAX));
                assert_eq!(kept.len(), 5, "{unit} by {step}");
                assert_eq!(kept[..4].concat(), line);
                assert_eq!(kept[4], "next");
            }
        }
        let exact = "a".repeat(LINE_BYTES_MAX);
        assert_eq!(cut(format!("{exact}\n").as_bytes(), 7), [exact]);
    }
}
