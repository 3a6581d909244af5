//! What an engine on PostgreSQL needs to know, as its URL says it: where the server is, and how the pool of connections to
//! it is kept. Parameters of the pool are this room's own; the others are PostgreSQL's, as sqlx knows them.

use std::{str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;

use crate::error::Error;

/// Longest name of a schema, in bytes: PostgreSQL cuts longer names off.
const SCHEMA_BYTES_MAX: usize = 63;
/// Most connections that a pool may be set to.
const CONNECTIONS_MAX: u32 = 10_000;
/// Parameters that sqlx understands; others would be passed over without a word.
const OF_SQLX: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// How a pool of connections is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections that are kept open, used or not. `min=`, 5 by default.
    pub min: u32,
    /// Most connections; who needs one more waits. `max=`, 20 by default.
    pub max: u32,
    /// Longest wait for a connection. `acquire_timeout=`, 30 s by default.
    pub acquire_timeout: Duration,
    /// Longest time that making a connection may take: to be accepted, for TLS, to sign in. `create_timeout=`, 5 s by
    /// default.
    pub create_timeout: Duration,
    /// A connection that was not used for so long is closed, unless it is one of `min`. `idle_timeout=`, 10 min by
    /// default.
    pub idle_timeout: Duration,
    /// A connection is closed when it has lived for so long, or up to a tenth less, so that not all end at once.
    /// `max_lifetime=`, 30 min by default.
    pub max_lifetime: Duration,
    /// A connection that has rested for so long is asked whether it still is one before it is used; 0 asks each time.
    /// `validate_after=`, 500 ms by default.
    pub validate_after: Duration,
    /// Longest time that the server may take for one statement. `statement_timeout=`, 10 s by default.
    pub statement_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min: 5,
            max: 20,
            acquire_timeout: Duration::from_secs(30),
            create_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
            validate_after: Duration::from_millis(500),
            statement_timeout: Duration::from_secs(10),
        }
    }
}

/// Where the state is kept, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server, the database, and whom to sign in as.
    pub server: PgConnectOptions,
    /// The schema (in PostgreSQL's sense) with the engine's tables. `schema=`, `lethe` by default.
    pub schema: String,
    /// The pool.
    pub pool: PoolConfig,
}

impl FromStr for Config {
    type Err = Error;

    /// Reads `postgres://user:password@host:port/database?parameters`. Errors never show the password.
    fn from_str(url: &str) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if !(base.starts_with("postgres://") || base.starts_with("postgresql://")) {
            return Err(invalid("it does not begin with postgres://"));
        }
        let (mut pool, mut schema, mut of_sqlx) = (PoolConfig::default(), "lethe".to_owned(), Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "schema" => schema = check_schema(value)?,
                name if pool.set(name, value)? => {}
                name if OF_SQLX.contains(&name) || name.starts_with("options[") => of_sqlx.push(parameter),
                _ => return Err(invalid(&unknown(name))),
            }
        }
        pool.check()?;
        let server = PgConnectOptions::from_str(&format!("{base}?{}", of_sqlx.join("&")))
            .map_err(|error| invalid(&innermost(&error)))?;
        let named = server.get_application_name().is_some();
        let server = if named { server } else { server.application_name("lethe") };
        Ok(Self { server, schema, pool })
    }
}

impl PoolConfig {
    const NAMES: [&str; 8] = [
        "min",
        "max",
        "acquire_timeout",
        "create_timeout",
        "idle_timeout",
        "max_lifetime",
        "validate_after",
        "statement_timeout",
    ];

    /// Sets one parameter; false when it is not one of the pool's.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, Error> {
        match name {
            "min" => self.min = number(name, value)?,
            "max" => self.max = number(name, value)?,
            "acquire_timeout" => self.acquire_timeout = duration(name, value)?,
            "create_timeout" => self.create_timeout = duration(name, value)?,
            "idle_timeout" => self.idle_timeout = duration(name, value)?,
            "max_lifetime" => self.max_lifetime = duration(name, value)?,
            "validate_after" => self.validate_after = duration(name, value)?,
            "statement_timeout" => self.statement_timeout = duration(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.max == 0 || self.max > CONNECTIONS_MAX || self.min > self.max {
            return Err(invalid(&format!(
                "min={} and max={} do not fit: max is 1 to {CONNECTIONS_MAX}, and min at most as much",
                self.min, self.max
            )));
        }
        let moment = Duration::from_millis(1);
        for (name, value) in [
            ("acquire_timeout", self.acquire_timeout),
            ("create_timeout", self.create_timeout),
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
            ("statement_timeout", self.statement_timeout),
        ] {
            if value < moment {
                return Err(invalid(&format!("{name} is less than 1 ms")));
            }
        }
        Ok(())
    }
}

/// What is at the bottom of an error: what is above it only says that it is one of a configuration.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn unknown(name: &str) -> String {
    let own = PoolConfig::NAMES.join(", ");
    format!(
        "there is no parameter `{name}`: this engine's are schema, {own}; PostgreSQL's are {}",
        OF_SQLX.join(", ")
    )
}

fn check_schema(name: &str) -> Result<String, Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_plain = name.bytes().all(allowed) && !name.starts_with(|first: char| first.is_ascii_digit());
    if name.is_empty() || name.len() > SCHEMA_BYTES_MAX || !is_plain || name.starts_with("pg_") {
        return Err(invalid(&format!(
            "schema={name:?} is not 1 to {SCHEMA_BYTES_MAX} lower-case ASCII letters, digits and `_`, or begins with a \
             digit or `pg_`"
        )));
    }
    Ok(name.to_owned())
}

fn number(name: &str, value: &str) -> Result<u32, Error> {
    value.parse().map_err(|_| invalid(&format!("{name}={value:?} is not a whole number")))
}

/// Reads `500ms`, `30s`, `10m` or `2h`.
fn duration(name: &str, value: &str) -> Result<Duration, Error> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = value.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    unit_ms
        .and_then(|unit_ms| count.parse::<u32>().ok()?.checked_mul(unit_ms))
        .map(|ms| Duration::from_millis(u64::from(ms)))
        .ok_or_else(|| {
            invalid(&format!(
                "{name}={value:?} is not a duration such as 500ms, 30s, 10m or 2h (49 days at most)"
            ))
        })
}

fn invalid(what: &str) -> Error {
    Error::Invalid(format!(
        "the PostgreSQL URL is not usable: {what}; it should be like postgres://user:password@host:5432/database?max=20"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        Config::from_str(url).expect_err(url).to_string()
    }

    #[test]
    fn all_is_set_by_the_url() {
        let config = Config::from_str("postgres://ada:secret@db.example:6432/shop").unwrap();
        assert_eq!((config.schema.as_str(), config.pool), ("lethe", PoolConfig::default()));
        assert_eq!((config.server.get_host(), config.server.get_port()), ("db.example", 6432));
        assert_eq!(config.server.get_database(), Some("shop"));
        assert_eq!(config.server.get_application_name(), Some("lethe"));

        let config = Config::from_str(
            "postgresql://h/d?schema=state_2&min=1&max=3&acquire_timeout=2s&create_timeout=750ms&idle_timeout=5m\
             &max_lifetime=1h&validate_after=0s&statement_timeout=90s&application_name=shop&sslmode=disable",
        )
        .unwrap();
        let pool = PoolConfig {
            min: 1,
            max: 3,
            acquire_timeout: Duration::from_secs(2),
            create_timeout: Duration::from_millis(750),
            idle_timeout: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(3600),
            validate_after: Duration::ZERO,
            statement_timeout: Duration::from_secs(90),
        };
        assert_eq!((config.schema.as_str(), config.pool), ("state_2", pool));
        assert_eq!(config.server.get_application_name(), Some("shop"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, says) in [
            ("mysql://h/d", "postgres://"),
            ("postgres://u:geheim@h/d?mx=3", "no parameter `mx`"),
            ("postgres://u:geheim@h/d?max=many", "whole number"),
            ("postgres://u:geheim@h/d?min=9&max=3", "do not fit"),
            ("postgres://u:geheim@h/d?max=0", "do not fit"),
            ("postgres://u:geheim@h/d?idle_timeout=10", "duration"),
            ("postgres://u:geheim@h/d?idle_timeout=0s", "less than 1 ms"),
            ("postgres://u:geheim@h/d?max_lifetime=9999999h", "duration"),
            ("postgres://u:geheim@h/d?schema=x;drop", "schema"),
            ("postgres://u:geheim@h/d?schema=pg_state", "schema"),
            ("postgres://u:geheim@h/d?sslmode=maybe", "\"maybe\""),
            ("postgres://u:geheim@h:port/d", "port"),
        ] {
            let error = error(url);
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
