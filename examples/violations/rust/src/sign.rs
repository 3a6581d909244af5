//! A user signs in with a name and gets it back in a cookie, signed, so that nothing of it is in the worker. Who knows the secret can
//! tell whether the cookie is right.

use axum::{
    Form, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac::{self, Key};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct SignIn {
    pub name: String,
}

pub fn app(secret: Key) -> Router {
    Router::new()
        .route("/", get("welcome"))
        .route("/sign-in", post(sign_in))
        .route("/me", get(me))
        .with_state(secret)
}

async fn sign_in(State(secret): State<Key>, Form(SignIn { name }): Form<SignIn>) -> impl IntoResponse {
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&secret, name.as_bytes()));
    signed_in(&format!("{name}.{signature}"))
}

async fn me(State(secret): State<Key>, headers: HeaderMap) -> Response {
    greet(session(&headers).and_then(|session| verified(&secret, session)))
}

fn verified<'a>(secret: &Key, session: &'a str) -> Option<&'a str> {
    let (name, signature) = session.rsplit_once('.')?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    hmac::verify(secret, name.as_bytes(), &signature).ok()?;
    Some(name)
}

/// The answer to who has signed in.
pub fn signed_in(session: &str) -> impl IntoResponse + use<> {
    let cookie = format!("session={session}; HttpOnly");
    (AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to("/me"))
}

/// What the cookie says.
pub fn session(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::COOKIE)?.to_str().ok()?.strip_prefix("session=")
}

pub fn greet(name: Option<&str>) -> Response {
    match name {
        Some(name) => format!("hello {name}").into_response(),
        None => (StatusCode::UNAUTHORIZED, "sign in first").into_response(),
    }
}
