//! Journeys: what one user does with a service, as data, and its replay.
//!
//! A [`journey::Journey`] is read from a file that a person wrote ([`document`]), or that a browser
//! recorded ([`har`]), or made of a description of the service ([`openapi`]), or found by following links and filling in forms ([`crawl`]). A [`player::Player`] plays it step by step, with the
//! cookies and variables that a browser would have by then, against any [`destination::Destination`], which may be another one at each
//! step. What comes back is [`observed::Observed`].

pub mod address;
pub mod body;
pub mod capture;
pub mod channel;
pub mod compare;
pub mod crawl;
pub mod destination;
pub mod document;
pub mod expectation;
pub mod file;
pub mod har;
pub mod html;
pub mod jar;
pub mod journey;
pub mod observed;
pub mod openapi;
pub mod player;
pub mod problem;
pub mod template;
pub mod written;
