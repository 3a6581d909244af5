//! `/v1/feeds`: what changes, as a stream of server-sent events, for as long as the client stays.

use std::{convert::Infallible, future::Future, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{App, Socket, access::Visitor, problem::Problem, query::Segments};
use crate::{
    error::Error,
    feed::{Feed, Notice},
    grant::{Asked, Resource},
    realm::Realm,
    revocations, wire,
};

/// Most feeds through one socket at one time. They are fewer than the connections, so that these never all are feeds.
pub const FEEDS_MAX: usize = super::CONNECTIONS_MAX / 2;

/// What a feed is of.
enum Subject {
    /// Those of this realm, or all.
    Sessions(Option<Realm>),
    /// This one, and the realm whose part of it is shown.
    Table(String, Option<Realm>),
    Cache(String),
}

/// A feed on its way to a client, which may lose the right to it.
struct Outgoing {
    feed: Feed,
    visitor: Visitor,
    subject: Subject,
    ending: watch::Receiver<()>,
    _room: OwnedSemaphorePermit,
}

/// `GET /v1/feeds/sessions`
pub(super) async fn sessions(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Segments(()): Segments<()>,
) -> Result<Response, Problem> {
    let realm = visitor.realm()?;
    send(visitor, Subject::Sessions(realm), app.engines.sessions.follow()).await
}

/// `GET /v1/feeds/tables/{table}`
pub(super) async fn table(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Segments(table): Segments<String>,
) -> Result<Response, Problem> {
    let view = visitor.view_of(&table)?;
    send(visitor, Subject::Table(table.clone(), view), app.engines.tables.follow(&table)).await
}

/// `GET /v1/feeds/cache/{cache}`
pub(super) async fn cache(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Segments(cache): Segments<String>,
) -> Result<Response, Problem> {
    send(visitor, Subject::Cache(cache.clone()), app.engines.cache.follow(&cache)).await
}

/// Answers with a feed. That the head of the answer is there tells that all that is acknowledged from now on will be told.
async fn send(
    visitor: Visitor,
    subject: Subject,
    follow: impl Future<Output = Result<Feed, Error>>,
) -> Result<Response, Problem> {
    let Socket { feeds, ending } = visitor.socket().clone();
    let room = feeds.try_acquire_owned();
    let room = room.map_err(|_| Error::Unavailable(format!("there are {FEEDS_MAX} feeds already")))?;
    let outgoing = Outgoing { feed: follow.await?, visitor, subject, ending, _room: room };
    let events = stream::unfold(Some(outgoing), |outgoing| async move {
        let mut outgoing = outgoing?;
        match outgoing.next().await {
            Ok(event) => Some((Ok::<_, Infallible>(event), Some(outgoing))),
            Err(error) => Some((Ok(wire::feeds::failed(&Problem::from(error).into_json())), None)),
        }
    });
    let headers = [(header::CONTENT_TYPE, wire::feeds::EVENT_STREAM), (header::CACHE_CONTROL, "no-store")]
        .map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((headers, Body::from_stream(events)).into_response())
}

impl Outgoing {
    async fn next(&mut self) -> Result<bytes::Bytes, Error> {
        loop {
            let notice = tokio::select! {
                biased;
                // Nothing is ever sent: the channel closes when the server ends.
                _ = self.ending.changed() => return Err(Error::Unavailable("the state API ends".into())),
                notice = self.feed.next() => notice?,
            };
            self.may_go_on()?;
            if let Some(notice) = self.shown(notice) {
                return Ok(wire::feeds::notice(&notice));
            }
        }
    }

    /// Whether the client may still have it, and it is still what it asked for.
    fn may_go_on(&self) -> Result<(), Error> {
        let is_the_same = match &self.subject {
            Subject::Sessions(realm) => self.visitor.realm()? == *realm,
            Subject::Table(table, view) => {
                self.visitor.may(asked(Resource::Tables, table))?;
                self.visitor.view_of(table)? == *view
            }
            Subject::Cache(cache) => {
                self.visitor.may(asked(Resource::Caches, cache))?;
                true
            }
        };
        match is_the_same {
            true => Ok(()),
            // What the client has copied is not its own any more.
            false => Err(Error::Unavailable("the service has other sessions now; follow them anew".into())),
        }
    }

    /// A notice as the client knows what it is of; `None` if it does not.
    fn shown(&self, notice: Notice) -> Option<Notice> {
        match (&self.subject, &notice) {
            (Subject::Table(_, Some(realm)), Notice::Changed(key)) => {
                revocations::seen(realm, key).map(|key| Notice::Changed(key.into()))
            }
            _ => Some(notice),
        }
    }
}

/// Who follows something reads it, and all of it.
fn asked(resource: Resource, name: &str) -> Asked<'_> {
    Asked { resource, name, key: None, is_read: true }
}
