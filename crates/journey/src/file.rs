//! A journey's file, of whichever kind it is.

use std::path::Path;

use crate::{document, har, journey::Journey, problem::Problems};

/// Reads the journey in the file at `path`: a recording if it is called `.har`, else one that a person wrote.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path) -> Result<Journey, Problems> {
    match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("har")) {
        true => har::load(path, &har::Options::default()),
        false => document::load(path),
    }
}
