//! Loads its catalogue when somebody asks for it for the first time: each new worker makes one user wait. The twin loads it before it
//! listens.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use tokio::{sync::OnceCell, time::sleep};

type Catalogue = Arc<OnceCell<&'static str>>;

pub fn app() -> Router {
    router(Catalogue::default())
}

pub async fn fixed() -> Router {
    let catalogue = Catalogue::default();
    catalogue.get_or_init(load).await;
    router(catalogue)
}

fn router(catalogue: Catalogue) -> Router {
    Router::new().route("/", get(show)).with_state(catalogue)
}

async fn show(State(catalogue): State<Catalogue>) -> &'static str {
    catalogue.get_or_init(load).await
}

/// It is large.
async fn load() -> &'static str {
    sleep(Duration::from_millis(800)).await;
    "ink, paper"
}
