//! What one kind of store says, and wants to be told, otherwise than the others.

use http::{
    HeaderName, HeaderValue, StatusCode, Uri,
    header::{AUTHORIZATION, IF_MATCH, IF_NONE_MATCH},
};
use object_store::{UpdateVersion, client::HttpRequest};

use crate::place::EngineName;

/// The ways of one kind of store.
pub(crate) struct Dialect {
    /// Which engine speaks it.
    pub(crate) engine: EngineName,
    /// What a bucket is called.
    pub(crate) bucket: &'static str,
    /// What to do when the store knows nobody of that name and secret.
    pub(crate) on_wrong_login: &'static str,
    /// What to do when somebody may not do what was asked.
    pub(crate) on_missing_rights: &'static str,
    /// Which credentials are looked for, before those of the machine's role are asked for.
    pub(crate) credentials: &'static str,
    /// What removes the parts of an upload that could not be taken back, if an upload can be.
    pub(crate) on_left_parts: Option<&'static str>,
    /// Codes that say that a condition did not hold, where they alone do; otherwise the status says it.
    pub(crate) contests: Option<&'static [&'static str]>,
    /// Whether every server of it heeds conditions, so that none need be tried.
    pub(crate) has_conditions: bool,
    /// Whether a list begins where it is asked to.
    pub(crate) has_list_offset: bool,
    /// What the query of a list has in it.
    pub(crate) list: &'static str,
    /// Whether a list leaves out the object whose name is all that was asked for (`object_store` takes it for the folder).
    pub(crate) has_lists_without_prefix: bool,
    /// What the query of a request has in it that begins an upload or goes on with it: nobody else knows it, and a second time
    /// changes nothing.
    pub(crate) upload: &'static [&'static str],
    /// The status of an upload that is to be gone on with, where that is no success.
    pub(crate) upload_goes_on: Option<StatusCode>,
    /// How a condition says which version of an object is meant.
    pub(crate) versions: Versions,
    /// What the query of a request has in it whose signature is there, and not in a header field.
    pub(crate) signature: Option<&'static str>,
}

impl Dialect {
    /// Whether a list is asked for. What is asked for stands in the query.
    pub(super) fn is_list(&self, uri: &Uri) -> bool {
        has(uri, self.list)
    }

    /// Whether a request begins an upload, or goes on with it.
    pub(super) fn is_upload(&self, uri: &Uri) -> bool {
        self.upload.iter().any(|begin| has(uri, begin))
    }

    /// Whether a request was done as it should be.
    pub(super) fn is_done(&self, uri: &Uri, status: StatusCode) -> bool {
        status.is_success() || (Some(status) == self.upload_goes_on && self.is_upload(uri))
    }

    /// Whether a refusal says that a condition did not hold.
    pub(super) fn is_contest(&self, status: StatusCode, code: &str) -> bool {
        match self.contests {
            Some(codes) => codes.contains(&code),
            None => matches!(status.as_u16(), 304 | 409 | 412),
        }
    }

    /// Whether a request is one to the store. Others go to whoever gives credentials.
    pub(super) fn is_signed(&self, request: &HttpRequest) -> bool {
        request.headers().contains_key(AUTHORIZATION)
            || self.signature.is_some_and(|begin| has(request.uri(), begin))
    }
}

/// How a condition says which version of an object is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "s3", feature = "gcs")),
    allow(dead_code, reason = "each kind of store has one way")
)]
pub(crate) enum Versions {
    /// By its entity tag (RFC 9110, section 13.1). Of an upload, it is said at the end.
    Tags,
    /// By its generation, a number that no other version of any object has ("Object Versioning" of Cloud Storage's documentation).
    /// Of an upload, it is said at the beginning, and holds at the end.
    Generations,
}

/// Says which generation must be there; 0 is that of what is not.
const GENERATION: HeaderName = HeaderName::from_static("x-goog-if-generation-match");
/// The same in a query.
const GENERATION_IN_QUERY: &str = "ifGenerationMatch=";

impl Versions {
    /// The condition that an object is this version.
    pub(super) fn is(self, version: &UpdateVersion) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Tags => (IF_MATCH, &version.e_tag),
            Self::Generations => (GENERATION, &version.version),
        };
        Some((name, HeaderValue::try_from(value.as_deref()?).ok()?))
    }

    /// The condition that there is no object.
    pub(super) fn is_absent(self) -> (HeaderName, HeaderValue) {
        match self {
            Self::Tags => (IF_NONE_MATCH, HeaderValue::from_static("*")),
            Self::Generations => (GENERATION, HeaderValue::from_static("0")),
        }
    }

    /// Whether a request has a condition.
    pub(super) fn are_in(self, request: &HttpRequest) -> bool {
        match self {
            Self::Tags => [IF_MATCH, IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name)),
            Self::Generations => {
                request.headers().contains_key(GENERATION) || has(request.uri(), GENERATION_IN_QUERY)
            }
        }
    }
}

fn has(uri: &Uri, begin: &str) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with(begin)))
}
