//! Keeps who has signed in in a variable: the next request may come to another worker, which does not know. The twin has the client
//! carry it, signed with a secret that all workers know.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Form, Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::Mutex;

use crate::{
    boot_secret,
    failure::Failure,
    sign::{self, SignIn},
};

type Sessions = Arc<Mutex<HashMap<String, String>>>;

pub fn app() -> Router {
    Router::new()
        .route("/", get("welcome"))
        .route("/sign-in", post(sign_in))
        .route("/me", get(me))
        .with_state(Sessions::default())
}

pub fn fixed() -> Router {
    boot_secret::fixed()
}

async fn sign_in(
    State(sessions): State<Sessions>,
    Form(SignIn { name }): Form<SignIn>,
) -> Result<impl IntoResponse, Failure> {
    let session = format!("{:016x}", getrandom::u64()?);
    sessions.lock().await.insert(session.clone(), name);
    Ok(sign::signed_in(&session))
}

async fn me(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    let sessions = sessions.lock().await;
    let name = sign::session(&headers).and_then(|session| sessions.get(session));
    sign::greet(name.map(String::as_str))
}
