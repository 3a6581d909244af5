//! Response headers that make browsers careful: a strict content security policy, no framing, no guessing of
//! media types. A header that the handler has set stays as it is.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use futures_util::{TryFutureExt, future::MapOk};
use http::{HeaderName, HeaderValue, Request, header};
use tower::{Layer, Service};

/// The content security policy: only the site's own styles, fonts and images (and images inside of styles), forms
/// that go to the site itself, and no scripts at all.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; \
                                           font-src 'self'; form-action 'self'; base-uri 'none'; \
                                           frame-ancestors 'none'";

/// A layer that sets what OWASP's HTTP Headers Cheat Sheet recommends: `Content-Security-Policy`
/// ([`CONTENT_SECURITY_POLICY`]), `X-Content-Type-Options`, `X-Frame-Options`, `Referrer-Policy`,
/// `Permissions-Policy`, `Cross-Origin-Opener-Policy` and `Cross-Origin-Resource-Policy`.
///
/// `Strict-Transport-Security` is not among them: it belongs to what ends TLS.
pub fn layer() -> SecureHeadersLayer {
    let text = HeaderValue::from_static;
    SecureHeadersLayer {
        headers: Arc::new([
            (header::CONTENT_SECURITY_POLICY, text(CONTENT_SECURITY_POLICY)),
            (header::X_CONTENT_TYPE_OPTIONS, text("nosniff")),
            (header::X_FRAME_OPTIONS, text("DENY")),
            // Not `no-referrer`, under which browsers send `Origin: null` with forms (Fetch, section 3.2).
            (header::REFERRER_POLICY, text("same-origin")),
            (
                HeaderName::from_static("permissions-policy"),
                text("camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()"),
            ),
            (HeaderName::from_static("cross-origin-opener-policy"), text("same-origin")),
            (HeaderName::from_static("cross-origin-resource-policy"), text("same-origin")),
        ]),
    }
}

/// See [`layer`].
#[derive(Clone, Debug)]
pub struct SecureHeadersLayer {
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl SecureHeadersLayer {
    /// Sets another content security policy than [`CONTENT_SECURITY_POLICY`].
    ///
    /// # Panics
    /// When the text has characters that no header may have.
    pub fn content_security_policy(self, policy: &'static str) -> Self {
        self.with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy))
    }

    /// Sets this header too, or to another value.
    pub fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        let kept = self.headers.iter().filter(|(other, _)| *other != name).cloned();
        Self { headers: kept.chain([(name.clone(), value)]).collect() }
    }

    /// Does not set this header.
    pub fn without(self, name: HeaderName) -> Self {
        Self { headers: self.headers.iter().filter(|(other, _)| *other != name).cloned().collect() }
    }
}

impl<S> Layer<S> for SecureHeadersLayer {
    type Service = SecureHeaders<S>;

    fn layer(&self, inner: S) -> SecureHeaders<S> {
        SecureHeaders { inner, headers: Arc::clone(&self.headers) }
    }
}

/// The service that [`layer`] makes.
#[derive(Clone, Debug)]
pub struct SecureHeaders<S> {
    inner: S,
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

type Finish<T> = Box<dyn FnOnce(T) -> Response + Send>;

impl<S, B> Service<Request<B>> for SecureHeaders<S>
where
    S: Service<Request<B>, Response: IntoResponse>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, Finish<S::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let defaults = Arc::clone(&self.headers);
        let finish: Finish<S::Response> = Box::new(move |response| {
            let mut response = response.into_response();
            for (name, value) in defaults.iter() {
                if !response.headers().contains_key(name) {
                    response.headers_mut().insert(name, value.clone());
                }
            }
            response
        });
        self.inner.call(request).map_ok(finish)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    async fn answer(layer: SecureHeadersLayer, own: &'static [(&'static str, &'static str)]) -> Response {
        let handler = tower::service_fn(move |_: Request<Body>| async move {
            let mut response = "hello".into_response();
            for (name, value) in own {
                response.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            Ok::<_, Infallible>(response)
        });
        layer.layer(handler).oneshot(Request::new(Body::empty())).await.unwrap()
    }

    #[tokio::test]
    async fn the_defaults_are_set_once_each() {
        let response = answer(layer(), &[]).await;
        for (name, expected) in [
            ("content-security-policy", CONTENT_SECURITY_POLICY),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            let values: Vec<_> = response.headers().get_all(name).into_iter().collect();
            assert_eq!(values, [expected], "{name}");
        }
        assert!(response.headers().contains_key("permissions-policy"));
        assert!(!response.headers().contains_key("strict-transport-security"));
    }

    #[tokio::test]
    async fn what_the_handler_set_stays() {
        let own = &[("content-security-policy", "sandbox"), ("content-security-policy", "img-src *")];
        let response = answer(layer(), own).await;
        let policies: Vec<_> = response.headers().get_all("content-security-policy").into_iter().collect();
        assert_eq!(policies, ["sandbox", "img-src *"]);
        assert_eq!(response.headers()["x-frame-options"], "DENY");
    }

    #[tokio::test]
    async fn the_layer_can_be_changed() {
        let changed = layer()
            .content_security_policy("default-src 'self'")
            .without(header::X_FRAME_OPTIONS)
            .with(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=60"));
        let response = answer(changed, &[]).await;
        assert_eq!(response.headers()["content-security-policy"], "default-src 'self'");
        assert!(!response.headers().contains_key("x-frame-options"));
        assert_eq!(response.headers()["strict-transport-security"], "max-age=60");
    }
}
