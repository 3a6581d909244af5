//! What is in a tree: a line for each file, folder and link, in the order of their paths. From it comes the digest that
//! names the tree, what a damaged one is known by, and what a worker's own copy is made of. The digest is described in
//! `docs/sources.md`, with a program that computes it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{copy, hex};

/// Longest line of a manifest: a path and some numbers.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Files up to this size are always copied for a worker. Larger ones are hard links where the file system cannot clone: a
/// file of this size is a program or a data file, which is replaced and not written into.
const COPIED_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// All that is in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// By path, in the order of its bytes.
    entries: BTreeMap<OsString, Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    kind: Kind,
    /// Permissions as they were made; of files in the store the right to write is taken away.
    mode: u32,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// SHA-256 of a file's content or of where a link leads to; of nothing for a folder.
    sha256: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
    Link,
}

impl Manifest {
    /// Reads all of a tree. `.git` is left out wherever it is. Blocks.
    pub(crate) fn of(tree: &Path) -> io::Result<Self> {
        let mut manifest = Self::default();
        manifest.enter(tree, Path::new(""))?;
        Ok(manifest)
    }

    fn enter(&mut self, tree: &Path, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(tree.join(folder))? {
            let name = entry?.file_name();
            if name == ".git" {
                continue;
            }
            let path = folder.join(name);
            let full = tree.join(&path);
            let there = fs::symlink_metadata(&full)?;
            let kind = if there.is_symlink() {
                Kind::Link
            } else if there.is_dir() {
                Kind::Folder
            } else if there.is_file() {
                Kind::File
            } else {
                // A socket or pipe that a build has left is nothing that could be started from.
                continue;
            };
            let sha256 = match kind {
                Kind::Folder => [0; 32],
                Kind::File => sha256_of(&full)?,
                Kind::Link => Sha256::digest(fs::read_link(&full)?.as_os_str().as_bytes()).into(),
            };
            let item = Item {
                kind,
                mode: there.mode() & 0o777,
                size: there.len(),
                modified: modified(&there),
                sha256,
            };
            self.entries.insert(path.clone().into(), item);
            if kind == Kind::Folder {
                self.enter(tree, &path)?;
            }
        }
        Ok(())
    }

    /// The name of the tree: equal exactly when paths, contents and what may be executed are.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, item) in &self.entries {
            let kind = match item.kind {
                Kind::Folder => "dir",
                Kind::File if item.mode & 0o100 != 0 => "exec",
                Kind::File => "file",
                Kind::Link => "link",
            };
            hash.update(kind);
            if item.kind != Kind::Folder {
                hash.update(" ");
                hash.update(hex(&item.sha256));
            }
            hash.update(" ");
            hash.update(path.as_bytes());
            hash.update([0]);
        }
        hex(&hash.finalize())
    }

    /// All bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files().map(|(_, item)| item.size).sum()
    }

    /// How many files, folders and links there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is not as it was, by size, date and kind; a file that was added is no harm, since nobody copies it. `None` when
    /// all is well.
    pub(crate) fn damage(&self, tree: &Path) -> Option<String> {
        self.entries.iter().find_map(|(path, item)| {
            let full = tree.join(path);
            let wrong = match fs::symlink_metadata(&full) {
                Err(error) => Some(error.to_string()),
                Ok(there) => (!item.is(&there)).then(|| "it was changed".into()),
            };
            wrong.map(|why| format!("{}: {why}", full.display()))
        })
    }

    /// The same by content.
    pub(crate) fn damage_in_full(&self, tree: &Path) -> Option<String> {
        self.damage(tree).or_else(|| {
            let mut files = self.files();
            files.find_map(|(path, item)| {
                let full = tree.join(path);
                let is_same = sha256_of(&full).is_ok_and(|now| now == item.sha256);
                (!is_same).then(|| format!("{}: its content was changed", full.display()))
            })
        })
    }

    /// Takes the right to write from the files, so that nobody changes them by mistake. Files with other names elsewhere
    /// are left alone: a build may have linked them from a cache of the user's.
    pub(crate) fn make_read_only(&self, tree: &Path) -> io::Result<()> {
        for (path, item) in self.files() {
            let full = tree.join(path);
            if fs::symlink_metadata(&full)?.nlink() == 1 {
                fs::set_permissions(&full, fs::Permissions::from_mode(item.mode & !0o222))?;
            }
        }
        Ok(())
    }

    /// Makes a copy of the tree that can be written to without changing the tree: exactly what is listed. Fails on what is
    /// not as it was.
    pub(crate) fn copy(&self, tree: &Path, to: &Path) -> io::Result<()> {
        for (path, item) in &self.entries {
            let (from, to) = (tree.join(path), to.join(path));
            let there = fs::symlink_metadata(&from)?;
            if !item.is(&there) {
                return Err(io::Error::other(format!("{} was changed", from.display())));
            }
            match item.kind {
                Kind::Folder => {
                    fs::create_dir(&to)?;
                    fs::set_permissions(&to, fs::Permissions::from_mode(item.mode | 0o700))?;
                }
                Kind::Link => symlink(fs::read_link(&from)?, &to)?,
                Kind::File if item.size <= COPIED_BYTES_MAX => copy::with(&from, &to, item.mode, &there)?,
                Kind::File => clone_or_link(&from, &to, item.mode, &there)?,
            }
        }
        Ok(())
    }

    /// A line for each entry, each ended by NUL, since a path may have any other byte.
    pub(crate) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for (path, Item { kind, mode, size, modified, sha256 }) in &self.entries {
            let kind = match kind {
                Kind::Folder => 'd',
                Kind::File => 'f',
                Kind::Link => 'l',
            };
            write!(out, "{kind} {mode:o} {size} {modified} {} ", hex(sha256))?;
            out.write_all(path.as_bytes())?;
            out.write_all(&[0])?;
        }
        out.flush()
    }

    /// Reads what [`Manifest::write`] has written.
    pub(crate) fn read(file: File) -> io::Result<Self> {
        let mut input = BufReader::new(file);
        let mut manifest = Self::default();
        loop {
            let mut line = Vec::new();
            if (&mut input).take(LINE_BYTES_MAX).read_until(0, &mut line)? == 0 {
                return Ok(manifest);
            }
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the manifest is damaged");
            let (path, item) = line.strip_suffix(&[0]).and_then(parse).ok_or_else(damaged)?;
            manifest.entries.insert(path, item);
        }
    }

    fn files(&self) -> impl Iterator<Item = (&OsString, &Item)> {
        self.entries.iter().filter(|(_, item)| item.kind == Kind::File)
    }
}

impl Item {
    /// Whether what is there looks as it did. The dates of folders change with what is added.
    fn is(&self, there: &Metadata) -> bool {
        match self.kind {
            Kind::Folder => there.is_dir(),
            Kind::File => {
                let is_executable = |mode: u32| mode & 0o111;
                there.is_file()
                    && there.len() == self.size
                    && modified(there) == self.modified
                    && is_executable(there.mode()) == is_executable(self.mode)
            }
            Kind::Link => there.is_symlink() && there.len() == self.size && modified(there) == self.modified,
        }
    }
}

fn parse(line: &[u8]) -> Option<(OsString, Item)> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let kind = match word()? {
        "d" => Kind::Folder,
        "f" => Kind::File,
        "l" => Kind::Link,
        _ => return None,
    };
    let mode = u32::from_str_radix(word()?, 8).ok()?;
    let (size, modified) = (word()?.parse().ok()?, word()?.parse().ok()?);
    let digits = word()?;
    let mut sha256 = [0; 32];
    for (index, byte) in sha256.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    let path = PathBuf::from(OsString::from_vec(words.next()?.to_vec()));
    // Whoever can write here can do worse; but a path is never followed out of the tree.
    let is_inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    is_inside.then(|| (path.into_os_string(), Item { kind, mode, size, modified, sha256 }))
}

fn clone_or_link(from: &Path, to: &Path, mode: u32, there: &Metadata) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).open(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        target.set_permissions(fs::Permissions::from_mode(mode))?;
        return target.set_modified(there.modified()?);
    }
    drop(target);
    fs::remove_file(to)?;
    // Too many links, or another file system.
    fs::hard_link(from, to).or_else(|_| copy::with(from, to, mode, there))
}

fn modified(there: &Metadata) -> i128 {
    i128::from(there.mtime()) * 1_000_000_000 + i128::from(there.mtime_nsec())
}

fn sha256_of(path: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
