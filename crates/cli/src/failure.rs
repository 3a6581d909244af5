//! How a verb ends when it does not do what it was asked: what is printed, and the exit status.

use std::{io, process::ExitCode};

use lethe_node::config;

use crate::ansi;

/// Exit status of a verb that failed.
const FAILED: u8 = 1;

/// Exit status of wrong usage or configuration, as clap and the shell have it.
const USAGE: u8 = 2;

/// Why a verb was not done.
#[derive(Debug)]
pub struct Failure(anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

impl Failure {
    /// Prints what is wrong to standard error, and gives the exit status.
    #[allow(clippy::print_stderr, reason = "this is where errors are shown")]
    pub fn report(self) -> ExitCode {
        // `lethe logs | head` is no failure: the reader has what it wanted.
        if self.reader_left() {
            return ExitCode::SUCCESS;
        }
        eprint!("{}", ansi::for_stderr(&self.text()));
        ExitCode::from(self.status())
    }

    fn reader_left(&self) -> bool {
        self.0.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn status(&self) -> u8 {
        if self.0.downcast_ref::<config::Errors>().is_some() { USAGE } else { FAILED }
    }

    /// `error: …` for each problem of a configuration, or for the one error, with its causes below.
    fn text(&self) -> String {
        if let Some(errors) = self.0.downcast_ref::<config::Errors>() {
            return errors.problems().iter().map(|problem| format!("error: {problem}\n")).collect();
        }
        let mut text = format!("error: {}\n", self.0);
        let mut said = self.0.to_string();
        for cause in self.0.chain().skip(1) {
            let cause = cause.to_string();
            // Some errors repeat their cause in their own text.
            if !said.contains(&cause) {
                text.push_str(&format!("  because: {cause}\n"));
            }
            said = cause;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let cause = io::Error::other("the disk is full");
        let error = Err::<(), _>(cause).context("cannot write x: the disk is full").context("cannot start");
        let failure = Failure::from(error.unwrap_err());
        assert_eq!(failure.text(), "error: cannot start\n  because: cannot write x: the disk is full\n");
        assert_eq!((failure.status(), failure.reader_left()), (FAILED, false));
        assert!(Failure(io::Error::from(io::ErrorKind::BrokenPipe).into()).reader_left());
    }

    #[test]
    fn a_wrong_configuration_is_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        let source = config::Source::Path(folder.path().join("missing"));
        let failure = Failure(config::load(source, config::Overrides::default()).unwrap_err().into());
        assert_eq!(failure.status(), USAGE);
        assert!(failure.text().starts_with("error: "), "{}", failure.text());
    }
}
