//! The engine's own failures, and what PostgreSQL's errors mean: whether a statement was done, whether the connection can
//! be used again, and what the caller is told.

use std::error::Error as StdError;

use sqlx::error::DatabaseError;

use crate::error::Error;

/// What is wrong with the database. It is what `source()` of [`Error::Engine`] says.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The schema was written by a newer version.
    #[error(
        "the schema `{schema}` has version {found}, and this lethe knows none after {known}: run the newer lethe that \
         wrote it, or choose another schema with ?schema="
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// The schema belongs to something else.
    #[error(
        "the schema `{schema}` has tables, but is not one of lethe: choose another one, or a new one, with ?schema="
    )]
    Foreign {
        /// The schema.
        schema: String,
    },
    /// The database keeps text that cannot be all of Unicode.
    #[error(
        "the database keeps its text as {encoding}, and not all text fits into that: make one with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding {
        /// What it keeps text as.
        encoding: String,
    },
    /// The role may not do what it must.
    #[error(
        "the role may not do that ({detail}): let a superuser run CREATE SCHEMA {schema} AUTHORIZATION with this role"
    )]
    Denied {
        /// The schema.
        schema: String,
        /// What PostgreSQL says.
        detail: String,
    },
    /// PostgreSQL does not let this role in, or does not know the database.
    #[error(
        "PostgreSQL does not let us in ({detail}): see the role, the password and the database in the URL"
    )]
    Refused {
        /// What PostgreSQL says.
        detail: String,
    },
    /// The server cannot show that it is the one meant.
    #[error(
        "PostgreSQL is not spoken to, since its certificate is not good ({detail}): see `sslmode` and `sslrootcert` in the URL, \
         and the names in the certificate"
    )]
    Untrusted {
        /// What is wrong with the certificate.
        detail: String,
    },
    /// No room to write.
    #[error("PostgreSQL has no room left to write ({detail}): free some disk space on its machine")]
    Full {
        /// What PostgreSQL says.
        detail: String,
    },
    /// Anything else that PostgreSQL refuses.
    #[error("PostgreSQL refuses a statement ({code}: {detail})")]
    Other {
        /// The SQLSTATE.
        code: String,
        /// What PostgreSQL says.
        detail: String,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Engine(Box::new(failure))
    }
}

/// Why some work on a connection has no result.
#[derive(Debug)]
pub(super) enum Stop {
    /// A rule of the kind does not allow it; the caller is told so.
    Refused(Error),
    /// Others were there at the same time; it is to be done again from the beginning.
    Raced,
    /// PostgreSQL or the connection failed.
    Sql(sqlx::Error),
    /// No answer came within the time that an attempt has.
    Late,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// What an error of PostgreSQL or of a connection to it means.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The server took the transaction back because of others; done again, it may succeed.
    TakenBack,
    /// The server did nothing, and another connection may do better: this one leads to a standby, or knows the tables as
    /// they were before a migration.
    Stale(String),
    /// The server did nothing, since it has too much to do or took too long.
    Overloaded(String),
    /// The connection is lost, and with it the knowledge of what was done.
    Lost(String),
    /// It fails the same way until somebody does something about it.
    Failed(Failure),
}

impl Meaning {
    /// What this error means.
    pub(super) fn of(error: &sqlx::Error, schema: &str) -> Self {
        match error {
            sqlx::Error::Database(error) => Self::of_answer(&**error, schema),
            sqlx::Error::Tls(_) => Self::Failed(Failure::Untrusted { detail: text(error) }),
            sqlx::Error::Io(cause) if cause.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => {
                Self::Failed(Failure::Untrusted { detail: cause.to_string() })
            }
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => {
                Self::Lost(text(error))
            }
            error => Self::Failed(Failure::Other { code: "client".into(), detail: text(error) }),
        }
    }

    /// By the SQLSTATE, as in PostgreSQL's manual, appendix A.
    fn of_answer(error: &dyn DatabaseError, schema: &str) -> Self {
        let (code, detail) = (error.code().unwrap_or_default(), error.message().to_owned());
        match &*code {
            // serialization_failure, deadlock_detected
            "40001" | "40P01" => Self::TakenBack,
            // feature_not_supported: "cached plan must not change result type" after a migration. read_only_sql_transaction.
            "0A000" | "25006" => Self::Stale(detail),
            // query_canceled, by the statement timeout; lock_not_available, by the lock timeout
            "57014" | "55P03" => Self::Overloaded(detail),
            // disk_full
            "53100" => Self::Failed(Failure::Full { detail }),
            // too_many_connections, and what shutting down, starting up and crashing say; connection exceptions;
            // idle_in_transaction_session_timeout
            "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Self::Lost(detail),
            code if code.starts_with("08") => Self::Lost(detail),
            // out_of_memory, configuration_limit_exceeded
            code if code.starts_with("53") => Self::Overloaded(detail),
            // invalid_authorization_specification, invalid_password, invalid_catalog_name
            "28000" | "28P01" | "3D000" => Self::Failed(Failure::Refused { detail }),
            // insufficient_privilege
            "42501" => Self::Failed(Failure::Denied { schema: schema.to_owned(), detail }),
            code => Self::Failed(Failure::Other { code: code.to_owned(), detail }),
        }
    }
}

/// An error with all that is behind it, in one line.
fn text(error: &sqlx::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
