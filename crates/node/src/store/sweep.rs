//! Removes what nobody needs any more: half-made folders of processes that are gone, damaged releases, and releases that are
//! neither in use by any `lethe` nor among the last of a service.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    COPY, FRESH, MANIFEST, MARKER, OLD, TREE,
    book::Book,
    claim::{Beside, Claim},
    is_distinct, is_key, remove,
};

/// Removes what may be removed in `folder`, with what the books say of releases.
pub(super) fn sweep(folder: &Path, books: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let there: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let kept: BTreeSet<String> =
        Book::all(books)?.into_iter().flat_map(|book| book.releases).map(|record| record.key).collect();
    for path in there {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if kept.contains(&*name) || !is_ours(&path, &name) {
            continue;
        }
        // Whoever uses or makes it, in whatever process, has a claim.
        if let Some(claim) = Claim::take(&path, Beside::Nobody)? {
            remove(&path)?;
            drop(claim);
        }
    }
    Ok(())
}

/// Whether it is something that a store has made: the state folder may be one in which somebody else has folders too.
fn is_ours(path: &Path, name: &str) -> bool {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|there| there.is_dir());
    let is_made = || [FRESH, OLD, COPY].iter().any(|start| name.starts_with(start)) && is_distinct(name);
    is_folder && (is_made() || is_key(name) && is_release(path))
}

/// Whether there is nothing in a folder but what is in a release, or in one that was begun.
fn is_release(path: &Path) -> bool {
    let is_part = |entry: io::Result<fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
        let name = name.to_string_lossy();
        [TREE, MANIFEST, MARKER].contains(&&*name) || name.starts_with(&format!(".{MARKER}"))
    };
    fs::read_dir(path).is_ok_and(|entries| entries.into_iter().all(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_there_stays() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("releases");
        let key = "0123456789abcdef0123456789abcdef";
        let other = "fedcba9876543210fedcba9876543210";
        for path in ["20260101", "fresh-fruit", "fresh-1-2", "mail", "copy-web-1-7-0"] {
            fs::create_dir_all(folder.join(path)).unwrap();
        }
        fs::create_dir_all(folder.join(key).join(TREE)).unwrap();
        fs::create_dir_all(folder.join(other).join("photos")).unwrap();
        fs::create_dir_all(place.path().join("data").join(TREE)).unwrap();
        std::os::unix::fs::symlink(place.path().join("data"), folder.join(key.replace('0', "1"))).unwrap();
        sweep(&folder, &folder.join("services")).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [&*key.replace('0', "1"), "20260101", other, "fresh-fruit", "mail"]);
        assert!(place.path().join("data").join(TREE).exists());
    }
}
