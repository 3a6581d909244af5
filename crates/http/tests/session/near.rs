//! Two workers with near copies of sessions, whose visitors are now at the one and now at the other.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use futures_util::{StreamExt as _, stream};
use http::header;
use lethe_http::session::SessionLayer;
use lethe_state::{
    error::Error,
    feed::{BEAT, Feed, Notice},
    near::{Bounds, NearSessions},
    realm::Realm,
    sessions::{NewSession, Patch, Renewed, Session, SessionId, SessionInfo, Sessions},
};

use super::{
    COOKIE, site_with,
    visitor::{Engine, Visitor},
};

const WRITTEN: &str = "__Host-session-written";

/// An engine whose feed lives but never tells a change: as long as a notice is on its way, any feed is like this.
struct Untold(Arc<dyn Sessions>);

#[async_trait]
impl Sessions for Untold {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        self.0.create(new).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        self.0.load(id).await
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        self.0.patch(id, patch).await
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        self.0.renew(id, user, patch).await
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        self.0.destroy(id).await
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.0.list_in(realm, user).await
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        self.0.revoke_in(realm, user, handle).await
    }

    async fn follow(&self) -> Result<Feed, Error> {
        let beats = stream::unfold((), async |()| {
            tokio::time::sleep(BEAT).await;
            Some((Ok(Notice::Beat), ()))
        });
        Ok(Feed::new(beats.boxed()))
    }
}

/// A worker, and the copies that it has.
async fn worker_with_copies(engine: &Engine) -> (Router, Arc<NearSessions>) {
    let sessions = Arc::new(NearSessions::new(Arc::new(Untold(engine.sessions())), Bounds::default()));
    sessions.followed().await.unwrap();
    let layer: Arc<dyn Sessions> = sessions.clone();
    (site_with(SessionLayer::new(layer)), sessions)
}

async fn worker(engine: &Engine) -> Router {
    worker_with_copies(engine).await.0
}

#[tokio::test]
async fn a_visitor_sees_what_they_did_at_another_worker() {
    let engine = Engine::open();
    let here = worker(&engine).await;
    let (there, copies) = worker_with_copies(&engine).await;
    let mut visitor = Visitor::new(here.clone());
    visitor.post("/set?a=1").await;
    assert_eq!(visitor.cookie(WRITTEN), None, "nobody has a copy of what is new");
    let mut visitor = visitor.on(there.clone());
    assert_eq!(visitor.get("/").await.text, "user= a=1 b= count=0");

    for (path, expected) in [("/set?a=2", "user= a=2 b= count=0"), ("/count", "user= a=2 b= count=1")] {
        let mut writer = visitor.on(here.clone());
        let written = writer.post(path).await;
        let line = format!("{WRITTEN}=1; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=4");
        assert_eq!(written.set_cookies(), [line]);
        assert_eq!(written.headers[header::CACHE_CONTROL], "private, no-cache", "it is no secret");

        let mut untold = writer.clone().on(there.clone());
        untold.forget(WRITTEN);
        let hits = copies.counts().hits;
        let read = untold.get("/").await.text;
        // A copy is not believed where the machine has stood still for as long as the feed may be silent.
        if copies.counts().hits > hits {
            assert_ne!(read, expected, "the worker has a copy of before");
        }
        visitor = writer.on(there.clone());
        assert_eq!(visitor.get("/").await.text, expected);
        assert_eq!(untold.get("/").await.text, expected, "it has a newer one now");
        visitor.forget(WRITTEN);
    }

    let mut visitor = visitor.on(here.clone());
    let read = visitor.get("/").await;
    assert_eq!(read.set_cookies(), Vec::<String>::new(), "who only reads says nothing");
    visitor.post_body("/sign-in", "ada").await;
    assert_eq!(visitor.cookie(WRITTEN), None, "there is another id");
    let mut visitor = visitor.on(there);
    assert_eq!(visitor.get("/").await.text, "user=ada a=2 b=from sign-in count=1");
    assert!(visitor.cookie(COOKIE).is_some());
}

#[tokio::test]
async fn what_one_worker_did_it_sees_itself() {
    let engine = Engine::open();
    let mut visitor = Visitor::new(worker(&engine).await);
    visitor.post("/set?a=0").await;
    for n in 1..20 {
        visitor.forget(WRITTEN);
        assert_eq!(visitor.get("/").await.text, format!("user= a={} b= count=0", n - 1));
        visitor.forget(WRITTEN);
        visitor.post(&format!("/set?a={n}")).await;
    }
    let mut other_tab = visitor.clone();
    visitor.post("/sign-out").await;
    other_tab.forget(WRITTEN);
    assert_eq!(other_tab.get("/").await.text, "user= a= b= count=0");
}
