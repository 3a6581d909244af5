//! Colours, where they are wanted: on a terminal, and without `NO_COLOR` (no-color.org).

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, IsTerminal},
};

/// A style, as an SGR parameter (ECMA-48, section 8.3.117).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style(u8);

impl Style {
    /// Heavier.
    pub const BOLD: Self = Self(1);
    /// Lighter.
    pub const DIM: Self = Self(2);
    /// Wrong.
    pub const RED: Self = Self(31);
    /// Well.
    pub const GREEN: Self = Self(32);
    /// On its way.
    pub const YELLOW: Self = Self(33);

    /// The colour of a worker's name, always the same for the same name.
    pub fn of(name: &str) -> Self {
        const COLOURS: [u8; 10] = [36, 33, 35, 32, 34, 96, 93, 95, 92, 94];
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(COLOURS[(hasher.finish() % COLOURS.len() as u64) as usize])
    }
}

/// Whether to paint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    /// Whether.
    pub on: bool,
}

impl Paint {
    /// For standard output.
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: io::stdout().is_terminal() && !refused }
    }

    /// `text` in `style`.
    pub fn text(self, style: Style, text: &str) -> String {
        if self.on { format!("\x1b[{}m{text}\x1b[0m", style.0) } else { text.into() }
    }
}
