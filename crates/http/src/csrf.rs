//! The check against cross-site request forgery, without a token and without memory: browsers say in
//! `Sec-Fetch-Site`, or at least in `Origin`, which site a request comes from, and no page can make them lie.
//! The rules are those of Go's `net/http.CrossOriginProtection`, and WebSocket handshakes count as writes.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use futures_util::{
    TryFutureExt,
    future::{Either, MapOk, Ready, ready},
};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, header};
use tower::{Layer, Service};

use crate::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A layer that refuses writes that another site's page made a browser send.
///
/// `GET`, `HEAD`, `OPTIONS` and `TRACE` pass, so they must not change anything. Of the other methods pass
/// those from the service's own pages or typed by the user, and those that no browser sent. The comparison is
/// with `Host`, which a proxy in front must hand on as it came; `X-Forwarded-Host` is not looked at.
pub fn layer() -> CsrfLayer {
    CsrfLayer { trusted: Arc::new([]) }
}

/// See [`layer`].
#[derive(Clone, Debug)]
pub struct CsrfLayer {
    trusted: Arc<[String]>,
}

impl CsrfLayer {
    /// Also lets pages of this origin write, such as `https://pay.example.com`: scheme, host, and the port unless
    /// it is the scheme's own, as browsers write it in `Origin`.
    pub fn trust_origin(self, origin: &str) -> Self {
        let one = std::iter::once(origin.trim_end_matches('/').to_ascii_lowercase());
        Self { trusted: self.trusted.iter().cloned().chain(one).collect() }
    }
}

impl<S> Layer<S> for CsrfLayer {
    type Service = Csrf<S>;

    fn layer(&self, inner: S) -> Csrf<S> {
        Csrf { inner, trusted: Arc::clone(&self.trusted) }
    }
}

/// The service that [`layer`] makes.
#[derive(Clone, Debug)]
pub struct Csrf<S> {
    inner: S,
    trusted: Arc<[String]>,
}

type Answer<S, B> =
    MapOk<<S as Service<Request<B>>>::Future, fn(<S as Service<Request<B>>>::Response) -> Response>;

impl<S, B> Service<Request<B>> for Csrf<S>
where
    S: Service<Request<B>, Response: IntoResponse>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, Answer<S, B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match judge(request.method(), request.uri(), request.headers(), &self.trusted) {
            Verdict::Allowed => {
                let into: fn(S::Response) -> Response = IntoResponse::into_response;
                Either::Right(self.inner.call(request).map_ok(into))
            }
            Verdict::Refused(why) => {
                tracing::warn!(method = %request.method(), why, "refused a request from another site");
                let problem = Problem::new(
                    StatusCode::FORBIDDEN,
                    "cross-site",
                    "Request from another site",
                    "This change was asked for by a page of another site, so it was not made. Open this site \
                     itself and do it there.",
                );
                Either::Left(ready(Ok(problem.response_for(request.headers()))))
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Refused(&'static str),
}

/// The decision, from nothing but the head of the request.
fn judge(method: &Method, uri: &Uri, headers: &HeaderMap, trusted: &[String]) -> Verdict {
    if method.is_safe() && !is_websocket(headers) {
        return Verdict::Allowed;
    }
    let Ok(origin) = single(headers, &header::ORIGIN) else {
        return Verdict::Refused("several or unreadable Origin headers");
    };
    if let Some(origin) = origin
        && trusted.iter().any(|known| known.eq_ignore_ascii_case(origin))
    {
        return Verdict::Allowed;
    }
    match single(headers, &SEC_FETCH_SITE) {
        Ok(Some("same-origin" | "none")) => return Verdict::Allowed,
        Ok(Some(_)) | Err(_) => return Verdict::Refused("Sec-Fetch-Site is neither same-origin nor none"),
        Ok(None) => {}
    }
    let Some(origin) = origin else {
        // No browser leaves both out on a write, and without a browser there are no cookies to abuse.
        return Verdict::Allowed;
    };
    let Ok(host) = single(headers, &header::HOST) else {
        return Verdict::Refused("several or unreadable Host headers");
    };
    match host.or_else(|| uri.authority().map(|authority| authority.as_str())) {
        Some(host) if same_host(origin, host) => Verdict::Allowed,
        _ => Verdict::Refused("Origin is not this host"),
    }
}

/// Browsers open WebSockets to other sites with `GET` and with cookies, and without asking first.
fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).into_iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
        })
    })
}

/// The header's one value, `None` when it is absent; an error when there are several or it is not text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Whether an `Origin` (RFC 6454, section 7) names the host and port of a `Host`. The scheme of `Host` is not
/// known behind a proxy that ends TLS, so a port that is left out means the default of the origin's scheme.
fn same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = match scheme.to_ascii_lowercase().as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    /// Heads as `METHOD name: value, …`, each pair on its own line.
    #[track_caller]
    fn check(method: &str, lines: &[(&str, &str)], allowed: bool) {
        let headers = lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .fold(HeaderMap::new(), |mut headers, (name, value): (_, http::HeaderValue)| {
                headers.append(name, value);
                headers
            });
        let trusted = ["https://pay.example".to_owned()];
        let verdict = judge(&method.parse().unwrap(), &Uri::from_static("/buy"), &headers, &trusted);
        assert_eq!(verdict == Verdict::Allowed, allowed, "{method} {lines:?}: {verdict:?}");
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let host = ("host", "shop.example");
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            check(
                method,
                &[host, ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
                true,
            );
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "BREW"] {
            check(method, &[host, ("sec-fetch-site", "cross-site")], false);
            check(method, &[host, ("sec-fetch-site", "same-site")], false);
            check(method, &[host, ("sec-fetch-site", "same-origin")], true);
            check(method, &[host, ("sec-fetch-site", "none")], true);
            check(method, &[host], true);
        }
        // What the browser says of the site counts more than a Host that a proxy has changed.
        check("POST", &[host, ("sec-fetch-site", "same-origin"), ("origin", "https://www.example")], true);
        check("POST", &[host, ("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")], false);
        check("POST", &[host, ("sec-fetch-site", "")], false);
        check("POST", &[host, ("sec-fetch-site", "SAME-ORIGIN")], false);
        check("POST", &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false);
    }

    #[test]
    fn without_fetch_metadata_the_origin_is_compared_with_the_host() {
        let host = ("host", "shop.example");
        check("POST", &[host, ("origin", "https://shop.example")], true);
        check("POST", &[host, ("origin", "http://SHOP.example")], true);
        check("POST", &[host, ("origin", "https://shop.example:443")], true);
        check("POST", &[host, ("origin", "https://shop.example:8443")], false);
        check("POST", &[host, ("origin", "https://shop.example:80")], false);
        check("POST", &[host, ("origin", "https://shop.example.evil.example")], false);
        check("POST", &[host, ("origin", "https://evil.example")], false);
        check("POST", &[host, ("origin", "null")], false);
        check("POST", &[host, ("origin", "")], false);
        check("POST", &[host, ("origin", "https://")], false);
        check("POST", &[host, ("origin", "chrome-extension://shop.example")], false);
        check("POST", &[host, ("origin", "https://shop.example"), ("origin", "https://evil.example")], false);
        check("POST", &[("origin", "https://shop.example")], false);
        check("POST", &[("host", "localhost:8080"), ("origin", "http://localhost:8080")], true);
        check("POST", &[("host", "localhost:8080"), ("origin", "http://localhost:3000")], false);
        check("POST", &[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")], true);
        let forwarded = ("x-forwarded-host", "evil.example");
        check("POST", &[host, forwarded, ("origin", "https://evil.example")], false);
        check("POST", &[host, host, ("origin", "https://shop.example")], false);
    }

    #[test]
    fn websocket_handshakes_count_as_writes() {
        let upgrade = [("host", "shop.example"), ("upgrade", "WebSocket"), ("connection", "upgrade")];
        let with = |line| upgrade.into_iter().chain([line]).collect::<Vec<_>>();
        check("GET", &with(("origin", "https://evil.example")), false);
        check("GET", &with(("origin", "https://shop.example")), true);
        check("GET", &with(("sec-fetch-site", "cross-site")), false);
    }

    #[test]
    fn trusted_origins_pass() {
        let host = ("host", "shop.example");
        check("POST", &[host, ("origin", "https://pay.example"), ("sec-fetch-site", "cross-site")], true);
        check("POST", &[host, ("origin", "http://pay.example"), ("sec-fetch-site", "cross-site")], false);
    }

    #[tokio::test]
    async fn the_layer_answers_403_and_the_handler_does_not_run() {
        let handler = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>("ran") });
        let service = layer().layer(handler);
        let post =
            |site: &str| Request::post("/").header("sec-fetch-site", site).body(Body::empty()).unwrap();
        let passed = service.clone().oneshot(post("same-origin")).await.unwrap();
        assert_eq!(passed.status(), StatusCode::OK);
        let refused = service.oneshot(post("cross-site")).await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
