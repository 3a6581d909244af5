//! What is on the terminal now, so that only rows that changed are written: no flicker, and little to send over a slow
//! connection.

use std::fmt::Write;

use super::frame::Size;
use crate::ansi;

/// Holds a frame back until it is whole, on terminals that know it (the synchronized output mode, DEC 2026).
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";

/// What is on the terminal.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    drawn: Option<(Size, Vec<String>)>,
}

impl Canvas {
    /// What to write to turn the terminal into `rows`; empty when it is that already. Everything is written anew when
    /// the size is another than before.
    pub fn update(&mut self, size: Size, rows: Vec<String>) -> String {
        let known = self.drawn.take().filter(|(before, _)| *before == size).map(|(_, rows)| rows);
        let mut out = String::new();
        if known.is_none() {
            out.push_str("\x1b[H\x1b[J");
        }
        for (at, row) in rows.iter().enumerate() {
            let same = known.as_ref().is_some_and(|known| known.get(at) == Some(row));
            if !same {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\x1b[{};1H{row}\x1b[0m", at + 1);
                // In a full row the cursor stands on the last character, which an erasure would take.
                if ansi::width(row) < size.columns {
                    out.push_str("\x1b[K");
                }
            }
        }
        self.drawn = Some((size, rows));
        if out.is_empty() { out } else { format!("{BEGIN}{out}{END}") }
    }

    /// Forgets what is on the terminal: somebody else wrote to it.
    pub fn forget(&mut self) {
        self.drawn = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn only_what_changed_is_written() {
        let size = Size { columns: 4, rows: 2 };
        let mut canvas = Canvas::default();
        let first = canvas.update(size, rows(&["ab", "full"]));
        assert_eq!(first, "\x1b[?2026h\x1b[H\x1b[J\x1b[1;1Hab\x1b[0m\x1b[K\x1b[2;1Hfull\x1b[0m\x1b[?2026l");
        assert_eq!(canvas.update(size, rows(&["ab", "full"])), "");
        assert_eq!(canvas.update(size, rows(&["ab", ""])), "\x1b[?2026h\x1b[2;1H\x1b[0m\x1b[K\x1b[?2026l");
        let wider = Size { columns: 5, rows: 2 };
        assert!(canvas.update(wider, rows(&["ab", ""])).contains("\x1b[J"));
        canvas.forget();
        assert!(canvas.update(wider, rows(&["ab", ""])).contains("\x1b[J"));
    }
}
