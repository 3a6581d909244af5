//! A request: a script with its keys and arguments, ready to be sent as often as need be.

use bytes::Bytes;

use super::script::Script;

/// What is asked of the server that has its first key.
pub(super) struct Request {
    pub(super) script: &'static Script,
    /// All in one slot of a cluster, which the first one names.
    pub(super) keys: Vec<String>,
    pub(super) args: Vec<Bytes>,
}

impl Request {
    /// A request; more arguments may follow.
    pub(super) fn new(script: &'static Script, keys: impl Into<Vec<String>>) -> Self {
        Self { script, keys: keys.into(), args: Vec::new() }
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, arg: impl Into<Bytes>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds a number.
    pub(super) fn number(self, number: impl ToString) -> Self {
        self.arg(number.to_string())
    }

    /// Adds a text that may not be there; none is the empty one.
    pub(super) fn text(self, text: Option<&str>) -> Self {
        self.arg(text.unwrap_or_default().to_owned())
    }
}
