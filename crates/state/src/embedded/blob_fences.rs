//! The fences of blobs: the newest token that each was written or deleted with, which refuses older ones. A blob that is
//! deleted leaves its fence behind for a while, else a holder that was paused could bring it back.

use rusqlite::OptionalExtension;

use super::{command::Txn, failure::Stop};
use crate::{blobs::FENCE_KEPT, clock::after, error::Error, locks::Token};

/// Refuses a token that is older than the newest one of the blob, and returns that one.
pub(super) fn check(
    txn: &Txn<'_>,
    bucket: &str,
    key: &str,
    fence: Option<Token>,
) -> Result<Option<Token>, Stop> {
    let mut statement = txn.prepared(
        "SELECT token FROM blob_fences
         WHERE bucket = ?1 AND key = ?2 AND (forget_at IS NULL OR forget_at > ?3)",
    )?;
    let newest: Option<Token> = statement
        .query_row((bucket, key.as_bytes(), txn.now), |row| row.get::<_, i64>(0))
        .optional()?
        .map(i64::cast_unsigned);
    match (fence, newest) {
        (Some(token), Some(newest)) if token < newest => {
            Err(Error::Fenced { index: 0, key: key.to_owned(), token, newest }.into())
        }
        _ => Ok(newest),
    }
}

/// The blob was written: its fence lasts as long as it does. `newest` is what [`check`] has returned.
pub(super) fn written(
    txn: &Txn<'_>,
    bucket: &str,
    key: &str,
    fence: Option<Token>,
    newest: Option<Token>,
) -> rusqlite::Result<()> {
    keep(txn, bucket, key, fence.max(newest), None)
}

/// The blob was deleted, or was to be and was not there.
pub(super) fn deleted(
    txn: &Txn<'_>,
    bucket: &str,
    key: &str,
    fence: Option<Token>,
    newest: Option<Token>,
) -> rusqlite::Result<()> {
    keep(txn, bucket, key, fence.max(newest), Some(after(txn.now, FENCE_KEPT)))
}

fn keep(
    txn: &Txn<'_>,
    bucket: &str,
    key: &str,
    token: Option<Token>,
    forget_at: Option<i64>,
) -> rusqlite::Result<()> {
    let Some(token) = token else { return Ok(()) };
    let mut statement = txn.prepared(
        "INSERT OR REPLACE INTO blob_fences (bucket, key, token, forget_at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    statement.execute((bucket, key.as_bytes(), token.cast_signed(), forget_at))?;
    Ok(())
}

/// Forgets the fences of blobs that were deleted long ago, at most so many.
pub(super) fn forget_ended(txn: &Txn<'_>, most: usize) -> Result<usize, Stop> {
    let mut statement = txn.prepared(
        "DELETE FROM blob_fences WHERE (bucket, key) IN
         (SELECT bucket, key FROM blob_fences WHERE forget_at <= ?1 LIMIT ?2)",
    )?;
    Ok(statement.execute((txn.now, most as i64))?)
}
