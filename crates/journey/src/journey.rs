//! What one user does, as data: steps in their order, each of them one request, what is expected of its response, and what later
//! steps need of it.

use std::time::Duration;

use http::{HeaderName, Method};

use crate::{
    body::Body,
    capture::Capture,
    channel::{Act, Arrival, Opening, Saying},
    expectation::Expectation,
    template::{IDENTITY, ORIGIN, Template},
};

/// The most steps of one journey.
pub const STEPS_MAX: usize = 1000;

/// What one user does. Made by [`crate::document::read`].
#[derive(Clone, Debug, PartialEq)]
pub struct Journey {
    /// What it is called, as in reports.
    pub name: String,
    /// The host that it was written for, or recorded from, as in `Host`; `None` where any will do.
    pub host: Option<String>,
    /// Values that are known from the beginning, in the order in which they may use each other.
    pub variables: Vec<(String, Template)>,
    /// The steps; never empty, numbered from 1.
    pub steps: Vec<Step>,
    /// What a reader should know of how it was read, such as what was left out.
    pub notes: Vec<String>,
}

/// One request of a journey.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its place in the journey, from 1.
    pub number: usize,
    /// What it does, in a few words.
    pub name: Option<String>,
    /// What it does.
    pub act: Act,
    /// The method.
    pub method: Method,
    /// Path and query, from `/`.
    pub path: Template,
    /// Header fields beside those that the player sends by itself.
    pub headers: Vec<(HeaderName, Template)>,
    /// What is sent with it.
    pub body: Body,
    /// What its response must be like.
    pub expect: Expectation,
    /// What must arrive at a channel because of it.
    pub arrives: Option<Arrival>,
    /// What later steps need of its response.
    pub captures: Vec<Capture>,
    /// Whether redirects are followed as part of this step; else each is what the step ends with.
    pub follow: bool,
    /// It is played again until what is expected is there, for so long at most; for what is asked again and again until it is done.
    pub within: Option<Duration>,
    /// How long the user waits before it.
    pub pause: Duration,
}

impl Journey {
    /// The step of this number, from 1.
    pub fn step(&self, number: usize) -> Option<&Step> {
        self.steps.get(number.checked_sub(1)?)
    }

    /// The step that has opened the channel of this name before step `number`, and how.
    pub fn opening(&self, name: &str, number: usize) -> Option<(&Step, &Opening)> {
        let before = self.steps.get(..number.saturating_sub(1))?;
        before.iter().rev().find_map(|step| match &step.act {
            Act::Open(opening) if opening.name == name => Some((step, opening)),
            _ => None,
        })
    }

    /// The steps before step `number` that say something over the channel of this name since it was opened, and what.
    pub fn said<'j>(&'j self, name: &'j str, number: usize) -> impl Iterator<Item = (&'j Step, &'j Saying)> {
        let opened = self.opening(name, number).map_or(number, |(step, _)| step.number);
        let since = self.steps.iter().filter(move |step| (opened..number).contains(&step.number));
        since.filter_map(move |step| match &step.act {
            Act::Say(saying) if saying.on == name => Some((step, saying)),
            _ => None,
        })
    }

    /// Whether `name` is a variable that is known before step `number`, or that this step itself could use.
    pub fn knows(&self, name: &str, number: usize) -> bool {
        let is_captured = |step: &Step| step.captures.iter().any(|capture| capture.variable == name);
        [IDENTITY, ORIGIN].contains(&name)
            || self.variables.iter().any(|(known, _)| known == name)
            || self.steps.iter().take(number.saturating_sub(1)).any(is_captured)
    }
}

impl Step {
    /// A plain request of `method` for `path`, of which nothing is expected but that it does not fail.
    pub fn new(number: usize, method: Method, path: Template) -> Self {
        Self {
            number,
            name: None,
            act: Act::default(),
            method,
            path,
            headers: Vec::new(),
            body: Body::None,
            expect: Expectation::default(),
            arrives: None,
            captures: Vec::new(),
            follow: false,
            within: None,
            pause: Duration::ZERO,
        }
    }

    /// What it is called in a report: its name, or its method and path.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| match &self.act {
            Act::Request => format!("{} {}", self.method, self.path),
            Act::Open(opening) => format!("{} {}", opening.protocol, self.path),
            Act::Say(saying) => format!("send on {}", saying.on),
        })
    }

    /// Whether it is one request with its response: nothing stays open, and nothing is waited for beside.
    pub fn is_plain(&self) -> bool {
        self.act.is_request() && self.arrives.is_none()
    }

    /// Whether the request declares that it may be sent twice: by its method (RFC 9110, section 9.2.2), or by an
    /// `Idempotency-Key`.
    pub fn is_declared_repeatable(&self) -> bool {
        self.method.is_idempotent() || self.headers.iter().any(|(name, _)| name == "idempotency-key")
    }

    /// The variables that its request uses, in no order, with repetitions.
    pub fn uses(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter().flat_map(|(_, value)| value.names());
        let body = self.body.templates().into_iter().flat_map(Template::names);
        let texts = self.act.texts().iter().flat_map(Template::names);
        self.path.names().chain(headers).chain(body).chain(texts)
    }
}
