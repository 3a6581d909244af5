//! Requests of a route that are done once, however often they are sent. The gateway only carries this: who keeps what was
//! answered is asked through [`ledger`](crate::ledger).

use std::time::Duration;

/// What is done once, and for how long that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The methods whose requests may have an `Idempotency-Key`; those of others pass, and so do their keys.
    pub methods: Vec<String>,
    /// Requests with these methods must have one.
    pub required: bool,
    /// How long an answer is kept, longer than nothing.
    pub kept: Duration,
    /// Largest body of a request with a key, in bytes. It is held in memory, and counts to what the gateway may keep of
    /// request bodies in all.
    pub body_bytes_max: usize,
    /// Largest body of an answer that is kept, in bytes.
    pub answer_bytes_max: usize,
    /// What keys are unique in.
    pub scope: String,
    /// Whose a key is.
    pub by: By,
}

/// By what callers are told apart, so that none gets the answer of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Who is signed in by a session of the state, else that session, else the `Authorization` field. Callers with none of
    /// these share their keys.
    #[default]
    Session,
    /// The value of this cookie; requests without it as by session.
    Cookie(String),
    /// The value of this header field, by its lower-case name; requests without it as by session.
    Header(String),
}

impl Once {
    /// Whether it is for requests with this method.
    pub(crate) fn is_for(&self, method: &[u8]) -> bool {
        self.methods.iter().any(|one| one.as_bytes() == method)
    }
}
