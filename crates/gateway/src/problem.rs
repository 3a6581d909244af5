//! The one place where what went wrong becomes an answer: problem details (RFC 9457) with text that is meant for
//! the public, and nothing about workers, addresses or causes, which go to the log.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER},
};

use crate::{record::Outcome, stats::Shed, trace::is_sane_id};

/// Says that nobody knows whether the request was carried out.
const OUTCOME: HeaderName = HeaderName::from_static("lethe-outcome");

/// Why a request gets an answer of the gateway instead of a worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request breaks the rules of HTTP; the text says which.
    Malformed(&'static str),
    /// The request asks for a part of HTTP that is not offered; the text says which.
    Unsupported(&'static str),
    /// No route matches.
    NoRoute,
    /// The queue for a worker is full.
    QueueFull,
    /// No worker became ready in time.
    NoWorker,
    /// A worker was lost, and the request may have run.
    Unknown,
    /// The request was inside too many workers when they were lost.
    Deadly,
    /// Each attempt lost its worker.
    Exhausted,
    /// No response in time.
    Late,
    /// The client was too slow in sending its body.
    Slow,
    /// The worker's response was not HTTP/1.1.
    Garbled,
}

impl Failure {
    /// Whether the answer says that the outcome is unknown: the request was sent, and may have been carried out.
    pub(crate) fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown | Self::Deadly | Self::Exhausted | Self::Late | Self::Garbled)
    }

    /// Whether the request was turned away for want of a worker.
    pub(crate) fn is_shed(self) -> bool {
        matches!(self, Self::QueueFull | Self::NoWorker)
    }

    /// How the request ended, as logs have it.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Malformed(_) => Outcome::Refused("malformed"),
            Self::Unsupported(_) => Outcome::Refused("unsupported"),
            Self::NoRoute => Outcome::Refused("no_route"),
            Self::Slow => Outcome::Refused("slow_client"),
            Self::QueueFull => Outcome::Shed(Shed::QueueFull),
            Self::NoWorker => Outcome::Shed(Shed::QueueTimeout),
            Self::Unknown => Outcome::Unknown("lost"),
            Self::Deadly => Outcome::Unknown("deadly"),
            Self::Exhausted => Outcome::Unknown("exhausted"),
            Self::Late => Outcome::Unknown("late"),
            Self::Garbled => Outcome::Unknown("garbled"),
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::QueueFull | Self::NoWorker => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown | Self::Deadly | Self::Exhausted | Self::Garbled => StatusCode::BAD_GATEWAY,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Malformed(detail) | Self::Unsupported(detail) => detail,
            Self::NoRoute => "Nothing is served at this address.",
            Self::QueueFull => "Too many requests are waiting. Try again in a moment.",
            Self::NoWorker => "The service is not ready. Try again in a moment.",
            Self::Unknown => {
                "The request was interrupted, and it is not known whether it was carried out. Check before you \
                 send it again."
            }
            Self::Deadly => "The request was interrupted more than once and was given up.",
            Self::Exhausted => "The request was interrupted each time it was tried.",
            Self::Late => "The service did not answer in time. The request may still be carried out.",
            Self::Slow => "The request did not arrive in time.",
            Self::Garbled => "The service gave an answer that cannot be passed on.",
        }
    }

    /// The answer to the client. Its body must be left out for `HEAD`, which hyper does.
    pub(crate) fn response(self, request_id: Option<&HeaderValue>) -> Response<Bytes> {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let mut problem =
            serde_json::json!({ "title": title, "status": status.as_u16(), "detail": self.detail() });
        if let Some(id) = request_id.filter(|id| is_sane_id(id)).and_then(|id| id.to_str().ok()) {
            problem["request_id"] = id.into();
        }
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.is_unknown() {
            headers.insert(OUTCOME, HeaderValue::from_static("unknown"));
        }
        if self.is_shed() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // After a request that could be read in two ways, or will not end, nothing more is read.
        if matches!(self, Self::Malformed(_) | Self::Unsupported(_) | Self::Slow) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems() {
        let id = HeaderValue::from_static("r-1");
        for (failure, status, outcome, retry, close) in [
            (Failure::Malformed("Why."), 400, false, false, true),
            (Failure::Unsupported("Why."), 501, false, false, true),
            (Failure::Slow, 408, false, false, true),
            (Failure::NoRoute, 404, false, false, false),
            (Failure::QueueFull, 503, false, true, false),
            (Failure::NoWorker, 503, false, true, false),
            (Failure::Unknown, 502, true, false, false),
            (Failure::Deadly, 502, true, false, false),
            (Failure::Exhausted, 502, true, false, false),
            (Failure::Garbled, 502, true, false, false),
            (Failure::Late, 504, true, false, false),
        ] {
            let response = failure.response(Some(&id));
            assert_eq!(response.status(), status, "{failure:?}");
            assert_eq!(response.headers().contains_key("lethe-outcome"), outcome, "{failure:?}");
            assert_eq!(response.headers().contains_key("retry-after"), retry, "{failure:?}");
            assert_eq!(response.headers().contains_key("connection"), close, "{failure:?}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(problem["status"], status);
            assert_eq!(problem["request_id"], "r-1");
            assert!(!problem["detail"].as_str().unwrap().is_empty());
        }
    }
}
