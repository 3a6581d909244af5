//! Feeds over the state API: each has a connection to itself, which is closed when it is dropped.

use std::{collections::VecDeque, sync::Arc};

use futures_util::stream;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    Remote,
    call::{Call, Target},
    connection::Connection,
    pool::{ANSWER_TIMEOUT, Pool},
    problem::{self, misunderstood},
};
use crate::{
    error::Error,
    feed::{Feed, Notice},
    wire::feeds::{EVENT_STREAM, Event, Events},
};

/// A feed on its way in.
struct Following {
    connection: Connection,
    incoming: Incoming,
    events: Events,
    /// Events that have come and were not given yet.
    ready: VecDeque<Event>,
    pool: Arc<Pool>,
    _room: OwnedSemaphorePermit,
}

impl Remote {
    /// Follows what is at `target`.
    pub(super) async fn follow_at(&self, target: Target) -> Result<Feed, Error> {
        let accepted = HeaderValue::from_static(EVENT_STREAM);
        let call = Call::new(Method::GET, target)?.header(header::ACCEPT, accepted);
        let room = self.pool.feed()?;
        let (mut connection, response) = self.open(&call).await?;
        if !response.status().is_success() {
            return match timeout(ANSWER_TIMEOUT, connection.collect(response)).await {
                Ok(Ok(answer)) => {
                    self.pool.keep(connection);
                    Err(problem::error(answer.status, &answer.body))
                }
                Ok(Err(lost)) => Err(self.pool.unavailable(&lost.text)),
                Err(_) => Err(self.pool.unavailable("the answer stopped half-way")),
            };
        }
        let following = Following {
            connection,
            incoming: response.into_body(),
            events: Events::default(),
            ready: VecDeque::new(),
            pool: Arc::clone(&self.pool),
            _room: room,
        };
        Ok(Feed::new(stream::unfold(following, |mut following| async move {
            Some((following.next().await?, following))
        })))
    }
}

impl Following {
    async fn next(&mut self) -> Option<Result<Notice, Error>> {
        loop {
            match self.ready.pop_front() {
                Some(Event::Notice(notice)) => return Some(Ok(notice)),
                Some(Event::Failed(problem)) => {
                    let status = StatusCode::from_u16(problem.status).unwrap_or_default();
                    return Some(Err(problem::typed(status, *problem)));
                }
                None => {}
            }
            match self.connection.chunk(&mut self.incoming).await {
                Ok(Some(piece)) => {
                    if let Err(what) = self.events.read(&piece, |event| self.ready.push_back(event)) {
                        return Some(Err(misunderstood(what)));
                    }
                }
                Ok(None) => return None,
                Err(lost) => return Some(Err(self.pool.unavailable(&lost.text))),
            }
        }
    }
}
