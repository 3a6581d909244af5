//! A browser for tests: a cookie jar, forms, redirects; and a shop of three workers that take turns, so that what a worker
//! would keep to itself is missed at the next request. Each has a memory of its own; they share the engines alone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use lethe::State;
use shop::{config::Config, shop::Shop, web};
use tower::ServiceExt;

pub const ADMIN_PASSWORD: &str = "the keeper of the keys";
/// A test that waits for longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);
/// The cookies that the shop may set.
const COOKIES: [&str; 3] = ["__Host-session", "__Host-session-pass", "__Host-cart"];

/// One worker.
#[derive(Clone)]
pub struct Worker {
    pub state: State,
    pub shop: Shop,
    router: Router,
}

impl Worker {
    /// One on the engines of this state.
    pub async fn open(state: &State, number: u32, stock: u32) -> Self {
        let state = State::new(state.engines().clone());
        let shop = Shop::open(&state, config(number, stock)).await.unwrap();
        shop.sessions.warm_up().await;
        let router = web::router(shop.clone(), &state);
        Self { state, shop, router }
    }
}

/// Three workers on the same engines.
#[derive(Clone)]
pub struct Workers {
    pub state: State,
    pub shop: Shop,
    pub all: Vec<Worker>,
    turn: Arc<AtomicUsize>,
    browsers: Arc<AtomicUsize>,
}

impl Workers {
    /// A new shop with `stock` of each product.
    pub async fn open(stock: u32) -> Self {
        let state = State::ephemeral().unwrap();
        let mut all = Vec::new();
        for number in 1..=3 {
            all.push(Worker::open(&state, number, stock).await);
        }
        Self { state, shop: all[2].shop.clone(), all, turn: Arc::default(), browsers: Arc::default() }
    }

    /// The same shop with this worker alone.
    pub fn only(&self, worker: Worker) -> Self {
        Self { all: vec![worker], ..self.clone() }
    }

    /// Whose turn it is.
    fn next(&self) -> Router {
        self.all[self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len()].router.clone()
    }

    /// Somebody new, at a new address.
    pub fn browser(&self) -> Browser {
        let number = self.browsers.fetch_add(1, Ordering::Relaxed);
        let address = format!("198.51.{}.{}", 100 + number / 256, number % 256);
        Browser { workers: self.clone(), address, cookies: BTreeMap::new() }
    }

    /// Somebody with an account, signed in.
    pub async fn customer(&self, name: &str) -> Browser {
        let mut browser = self.browser();
        let page = browser.post("/register", &[("name", name), ("password", "correct horse")]).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
        browser
    }

    /// The admin, signed in.
    pub async fn admin(&self) -> Browser {
        self.shop.accounts.seed_admin(&self.shop.config).await.unwrap();
        let mut browser = self.browser();
        let page = browser.post("/sign-in", &[("name", "admin"), ("password", ADMIN_PASSWORD)]).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        browser
    }

    /// How many of a product are left.
    pub async fn left(&self, slug: &str) -> u32 {
        self.shop.catalogue.stock(slug).await.unwrap().unwrap().value.left
    }
}

pub fn config(number: u32, stock: u32) -> Config {
    Config::read(|name| match name {
        "LETHE_INSTANCE" => Some(format!("shop-{number}")),
        "SHOP_STOCK" => Some(stock.to_string()),
        "SHOP_ADMIN_PASSWORD" => Some(ADMIN_PASSWORD.into()),
        _ => None,
    })
    .unwrap()
}

/// A visitor with cookies. Clones are other tabs that start with the same cookies.
#[derive(Clone)]
pub struct Browser {
    workers: Workers,
    /// As the gateway says it.
    pub address: String,
    pub cookies: BTreeMap<String, String>,
}

/// What was answered.
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    pub text: String,
}

impl Page {
    /// Where a redirect leads.
    pub fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |location| location.to_str().unwrap())
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text.split_once(&start).unwrap_or_else(|| panic!("no {name} in {}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    /// The same browser, before other workers.
    pub fn at(&self, workers: &Workers) -> Self {
        Self { workers: workers.clone(), ..self.clone() }
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send(Request::get(path), Body::empty()).await
    }

    /// Gets a page until all workers show it so, each having heard of what another one has done.
    pub async fn get_until(&mut self, path: &str, is_so: impl Fn(&Page) -> bool) -> Page {
        let wait = async {
            let mut in_a_row = 0;
            loop {
                let page = self.get(path).await;
                in_a_row = if is_so(&page) { in_a_row + 1 } else { 0 };
                if in_a_row == self.workers.all.len() {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the workers hear of it")
    }

    /// Posts a form and does not follow.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin");
        self.send(request, Body::from(encode(fields))).await
    }

    /// Posts a form, and gets the page that the redirect leads to.
    pub async fn post_and_follow(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.post(path, fields).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
        let location = page.location().to_owned();
        self.get(&location).await
    }

    /// Puts things into the cart and opens the checkout; returns the fields of its form.
    pub async fn fill_and_check_out(&mut self, things: &[(&str, &str)]) -> Vec<(String, String)> {
        for (product, quantity) in things {
            self.post("/cart", &[("product", product), ("quantity", quantity)]).await;
        }
        let page = self.get("/checkout").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let address = "Ada Lovelace\r\n12 St James's Square\r\nLondon";
        ["cart", "seen"]
            .into_iter()
            .map(|name| (name.to_owned(), page.field(name)))
            .chain([("deliver_to".to_owned(), address.to_owned())])
            .collect()
    }

    /// Presses the button of the checkout.
    pub async fn press(&mut self, form: &[(String, String)]) -> Page {
        let fields: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.post("/checkout", &fields).await
    }

    /// Uploads a file.
    pub async fn upload(&mut self, slug: &str, file: &[u8]) -> Page {
        let mut body = b"--edge\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"a.png\"\r\n\
                         Content-Type: image/png\r\n\r\n"
            .to_vec();
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--edge--\r\n");
        let request = Request::post(format!("/admin/products/{slug}/photo"))
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge")
            .header("sec-fetch-site", "same-origin");
        self.send(request, Body::from(body)).await
    }

    pub async fn send(&mut self, request: axum::http::request::Builder, body: Body) -> Page {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request =
            request.header(header::HOST, "shop.example").header("x-forwarded-for", &self.address);
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        let request = request.body(body).unwrap();
        let method = request.method().clone();
        let response = self.workers.next().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            self.keep(cookie.to_str().unwrap());
        }
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if method == Method::GET && parts.status == StatusCode::OK && text.starts_with("<!DOCTYPE") {
            for forbidden in ["<script", "style=", "onclick=", "javascript:"] {
                assert!(!text.contains(forbidden), "{forbidden} in {text}");
            }
        }
        Page { status: parts.status, headers: parts.headers, bytes, text }
    }

    fn keep(&mut self, cookie: &str) {
        let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
        let (name, value) = pair.split_once('=').unwrap();
        assert!(COOKIES.contains(&name), "{cookie}");
        for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
            assert!(attributes.contains(attribute), "{cookie} lacks {attribute}");
        }
        if value.is_empty() || attributes.contains("Max-Age=0") {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn encode(fields: &[(&str, &str)]) -> String {
    let quote = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    fields
        .iter()
        .map(|(name, value)| format!("{}={}", quote(name), quote(value)))
        .collect::<Vec<_>>()
        .join("&")
}
