//! Whether a store heeds conditions. One that does not know them may do without a word what should have been refused; so the first
//! write that has one is preceded by some on objects of no meaning, of which it must refuse three.

use object_store::{Error as StoreError, PutMode, PutOptions, PutPayload, UpdateVersion, path::Path};

use super::{
    failure::Failure,
    link::{alone, under},
    object::PutId,
    shelf::Shelf,
};
use crate::error::Error;

/// The objects' names in the folder, where no bucket begins with a dot. The first one stays: others may be trying just now.
const PUTS: &str = ".lethe/conditional-put";
const DELETES: &str = ".lethe/conditional-delete";
/// An entity tag and a generation that no object has.
const NO_TAG: &str = "\"0\"";
const NO_GENERATION: &str = "1";

/// What was found out. It holds for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heeded {
    /// Of writes.
    pub(super) puts: bool,
    /// Of deletes.
    pub(super) deletes: bool,
}

/// Tries it. Many at once come to the same.
pub(super) async fn try_out(shelf: &Shelf) -> Result<Heeded, Error> {
    let path = shelf.names.beside(PUTS)?;
    alone(put(shelf, &path, PutMode::Overwrite)).await?;
    let other = UpdateVersion { e_tag: Some(NO_TAG.into()), version: Some(NO_GENERATION.into()) };
    let is_other = shelf.dialect.versions.is(&other);
    let puts =
        !put(shelf, &path, PutMode::Create).await? && !put(shelf, &path, PutMode::Update(other)).await?;
    let path = shelf.names.beside(&format!("{DELETES}-{}", PutId::new()?))?;
    alone(put(shelf, &path, PutMode::Overwrite)).await?;
    let deletes = !done(shelf, under(is_other, shelf.writes.remove(&path)).await).await?;
    if deletes {
        done(shelf, alone(shelf.writes.remove(&path)).await).await?;
    }
    Ok(Heeded { puts, deletes })
}

async fn put(shelf: &Shelf, path: &Path, mode: PutMode) -> Result<bool, Error> {
    let options = PutOptions { mode, ..PutOptions::default() };
    done(shelf, shelf.writes.put(path, PutPayload::new(), options).await).await
}

/// Whether a write was done, or refused for its condition.
async fn done(shelf: &Shelf, result: Result<(), StoreError>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if Failure::of(&error).is_contest() => Ok(false),
        Err(error) => Err(shelf.explained(&error).await),
    }
}
