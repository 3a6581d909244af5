//! Signed tokens (JWT, RFC 7519): what a service says of a user, that any worker can check without asking anybody. The keys
//! form a ring that all workers share and that turns by itself; each key has one algorithm for all its life, so that no
//! token can choose how it is checked (RFC 8725, section 3.1).
//!
//! A token goes `Claims → jws::sign` (`→ jwe::seal`, when the ring encrypts); one that comes in is read by
//! [`Issuer::verify`], which refuses by a typed [`Refusal`] and counts it.

pub(crate) mod bearer;
mod claims;
mod fingerprint;
mod issuer;
mod jwe;
mod jwks;
mod jws;
mod key;
mod keys;
mod refusal;
mod ring;

pub use self::{
    bearer::{Bearer, BearerLayer},
    claims::Claims,
    fingerprint::Fingerprint,
    issuer::Issuer,
    jwks::jwks,
    key::Algorithm,
    keys::{Error, Keys, OUTAGE_MAX, REFRESH},
    refusal::{Refusal, Refusals},
    ring::Turning,
};

/// Longest token, in bytes. Browsers keep cookies of 4,096 bytes with their name; an API's token may be longer.
pub const TOKEN_BYTES_MAX: usize = 8192;
