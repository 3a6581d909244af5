//! The shop: what all requests share. It holds handles to the state tier and settings, and nothing that would
//! be missed if this process were killed.

use std::sync::Arc;

use lethe::{State, bucket::Bucket};

use crate::{
    account::Accounts,
    catalogue::Catalogue,
    config::Config,
    error::{Error, StartError},
    order::Orders,
    sessions::Sessions,
    tries::Tries,
};

/// What all requests share. Cheap to clone.
#[derive(Clone)]
pub struct Shop {
    /// Settings of this worker.
    pub config: Arc<Config>,
    /// What is for sale.
    pub catalogue: Catalogue,
    /// Who may sign in.
    pub accounts: Accounts,
    /// How often somebody may try to.
    pub tries: Tries,
    /// Who is signed in.
    pub sessions: Sessions,
    /// What was sold.
    pub orders: Orders,
    /// Uploaded photos, by slug.
    pub photos: Bucket,
}

impl Shop {
    /// A shop on this state, with its shelves filled.
    pub async fn open(state: &State, config: Config) -> Result<Self, StartError> {
        let catalogue = Catalogue::new(state);
        catalogue.seed(config.stock).await?;
        Ok(Self {
            accounts: Accounts::new(state),
            tries: Tries::new(state, config.sign_ins_per_minute),
            sessions: Sessions::new(state, config.plain_http),
            orders: Orders::new(state, catalogue.clone()),
            photos: state.bucket("photos"),
            catalogue,
            config: Arc::new(config),
        })
    }

    /// Whether the shop can answer: whether its state tier does.
    pub async fn ready(&self) -> Result<(), Error> {
        self.catalogue.stock("ready").await.map(|_| ())
    }

    /// Whether this user is the admin.
    pub fn is_admin(&self, user: Option<&str>) -> bool {
        user == Some(self.config.admin.as_str())
    }
}
