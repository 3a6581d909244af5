//! Layers that stand between a client and a service, for any `axum` or `tower` service: sessions, tokens, limits,
//! requests that are done once, the check against cross-site request forgery, security headers, and errors as problem
//! documents. They keep nothing
//! between two requests; what must be remembered goes to a state engine.

pub mod address;
pub mod cookie;
pub mod csrf;
pub mod idempotency;
pub mod limit;
pub mod metrics;
pub mod problem;
pub mod revocations;
pub mod secure_headers;
pub mod session;
pub mod token;
