//! What was answered to requests that are done once. It is asked for before a worker is looked for, and told when a worker
//! has answered: of whoever keeps it, which is not the gateway. A route without such requests asks nobody.

use std::pin::Pin;

use crate::{
    allowance::{Fields, Head},
    config::{Route, once::Once},
};

/// Keeps what was answered, for all routes.
pub trait Ledger: Send + Sync + 'static {
    /// Who is asked for requests of this route, which are done once as `once` has it. It is asked for by each core, again
    /// whenever the configuration changes; all that it returns is used on that core alone.
    fn clerk(&self, route: &Route, once: &Once) -> Box<dyn Clerk>;
}

/// Knows the requests of one route, on one core.
pub trait Clerk {
    /// Whether a request with this head has a key, before its body is read.
    fn read(&self, head: Head<'_>) -> Reading;

    /// What is to be done with a request that has one. The answer may take as long as its giver says; a client that leaves
    /// drops the future, and then the request was never begun. It must not hold up the thread.
    fn begin(&self, head: Head<'_>, body: &[u8]) -> Beginning;
}

/// What the head of a request says.
#[derive(Clone, Debug)]
pub enum Reading {
    /// It has no key and needs none.
    Keyless,
    /// It has one.
    Keyed,
    /// It has none and needs one, or what it has is none.
    Refused(Refusal),
}

/// Word of a request to come.
pub type Beginning = Pin<Box<dyn Future<Output = Begun>>>;

/// What is to be done with a request.
pub enum Begun {
    /// It is the first with its key: it is to be done, and its answer to be told.
    First(Box<dyn Turn>),
    /// It was answered so.
    Answered(Answer),
    /// It is not to be done.
    Refused(Refusal),
    /// It cannot be told whether it was done, so it must not be done.
    Away,
}

/// The duty to tell what was answered. Who drops it leaves open whether the request was done.
pub trait Turn: Send {
    /// Tells it. The client gets its answer when this is over, which is in time, also if it could not be kept: it was done.
    fn end(self: Box<Self>, ending: Ending) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// How a request was answered.
#[derive(Clone, Debug)]
pub enum Ending {
    /// With this.
    Whole(Answer),
    /// With what is too large to be kept, or has no end.
    Unkept {
        /// The status code, which says whether something was done.
        status: u16,
        /// It says that nobody knows whether something was done.
        is_unknown: bool,
    },
}

/// An answer, as it is given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its fields, without those that frame a message.
    pub fields: Fields,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether it says that nobody knows if the request was carried out.
    pub fn is_unknown(&self) -> bool {
        is_unknown(&self.fields)
    }
}

/// Whether an answer with these fields says that.
pub(crate) fn is_unknown(fields: &Fields) -> bool {
    fields.iter().any(|(name, value)| name.eq_ignore_ascii_case(b"lethe-outcome") && value == b"unknown")
}

/// An answer to a request that is not done.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// What is added to the fields that every answer of the gateway has.
    pub fields: Fields,
    /// The problem document (RFC 9457), to which the request's id is added.
    pub problem: serde_json::Map<String, serde_json::Value>,
}
