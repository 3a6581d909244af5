//! Who may use what through a socket of the API. Each service has a socket of its own, which is its credential; what it is
//! granted is looked up at each request, so that a change of the configuration holds from then on. Each route has its
//! [`Rule`], which is asked before its handler is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use async_trait::async_trait;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use http::{Method, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::net::UnixStream;

use super::{Socket, problem::Problem};
use crate::{
    error::Error,
    grant::{Asked, Grant, Pattern, Resource},
    realm::Realm,
    revocations,
    sessions::SessionId,
};

/// What a route needs to be granted. [`super::route`] wants one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing: it says nothing of what is kept.
    Free,
    /// What the first variable segment of its path names.
    Named(Resource),
    /// Sessions.
    Sessions,
    /// The session whose id is the first variable segment of its path.
    Session,
    /// The socket of whoever runs `lethe`, and not to be a worker.
    Operator,
    /// What its body names. Its handler asks [`Visitor::may_use`] for each name, before anything is done.
    InBody(Resource),
    /// It lists names, and its handler those alone that [`Visitor::granted`] has.
    Listed(Resource),
}

/// What is behind a connection, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of a worker of this service.
    Worker(String),
    /// A process that `lethe` has brought forth, but of no worker that it knows; or one of which nothing could be learned.
    Stray,
    /// Any other that could open the socket: a shell of the same user, a container that the socket was given to.
    Other,
}

/// Tells what is behind a connection.
#[async_trait]
pub trait Peers: Send + Sync {
    /// What the process with this id is; `None` where it has none in this namespace of process ids.
    async fn peer(&self, pid: Option<i32>) -> Peer;
}

/// What each service is granted. Shared by all sockets, and changed while they are served.
#[derive(Debug, Default)]
pub struct Grants {
    /// `None` is all there is.
    services: RwLock<BTreeMap<String, Option<Grant>>>,
}

impl Grants {
    /// From now on, also on connections that exist, `service` has this grant; `None` is all there is.
    pub fn set(&self, service: &str, grant: Option<Grant>) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.insert(service.to_owned(), grant);
    }

    /// From now on `service` has nothing.
    pub fn remove(&self, service: &str) {
        self.services.write().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    fn with<T>(&self, ask: impl FnOnce(&BTreeMap<String, Option<Grant>>) -> T) -> T {
        ask(&self.services.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One socket: for whom it is.
#[derive(Clone)]
pub struct Door {
    /// The service whose socket it is; `None` for that of whoever runs `lethe`.
    service: Option<Arc<str>>,
    grants: Arc<Grants>,
    /// `None` where nobody is asked who comes.
    peers: Option<Arc<dyn Peers>>,
}

impl Door {
    /// The socket of a service.
    pub fn of_service(service: &str, grants: Arc<Grants>, peers: Arc<dyn Peers>) -> Self {
        Self { service: Some(service.into()), grants, peers: Some(peers) }
    }

    /// The socket of whoever runs `lethe`, who may use everything. Workers of services with a grant are sent to their own.
    pub fn of_operator(grants: Arc<Grants>, peers: Arc<dyn Peers>) -> Self {
        Self { service: None, grants, peers: Some(peers) }
    }

    /// One where everybody may use everything.
    pub fn open() -> Self {
        Self { service: None, grants: Arc::default(), peers: None }
    }

    /// Finds out who comes.
    pub(super) async fn meet(self, stream: &UnixStream, socket: Socket) -> Visitor {
        let peer = match &self.peers {
            Some(peers) => match stream.peer_cred() {
                Ok(credentials) => peers.peer(credentials.pid().filter(|pid| *pid > 0)).await,
                Err(_) => Peer::Stray,
            },
            None => Peer::Other,
        };
        Visitor(Arc::new(Visit { door: self, peer, socket, frames: Mutex::default() }))
    }
}

struct Visit {
    door: Door,
    peer: Peer,
    socket: Socket,
    /// The connection's other end as frames, once it was asked for.
    frames: Mutex<Option<OnUpgrade>>,
}

/// Who makes a request, as each request of a connection carries it.
#[derive(Clone)]
pub(super) struct Visitor(Arc<Visit>);

impl Visitor {
    /// The socket that it has come through.
    pub(super) fn socket(&self) -> &Socket {
        &self.0.socket
    }

    /// From the end of this exchange on, the connection carries frames.
    pub(super) fn becomes_frames(&self, coming: OnUpgrade) {
        *self.0.frames.lock().unwrap_or_else(PoisonError::into_inner) = Some(coming);
    }

    /// The connection, if it carries frames from now on.
    pub(super) fn frames(&self) -> Option<OnUpgrade> {
        self.0.frames.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether this name may be used, whatever of it and for whatever.
    pub(super) fn may_use(&self, resource: Resource, name: &str) -> Result<(), Error> {
        self.may(Asked { resource, name, key: None, is_read: false })
    }

    /// Whether this may be used, because it was given or comes with what was.
    pub(super) fn may(&self, asked: Asked<'_>) -> Result<(), Error> {
        let Asked { resource, name, is_read, .. } = asked;
        if resource == Resource::Tables && name == revocations::TABLE && !is_read && !self.is_operator() {
            return Err(Error::Denied(format!(
                "the table `{name}` is written by lethe alone, for whoever ends a session: end it by `/v1/sessions` or `/v1/users`"
            )));
        }
        let service = self.0.door.service.as_deref().unwrap_or_default();
        self.judge(|grant| match grant.has(resource, name) || grant.comes_with(service, &asked) {
            true => None,
            false => Some(Missing {
                what: format!(
                    "may not use the {} `{}`; its {} are {}",
                    resource.one(),
                    Shown(name),
                    resource.name(),
                    grant.listed(resource)
                ),
                next: format!("add it to `{}`", resource.name()),
            }),
        })
    }

    /// The names that may be used, in order, of which no two are for the same name; `None` for all.
    pub(super) fn granted(&self, resource: Resource) -> Result<Option<Vec<Pattern>>, Error> {
        let mut granted = None;
        self.judge(|grant| {
            granted = (!grant.has_all()).then(|| grant.names(resource).to_vec());
            None
        })?;
        Ok(granted)
    }

    /// Of which realm the sessions are that may be used; `None` for whoever runs `lethe`, for whom there are all.
    pub(super) fn realm(&self) -> Result<Option<Realm>, Error> {
        let Visit { door, peer, .. } = &*self.0;
        if self.is_operator() {
            return Ok(None);
        }
        let is_elsewhere = match peer {
            Peer::Worker(service) => door.service.as_deref() != Some(service),
            Peer::Stray | Peer::Other => door.service.is_none(),
        };
        let mut realm = Some(Realm::default());
        if is_elsewhere {
            // One that may use everything is let in at all doors, and has the same sessions behind each.
            return self.may_enter().map(|()| realm);
        }
        self.judge(|grant| {
            realm.clone_from(&grant.sessions);
            realm.is_none().then(|| Missing {
                what: "may not use sessions".into(),
                next: "write `sessions = true`".into(),
            })
        })?;
        Ok(realm)
    }

    /// The realm that a call is about which may name one.
    pub(super) fn realm_asked(&self, asked: Option<Realm>) -> Result<Option<Realm>, Error> {
        match (self.realm()?, asked) {
            (None, asked) => Ok(asked),
            (Some(own), Some(asked)) if own != asked => Err(Error::Denied(format!(
                "these are the sessions `{asked}`, and those of the caller are `{own}`: leave `realm` out"
            ))),
            (own, _) => Ok(own),
        }
    }

    /// The realms that services have sessions of, and the common one.
    pub(super) fn realms(&self) -> BTreeSet<Realm> {
        self.0.door.grants.with(|grants| {
            let granted = grants.values().flatten().filter_map(|grant| grant.sessions.clone());
            granted.chain([Realm::default()]).collect()
        })
    }

    /// The realm whose part alone is shown of a table: that of revocations is of all realms, and each knows its own rows by the keys
    /// that they would have if there were no others. `None` where a table is shown as it is.
    pub(super) fn view_of(&self, table: &str) -> Result<Option<Realm>, Error> {
        if table == revocations::TABLE { self.realm() } else { Ok(None) }
    }

    /// Whether the session of this id may be used. To who may not, it is one that is not there.
    pub(super) fn may_use_session(&self, id: &SessionId) -> Result<(), Error> {
        match self.realm()? {
            Some(realm) if realm != *id.realm() => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    /// Whether it is whoever runs `lethe`.
    fn is_operator(&self) -> bool {
        self.0.door.service.is_none() && self.0.peer == Peer::Other
    }

    fn must_be_operator(&self) -> Result<(), Error> {
        match self.is_operator() {
            true => Ok(()),
            false => Err(Error::Denied(
                "this is for whoever runs lethe, and not for workers: `lethe state export` and `import` use it".into(),
            )),
        }
    }

    fn may_enter(&self) -> Result<(), Error> {
        self.judge(|_| None)
    }

    /// Asks the rule of a route about a call with this method and these variable segments of its path.
    pub(super) fn may_pass<'a>(
        &self,
        rule: Rule,
        method: &Method,
        mut segments: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        match rule {
            Rule::Free => Ok(()),
            Rule::Sessions => self.realm().map(drop),
            // What is no id is told by who reads it.
            Rule::Session => match segments.next().and_then(SessionId::parse) {
                Some(id) => self.may_use_session(&id),
                None => self.realm().map(drop),
            },
            Rule::Operator => self.must_be_operator(),
            Rule::InBody(_) | Rule::Listed(_) => self.may_enter(),
            Rule::Named(resource) => {
                let (name, key) = (segments.next().unwrap_or_default(), segments.next());
                let is_read = [Method::GET, Method::HEAD].contains(method);
                self.may(Asked { resource, name, key, is_read })
            }
        }
    }

    /// Asks about the grant, if there is one.
    fn judge(&self, ask: impl FnOnce(&Grant) -> Option<Missing>) -> Result<(), Error> {
        let Visit { door, peer, .. } = &*self.0;
        door.grants.with(|grants| {
            cross(door.service.as_deref(), peer, grants)?;
            let Some(service) = door.service.as_deref() else { return Ok(()) };
            let missing = match grants.get(service) {
                Some(None) => None,
                Some(Some(grant)) => ask(grant),
                None => return Err(Error::Denied(format!("there is no service `{service}` any more"))),
            };
            missing.map_or(Ok(()), |Missing { what, next }| {
                Err(Error::Denied(format!(
                    "the service `{service}` {what}: to change that, {next} in `state` of [services.{service}] in \
                     lethe.toml, and run `lethe reload`"
                )))
            })
        })
    }
}

/// What a grant does not have.
struct Missing {
    /// It, to follow the name of the service.
    what: String,
    /// What to do in the grant to have it.
    next: String,
}

/// Refuses who comes to another's door to have more than it was given: a worker of a service with a grant, and, as soon as
/// one service has one, processes of which it is not known whose they are.
fn cross(door: Option<&str>, peer: &Peer, grants: &BTreeMap<String, Option<Grant>>) -> Result<(), Error> {
    let own = "its own is in its LETHE_STATE";
    let door_of = || door.map_or("of whoever runs lethe".into(), |door| format!("of the service `{door}`"));
    let text = match peer {
        Peer::Worker(service) if door == Some(service) => return Ok(()),
        // One that is not known any more is on its way out, and had a grant perhaps.
        Peer::Worker(service) if matches!(grants.get(service), Some(None)) => return Ok(()),
        Peer::Worker(service) => {
            format!(
                "this socket is {}, and the caller is a worker of the service `{service}`: {own}",
                door_of()
            )
        }
        Peer::Stray if grants.values().any(Option::is_some) => format!(
            "this socket is {}, and the caller has left the processes of its worker, so that it is not known of which \
             service it is: let it stay a child of its worker, or in its process group",
            door_of()
        ),
        Peer::Stray | Peer::Other => return Ok(()),
    };
    Err(Error::Denied(text))
}

/// A name in a message, not longer than names are.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS_MAX: usize = 64;
        let short = self.0.char_indices().nth(CHARS_MAX).map_or(self.0, |(end, _)| &self.0[..end]);
        write!(f, "{}{}", short.escape_debug(), if short.len() < self.0.len() { "…" } else { "" })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let visitor = parts.extensions.get::<Self>().cloned();
        // Each connection has one; without, nobody is known to be allowed anything.
        visitor.ok_or_else(|| Error::Denied("it is not known who asks".into()).into())
    }
}

/// Gives a request back if the rule of its route allows it.
pub(super) async fn check(rule: Rule, request: Request) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    let visitor = Visitor::from_request_parts(&mut parts, &()).await?;
    let parameters = match rule {
        Rule::Named(_) | Rule::Session => RawPathParams::from_request_parts(&mut parts, &()).await.ok(),
        _ => None,
    };
    // What is not UTF-8 is no name of anything.
    let segments = parameters.iter().flatten().map(|(_, value)| value);
    visitor.may_pass(rule, &parts.method, segments)?;
    Ok(Request::from_parts(parts, body))
}

#[cfg(test)]
mod tests;
