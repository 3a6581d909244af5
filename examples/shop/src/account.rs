//! Accounts: who may sign in. Registering and signing in are safe to repeat, and never tell a stranger
//! whether a name exists, beyond what registering has to.

use lethe::{State, table::Table};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    date,
    error::Error,
    password::{self, Hasher},
};

/// The name of a user: what may be a key, part of a page and of an address without a second thought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Username(String);

impl Username {
    /// The rule, in words.
    pub const RULE: &str =
        "a name has 3 to 32 characters: letters a to z, digits, - and _, and begins with a letter";

    /// Reads a name as typed: blanks around it and upper case do not count. `None` when it breaks the rule.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.trim().to_ascii_lowercase();
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        let fits = (3..=32).contains(&name.len()) && name.bytes().all(allowed);
        (fits && name.as_bytes()[0].is_ascii_lowercase()).then_some(Self(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is kept of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// The password's hash, in PHC string format.
    pub password: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub joined_at: u64,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The account is there, with this password: made now, or by an earlier try of the same request.
    Done,
    /// The name belongs to somebody else.
    Taken,
}

/// The accounts of the shop. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    state: State,
    table: Table<Account>,
    hasher: Hasher,
}

impl Accounts {
    /// The accounts in this state.
    pub fn new(state: &State) -> Self {
        Self { state: state.clone(), table: state.table("accounts"), hasher: Hasher::default() }
    }

    /// Makes an account, unless the name is taken. Coming twice with the same password, as a repeated request
    /// does, is no error. The password must be [`password::acceptable`].
    pub async fn register(&self, name: &Username, password: String) -> Result<Registered, Error> {
        if self.table.get(name.as_str()).await?.is_none() {
            let hash = self.hasher.hash(password.clone()).await?;
            let account = Account { password: hash, joined_at: date::now_ms() };
            if self.table.insert(name.as_str(), &account).await? {
                return Ok(Registered::Done);
            }
        }
        Ok(if self.verify(Some(name), password).await? { Registered::Done } else { Registered::Taken })
    }

    /// Whether name and password belong together. The work is the same for a name that is not there, or is
    /// none.
    pub async fn verify(&self, name: Option<&Username>, password: String) -> Result<bool, Error> {
        let account = match name {
            Some(name) => self.table.get(name.as_str()).await?,
            None => None,
        };
        self.hasher.verify(password, account.map(|stored| stored.value.password)).await
    }

    /// Ends the sessions of a user on all devices. All workers take them for ended within a second.
    pub async fn sign_out_everywhere(&self, user: &str) -> Result<(), Error> {
        Ok(self.state.end_sessions(user).await.map(drop)?)
    }

    /// Whether there is an account of this name.
    pub async fn exists(&self, name: &Username) -> Result<bool, Error> {
        Ok(self.table.get(name.as_str()).await?.is_some())
    }

    /// Sees to it that the admin can sign in. Every worker calls this when it starts; a password that has to
    /// be made up is logged by the one that stored it, once in the life of the shop. A password that was set
    /// in the environment is the admin's from then on, and whoever is signed in with another one no longer is.
    pub async fn seed_admin(&self, config: &Config) -> Result<(), Error> {
        let admin = &config.admin;
        let stored = self.table.get(admin.as_str()).await?;
        let (password, made_up) = match (&config.admin_password, &stored) {
            (Some(secret), _) => (secret.0.clone(), false),
            (None, Some(_)) => return Ok(()),
            (None, None) => (made_up_password()?, true),
        };
        if let Some(stored) = stored {
            if self.hasher.verify(password.clone(), Some(stored.value.password)).await? {
                return Ok(());
            }
            let hash = self.hasher.hash(password).await?;
            // Before, so that after a crash in between the next worker does it all; and after, for those whom the old
            // password let in meanwhile.
            self.state.end_sessions(admin.as_str()).await?;
            self.table
                .update(admin.as_str(), |account: &mut Account| account.password.clone_from(&hash))
                .await?;
            self.state.end_sessions(admin.as_str()).await?;
            tracing::info!(
                admin = admin.as_str(),
                "the admin's password is now the one of SHOP_ADMIN_PASSWORD"
            );
            return Ok(());
        }
        let hash = self.hasher.hash(password.clone()).await?;
        let won =
            self.table.insert(admin.as_str(), &Account { password: hash, joined_at: date::now_ms() }).await?;
        if won && made_up {
            tracing::warn!(
                "the admin is {:?} with the password {password} (said only this once)",
                admin.as_str()
            );
        }
        Ok(())
    }
}

/// 20 letters and digits that are hard to misread: 100 random bits, and more than
/// [`password::PASSWORD_CHARS_MIN`].
fn made_up_password() -> Result<String, Error> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    const { assert!(password::PASSWORD_CHARS_MIN <= 20) };
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| Error::internal(&error))?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for (text, name) in [
            ("ada", Some("ada")),
            (" Ada_L-1 ", Some("ada_l-1")),
            ("al", None),
            ("1ada", None),
            ("a/../b", None),
            ("ada<script>", None),
            ("josé", None),
            ("", None),
            (&"a".repeat(32), Some("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
            (&"a".repeat(33), None),
        ] {
            assert_eq!(Username::parse(text).as_ref().map(Username::as_str), name, "{text:?}");
        }
    }

    #[test]
    fn made_up_passwords_are_long_and_differ() {
        let (one, two) = (made_up_password().unwrap(), made_up_password().unwrap());
        assert!(password::acceptable(&one) && one.len() == 20);
        assert_ne!(one, two);
    }
}
