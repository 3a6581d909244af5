//! The calls that are made at each request, done as they come out of a frame: no request is made of them, no router asked and no
//! response taken apart. Such a call is in its plainest form: its path has names that need no decoding and no query, and there are
//! no headers. All others go the way of requests; what is answered is the same, and each route's rule is asked here too.

use std::{ops::Range, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};

use super::{
    App,
    access::{Rule, Visitor},
    problem::Problem,
};
use crate::{Millis, Revision, error::Error, frames::Call, revocations};

/// Most variable segments of a path.
const NAMES_MAX: usize = 2;

/// What does the calls of a route.
pub(super) type Direct = fn(&Arc<App>, Plain) -> Answering;

/// A call in its plainest form.
pub(super) struct Plain {
    path: Bytes,
    names: [Range<usize>; NAMES_MAX],
    pub(super) body: Bytes,
}

/// What becomes of a call.
pub(super) enum Answering {
    /// It is done.
    Now(Result<Reply, Problem>),
    /// It is done when this ends.
    Later(BoxFuture<'static, Result<Reply, Problem>>),
}

/// What is answered, if it is no problem.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<&'static str>,
    /// What the entity tag is made of.
    pub(super) revision: Option<Revision>,
    pub(super) expires_at: Option<Millis>,
    pub(super) body: Bytes,
}

impl Reply {
    /// One without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, content_type: None, revision: None, expires_at: None, body: Bytes::new() }
    }
}

impl Plain {
    /// The variable segment of this number, from 0 on; the empty one where there are none so many.
    pub(super) fn name(&self, at: usize) -> &str {
        // It was found in a text, between two slashes.
        std::str::from_utf8(&self.path[self.names[at].clone()]).unwrap_or_default()
    }
}

/// The routes whose calls can be done so.
pub(super) struct Directs {
    app: Arc<App>,
    routes: Vec<DirectRoute>,
}

/// One of them.
pub(super) struct DirectRoute {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) rule: Rule,
    pub(super) run: Direct,
}

impl Directs {
    pub(super) fn new(app: Arc<App>, routes: Vec<DirectRoute>) -> Self {
        Self { app, routes }
    }

    /// Does a call, or begins to; `None` if it must go the way of requests.
    pub(super) fn begin(&self, visitor: &Visitor, call: &Call) -> Option<Answering> {
        if !call.headers.is_empty() {
            return None;
        }
        let path = plain(&call.target)?;
        let (route, names) = self.routes.iter().find_map(|route| {
            let names = (route.method == call.method).then(|| matched(route.path, path)).flatten()?;
            Some((route, names))
        })?;
        // It has another key for each realm.
        if path[names[0].clone()] == *revocations::TABLE {
            return None;
        }
        let segments = names.iter().filter(|name| !name.is_empty()).map(|name| &path[name.clone()]);
        if let Err(denied) = visitor.may_pass(route.rule, &route.method, segments) {
            return Some(Answering::Now(Err(denied.into())));
        }
        let plain = Plain { path: call.target.clone(), names, body: call.body.clone() };
        // A fault in one call is no end of the others.
        let begun = std::panic::catch_unwind(AssertUnwindSafe(|| (route.run)(&self.app, plain)));
        Some(begun.unwrap_or_else(|_| Answering::Now(Err(panicked()))))
    }
}

/// The problem of a call that has panicked.
pub(super) fn panicked() -> Problem {
    Error::Engine("a call has panicked".into()).into()
}

/// A target that is a path of bytes that stand for themselves (RFC 3986, section 2.3) and slashes.
fn plain(target: &[u8]) -> Option<&str> {
    let stands_for_itself =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
    target.iter().all(stands_for_itself).then(|| std::str::from_utf8(target).ok()).flatten()
}

/// Where the variable segments of `pattern` are in `path`, if it is of that form.
fn matched(pattern: &str, path: &str) -> Option<[Range<usize>; NAMES_MAX]> {
    let (mut names, mut found, mut at) = ([const { 0..0 }; NAMES_MAX], 0, 0);
    let mut segments = path.split('/');
    for part in pattern.split('/') {
        let segment = segments.next()?;
        if part.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            *names.get_mut(found)? = at..at + segment.len();
            found += 1;
        } else if part != segment {
            return None;
        }
        at += segment.len() + 1;
    }
    segments.next().is_none().then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, path: &str, expected: Option<&[&str]>) {
        let names = plain(path.as_bytes()).and_then(|path| matched(pattern, path));
        let names = names.map(|names| {
            names.into_iter().filter(|name| !name.is_empty()).map(|name| &path[name]).collect::<Vec<_>>()
        });
        assert_eq!(names.as_deref(), expected, "{pattern} {path}");
    }

    #[test]
    fn only_plain_paths_of_the_same_form_match() {
        let row = "/v1/tables/{table}/{key}";
        check(row, "/v1/tables/t/k.1_~-", Some(&["t", "k.1_~-"]));
        check(row, "/v1/tables/t/k/", None);
        check(row, "/v1/tables/t/", None);
        check(row, "/v1/tables//k", None);
        check(row, "/v1/tables/t", None);
        check(row, "v1/tables/t/k", None);
        check(row, "//v1/tables/t/k", None);
        check(row, "/v1/tables/t/%6b", None);
        check(row, "/v1/tables/t/k?ttl_ms=1", None);
        check(row, "/v1/tables/t/k#", None);
        check(row, "/v1/tables/t/k+", None);
        check(row, "/v1/tables/t/\u{fc}", None);
        check(row, "", None);
        check("/v1/sessions/{id}", "/v1/sessions/x", Some(&["x"]));
        check("/v1/sessions/{id}", "/v1/sessionsx", None);
    }
}
