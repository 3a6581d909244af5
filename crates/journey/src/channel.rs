//! Channels: connections that stay open beside a user's requests, over which a service tells what happens. A step opens one, says
//! something over one, or expects that something arrives at one.

use std::{fmt, time::Duration};

use crate::template::Template;

/// How long what is expected may take to arrive, unless the step says so.
pub const WITHIN_DEFAULT: Duration = Duration::from_secs(5);

/// The most messages that are kept of a channel at which nobody waits; older ones go.
pub const MESSAGES_MAX: usize = 1000;

/// The most bytes of all of them.
pub const MESSAGES_BYTES_MAX: usize = 8 << 20;

/// How a channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A WebSocket (RFC 6455).
    WebSocket,
    /// Server-sent events (the HTML standard, section 9.2).
    EventStream,
}

/// What a step does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Act {
    /// One request with its response.
    #[default]
    Request,
    /// Its request opens a channel.
    Open(Opening),
    /// It has no request of its own.
    Say(Saying),
}

/// A channel that a step opens, in place of one of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// How it speaks.
    pub protocol: Protocol,
    /// What later steps call it.
    pub name: String,
    /// What the client says each time that it connects.
    pub says: Vec<Template>,
}

/// What is said over a channel that is open.
#[derive(Clone, Debug, PartialEq)]
pub struct Saying {
    /// The channel's name.
    pub on: String,
    /// The messages, in their order.
    pub texts: Vec<Template>,
}

/// A message that must arrive at a channel because of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The channel's name.
    pub on: String,
    /// What is in the message.
    pub text: Template,
    /// For how long it is waited for.
    pub within: Duration,
}

impl Act {
    /// Whether it is one request with its response, and nothing is left open after it.
    pub fn is_request(&self) -> bool {
        matches!(self, Self::Request)
    }

    /// What is said over a channel.
    pub fn texts(&self) -> &[Template] {
        match self {
            Self::Request => &[],
            Self::Open(opening) => &opening.says,
            Self::Say(saying) => &saying.texts,
        }
    }

    /// The same, to be changed.
    pub(crate) fn texts_mut(&mut self) -> &mut [Template] {
        match self {
            Self::Request => &mut [],
            Self::Open(opening) => &mut opening.says,
            Self::Say(saying) => &mut saying.texts,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "WebSocket",
            Self::EventStream => "events",
        })
    }
}
