//! Brings a request to the server that it is for, and again if that is safe: what was not done may be sent again, what may
//! have been done only if doing it twice is the same as once.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Value};

use super::{
    cluster::Cluster,
    failure::{Failure, Refusal},
    node::{Node, Whereabouts},
    request::Request,
    sentinel,
    server::Servers,
    url::{Address, Place},
};
use crate::{clock::jittered, error::Error, figures::Figures};

/// Most times that a request is sent.
const ATTEMPTS_MAX: u32 = 5;
/// The pause before the second time, of which between half and all is waited; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);

/// The way to the servers.
pub(super) struct Router {
    way: Way,
    servers: Arc<Servers>,
    /// No call takes longer.
    call_timeout: Duration,
}

enum Way {
    One(Arc<Node>),
    Cluster(Cluster),
}

impl Router {
    /// The way to the servers of a URL, none of which is asked anything yet.
    pub(super) fn new(servers: Servers) -> Self {
        let call_timeout = servers.url.connect_timeout + servers.url.response_timeout;
        let servers = Arc::new(servers);
        let whereabouts = match &servers.url.place {
            Place::Cluster => {
                return Self { way: Way::Cluster(Cluster::new(servers.clone())), servers, call_timeout };
            }
            Place::One => Whereabouts::At(servers.url.addresses[0].clone()),
            Place::Sentinels(service) => Whereabouts::MasterOf(service.clone()),
        };
        Self { way: Way::One(Arc::new(Node::new(whereabouts, servers.clone()))), servers, call_timeout }
    }

    /// How the servers are reached.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// What the servers are doing, for who watches.
    pub(super) fn watch(&self, figures: &mut Figures) {
        match &self.way {
            Way::One(node) => node.watch(figures),
            Way::Cluster(cluster) => cluster.watch(figures),
        }
    }

    /// No call takes longer.
    pub(super) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// All servers that keys may be written to, in the order of their addresses.
    pub(super) async fn masters(&self) -> Result<Vec<Address>, Failure> {
        match (&self.way, &self.servers.url.place) {
            (Way::Cluster(cluster), _) => cluster.masters().await,
            (_, Place::Sentinels(service)) => Ok(vec![sentinel::find_master(&self.servers, service).await?]),
            _ => Ok(vec![self.servers.url.addresses[0].clone()]),
        }
    }

    /// Whether keys of one request must be in one slot.
    pub(super) fn has_slots(&self) -> bool {
        matches!(self.way, Way::Cluster(_))
    }

    /// Has a request done.
    ///
    /// Fails with [`Error::Unavailable`] when no server could be reached, or none answered in time and the request must not be
    /// repeated; with [`Error::Engine`] when a server has refused it. Cancellation safe: a dropped call is done whole or not.
    pub(super) async fn run(&self, request: &Request) -> Result<Value, Error> {
        match tokio::time::timeout(self.call_timeout, self.attempts(request)).await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::Unavailable(format!(
                "redis did not answer within {} ms; what was asked may have been done",
                self.call_timeout.as_millis()
            ))),
        }
    }

    /// The servers that [`masters`](Self::masters) names.
    pub(super) async fn nodes(&self) -> Result<Vec<Arc<Node>>, Error> {
        match &self.way {
            Way::One(node) => Ok(vec![node.clone()]),
            Way::Cluster(cluster) => Ok(cluster.master_nodes().await?),
        }
    }

    /// Has a command done by this very server, which only reads there.
    pub(super) async fn read(&self, node: &Node, command: &Cmd) -> Result<Value, Error> {
        let mut attempt = 1;
        loop {
            match node.command(command, false).await {
                Err(failure) if attempt < ATTEMPTS_MAX && failure.may_be_repeated(true) => {
                    pause(attempt).await
                }
                result => return result.map_err(Error::from),
            }
            attempt += 1;
        }
    }

    async fn attempts(&self, request: &Request) -> Result<Value, Failure> {
        let mut directed = None;
        let mut attempt = 1;
        loop {
            let failure = match self.attempt(request, &mut directed).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if attempt == ATTEMPTS_MAX || !failure.may_be_repeated(request.script.is_repeatable) {
                return Err(failure);
            }
            self.prepare(failure, attempt, &mut directed).await?;
            attempt += 1;
        }
    }

    /// Sends it once: where it was directed to, or to the server that has its first key.
    async fn attempt(
        &self,
        request: &Request,
        directed: &mut Option<(Arc<Node>, bool)>,
    ) -> Result<Value, Failure> {
        let (node, asking) = match (directed.take(), &self.way) {
            (Some(directed), _) => directed,
            (None, Way::One(node)) => (node.clone(), false),
            (None, Way::Cluster(cluster)) => (cluster.node_of(&request.keys[0]).await?, false),
        };
        node.send(request, asking).await
    }

    /// What is to be done before it is sent again.
    async fn prepare(
        &self,
        failure: Failure,
        attempt: u32,
        directed: &mut Option<(Arc<Node>, bool)>,
    ) -> Result<(), Failure> {
        let Way::Cluster(cluster) = &self.way else {
            if let Failure::Elsewhere { address, .. } = failure {
                let what = "it is a server of a cluster; add `?cluster` to the URL";
                return Err(Failure::Refused(Refusal::new(&address, what)));
            }
            pause(attempt).await;
            return Ok(());
        };
        let seen = cluster.map();
        match failure {
            Failure::Elsewhere { address, is_for_once } => {
                *directed = cluster.node_at(&address).map(|node| (node, is_for_once));
                if is_for_once {
                    return Ok(());
                }
            }
            _ => pause(attempt).await,
        }
        // When nobody can say who has the slot, the next attempt says so.
        let _ = cluster.refresh(&seen).await;
        Ok(())
    }
}

async fn pause(attempt: u32) {
    tokio::time::sleep(jittered(PAUSE * 2_u32.pow(attempt - 1))).await;
}
