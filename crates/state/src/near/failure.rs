//! One failure for all who waited for the same answer.

use std::{error, fmt, sync::Arc};

use crate::error::Error;

/// The same error once more.
pub(super) fn alike(error: Arc<Error>) -> Error {
    match &*error {
        Error::NotFound => Error::NotFound,
        Error::Gone => Error::Gone,
        Error::Invalid(what) => Error::Invalid(what.clone()),
        Error::TooLarge { what, size, max } => Error::TooLarge { what, size: *size, max: *max },
        Error::Unsupported { engine, what } => Error::Unsupported { engine, what },
        Error::Unavailable(why) => Error::Unavailable(why.clone()),
        // The rest are failures of the engine, or of writes, which nobody shares.
        _ => Error::Engine(Box::new(Shared(error))),
    }
}

/// What several were told.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl Shared {
    fn cause(&self) -> &(dyn error::Error + Send + Sync + 'static) {
        match &*self.0 {
            Error::Engine(cause) => &**cause,
            error => error,
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.cause(), f)
    }
}

impl error::Error for Shared {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.cause().source()
    }
}
