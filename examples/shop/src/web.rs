//! The router: which address is answered by whom, and through which layers.

mod admin;
mod checkout;
mod door;
mod form;
mod shelf;
mod tally;
mod visitor;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::Response,
    routing::{get, post},
};
use lethe::idempotency::IdempotencyLayer;

use crate::{assets, error::Error, pages, photo, shop::Shop};

/// Largest form, in bytes; photos aside.
const FORM_BYTES_MAX: usize = 64 << 10;
/// What the wrapping of an upload may add to the photo, in bytes.
const UPLOAD_WRAPPING_BYTES_MAX: usize = 16 << 10;

/// The whole shop. Every POST of it is safe to repeat.
pub fn router(shop: Shop, state: &lethe::State) -> Router {
    let upload_max =
        usize::try_from(photo::PHOTO_BYTES_MAX).unwrap_or(usize::MAX) + UPLOAD_WRAPPING_BYTES_MAX;
    let upload = post(admin::upload).layer(DefaultBodyLimit::max(upload_max));
    // A form needs no key, since it has the cart's id; a program that orders may send one, and gets the first answer again.
    let place = post(checkout::place).layer(IdempotencyLayer::new(state));
    let private = Router::new()
        .route("/checkout", get(checkout::form).merge(place))
        .route("/orders", get(checkout::orders))
        .route("/orders/{id}", get(checkout::order))
        .layer(middleware::map_response(keep_nowhere));
    let personal = Router::new()
        .merge(private)
        .route("/", get(shelf::home))
        .route("/search", get(shelf::search))
        .route("/products/{slug}", get(shelf::product))
        .route("/cart", get(checkout::cart).post(checkout::set_line))
        .route("/register", get(door::register_form).post(door::register))
        .route("/sign-in", get(door::sign_in_form).post(door::sign_in))
        .route("/sign-out", post(door::sign_out))
        .route("/sign-out-everywhere", post(door::sign_out_everywhere))
        .route("/admin", get(admin::stock_room))
        .route("/admin/products/{slug}/photo", upload)
        .route("/admin/products/{slug}/photo/remove", post(admin::remove_photo))
        .route("/admin/products/{slug}/stock", post(admin::set_stock))
        .layer(shop.sessions.layer());
    Router::new()
        .merge(personal)
        .route("/assets/{hash}/{name}", get(assets::serve))
        .route("/photos/{slug}", get(shelf::photo))
        .route("/healthz", get(healthz))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(async || Error::Method)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn_with_state(shop.clone(), pages::dress))
        .layer(lethe::csrf::layer())
        .layer(lethe::secure_headers::layer())
        .with_state(shop)
}

/// Pages with names and addresses: who comes to this browser after the visitor has signed out does not get them with
/// its back button (OWASP Session Management Cheat Sheet, "Web Content Caching").
async fn keep_nowhere(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /healthz`: 204 when the state tier answers, 503 when not.
async fn healthz(State(shop): State<Shop>) -> StatusCode {
    match shop.ready().await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(error) => {
            tracing::warn!(error = lethe::problem::chain(&error), "not ready");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
