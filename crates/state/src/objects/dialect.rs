//! What one kind of store says, and wants to be told, otherwise than the others.

use http::{StatusCode, Uri, header::AUTHORIZATION};
use object_store::client::HttpRequest;

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
    /// What the query of a request has in it that goes on with an upload: nobody else knows it, and a second time changes nothing.
    pub(crate) upload: &'static [&'static str],
    /// What the query of a request has in it whose signature is there, and not in a header field.
    pub(crate) signature: Option<&'static str>,
}

impl Dialect {
    /// Whether a list is asked for. What is asked for stands in the query.
    pub(super) fn is_list(&self, uri: &Uri) -> bool {
        has(uri, self.list)
    }

    /// Whether a request goes on with an upload.
    pub(super) fn is_upload(&self, uri: &Uri) -> bool {
        self.upload.iter().any(|begin| has(uri, begin))
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

fn has(uri: &Uri, begin: &str) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with(begin)))
}
