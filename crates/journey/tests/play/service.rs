//! A service that keeps its users in memory.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{self, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use lethe_journey::{address, destination::Destination};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UnixListener};

#[derive(Clone, Default)]
struct Memory {
    users: Arc<Mutex<Vec<String>>>,
    looks: Arc<AtomicUsize>,
}

pub struct Service {
    address: SocketAddr,
    destination: Destination,
    router: Router,
    connections: Arc<AtomicUsize>,
}

/// A listener that counts.
struct Counting {
    inner: TcpListener,
    connections: Arc<AtomicUsize>,
}

impl axum::serve::Listener for Counting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        self.connections.fetch_add(1, Ordering::SeqCst);
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Service {
    pub async fn start() -> Self {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (inner.local_addr().unwrap(), Arc::default());
        let listener = Counting { inner, connections: Arc::clone(&connections) };
        let router = Router::new()
            .route("/sign-up", get(form).post(sign_up))
            .route("/users/{name}", get(user))
            .route("/api/notes", post(note))
            .route("/api/notes/{id}", get(async |id: extract::Path<u64>| Json(json!({ "id": *id }))))
            .route(
                "/hop/1",
                any(async || (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "../hop/2?x")])),
            )
            .route("/hop/2", any(hop))
            .route("/hop/3", any(last))
            .route("/round", get(async || (StatusCode::FOUND, [(header::LOCATION, "/round")])))
            .route("/away", get(async || (StatusCode::FOUND, [(header::LOCATION, "https://other.example/")])))
            .route("/job", get(job))
            .with_state(Memory::default());
        let serve = axum::serve(listener, router.clone()).into_future();
        tokio::spawn(async move { serve.await.unwrap() });
        Self { address, destination: Destination::tcp(address), router, connections }
    }

    pub fn listen_at(&self, path: &Path) {
        let (listener, router) = (UnixListener::bind(path).unwrap(), self.router.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    }

    pub fn destination(&self) -> Destination {
        self.destination.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn form() -> Html<&'static str> {
    Html("<form method=post><input type=hidden name=csrf value='t&amp;1'><input name=user></form>")
}

async fn sign_up(State(memory): State<Memory>, form: String) -> Response {
    let fields: BTreeMap<String, String> = address::decode_form(&form).into_iter().collect();
    if fields.get("csrf").is_none_or(|csrf| csrf != "t&1") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let (user, mut users) = (fields["user"].clone(), memory.users.lock().unwrap());
    users.push(user.clone());
    let headers = [
        ("location", format!("/users/{user}")),
        ("set-cookie", format!("session={user}; HttpOnly; Secure; Path=/")),
        ("x-number", users.len().to_string()),
    ];
    (StatusCode::SEE_OTHER, axum::response::AppendHeaders(headers)).into_response()
}

async fn user(State(memory): State<Memory>, name: extract::Path<String>, headers: HeaderMap) -> Response {
    let is_me = headers.get("cookie").is_some_and(|cookie| cookie == format!("session={}", *name).as_str());
    match memory.users.lock().unwrap().iter().position(|user| *user == *name) {
        Some(at) if is_me => format!("{} is no. {}", *name, at + 1).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn note(headers: HeaderMap, Json(note): Json<Value>) -> Response {
    let by = note["text"].as_str().unwrap().strip_prefix("by ").unwrap();
    let host = headers["host"].to_str().unwrap();
    (StatusCode::CREATED, Json(json!({ "id": 7, "by": by, "host": host }))).into_response()
}

async fn hop(method: Method, body: Bytes) -> Response {
    assert_eq!((method, &*body), (Method::POST, &b"x"[..]));
    let headers = [("location", "http://localhost/hop/3"), ("set-cookie", "seen=yes; Path=/")];
    (StatusCode::SEE_OTHER, axum::response::AppendHeaders(headers)).into_response()
}

async fn last(method: Method, headers: HeaderMap, body: String) -> String {
    let cookie = headers.get("cookie").and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
    format!("{method} with {body} and {cookie}")
}

async fn job(State(memory): State<Memory>) -> &'static str {
    if memory.looks.fetch_add(1, Ordering::SeqCst) < 3 { "running" } else { "done" }
}
