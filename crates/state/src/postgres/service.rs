//! A service's own pool of connections, of sqlx's kind, with the settings of the engine's: for tables that the service has
//! itself, in the same database or another.

use std::{str::FromStr, time::Duration};

use sqlx::{Connection, PgPool, postgres::PgPoolOptions};
use tokio::time::timeout;

use super::config::Config;
use crate::{clock::jittered, error::Error};

/// Parameters of the engine that mean nothing to a service, and what to write instead.
const OF_THE_ENGINE: [(&str, &str); 2] = [
    ("schema", "options=-c%20search_path=NAME"),
    ("statement_timeout", "options=-c%20statement_timeout=30s"),
];

/// A pool as the URL says (see [`Config`]), which makes its first connections in the background. So it fails only with
/// [`Error::Invalid`], for a URL that cannot be used; a server that is away is found out by who acquires a connection.
/// Needs a tokio runtime.
///
/// Where sqlx's pool is not as the engine's: making a connection has no limit of its own, but is part of what
/// `acquire_timeout` bounds, and sqlx asks each connection once more after its use.
pub fn pool(url: &str) -> Result<PgPool, Error> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (name, instead) in OF_THE_ENGINE {
        if query.split('&').any(|parameter| parameter.split('=').next() == Some(name)) {
            return Err(Error::Invalid(format!(
                "the parameter `{name}` is for lethe's own tables; for a service's, write {instead}"
            )));
        }
    }
    let Config { server, pool: config, .. } = Config::from_str(url)?;
    let options = PgPoolOptions::new()
        .min_connections(config.min)
        .max_connections(config.max)
        .acquire_timeout(config.acquire_timeout)
        .idle_timeout(config.idle_timeout)
        .max_lifetime(config.max_lifetime)
        // Sqlx would ask before each use, however short the rest was, and for as long as it takes.
        .test_before_acquire(false)
        .before_acquire(move |connection, known| {
            Box::pin(async move {
                if known.age >= earlier(config.max_lifetime) {
                    return Ok(false);
                }
                if known.idle_for < config.validate_after {
                    return Ok(true);
                }
                match timeout(config.create_timeout, connection.ping()).await {
                    Ok(answered) => answered.map(|()| true),
                    Err(_) => Err(sqlx::Error::PoolTimedOut),
                }
            })
        });
    let pool = options.connect_lazy_with(server);
    tokio::spawn(fill(pool.clone()));
    Ok(pool)
}

/// Makes the minimum of connections, which sqlx keeps then but does not begin with. What fails is left to whoever needs
/// one.
async fn fill(pool: PgPool) {
    let wanted = (0..pool.options().get_min_connections()).map(|_| pool.acquire());
    let made = futures_util::future::join_all(wanted).await;
    if let Some(error) = made.iter().find_map(|made| made.as_ref().err()) {
        tracing::debug!(%error, "the first connections could not be made; the next call tries again");
    }
}

/// Up to a tenth less, so that connections made together do not end together.
fn earlier(lifetime: Duration) -> Duration {
    lifetime - lifetime / 5 + jittered(lifetime / 5)
}
