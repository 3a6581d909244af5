//! The shop as its visitors see it, through the whole router, on three workers that take turns.

mod browser;
mod orders;
mod visits;
