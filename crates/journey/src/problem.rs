//! What is wrong with a journey's file, as a person reads it: file, line, column, what, and what to do. All that is wrong is told at once.

use std::{fmt, ops::Range};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Line and column, from 1, the column in characters; `None` when it is about the file as a whole.
    pub place: Option<(usize, usize)>,
    /// What is wrong and what to do next, in one line.
    pub message: String,
}

/// All that is wrong with a file, in its order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// Collects what is wrong with one text.
pub(crate) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    found: Vec<(usize, Problem)>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    /// Notes `message` about the bytes `span` of the text.
    pub(crate) fn at(&mut self, span: Range<usize>, message: impl Into<String>) {
        let place = Some(place(self.text, span.start));
        // A message quotes the file, and no file may write to a terminal as it likes.
        let message = message.into().replace(|c: char| c.is_control(), "\u{fffd}");
        self.found.push((span.start, Problem { file: self.file.into(), place, message }));
    }

    /// Notes `message` about the whole text.
    pub(crate) fn whole(&mut self, message: impl Into<String>) {
        self.found.push((0, Problem { file: self.file.into(), place: None, message: message.into() }));
    }

    /// `made`, unless something is wrong.
    pub(crate) fn finish<T>(mut self, made: Option<T>) -> Result<T, Problems> {
        self.found.sort_by_key(|(at, _)| *at);
        match made {
            Some(made) if self.found.is_empty() => Ok(made),
            _ => Err(Problems(self.found.into_iter().map(|(_, problem)| problem).collect())),
        }
    }
}

/// Line and column of a byte, from 1.
pub(crate) fn place(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    (text[..at].matches('\n').count() + 1, text[line_start..at].chars().count() + 1)
}

/// `; did you mean …?` or the list of what is known.
pub(crate) fn suggestion<'k>(word: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    let near = |known: &&str| strsim::damerau_levenshtein(word, known) <= 1.max(word.chars().count() / 3);
    let nearest =
        known.clone().into_iter().filter(near).min_by_key(|known| strsim::damerau_levenshtein(word, known));
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => {
            let known: Vec<String> = known.into_iter().map(|known| format!("`{known}`")).collect();
            format!("known there: {}", known.join(", "))
        }
    }
}
