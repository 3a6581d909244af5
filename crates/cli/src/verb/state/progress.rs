//! How far a move is: a bar where somebody looks, a line for each part elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::figures;

/// Between two looks of a bar.
const LOOK: Duration = Duration::from_millis(100);
/// Characters of a bar.
const BAR: usize = 30;

/// The progress of one part, on standard error.
pub(super) struct Bar {
    what: &'static str,
    /// What becomes of them.
    done_is: &'static str,
    /// How many there will be, as far as it is known.
    total: Option<u64>,
    done: u64,
    bytes: u64,
    is_terminal: bool,
    shown: Option<Instant>,
    is_quiet: bool,
}

impl Bar {
    /// One that begins with what was done before.
    pub(super) fn new(what: &'static str, total: Option<u64>, done: u64, is_quiet: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { what, done_is: "done", total, done, bytes: 0, is_terminal, shown: None, is_quiet }
    }

    /// One of what is compared.
    pub(super) fn checking(what: &'static str, total: u64, is_quiet: bool) -> Self {
        Self { done_is: "compared", ..Self::new(what, Some(total), 0, is_quiet) }
    }

    /// How many there will be.
    pub(super) fn expect(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// So many more are done.
    pub(super) fn add(&mut self, done: u64, bytes: u64) {
        (self.done, self.bytes) = (self.done + done, self.bytes + bytes);
        if self.is_terminal && !self.is_quiet && self.shown.is_none_or(|shown| shown.elapsed() >= LOOK) {
            self.shown = Some(Instant::now());
            let _ = write!(io::stderr().lock(), "\r\x1b[K{}", self.text());
        }
    }

    /// All are done.
    pub(super) fn end(self) {
        if !self.is_quiet {
            let before = if self.is_terminal { "\r\x1b[K" } else { "" };
            let text = format!("{:<9} {} {}", self.what, grouped(self.done), self.done_is);
            let _ = writeln!(io::stderr().lock(), "{before}{text}");
        }
    }

    fn text(&self) -> String {
        let Self { what, done, .. } = self;
        let bytes = figures::bytes(self.bytes);
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let share = (*done as f64 / total as f64).min(1.0);
                let full = (share * BAR as f64) as usize;
                let bar = "#".repeat(full) + &"-".repeat(BAR - full);
                format!(
                    "{what:<9} [{bar}] {:>3.0} %  {} of {}  {bytes}",
                    share * 100.0,
                    grouped(*done),
                    grouped(total)
                )
            }
            None => format!("{what:<9} {}  {bytes}", grouped(*done)),
        }
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let mut bar = Bar::new("rows", Some(2000), 0, true);
        bar.add(1000, 2048);
        assert_eq!(
            bar.text(),
            format!("rows      [{}{}]  50 %  1,000 of 2,000  2.0 KiB", "#".repeat(15), "-".repeat(15))
        );
        // More came meanwhile.
        bar.add(5000, 0);
        assert!(bar.text().contains("100 %  6,000 of 2,000"));
        assert!(
            Bar::new("rows", None, 7, true).text().contains("7  0 B"),
            "{}",
            Bar::new("rows", None, 7, true).text()
        );
        assert_eq!([0, 12, 123, 1234, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "1,234,567"]);
    }
}
