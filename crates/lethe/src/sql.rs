//! A service's own tables in PostgreSQL, beside what the state tier keeps: sqlx's pool, with settings that hold under load
//! and when the server is away. Needs the feature `sql`.

use lethe_state::postgres::service;
use sqlx::PgPool;

use crate::Error;

/// A pool of connections to the database that a URL names, in sqlx's own type (0.9): all that sqlx offers works with it.
///
/// 5 connections are kept and at most 20 made, a caller waits 30 s for one, and one ends after 10 minutes without use or
/// about 30 minutes of life; one that has rested for half a second is asked before it is used. The URL sets each of these:
/// `?min=`, `max=`, `acquire_timeout=`, `create_timeout=` (of that question), `idle_timeout=`, `max_lifetime=`,
/// `validate_after=`, besides PostgreSQL's own parameters, such as `sslmode=`.
///
/// Nothing is asked of the server yet, which may start later than the service; the first connections are made in the
/// background. Fails only for a URL that cannot be used. `pool.close()` after [`serve`](crate::serve::serve) has returned
/// ends the connections properly.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = lethe::sql("postgres://shop:secret@db.internal/shop?max=10")?;
/// let orders: (i64,) = sqlx::query_as("SELECT count(*) FROM orders").fetch_one(&pool).await?;
/// # Ok(())
/// # }
/// ```
///
/// Behind PgBouncer: prepared statements are kept by each connection, which its modes of pooling `session` and, from
/// version 1.21 on, `transaction` (with `max_prepared_statements`) allow. What a session is told with SET, LISTEN or
/// advisory locks holds in the mode `session` alone.
pub fn sql(url: &str) -> Result<PgPool, Error> {
    service::pool(url).map_err(Error::DatabaseUrl)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    #[tokio::test]
    async fn a_url_that_cannot_be_used_says_why_without_the_password() {
        let error = super::sql("postgres://shop:geheim@db/shop?mux=3").unwrap_err();
        let why = error.source().unwrap().to_string();
        assert!(why.contains("no parameter `mux`"), "{why}");
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        let pool = super::sql("postgres://shop:geheim@127.0.0.1:1/shop?max=7").unwrap();
        assert_eq!(pool.options().get_max_connections(), 7);
    }
}
