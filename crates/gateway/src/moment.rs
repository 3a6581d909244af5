//! The time of one decision: asked from the clock when it is first needed, so that a choice that needs none costs none,
//! and the same for all of the decision. Tests say which time it is.

use std::{cell::Cell, time::Instant};

/// The time of one decision.
#[derive(Debug, Default)]
pub(crate) struct Moment(Cell<Option<Instant>>);

impl Moment {
    /// Whatever the clock says when it is first asked.
    pub(crate) fn now() -> Self {
        Self::default()
    }

    /// This time.
    #[cfg(test)]
    pub(crate) fn at(instant: Instant) -> Self {
        Self(Cell::new(Some(instant)))
    }

    /// The time.
    pub(crate) fn get(&self) -> Instant {
        self.0.get().unwrap_or_else(|| {
            let now = Instant::now();
            self.0.set(Some(now));
            now
        })
    }
}
