//! One server and the connection to it, which is made when it is first needed, shared by all calls, and made anew when it is
//! lost. Commands of many callers follow each other on it without waiting for answers, so that one is enough.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, PushInfo, PushKind, RedisError, Value, aio::MultiplexedConnection,
};
use tokio::time::Instant;

use super::{
    failure::{Failure, Refusal},
    request::Request,
    sentinel,
    server::{self, Servers},
    url::Address,
};
use crate::{
    breaker::Breaker,
    figures::{self, Figures},
    place::EngineName,
};

/// Most calls that are under way on a connection; more wait their turn.
const IN_FLIGHT_MAX: usize = 1024;

/// A server.
pub(super) struct Node {
    whereabouts: Whereabouts,
    servers: Arc<Servers>,
    link: Mutex<Option<Link>>,
    /// Held by who makes the connection; when that last failed, and how.
    making: tokio::sync::Mutex<Option<(Instant, String)>>,
    breaker: Breaker,
    counts: Counts,
}

/// What was counted of a server.
#[derive(Default)]
struct Counts {
    /// Calls that are under way.
    calls: AtomicU64,
    made: AtomicU64,
    lost: AtomicU64,
}

/// A call that is under way.
struct Calling<'a>(&'a AtomicU64);

impl<'a> Calling<'a> {
    fn begin(calls: &'a AtomicU64) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        Self(calls)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a server is found.
pub(super) enum Whereabouts {
    /// It is there.
    At(Address),
    /// Sentinels know which one is the master.
    MasterOf(String),
}

/// A connection to a server.
#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    address: Arc<str>,
    is_lost: Arc<AtomicBool>,
}

impl Node {
    /// A server, which is not asked anything yet.
    pub(super) fn new(whereabouts: Whereabouts, servers: Arc<Servers>) -> Self {
        let (link, making) = (Mutex::new(None), tokio::sync::Mutex::new(None));
        let breaker = Breaker::new(match &whereabouts {
            Whereabouts::At(address) => format!("redis at {address}"),
            Whereabouts::MasterOf(name) => format!("the master `{name}` of redis"),
        });
        Self { whereabouts, servers, link, making, breaker, counts: Counts::default() }
    }

    /// What it is doing, for who watches.
    pub(super) fn watch(&self, figures: &mut Figures) {
        let server = match &self.whereabouts {
            Whereabouts::At(address) => address.to_string(),
            Whereabouts::MasterOf(name) => format!("master {name}"),
        };
        let is_there = self.current().as_ref().is_some_and(|link| !link.is_lost.load(Ordering::Relaxed));
        figures.breakers.push(self.breaker.figures(EngineName::Redis.name(), &server));
        figures.pools.push(figures::Pool {
            engine: EngineName::Redis.name(),
            server,
            max: 1,
            size: is_there.into(),
            calls: Some(self.counts.calls.load(Ordering::Relaxed)),
            created_total: self.counts.made.load(Ordering::Relaxed),
            lost_total: self.counts.lost.load(Ordering::Relaxed),
            ..figures::Pool::default()
        });
    }

    /// Has a request done; `asking` when its slot is just being moved to this server.
    ///
    /// A dropped call happens whole or not at all.
    pub(super) async fn send(&self, request: &Request, asking: bool) -> Result<Value, Failure> {
        match self.command(&request.script.command(request, false), asking).await {
            // It was not run, so the whole text may follow.
            Err(Failure::NoScript) => self.command(&request.script.command(request, true), asking).await,
            result => result,
        }
    }

    /// Has a command done.
    pub(super) async fn command(&self, command: &Cmd, asking: bool) -> Result<Value, Failure> {
        let pass = self.breaker.enter().map_err(|resting| Failure::Resting(resting.to_string()))?;
        let _calling = Calling::begin(&self.counts.calls);
        let link = match self.link().await {
            Ok(link) => link,
            Err(failure) => {
                match failure.text() {
                    Some(why) => pass.failed(why),
                    None => pass.succeeded(),
                }
                return Err(failure);
            }
        };
        let answer = link.exchange(command, asking).await;
        let failure = match answer {
            Ok(value) => {
                pass.succeeded();
                return Ok(value);
            }
            Err(error) => Failure::of(&link.address, &error),
        };
        match &failure {
            Failure::Unknown(why) => {
                pass.failed(why);
                self.counts
                    .lost
                    .fetch_add(u64::from(!link.is_lost.swap(true, Ordering::Relaxed)), Ordering::Relaxed);
            }
            Failure::NotDone(_) if matches!(self.whereabouts, Whereabouts::MasterOf(_)) => {
                // It may be the master no longer: sentinels are asked again.
                pass.succeeded();
                link.is_lost.store(true, Ordering::Relaxed);
            }
            _ => pass.succeeded(),
        }
        Err(failure)
    }

    fn current(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection: the one there is, or a new one, which all who wait for it share, as they share its failure.
    async fn link(&self) -> Result<Link, Failure> {
        let alive = |link: &Link| !link.is_lost.load(Ordering::Relaxed);
        if let Some(link) = self.current().as_ref().filter(|link| alive(link)) {
            return Ok(link.clone());
        }
        let asked_at = Instant::now();
        let mut last_failure = self.making.lock().await;
        if let Some(link) = self.current().as_ref().filter(|link| alive(link)) {
            return Ok(link.clone());
        }
        if let Some((_, text)) = last_failure.as_ref().filter(|(at, _)| *at >= asked_at) {
            return Err(Failure::NotDone(text.clone()));
        }
        let made = self.connect().await;
        match &made {
            Ok(link) => {
                self.counts.made.fetch_add(1, Ordering::Relaxed);
                *self.current() = Some(link.clone());
                *last_failure = None;
            }
            Err(Failure::NotDone(text)) => *last_failure = Some((Instant::now(), text.clone())),
            Err(_) => {}
        }
        made
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let address = match &self.whereabouts {
            Whereabouts::At(address) => address.clone(),
            Whereabouts::MasterOf(service) => sentinel::find_master(&self.servers, service).await?,
        };
        let name: Arc<str> = address.to_string().into();
        let is_lost = Arc::new(AtomicBool::new(false));
        let config = self.servers.config().set_concurrency_limit(IN_FLIGHT_MAX).set_push_sender({
            let is_lost = is_lost.clone();
            move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    is_lost.store(true, Ordering::Relaxed);
                }
                Ok::<_, std::convert::Infallible>(())
            }
        });
        let mut connection = open(&self.servers.client(&address)?, &config, &name).await?;
        server::check(&mut connection, &name, &self.servers.url.place).await?;
        Ok(Link { connection, address: name, is_lost })
    }
}

/// Makes a connection and signs in.
pub(super) async fn open(
    client: &Client,
    config: &AsyncConnectionConfig,
    server: &str,
) -> Result<MultiplexedConnection, Failure> {
    let made = client.get_multiplexed_async_connection_with_config(config).await;
    made.map_err(|error| match Failure::of(server, &error) {
        refused @ Failure::Refused(_) => refused,
        _ if error.kind() == redis::ErrorKind::InvalidClientConfig => {
            Failure::Refused(Refusal::new(server, error.to_string()))
        }
        _ => Failure::NotDone(format!("redis at {server} cannot be reached ({error})")),
    })
}

impl Link {
    async fn exchange(&self, command: &Cmd, asking: bool) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        if !asking {
            return command.query_async(&mut connection).await;
        }
        let mut pair = redis::pipe();
        pair.cmd("ASKING").ignore().add_command(command.clone());
        let (value,): (Value,) = pair.query_async(&mut connection).await?;
        Ok(value)
    }
}
