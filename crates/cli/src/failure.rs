//! How a verb ends when it does not do what it was asked: what is printed, and the exit status.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use lethe_node::config;

use crate::ansi;

/// Exit status of a verb that failed.
pub const FAILED: u8 = 1;

/// Exit status of wrong usage or configuration, as clap and the shell have it.
const USAGE: u8 = 2;

/// Exit status of a proof that says nothing.
const NOTHING_PROVEN: u8 = 2;

/// Exit status of a proof whose service did not start.
const NOT_STARTED: u8 = 3;

/// Exit status of what SIGINT has ended, as the shell has it.
const INTERRUPTED: u8 = 128 + 2;

/// The end of an `up` that a second Ctrl-C kept from waiting for open requests.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped at once; open requests were not waited for")]
pub struct CutShort;

/// The end of an `up` from which another process had taken over, which then ended with this exit status, not 0. That
/// process has said why.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process that had taken over ended with status {0}")]
pub struct Successor(pub u8);

/// The end of a verb that was done and has said all, with this exit status.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it ended with status {0}")]
pub struct Concluded(pub u8);

/// A proof that did not come to an end; why is its cause.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nothing was proven")]
pub struct NothingProven;

/// A service that was to be proven did not start.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", noted(.notes))]
pub struct NotStarted {
    /// Why not.
    pub error: lethe_prover::worker::Error,
    /// What else is known of where it was to start.
    pub notes: Vec<String>,
}

fn noted(notes: &[String]) -> String {
    notes.iter().map(|note| format!("\nnote: {note}")).collect()
}

/// Why a verb was not done.
#[derive(Debug)]
pub struct Failure(anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

impl Failure {
    /// Prints what is wrong to standard error, as a JSON object if that was asked for, and gives the exit status.
    pub fn report(self, is_json: bool) -> ExitCode {
        if let Some(Successor(status)) = self.0.downcast_ref() {
            return ExitCode::from(*status);
        }
        if let Some(Concluded(status)) = self.0.downcast_ref() {
            return ExitCode::from(*status);
        }
        // `lethe logs | head` is no failure: the reader has what it wanted.
        if self.reader_left() {
            return ExitCode::SUCCESS;
        }
        let text = match is_json {
            true => format!("{}\n", self.json()),
            false => ansi::for_stderr(&self.text()).to_string(),
        };
        // Where nobody reads, the status is all that there is.
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.status())
    }

    fn reader_left(&self) -> bool {
        self.0.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn status(&self) -> u8 {
        if self.0.downcast_ref::<config::Errors>().is_some() {
            USAGE
        } else if self.0.downcast_ref::<NothingProven>().is_some() {
            NOTHING_PROVEN
        } else if self.0.downcast_ref::<CutShort>().is_some() {
            INTERRUPTED
        } else if self.0.downcast_ref::<NotStarted>().is_some() {
            NOT_STARTED
        } else {
            FAILED
        }
    }

    /// `{"error": …, "because": […]}`: the one error and its causes, or all problems of a configuration.
    fn json(&self) -> serde_json::Value {
        let causes: Vec<String> = self.causes().collect();
        serde_json::json!({ "error": self.0.to_string(), "because": causes })
    }

    /// What the error itself does not say.
    fn causes(&self) -> impl Iterator<Item = String> {
        let mut said = self.0.to_string();
        self.0.chain().skip(1).filter_map(move |cause| {
            let cause = cause.to_string();
            // Some errors repeat their cause in their own text.
            let is_new = !said.contains(&cause);
            said.clone_from(&cause);
            is_new.then_some(cause)
        })
    }

    /// `error: …` for each problem of a configuration, or for the one error, with its causes below.
    fn text(&self) -> String {
        if let Some(errors) = self.0.downcast_ref::<config::Errors>() {
            return errors.problems().iter().map(|problem| format!("error: {problem}\n")).collect();
        }
        let causes: String = self.causes().map(|cause| format!("  because: {cause}\n")).collect();
        format!("error: {}\n{causes}", self.0)
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
        let json =
            serde_json::json!({ "error": "cannot start", "because": ["cannot write x: the disk is full"] });
        assert_eq!(failure.json(), json);
        assert_eq!((failure.status(), failure.reader_left()), (FAILED, false));
        assert_eq!(Failure(CutShort.into()).status(), INTERRUPTED);
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
