//! Revocations of sessions that have other ids than the user's index says, as when somebody renews while it is read.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use lethe_state::{
    error::Error,
    redis::Redis,
    sessions::{NewSession, Patch, Session, SessionId},
};

use crate::{
    cluster,
    harness::{self, Server},
};

/// An engine whose keys are changed by hand.
struct Ground {
    engine: Redis,
    namespace: String,
    server: &'static Server,
}

impl Ground {
    fn on_one_server() -> Self {
        Self::at(harness::shared(), "")
    }

    fn on_a_cluster() -> Self {
        Self::at(cluster::shared().first(), "&cluster")
    }

    fn at(server: &'static Server, options: &str) -> Self {
        let namespace = harness::namespace();
        let url = format!("redis://127.0.0.1:{}/?namespace={namespace}{options}", server.port);
        Self { engine: Redis::open(url.parse().unwrap()).unwrap(), namespace, server }
    }

    /// A command to whatever server has the key.
    fn command(&self, args: &[&str]) -> String {
        self.server.command(&[&["-c"], args].concat()).trim().to_owned()
    }

    async fn create(&self) -> Session {
        let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
        self.engine.engines().sessions.create(new).await.unwrap()
    }

    async fn revoke(&self, handle: Option<&str>) -> Result<u64, Error> {
        self.engine.engines().sessions.revoke("ada", handle).await
    }

    /// As if the one had become the other.
    fn lead(&self, from: &SessionId, to: &SessionId) {
        let key = format!("{}:{{s{:02x}}}:{}", self.namespace, shard(from), from.public_name());
        assert_eq!(self.command(&["DEL", &key]), "1");
        let mark = format!("1 {} ada", to.public_name());
        assert_eq!(self.command(&["SET", &format!("{key}:m"), &mark, "XX"]), "OK");
    }

    /// Revokes a session of which the index has the first of many ids.
    async fn assert_followed_through(&self, renewals: usize) {
        let sessions = self.engine.engines().sessions;
        let index = format!("{}:{{u:ada}}", self.namespace);
        let mut id = self.create().await.id;
        let first = self.command(&["ZRANGE", &index, "0", "-1"]);
        for _ in 0..renewals {
            id = sessions.renew(&id, Some("ada"), Patch::default()).await.unwrap().session.id;
        }
        // Beside the last id there may be one before it, which a renewal strikes afterwards.
        assert_eq!(self.command(&["DEL", &index]), "1");
        assert_eq!(self.command(&["ZADD", &index, "0", &first]), "1");
        assert_eq!(self.revoke(None).await.unwrap(), 1);
        assert!(matches!(sessions.load(&id).await, Err(Error::Gone)));
        assert_eq!(self.command(&["ZCARD", &index]), "0");
    }
}

/// By which keys are spread.
fn shard(id: &SessionId) -> u8 {
    BASE64_URL_SAFE_NO_PAD.decode(id.public_name()).unwrap()[0]
}

/// It may be more renewals than the server follows in one step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_renewals_are_followed() {
    Ground::on_one_server().assert_followed_through(250).await;
    Ground::on_a_cluster().assert_followed_through(150).await;
}

/// Sessions that moved into a cluster may have been renewed from slot to slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_are_followed_from_slot_to_slot() {
    let ground = Ground::on_a_cluster();
    let sessions = ground.engine.engines().sessions;
    let first = ground.create().await;
    let handle = sessions.list("ada").await.unwrap()[0].handle.clone();
    let second = loop {
        let second = ground.create().await;
        if shard(&second.id) != shard(&first.id) {
            break second;
        }
    };
    ground.lead(&first.id, &second.id);
    assert_eq!(ground.revoke(Some(&handle)).await.unwrap(), 1);
    assert!(matches!(sessions.load(&second.id).await, Err(Error::Gone)));
}

/// A revocation that does not come to an end is never acknowledged: the session may live on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_is_outrun_fails() {
    for ground in [Ground::on_one_server(), Ground::on_a_cluster()] {
        let id = ground.create().await.id;
        ground.lead(&id, &id);
        let revoked = ground.revoke(None).await;
        assert!(
            matches!(&revoked, Err(Error::Unavailable(text)) if text.contains("revoke it again")),
            "{revoked:?}"
        );
    }
}
