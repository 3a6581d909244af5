//! Answers on standard output.

use std::io::{self, Write};

use serde::Serialize;

/// Prints `text` and a line end. The error is of kind `BrokenPipe` when the reader has gone.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints `value` as JSON over several lines.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}
