//! How often requests of a route may come. The gateway only carries this: who keeps count is asked through
//! [`allowance`](crate::allowance).

use std::time::Duration;

/// One limit of a route: on average `calls` in each `period`, and `burst` at once after a rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What clients and operators see. Limits of the same name count together.
    pub name: String,
    /// Requests in a period, at least 1.
    pub calls: u32,
    /// The period, longer than nothing.
    pub period: Duration,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
    /// What is counted as one client.
    pub by: By,
    /// Some requests may be taken at once for a core to hand out by itself, where the quota is large enough for it.
    pub leased: bool,
    /// What becomes of requests that cannot be counted.
    pub on_outage: Outage,
    /// How long a request waits for being counted before that is so. The longest of a route's limits holds.
    pub timeout: Duration,
}

/// By what requests are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// All together.
    Everyone,
    /// The client's address, or network, as workers are told it in `X-Forwarded-For`.
    #[default]
    Address,
    /// The session that lives; everyone else by address.
    Session,
    /// The value of this header field, by its lower-case name; requests without it by address.
    Header(String),
}

/// What becomes of requests while nobody can be asked whether they may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// They pass uncounted.
    #[default]
    Allow,
    /// They are answered with 503.
    Refuse,
}
