//! Keeps nothing, but signs cookies with a secret that each worker makes when it starts: no worker believes another one. The secret of
//! the twin comes from the environment.

use std::env;

use axum::Router;
use ring::{
    hmac::{HMAC_SHA256, Key},
    rand::SystemRandom,
};

use crate::{failure::Failure, sign};

pub fn app() -> Result<Router, Failure> {
    let secret =
        Key::generate(HMAC_SHA256, &SystemRandom::new()).map_err(|_| "there are no random numbers")?;
    Ok(sign::app(secret))
}

pub fn fixed() -> Router {
    let secret = env::var("SECRET").unwrap_or("only for this example".into());
    sign::app(Key::new(HMAC_SHA256, secret.as_bytes()))
}
