//! What a Rust service imports to run under Lethe: a [`State`] that outlives its workers, with tables, counters, blobs,
//! caches, limits and locks; layers for sessions, limits, idempotency keys, request forgery and security headers; and [`serve()`],
//! which listens and leaves as the worker contract says.
//!
//! ```no_run
//! use axum::{Router, extract, routing::get};
//! use lethe::{State, session::{Session, SessionLayer}};
//!
//! async fn visits(session: Session, extract::State(state): extract::State<State>) -> Result<String, lethe::Error> {
//!     let own = session.update("visits", |visits: &mut u32| *visits += 1).await?;
//!     let all = state.counter("statistics", "visits").add(1).await?;
//!     Ok(format!("{own} of {all} visits were yours\n"))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), lethe::Error> {
//!     let state = State::from_env()?;
//!     let app = Router::new()
//!         .route("/", get(visits))
//!         .layer(SessionLayer::new(&state))
//!         .layer(lethe::csrf::layer())
//!         .layer(lethe::secure_headers::layer())
//!         .with_state(state);
//!     lethe::serve(app).await
//! }
//! ```
//!
//! `lethe up` starts such a program as often as is needed. In its own tests, [`State::ephemeral`] keeps state in
//! a folder that vanishes with it.

pub mod batch;
pub mod bucket;
pub mod cache;
pub mod counter;
pub mod error;
pub mod limit;
pub mod lock;
pub mod near;
pub mod serve;
#[cfg(feature = "sql")]
pub mod sql;
pub mod state;
pub mod table;

pub use lethe_http::{
    address, csrf, idempotency, metrics, problem, revocations, secure_headers, session, token,
};

#[cfg(feature = "sql")]
pub use self::sql::sql;
pub use self::{error::Error, serve::serve, state::State};
