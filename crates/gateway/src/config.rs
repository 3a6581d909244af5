//! What the gateway is told: where to listen, which routes and services there are, and every limit and timeout by
//! name. All but the listeners and the number of cores can be changed while it runs.

pub mod limit;
pub mod once;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use lethe_model::{roster::Protocol, service::ServiceName};

use self::{limit::Limit, once::Once};

/// The gateway's configuration. Every limit has a default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; at least one.
    pub listeners: Vec<Listener>,
    /// What listeners with [`Listener::tls`] identify themselves with.
    pub tls: Option<Tls>,
    /// The routes; the longest matching path prefix wins, a route with a host before one without.
    pub routes: Vec<Route>,
    /// How the workers of a service are treated; a service that is not here is treated in the usual way.
    pub services: BTreeMap<ServiceName, Service>,
    /// Networks of proxies whose word about the client is taken (`Forwarded`, `X-Forwarded-*`, the PROXY protocol), as
    /// `address/prefix-length`. Empty: nobody's.
    pub trusted_proxies: Vec<Network>,
    /// The name that is put into `Via` of requests and responses, a token (RFC 9110, sections 5.6.2 and 7.6.3); by it a
    /// request that goes round in circles is known. `None`: nothing is said.
    pub via: Option<String>,
    /// What is written of each request.
    pub access_log: AccessLog,
    /// Runtimes, each with its own listeners: by default one per processor.
    pub cores: usize,
    /// The limits.
    pub limits: Limits,
}

impl Config {
    /// Everything in its usual state, listening in one place, with no routes.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listeners: vec![Listener::plain(listen)],
            tls: None,
            routes: Vec::new(),
            services: BTreeMap::new(),
            trusted_proxies: Vec::new(),
            via: None,
            access_log: AccessLog::Off,
            cores: 1,
            limits: Limits::default(),
        }
    }
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Port 0 lets the system choose.
    pub address: SocketAddr,
    /// Speaks TLS, with HTTP/2 offered by ALPN. Without it HTTP/1.1, and HTTP/2 with prior knowledge.
    pub tls: bool,
    /// Each connection begins with a PROXY protocol header, version 1 or 2, which is believed if it comes from a
    /// trusted proxy; one without it, or from anywhere else, is closed.
    pub proxy_protocol: bool,
}

impl Listener {
    /// One without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: false, proxy_protocol: false }
    }
}

/// Where the certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Files, looked at again when they change. A client gets the first whose names match what it asks for (SNI), and
    /// the very first if none does.
    Files(Vec<CertificateFiles>),
    /// Made at the start, for these names, and trusted by nobody. For local use.
    SelfSigned(Vec<String>),
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by those that lead to its authority.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A range of addresses (CIDR, RFC 4632 and RFC 4291, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: std::net::IpAddr,
    /// How many leading bits make the network: at most 32, or 128.
    pub prefix_bits: u8,
}

/// What is written of each request, as one JSON object a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nothing.
    #[default]
    Off,
    /// To the standard output.
    Stdout,
    /// To a file, which is opened anew at each reload, so that it can be moved away.
    File(PathBuf),
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
    /// It answers a share of the requests alone, in proportion to this: further routes for the same host and path say who the
    /// others are. `None`: all of them.
    pub weight: Option<u32>,
    /// All requests of this route may be sent again after a worker was lost, whatever their method.
    pub idempotent: bool,
    /// How a worker is chosen.
    pub balance: Balance,
    /// From the last byte of the request sent to the head of the response.
    pub timeout: Duration,
    /// When a worker that stops in the middle of a response is given up.
    pub response_stall: ResponseStall,
    /// Requests that do not say otherwise (`Lethe-Class`) are of this class.
    pub class: Class,
    /// What beside a lost worker lets a request that may be repeated be sent again, within the retry budget.
    pub retry_on: RetryOn,
    /// A large response to GET whose worker is lost half-way is continued from another one, if it has a strong `ETag`
    /// and the other one answers a range request for the rest with the same.
    pub resume: bool,
    /// Responses tell the client how long each phase took (`Server-Timing`).
    pub server_timing: bool,
    /// How often requests may come; all of these must allow one. Mostly none.
    pub limits: Vec<Limit>,
    /// Which requests are done once, however often they are sent. Mostly none.
    pub once: Option<Once>,
}

impl Route {
    /// Everything to `service`, treated in the usual way.
    pub fn everything_to(service: ServiceName) -> Self {
        Self {
            host: None,
            path: "/".into(),
            service,
            weight: None,
            idempotent: false,
            balance: Balance::default(),
            timeout: Duration::from_secs(30),
            response_stall: ResponseStall::default(),
            class: Class::default(),
            retry_on: RetryOn::default(),
            resume: true,
            server_timing: false,
            limits: Vec::new(),
            once: None,
        }
    }
}

/// When a worker is given up of whose response nothing more comes, though its client would take it and owes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseStall {
    /// After 75 s; never in a stream of events (`text/event-stream`) or of gRPC's messages, which may be silent for long.
    #[default]
    Usual,
    /// After this time, whatever it is.
    After(Duration),
    /// Never.
    Never,
}

impl ResponseStall {
    /// What is usual.
    pub const USUAL: Duration = Duration::from_secs(75);

    /// How long a response may stand still.
    pub(crate) fn timeout(self, is_events: bool) -> Duration {
        match self {
            Self::Usual if !is_events => Self::USUAL,
            Self::After(timeout) => timeout,
            Self::Usual | Self::Never => Duration::MAX,
        }
    }
}

/// Who goes first when workers are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Timely,
    /// Nobody does: it never delays a timely one.
    Batch,
}

/// What beside a lost worker is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// A 503 of the worker.
    pub unavailable: bool,
    /// No response in the route's time.
    pub timeout: bool,
}

/// How a worker is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other, in proportion to the weights, smoothly.
    #[default]
    RoundRobin,
    /// The less loaded of two random ones, by requests in flight × latency.
    LeastLoaded,
    /// Any, in proportion to the weights.
    Random,
}

/// How the workers of one service are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What requests are made for. What each worker speaks tells the roster; it is the same but while a change of it goes on.
    pub protocol: Protocol,
    /// How many requests one worker gets at a time.
    pub concurrency: Concurrency,
    /// A worker that joins others gets its full share only after this time; zero turns it off.
    pub slow_start: Duration,
    /// How long a request waits while no worker is ready, before it waits for its turn; `None` for no other time than that.
    pub start_wait: Option<Duration>,
    /// It may have no worker at all: the gateway tells when one is wanted, by
    /// [`Gateway::wanted`](crate::gateway::Gateway::wanted).
    pub from_zero: bool,
    /// When a worker that keeps failing is passed over.
    pub ejection: Ejection,
    /// A worker that stops answering this is passed over.
    pub health: Option<Health>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            concurrency: Concurrency::Unlimited,
            slow_start: Duration::ZERO,
            start_wait: None,
            from_zero: false,
            ejection: Ejection::default(),
            health: None,
        }
    }
}

/// How many requests one worker gets at a time. The limit counts those of all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as come.
    #[default]
    Unlimited,
    /// At most so many; others wait.
    Limited(u32),
    /// Found by how the latency changes with load, between these bounds.
    Adaptive {
        /// Never fewer.
        min: u32,
        /// Never more.
        max: u32,
    },
}

/// When a worker is passed over although it lives. A worker counts as failing when attempts to it end without a whole
/// response, or with a 5xx other than 501 and 505.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures in a row; zero turns it off.
    pub failures: u32,
    /// For so long at first, and twice as long each further time, up to `longest`.
    pub shortest: Duration,
    /// Never longer.
    pub longest: Duration,
    /// At most this share of the service's workers is out at a time, in percent.
    pub out_percent_max: u8,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            shortest: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            out_percent_max: 50,
        }
    }
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path that must answer 2xx.
    pub path: String,
    /// From one check to the next.
    pub every: Duration,
    /// For the whole answer.
    pub timeout: Duration,
    /// So many failures in a row put a worker out.
    pub failures: u32,
    /// So many successes in a row bring it back.
    pub successes: u32,
}

/// Every bound of the gateway. Timeouts are looked at ten times a second, and may end up to two tenths later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request or response head, in bytes.
    pub head_bytes_max: usize,
    /// Longest request target, in bytes.
    pub target_bytes_max: usize,
    /// Most header fields in one head.
    pub headers_max: usize,
    /// From an accepted connection, or the first byte of a head, to the end of the head.
    pub head_timeout: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A client that neither sends the request body it owes nor takes the response it is given is cut off after this.
    pub stall_timeout: Duration,
    /// An upgraded connection on which nothing moves is closed after this.
    pub tunnel_timeout: Duration,
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
    /// Responses held, in all, of those that are larger than what passing them on takes (64 KiB). What does not fit in is
    /// passed on as it comes.
    pub hold_total_bytes_max: usize,
    /// Attempts for one request in which something of it was sent.
    pub attempts_max: usize,
    /// A request that was inside so many workers when they died is not tried again; workers that were killed from
    /// outside do not count.
    pub deaths_max: usize,
    /// Retries for a status or a timeout, in percent of the requests of the last ten seconds. Those for a lost worker
    /// are not counted.
    pub retry_percent_max: u8,
    /// Client connections, in all.
    pub connections_max: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub streams_max: u32,
    /// Idle connections kept to one worker, per core.
    pub pool_idle_max: usize,
    /// How long, at shutdown, open requests may take to end.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 << 10,
            target_bytes_max: 16 << 10,
            headers_max: 100,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(75),
            tunnel_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(1),
            queue_timeout: Duration::from_secs(10),
            queue_max: 1024,
            replay_bytes_max: 1 << 20,
            replay_total_bytes_max: 256 << 20,
            hold_bytes_max: 256 << 10,
            hold_total_bytes_max: 256 << 20,
            attempts_max: 16,
            deaths_max: 2,
            retry_percent_max: 20,
            connections_max: 20_000,
            streams_max: 128,
            pool_idle_max: 512,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
