//! Sessions through a router, on the embedded engine and in signed cookies.

#![allow(clippy::unwrap_used)]

mod life;
mod near;
mod stored;
mod token;
#[path = "../visitor/mod.rs"]
mod visitor;

use axum::{
    Router,
    routing::{get, post},
};
use lethe_http::session::{Error, Session, SessionLayer};

use visitor::Engine;

const COOKIE: &str = "__Host-session";

/// A site with one route for each thing that a handler can do.
fn site(engine: &Engine) -> Router {
    site_with(SessionLayer::new(engine.sessions()))
}

fn site_with(layer: SessionLayer) -> Router {
    async fn show(session: Session) -> Result<String, Error> {
        let field = |name: &str| Ok::<_, Error>(session.get::<String>(name)?.unwrap_or_default());
        let user = session.user().unwrap_or_default();
        Ok(format!("user={user} a={} b={} count={}", field("a")?, field("b")?, {
            session.get::<u32>("count")?.unwrap_or_default()
        }))
    }
    async fn set(session: Session, fields: axum::extract::RawQuery) -> Result<(), Error> {
        for (name, value) in pairs(&fields) {
            session.set(name, value)?;
        }
        Ok(())
    }
    async fn remove(session: Session, fields: axum::extract::RawQuery) -> Result<(), Error> {
        pairs(&fields).into_iter().try_for_each(|(name, _)| session.remove(name))
    }
    async fn count(session: Session) -> Result<String, Error> {
        Ok(session.update("count", |count: &mut u32| *count += 1).await?.to_string())
    }
    async fn sign_in(session: Session, user: String) -> Result<(), Error> {
        session.set("b", "from sign-in")?;
        session.sign_in(&user).await
    }
    async fn sign_out(session: Session) -> Result<(), Error> {
        session.set("a", "dropped")?;
        session.sign_out().await
    }
    Router::new()
        .route("/", get(show))
        .route("/static", get(|| async { "static" }))
        .route("/set", post(set))
        .route("/remove", post(remove))
        .route("/count", post(count))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .layer(layer)
}

fn pairs(query: &axum::extract::RawQuery) -> Vec<(&str, &str)> {
    query.0.iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('=')).collect()
}
