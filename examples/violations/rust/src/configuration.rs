//! Reads its configuration when it starts: who changes it has workers with the old one beside workers with the new one. The twin reads it
//! whenever it needs it.

use std::fs;

use axum::{Router, extract::State, routing::get};
use serde::Deserialize;

use crate::failure::Failure;

#[derive(Clone, Deserialize)]
struct Configuration {
    currency: String,
}

impl Configuration {
    fn read() -> Result<Self, Failure> {
        Ok(serde_json::from_slice(&fs::read("config.json")?)?)
    }

    fn price(&self) -> String {
        format!("ink: 4 {}", self.currency)
    }
}

pub fn app() -> Result<Router, Failure> {
    let price = async |State(configuration): State<Configuration>| configuration.price();
    Ok(Router::new().route("/", get(price)).with_state(Configuration::read()?))
}

pub fn fixed() -> Router {
    let price = async || Ok::<_, Failure>(Configuration::read()?.price());
    Router::new().route("/", get(price))
}
