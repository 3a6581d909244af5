//! The pool that a service has for tables of its own.

use lethe_state::{error::Error, postgres::service};
use sqlx::Row as _;

use crate::{connection, eventually, execute, server};

/// The pool keeps what the URL says, and finds out that connections were lost before it uses them.
#[tokio::test]
async fn a_service_has_a_pool_with_the_same_settings() {
    let name = server::fresh_schema();
    let pool = service::pool(&format!(
        "{}&max=3&validate_after=0ms&application_name={name}",
        server::shared().bare_url()
    ));
    let pool = pool.unwrap();
    eventually(async || pool.num_idle() == 1).await;
    assert_eq!(pool.options().get_max_connections(), 3);
    let mut other = connection().await;
    for _ in 0..3 {
        let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity";
        execute(&mut other, format!("{cut} WHERE application_name = '{name}'")).await;
        let row = sqlx::query("SELECT $1::bigint + 1").bind(41_i64).fetch_one(&pool).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 42);
    }
    pool.close().await;
}

/// What means nothing to a service is refused with what to write instead.
#[tokio::test]
async fn parameters_of_the_engine_are_refused() {
    for name in ["schema", "statement_timeout"] {
        let refused = service::pool(&format!("postgres://h/d?{name}=1s"));
        assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("options=")), "{refused:?}");
    }
}
