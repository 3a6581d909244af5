//! What the gateway is told: where to listen, which routes there are, and every limit and timeout by name.

use std::{net::SocketAddr, time::Duration};

use lethe_model::service::ServiceName;

/// The gateway's configuration. Every limit has a default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The routes; the longest matching path prefix wins, a route with a host before one without.
    pub routes: Vec<Route>,
    /// Runtimes, each with its own listener: by default one per processor.
    pub cores: usize,
    /// The limits.
    pub limits: Limits,
}

/// Which requests go to which service, and how they are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host it is for, lower case, without port; `None` for any.
    pub host: Option<String>,
    /// The path prefix, by whole segments: `/api` matches `/api` and `/api/x`, not `/apiary`.
    pub path: String,
    /// The service that answers.
    pub service: ServiceName,
    /// All requests of this route may be sent again after a worker was lost, whatever their method.
    pub idempotent: bool,
    /// How a worker is chosen.
    pub balance: Balance,
    /// From the last byte of the request sent to the head of the response.
    pub timeout: Duration,
}

/// How a worker is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The less loaded of two random ones, by requests in flight × latency.
    LeastLoaded,
}

/// Every bound of the gateway. Timeouts are looked at ten times a second, and may end up to two tenths later.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request or response head, in bytes.
    pub head_bytes_max: usize,
    /// Most header fields in one head.
    pub headers_max: usize,
    /// From an accepted connection, or the first byte of a head, to the end of the head.
    pub head_timeout: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// To connect to a worker.
    pub connect_timeout: Duration,
    /// How long a request may wait for a worker to be ready.
    pub queue_timeout: Duration,
    /// How many requests may wait for a worker, in each service.
    pub queue_max: usize,
    /// Request body kept to be sent again, per request.
    pub replay_bytes_max: usize,
    /// Request bodies kept, in all.
    pub replay_total_bytes_max: usize,
    /// Responses up to this `Content-Length` are held until they are whole.
    pub hold_bytes_max: usize,
    /// Attempts for one request in which something of it was sent.
    pub attempts_max: usize,
    /// A request that was inside so many workers when they died is not tried again; workers that were killed from
    /// outside do not count.
    pub deaths_max: usize,
    /// Client connections, in all.
    pub connections_max: usize,
    /// Idle connections kept to one worker, per core.
    pub pool_idle_max: usize,
    /// How long, at shutdown, open requests may take to end.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 << 10,
            headers_max: 100,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(1),
            queue_timeout: Duration::from_secs(10),
            queue_max: 1024,
            replay_bytes_max: 1 << 20,
            replay_total_bytes_max: 256 << 20,
            hold_bytes_max: 256 << 10,
            attempts_max: 16,
            deaths_max: 2,
            connections_max: 20_000,
            pool_idle_max: 64,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
