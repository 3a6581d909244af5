//! What can go wrong between an engine and its store, by what may be done about it. It travels through `object_store` as the
//! source of its errors, and is found there again.

use std::error::Error as StdError;

use http::{HeaderMap, StatusCode};

use super::dialect::Dialect;
use crate::error::Error;

/// Most of a refusal's text that is kept, in characters.
const SAID_CHARS_MAX: usize = 300;
/// Where Azure repeats the code, also in an answer without a body ("Status and error codes" of its REST API).
const CODE_FIELD: &str = "x-ms-error-code";

/// Why a request was not answered as it should be.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No answer, or one that says to come again.
    #[error("{0}")]
    Away(String),
    /// Nothing was sent.
    #[error("{0}")]
    Unsent(String),
    /// No answer to what must not be sent again, since others may have written meanwhile.
    #[error("{0}; the write may have been done")]
    Doubtful(String),
    /// The store is left alone for a while.
    #[error("{0}")]
    Resting(String),
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No credentials were found, or whoever gives them does not.
    #[error("{0}")]
    NoCredentials(String),
    /// An answer that was not understood.
    #[error("{0}")]
    Strange(String),
}

/// What a store said no to. It never says a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{server}, refused: {}{advice}", self.said())]
pub struct Refusal {
    /// Which server, and which bucket.
    pub(super) server: String,
    pub(super) status: u16,
    /// The code, such as `NoSuchBucket`; empty in an answer without a body.
    pub(super) code: String,
    pub(super) message: String,
    /// Whether it says that a condition did not hold.
    is_contest: bool,
    /// What to do about it.
    advice: &'static str,
}

/// What to do about a refusal.
fn advice(dialect: &Dialect, status: StatusCode, code: &str) -> &'static str {
    match code {
        "NoSuchBucket" => "; make the bucket, or correct its name in the URL",
        "ContainerNotFound" => "; make the container, or correct its name in the URL",
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "ExpiredToken"
        | "NotSignedUp"
        | "AuthenticationFailed"
        | "InvalidAuthenticationInfo" => dialect.on_wrong_login,
        "BlobArchived" => "; it is in the archive tier: have it brought back first",
        "SnapshotsPresent" => "; remove its snapshots first",
        "LeaseIdMissing" | "LeaseIdMismatchWithBlobOperation" => {
            "; somebody holds a lease on it: break that, or wait for its end"
        }
        "RequestTimeTooSkewed" => "; set this machine's clock",
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            "; the bucket is elsewhere: say in the URL where, with `region` or `endpoint`"
        }
        "NotImplemented" => "; this server lacks what is needed for it",
        _ if matches!(status.as_u16(), 301 | 307) => {
            "; the bucket is elsewhere: say in the URL where, with `region` or `endpoint`"
        }
        _ if status == StatusCode::UNAUTHORIZED => dialect.on_wrong_login,
        _ if status == StatusCode::FORBIDDEN => dialect.on_missing_rights,
        _ => "",
    }
}

/// The code and the message of a refusal in XML, as far as they are there.
fn in_xml(body: &[u8]) -> (String, String) {
    let body = String::from_utf8_lossy(body);
    let element = |name: &str| {
        let (_, behind) = body.split_once(&format!("<{name}>"))?;
        let (text, _) = behind.split_once('<')?;
        Some(short(text))
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

/// The same of one in JSON: of a store ("HTTP status and error codes for JSON" of Cloud Storage's documentation), or of who gives tokens
/// (RFC 6749, section 5.2).
fn in_json(body: &[u8]) -> Option<(String, String)> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let text =
        |value: Option<&serde_json::Value>| short(value.and_then(|value| value.as_str()).unwrap_or_default());
    Some(match error.is_string() {
        true => (text(Some(error)), text(body.get("error_description"))),
        false => (text(error.pointer("/errors/0/reason")), text(error.get("message"))),
    })
}

fn short(text: &str) -> String {
    text.trim().chars().filter(|char| !char.is_control()).take(SAID_CHARS_MAX).collect()
}

impl Refusal {
    /// Reads a refusal in XML (Amazon S3's API reference, "Error responses", which those of others are like) or JSON.
    pub(crate) fn read(
        dialect: &Dialect,
        server: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let (code, message) = in_json(body).unwrap_or_else(|| in_xml(body));
        let told = || headers.get(CODE_FIELD)?.to_str().ok().map(str::to_owned);
        let code = if code.is_empty() { told().unwrap_or_default() } else { code };
        Self {
            server: server.to_owned(),
            status: status.as_u16(),
            is_contest: dialect.is_contest(status, &code),
            advice: advice(dialect, status, &code),
            code,
            message,
        }
    }

    /// What the store said, or else what its answer says by itself.
    pub(super) fn said(&self) -> String {
        let words = [&self.code, &self.message];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).map(String::as_str).collect();
        if words.is_empty() { format!("status {}", self.status) } else { words.join(", ") }
    }

    /// Whether the same request may be answered otherwise soon.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
            || matches!(
                self.code.as_str(),
                "RequestTimeout"
                    | "OperationAborted"
                    | "ConditionalRequestConflict"
                    | "SlowDown"
                    | "InternalError"
                    | "ServiceUnavailable"
            )
    }

    /// Whether the store has trouble of its own.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self.status, 500 | 502 | 503 | 504)
    }
}

impl Failure {
    /// What became of a request, by the error that `object_store` has made of it.
    pub(crate) fn of(error: &object_store::Error) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(failure) = error.downcast_ref::<Self>() {
                return failure.clone();
            }
            cause = error.source();
        }
        Self::Strange(error.to_string())
    }

    /// Whether the same request may be answered otherwise soon.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Away(_) | Self::Unsent(_) => true,
            Self::Refused(refusal) => refusal.is_passing(),
            Self::Doubtful(_) | Self::Resting(_) | Self::NoCredentials(_) | Self::Strange(_) => false,
        }
    }

    /// Whether the request may have been done all the same.
    pub(super) fn is_doubtful(&self) -> bool {
        match self {
            Self::Away(_) | Self::Doubtful(_) => true,
            Self::Refused(refusal) => matches!(refusal.status, 500 | 502 | 504),
            Self::Unsent(_) | Self::Resting(_) | Self::NoCredentials(_) | Self::Strange(_) => false,
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The status of a refusal.
    #[cfg(feature = "gcs")]
    pub(crate) fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// Whether the object is not there, or the bucket: a HEAD does not tell them apart.
    pub(super) fn is_absence(&self) -> bool {
        self.refusal().is_some_and(|refusal| {
            refusal.status == 404 && !matches!(refusal.code.as_str(), "NoSuchBucket" | "ContainerNotFound")
        })
    }

    /// Whether the store says that a condition did not hold.
    pub(super) fn is_refused_condition(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.is_contest)
    }

    /// Whether a condition did not hold. Where one was to match, an absent object says so, too.
    pub(crate) fn is_contest(&self) -> bool {
        self.is_refused_condition() || self.is_absence()
    }

    /// Whether the range that was asked for holds nothing.
    pub(super) fn is_empty_range(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status == 416)
    }

    /// Whether the answer had no body that says why.
    pub(super) fn is_mute(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code.is_empty())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(text) | Failure::Unsent(text) | Failure::Resting(text) => Self::Unavailable(text),
            failure @ Failure::Doubtful(_) => Self::Unavailable(failure.to_string()),
            Failure::Refused(refusal) if refusal.is_passing() => Self::Unavailable(refusal.to_string()),
            Failure::Refused(refusal) => Self::Engine(Box::new(refusal)),
            failure @ (Failure::NoCredentials(_) | Failure::Strange(_)) => Self::Engine(Box::new(failure)),
        }
    }
}

#[cfg(feature = "s3")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::DIALECT;

    fn refusal(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::read(&DIALECT, "s3 at minio, bucket photos", status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_code_stands_in_the_head_too() {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(CODE_FIELD),
            http::HeaderValue::from_static("LeaseIdMissing"),
        )]);
        let status = StatusCode::PRECONDITION_FAILED;
        let leased = Refusal::read(&DIALECT, "azure, container photos", status, &headers, b"");
        assert!(leased.to_string().ends_with(
            "refused: LeaseIdMissing; somebody holds a lease on it: break that, or wait for its end"
        ));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (status, body, expected) in [
            (
                404,
                "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>It is\nnot there</Message></Error>",
                "s3 at minio, bucket photos, refused: NoSuchBucket, It isnot there; make the bucket, or correct its name in \
                 the URL",
            ),
            (503, "", "s3 at minio, bucket photos, refused: status 503"),
            (
                403,
                "<Error><Code>RequestTimeTooSkewed</Code></Error>",
                "s3 at minio, bucket photos, refused: RequestTimeTooSkewed; set this machine's clock",
            ),
        ] {
            assert_eq!(refusal(status, body).to_string(), expected);
        }
        assert!(refusal(403, "").to_string().contains("s3:PutObject"));
        assert!(refusal(301, "").to_string().contains("`region`"));
        let long = format!("<Message>{}</Message>", "x".repeat(10_000));
        assert_eq!(refusal(400, &long).message.len(), SAID_CHARS_MAX);
    }

    #[test]
    fn refusals_may_be_in_json() {
        let body =
            r#"{"error": {"code": 412, "message": "Not so.\n", "errors": [{"reason": "conditionNotMet"}]}}"#;
        assert_eq!(
            refusal(412, body).to_string(),
            "s3 at minio, bucket photos, refused: conditionNotMet, Not so."
        );
        let other = r#"{"error": "invalid_grant", "error_description": "x"}"#;
        assert_eq!(refusal(400, other).to_string(), "s3 at minio, bucket photos, refused: invalid_grant, x");
        assert!(refusal(401, "{}").to_string().contains("check the access key"));
    }

    #[test]
    fn a_failure_is_found_in_what_is_made_of_it() {
        let failure = Failure::from(refusal(412, ""));
        let inner =
            object_store::client::HttpError::new(object_store::client::HttpErrorKind::Unknown, failure);
        let error = object_store::Error::Generic { store: "S3", source: Box::new(inner) };
        assert!(Failure::of(&error).is_contest());
        assert!(refusal(404, "").is_passing() || Failure::from(refusal(404, "")).is_absence());
        let strange = object_store::Error::Generic { store: "S3", source: "what?".into() };
        assert!(matches!(Failure::of(&strange), Failure::Strange(_)));
    }
}
