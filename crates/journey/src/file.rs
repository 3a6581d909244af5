//! A journey's file, of whichever kind it is.

use std::path::Path;

use crate::{
    document, har,
    journey::Journey,
    openapi,
    problem::{Problem, Problems},
};

/// Reads the journey in the file at `path`: a recording if it is called `.har`, a description of the service if its content is one, else
/// one that a person wrote.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path) -> Result<Journey, Problems> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("har")) {
        return har::load(path, &har::Options::default());
    }
    let file = path.display().to_string();
    // Read once: what is given may be a pipe.
    let bytes = document::bytes(path, openapi::FILE_BYTES_MAX).map_err(|message| Problem {
        file: file.clone(),
        place: None,
        message,
    })?;
    match openapi::is_meant(path, &bytes) {
        true => openapi::read(&bytes, &file, &path.file_stem().unwrap_or_default().to_string_lossy()),
        false => document::of_bytes(bytes, path),
    }
}
