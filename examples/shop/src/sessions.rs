//! Who is signed in: sessions in the state tier, with a signed pass beside each (`docs/sessions.md`, "Hybrid sessions"). By the
//! pass any worker knows who a visitor is without asking anybody, and takes it no longer within a second of a sign-out.

use std::time::Duration;

use lethe::{
    State,
    problem::chain,
    session::SessionLayer,
    token::{Keys, Turning},
};

/// The ring of keys that passes are signed with. It has the name of the service, so that it comes with the sessions that the
/// service is given.
const RING: &str = "shop";
/// Longest that a worker waits for what its first visitors would wait for otherwise.
const WARM_UP_MAX: Duration = Duration::from_secs(2);

/// The sessions of the shop. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    keys: Keys,
    layer: SessionLayer,
}

impl Sessions {
    /// The sessions in this state.
    pub fn new(state: &State, is_plain_http: bool) -> Self {
        let keys = Keys::new(state.engines().tables.clone(), RING, Turning::default());
        let layer = SessionLayer::new(state).hybrid(keys.clone()).persistent();
        let layer = if is_plain_http { layer.insecure_cookies() } else { layer };
        Self { keys, layer }
    }

    /// The layer that tells handlers who comes.
    pub fn layer(&self) -> SessionLayer {
        self.layer.clone()
    }

    /// Reads the keys, and what has been revoked lately, before the worker is ready. A worker that cannot is as right, and
    /// only slower: it looks each session up.
    pub async fn warm_up(&self) {
        let read = async {
            if let Err(error) = self.keys.refresh().await {
                tracing::warn!(error = chain(&error), "the keys of passes could not be read ahead");
            }
            if let Some(revocations) = self.layer.revocations() {
                revocations.followed().await;
            }
        };
        if tokio::time::timeout(WARM_UP_MAX, read).await.is_err() {
            tracing::warn!("passes are not believed yet: it is not known what was revoked");
        }
    }
}
