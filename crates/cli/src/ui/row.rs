//! How one line is shown: whose it is, then its text.

use lethe_supervisor::logs::Source;

use crate::paint::{Paint, Style};

/// The narrowest column of names.
const NAME_COLUMNS_MIN: usize = 6;

/// The column of names, as wide as the longest so far.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    columns: usize,
}

impl Default for Prefix {
    fn default() -> Self {
        Self { columns: NAME_COLUMNS_MIN }
    }
}

impl Prefix {
    /// What stands before a line of `name`: `│` before what a worker printed, `●` before what `lethe` says about it.
    pub fn of(&mut self, name: &str, source: Source, paint: Paint) -> String {
        let mark = if source == Source::Lethe { '●' } else { '│' };
        self.columns = self.columns.max(name.len());
        let columns = self.columns;
        paint.text(Style::of(name), &format!("{name:columns$} {mark}")) + " "
    }

    /// The columns that [`Prefix::of`] takes now.
    pub fn columns(&self) -> usize {
        self.columns + " │ ".chars().count()
    }
}
