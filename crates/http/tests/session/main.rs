//! Sessions through a router, on the embedded engine, with passes, and in signed cookies.

#![allow(clippy::unwrap_used)]

mod hybrid;
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
use lethe_http::{
    session::{Error, Session, SessionLayer, Who},
    token::{Keys, Turning},
};

use visitor::Engine;

const COOKIE: &str = "__Host-session";

/// How sessions in an engine are known.
#[derive(Clone, Copy)]
enum Pattern {
    /// By their id.
    Stored,
    /// By their id, and by passes.
    Hybrid,
}

impl Pattern {
    /// A layer whose passes are believed from the first request on.
    async fn layer(self, engine: &Engine) -> SessionLayer {
        let layer = SessionLayer::new(engine.sessions());
        match self {
            Self::Stored => layer,
            Self::Hybrid => {
                let keys = Keys::with_clock(engine.tables(), "web", Turning::default(), engine.clock());
                let layer = layer.hybrid(keys);
                layer.revocations().unwrap().followed().await;
                layer
            }
        }
    }

    async fn site(self, engine: &Engine) -> Router {
        site_with(self.layer(engine).await)
    }
}

/// Makes two tests of each case.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        mod by_id {
            $(#[tokio::test]
            async fn $case() {
                super::$case(crate::Pattern::Stored).await;
            })+
        }

        mod by_pass {
            $(#[tokio::test]
            async fn $case() {
                super::$case(crate::Pattern::Hybrid).await;
            })+
        }
    };
}
use cases;

/// A site with one route for each thing that a handler can do.
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
        .route("/who", get(async |Who(user): Who| user.unwrap_or_default()))
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
