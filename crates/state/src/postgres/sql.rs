//! How the engine's statements are written: with `{s}` for the schema and `{now}` for the time, which are filled in once,
//! when the engine is opened. So the schema is part of each statement: a search path would be lost behind a pooler that
//! gives each transaction another session.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// The time: the server's own, so that all workers have the same one, unless parameter 1 says another (for tests).
const NOW: &str = "coalesce($1::bigint, (extract(epoch FROM statement_timestamp()) * 1000)::bigint)";

/// Fills in the schema, whose name was checked when the configuration was read.
pub(super) fn fill(template: &str, schema: &str) -> SqlStr {
    AssertSqlSafe(template.replace("{now}", NOW).replace("{s}", schema)).into_sql_str().clone()
}

/// Makes a struct of statements, each filled in by `new`.
macro_rules! statements {
    ($(#[$doc:meta])* $name:ident { $($statement:ident: $template:expr,)+ }) => {
        $(#[$doc])*
        pub(in crate::postgres) struct $name {
            $($statement: sqlx::SqlStr,)+
        }

        impl $name {
            /// The statements for this schema.
            pub(in crate::postgres) fn new(schema: &str) -> Self {
                Self { $($statement: $crate::postgres::sql::fill($template, schema),)+ }
            }
        }
    };
}
pub(super) use statements;
