//! What has been seen so far, in the order in which requests came, and what the person is told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use lethe_journey::{
    har::{Answer, Exchange, Recorder},
    journey::Journey,
    problem::Problems,
};

use super::say;
use crate::ansi;

/// The longest path that is shown, in characters.
const PATH_CHARS_MAX: usize = 80;

/// The recording. Its lock is held for no longer than a change takes.
pub(super) struct Recording(Mutex<State>);

struct State {
    /// `None` when it has become a journey.
    recorder: Option<Recorder>,
    /// Those that have not come to their end.
    open: BTreeMap<u64, Exchange>,
    next: u64,
    /// What absolute links of the service have in them, until the person has been told of some.
    own_address: Option<String>,
    /// Cookies that responses have set.
    cookies: BTreeSet<String>,
    /// Those that the person has been told of.
    strange: BTreeSet<String>,
}

impl Recording {
    /// For a service that knows itself by `authority`, if that is another name than the browser's.
    pub(super) fn new(recorder: Recorder, authority: Option<String>) -> Self {
        Self(Mutex::new(State {
            own_address: authority.map(|authority| format!("://{authority}/")),
            recorder: Some(recorder),
            open: BTreeMap::new(),
            next: 0,
            cookies: BTreeSet::new(),
            strange: BTreeSet::new(),
        }))
    }

    /// A request has come; gives its number.
    pub(super) fn request(&self, method: Method, target: String, headers: HeaderMap) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.warn_of_cookies(&headers);
        state.open.insert(number, Exchange { number, method, target, headers, body: None, answer: None });
        number
    }

    /// All of its body has come; nothing, if there was too much.
    pub(super) fn sent(&self, number: u64, body: Option<Bytes>) {
        if let Some(exchange) = self.state().open.get_mut(&number) {
            exchange.body = body;
        }
    }

    /// The head of its response has come.
    pub(super) fn answered(&self, number: u64, status: u16, headers: HeaderMap) {
        let mut state = self.state();
        let set = headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        let names: Vec<String> =
            set.filter_map(|cookie| Some(cookie.split_once('=')?.0.trim().to_owned())).collect();
        state.cookies.extend(names);
        if let Some(exchange) = state.open.get_mut(&number) {
            exchange.answer = Some(Answer { status, headers, body: None });
        }
    }

    /// Its response has come to its end, with this body if all of that was kept; or there is none.
    pub(super) fn ended(&self, number: u64, body: Option<Bytes>) {
        let mut state = self.state();
        let Some(mut exchange) = state.open.remove(&number) else { return };
        if let Some(answer) = &mut exchange.answer {
            answer.body = body;
            state.warn_of_links(answer);
        }
        state.take(exchange);
    }

    /// What was recorded as a journey. What is still under way is taken as far as it has come.
    pub(super) fn journey(&self, name: &str) -> Result<Journey, Problems> {
        let mut state = self.state();
        let open = std::mem::take(&mut state.open);
        open.into_values().for_each(|exchange| state.take(exchange));
        let recorder = state.recorder.take().unwrap_or_else(|| Recorder::new("", Default::default()));
        drop(state);
        recorder.journey(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, exchange: Exchange) {
        let Some(recorder) = &mut self.recorder else { return };
        let path: String = exchange.target.chars().take(PATH_CHARS_MAX).collect();
        let status = exchange.answer.as_ref().map_or(0, |answer| answer.status);
        let line = format!("{:7} {path}  {status}", exchange.method.as_str());
        if recorder.add(exchange).is_ok() {
            say(&ansi::clean(&line, false));
        }
    }

    /// Pages pass as they are, and some lead their reader away.
    fn warn_of_links(&mut self, answer: &Answer) {
        let is_page = answer
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        let (Some(body), Some(own), true) = (&answer.body, &self.own_address, is_page) else { return };
        if body.windows(own.len()).any(|window| window.eq_ignore_ascii_case(own.as_bytes())) {
            say(&format!(
                "a page has the address http{} in it: links that begin so lead past the recording",
                own.trim_end_matches('/')
            ));
            self.own_address = None;
        }
    }

    /// A cookie that nobody has set here makes the service answer to somebody whom a replay is not.
    fn warn_of_cookies(&mut self, headers: &HeaderMap) {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let names = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
        let names: Vec<String> = names
            .map(|(name, _)| name.trim().to_owned())
            .filter(|name| !self.cookies.contains(name) && !self.strange.contains(name))
            .collect();
        if !names.is_empty() {
            say(&ansi::clean(
                &format!(
                    "the browser has cookies that this service has not set here, and which no replay will have: {}; begin \
                 again in a private window",
                    names.join(", ")
                ),
                false,
            ));
            self.strange.extend(names);
        }
    }
}
