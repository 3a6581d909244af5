//! Why there is no value, for all who waited for it.

use std::{error, fmt, sync::Arc};

use lethe_state::error::Error as StateError;

use crate::Error;

/// What a computation said when it failed. All who waited for it have the same one.
#[derive(Clone)]
pub struct Cause(Arc<dyn error::Error + Send + Sync>);

impl Cause {
    pub(super) fn new(cause: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }

    /// The error itself, if it is of this type.
    pub fn downcast_ref<E: error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl error::Error for Cause {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}

/// Why a flight brought nothing.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The computation failed.
    Compute(Cause),
    /// The name, the key or a bound breaks a rule, in these words.
    Invalid(String),
    /// The name or the key is too long.
    TooLarge { what: &'static str, size: u64, max: u64 },
}

impl Failure {
    /// What the engine says of a request that it would refuse each time; `None` for all that may be otherwise another time.
    pub(super) fn of_rule(error: &StateError) -> Option<Self> {
        match error {
            StateError::Invalid(text) => Some(Self::Invalid(text.clone())),
            StateError::TooLarge { what, size, max } => Some(Self::TooLarge { what, size: *size, max: *max }),
            _ => None,
        }
    }

    /// The error for the caller.
    pub(super) fn into_error(self, cache: &str, key: &str) -> Error {
        match self {
            Self::Compute(cause) => Error::Compute { cache: cache.to_owned(), key: key.to_owned(), cause },
            Self::Invalid(text) => Error::State(StateError::Invalid(text)),
            Self::TooLarge { what, size, max } => Error::State(StateError::TooLarge { what, size, max }),
        }
    }
}
