//! The shop as its visitors see it, through the whole router, on three workers that take turns.

// What fails here fails the test, in the browser's methods too, which clippy does not count as tests.
#![allow(clippy::unwrap_used)]

mod browser;
mod catalogue;
mod orders;
mod passes;
mod repeats;
mod tries;
mod visits;
