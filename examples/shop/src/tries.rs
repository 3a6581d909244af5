//! How often somebody may try to sign in. A password is guessed from one address for many accounts, or from many addresses
//! for one account; so both are counted, by all workers together, before any work is done for the password.

use std::time::Duration;

use lethe::{
    State,
    address::ClientAddress,
    limit::{Limit, Quota},
};

use crate::{account::Username, error::Error};

const MINUTE: Duration = Duration::from_secs(60);

/// The tries of everybody. Cheap to clone.
#[derive(Clone)]
pub struct Tries {
    state: State,
    by_address: Limit,
    by_account: Limit,
}

impl Tries {
    /// So many a minute, for each address and for each account.
    pub fn new(state: &State, per_minute: u32) -> Self {
        let quota = Quota::per(per_minute, MINUTE);
        let (by_address, by_account) =
            (state.limit("sign-in-address", quota), state.limit("sign-in-account", quota));
        Self { state: state.clone(), by_address, by_account }
    }

    /// Counts a try, if it is not one too many; both at once, so that what the one refuses is not taken of the other.
    /// A name that no account can have is counted by the address alone.
    pub async fn count(&self, address: ClientAddress, name: Option<&Username>) -> Result<(), Error> {
        let network = address.network().to_string();
        match name {
            Some(name) => {
                let calls = [(&self.by_address, network.as_str()), (&self.by_account, name.as_str())];
                Ok(self.state.require_all(&calls).await?)
            }
            None => Ok(self.by_address.require(&network).await?),
        }
    }
}
