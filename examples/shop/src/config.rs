//! What the shop takes from its environment. Everything has a default.

use crate::{account::Username, error::StartError, password};

/// Enough for whoever has forgotten which of a few passwords it was, and too few to guess one.
const SIGN_INS_PER_MINUTE: u32 = 5;

/// Settings of one worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this worker, shown in the footer (`LETHE_INSTANCE`).
    pub instance: String,
    /// How many of each product a new shop has (`SHOP_STOCK`).
    pub stock: u32,
    /// The user who may change pictures and stock (`SHOP_ADMIN`).
    pub admin: Username,
    /// The admin's password (`SHOP_ADMIN_PASSWORD`); `None` to have one made up and logged, once.
    pub admin_password: Option<Secret>,
    /// How often a minute one address, and anybody for one account, may try to sign in (`SHOP_SIGN_INS_PER_MINUTE`).
    pub sign_ins_per_minute: u32,
    /// Whether cookies go over plain HTTP to hosts other than localhost too (`SHOP_PLAIN_HTTP=1`).
    pub plain_http: bool,
}

/// A text that `Debug` does not show.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Config {
    /// Reads the process environment.
    pub fn from_env() -> Result<Self, StartError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads settings through `get`; an empty value counts as none.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, StartError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let number = |name: &str, default: u32, least: u32| {
            let Some(text) = get(name) else { return Ok(default) };
            text.parse().ok().filter(|number| *number >= least).ok_or_else(|| {
                let message = format!("{name} is {text:?}; give a whole number from {least} to {}", u32::MAX);
                StartError::Setting(message)
            })
        };
        let stock = number("SHOP_STOCK", 100_000, 0)?;
        let sign_ins_per_minute = number("SHOP_SIGN_INS_PER_MINUTE", SIGN_INS_PER_MINUTE, 1)?;
        let admin = get("SHOP_ADMIN").unwrap_or_else(|| "admin".into());
        let admin = Username::parse(&admin)
            .ok_or_else(|| StartError::Setting(format!("SHOP_ADMIN is {admin:?}; {}", Username::RULE)))?;
        let admin_password = get("SHOP_ADMIN_PASSWORD");
        if admin_password.as_ref().is_some_and(|text| !password::acceptable(text)) {
            return Err(StartError::Setting(format!("SHOP_ADMIN_PASSWORD is refused: {}", password::RULE)));
        }
        Ok(Self {
            instance: get("LETHE_INSTANCE").unwrap_or_else(|| "alone".into()),
            stock,
            sign_ins_per_minute,
            admin,
            admin_password: admin_password.map(Secret),
            plain_http: get("SHOP_PLAIN_HTTP").is_some_and(|value| value == "1"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Config, String> {
        Config::read(|name| {
            settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        let config = read(&[("SHOP_STOCK", "")]).unwrap();
        assert_eq!((config.stock, config.admin.as_str(), config.plain_http), (100_000, "admin", false));
        assert_eq!(config.sign_ins_per_minute, 5);
        assert!(config.admin_password.is_none());
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        assert!(
            read(&[("SHOP_STOCK", "-1")]).unwrap_err().contains("SHOP_STOCK is \"-1\"; give a whole number")
        );
        let none = read(&[("SHOP_SIGN_INS_PER_MINUTE", "0")]).unwrap_err();
        assert!(none.contains("SHOP_SIGN_INS_PER_MINUTE is \"0\"; give a whole number from 1 to"), "{none}");
        assert!(read(&[("SHOP_ADMIN", "a b")]).unwrap_err().contains("SHOP_ADMIN"));
        let refused = read(&[("SHOP_ADMIN_PASSWORD", "short")]).unwrap_err();
        assert!(refused.contains("at least 8") && !refused.contains("short"), "{refused}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let config = read(&[("SHOP_ADMIN_PASSWORD", "open sesame")]).unwrap();
        assert!(!format!("{config:?}").contains("sesame"));
    }
}
