//! Sets a cookie that names its worker, so that whatever is in front may send users back there. The twin's says what its user likes, and
//! nothing of the worker.

use std::fs;

use axum::{Router, http::header, routing::get};

use crate::failure::Failure;

pub fn app() -> Result<Router, Failure> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(with(format!("route={}; Path=/; HttpOnly", host.trim())))
}

pub fn fixed() -> Router {
    with("theme=dark; Path=/".into())
}

fn with(cookie: String) -> Router {
    Router::new().route("/", get(async || ([(header::SET_COOKIE, cookie)], "welcome")))
}
