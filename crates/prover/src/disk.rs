//! The disk of a worker: what it has written and nothing else. A worker that is started again with the same disk finds its
//! files, one with a new disk finds what the machine had before.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use crate::{content, scratch, world::Level};

/// Most files of which is noted that they were written.
const FILES_MAX: usize = 20_000;

/// Most bytes of a file that are searched.
const SEARCHED_BYTES_MAX: u64 = 16 << 20;

/// What one worker, or several one after the other, have written. Removed when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    layers: Vec<PathBuf>,
}

/// What lies on a disk, by where workers see it.
pub type Written = BTreeMap<PathBuf, Entry>;

/// Something that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its size, in bytes.
    pub size: u64,
    /// When it was changed last, since 1970.
    pub changed: Duration,
    /// Its inode, and when that was made (seconds and nanoseconds since 1970; zero where that is not known).
    pub inode: (u64, i64, u32),
    /// Where it lies.
    pub at: PathBuf,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// Something that was there before is gone.
    Removed,
    /// A socket or a pipe, which keeps nothing.
    Meeting,
    /// A symbolic link.
    Link,
}

impl Disk {
    /// Makes an empty disk in `folder`, with an upper and a work folder for each of `layers`. An overlay shows the upper
    /// folder's owner and rights as those of what it lies over, so they are copied.
    pub fn new(folder: PathBuf, layers: &[PathBuf]) -> io::Result<Self> {
        for (at, point) in layers.iter().enumerate() {
            let layer = folder.join(at.to_string());
            let upper = layer.join("upper");
            fs::create_dir_all(&upper)?;
            fs::create_dir(layer.join("work"))?;
            if let Ok(lower) = fs::metadata(point) {
                // Only root may give files away.
                let _ = chown(&upper, Some(lower.uid()), Some(lower.gid()));
                fs::set_permissions(&upper, fs::Permissions::from_mode(lower.mode() & 0o7777))?;
            }
        }
        Ok(Self { folder, layers: layers.to_vec() })
    }

    /// Makes a disk that is a copy of the folder `of`, without `scratch`, which the copies are in and which may be in it.
    pub fn copied(folder: PathBuf, of: &Path, scratch: &Path) -> io::Result<Self> {
        let scratch = fs::metadata(scratch)?;
        copy(of, &folder.join("app"), (scratch.dev(), scratch.ino()))?;
        Ok(Self { folder, layers: Vec::new() })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The host name of a machine that has this disk.
    pub fn host(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        name.replace("disk", "host")
    }

    /// The folder in which the service runs, if that is not the one it was given as.
    pub fn directory(&self, level: Level) -> Option<PathBuf> {
        (level == Level::Copied).then(|| self.folder.join("app"))
    }

    /// What was written under this name, if that is there.
    pub(crate) fn entry(&self, path: &Path) -> Option<Entry> {
        let layers = self.layers.iter().enumerate();
        let within = layers.filter_map(|(at, point)| Some((at, point, path.strip_prefix(point).ok()?)));
        let (at, _, rest) = within.max_by_key(|(_, point, _)| point.components().count())?;
        let written = self.folder.join(at.to_string()).join("upper").join(rest);
        Some(Entry::of(&fs::symlink_metadata(&written).ok()?, written))
    }

    /// Whether the file at `path` was there before, with what was written to it now. Cheap where it was not.
    pub(crate) fn is_as_before(&self, path: &Path) -> bool {
        path.exists() && self.entry(path).is_some_and(|entry| entry.is_as(path))
    }

    /// What has been written so far, up to a bound. What changes meanwhile may be missing.
    pub fn written(&self) -> Written {
        let mut written = Written::new();
        for (at, point) in self.layers.iter().enumerate() {
            gather(&self.folder.join(at.to_string()).join("upper"), point, &mut written);
        }
        written
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left goes with the folder that it is in.
        let _ = scratch::remove(&self.folder);
    }
}

/// What differs between two moments of a disk: what is new in `after`, or was changed.
pub fn changed(before: &Written, after: &Written) -> Written {
    let is_new = |(path, entry): &(&PathBuf, &Entry)| before.get(*path) != Some(*entry);
    after.iter().filter(is_new).map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

impl Entry {
    /// Which of `words` stands in the file first. Of a large one the beginning is searched.
    pub fn find<'w>(&self, words: &'w [String]) -> Option<&'w str> {
        if self.kind != Kind::File {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(&self.at).ok()?.take(SEARCHED_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let is_in = |word: &&String| {
            !word.is_empty() && bytes.windows(word.len()).any(|window| window == word.as_bytes())
        };
        words.iter().find(is_in).map(String::as_str)
    }

    /// What it has in it, in a few words.
    pub(crate) fn content(&self) -> &'static str {
        if self.kind == Kind::Link {
            return "symbolic link";
        }
        content::of(&self.at)
    }

    /// Whether the file at `path` has the same in it, and that is something. Of large ones the beginnings are compared.
    fn is_as(&self, path: &Path) -> bool {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            File::open(path)?.take(SEARCHED_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let is_alike =
            |metadata: Metadata| metadata.is_file() && metadata.len() == self.size && self.size > 0;
        self.kind == Kind::File
            && fs::symlink_metadata(path).is_ok_and(is_alike)
            && read(path).is_ok_and(|bytes| read(&self.at).is_ok_and(|own| own == bytes))
    }

    fn of(metadata: &Metadata, at: PathBuf) -> Self {
        let kind = match metadata.file_type() {
            // Overlays write "removed" so: a character device 0, 0.
            kind if kind.is_char_device() && metadata.rdev() == 0 => Kind::Removed,
            kind if kind.is_file() => Kind::File,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::Meeting,
        };
        let seconds = u64::try_from(metadata.mtime()).unwrap_or_default();
        let nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap_or_default();
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born = born.unwrap_or_default();
        let inode = (metadata.ino(), i64::try_from(born.as_secs()).unwrap_or_default(), born.subsec_nanos());
        Self { kind, size: metadata.len(), changed: Duration::new(seconds, nanoseconds), inode, at }
    }
}

fn gather(folder: &Path, shown: &Path, written: &mut Written) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, shown) = (entry.path(), shown.join(entry.file_name()));
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            gather(&path, &shown, written);
        } else if written.len() < FILES_MAX {
            written.insert(shown, Entry::of(&metadata, path));
        }
    }
}

/// Copies a folder, but for the one with these numbers of device and file, under whatever name.
fn copy(from: &Path, to: &Path, without: (u64, u64)) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let metadata = entry.metadata()?;
            if (metadata.dev(), metadata.ino()) != without {
                copy(&source, &target, without)?;
            }
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_found_with_the_word_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().join("disk"), &["/".into(), "/srv".into()]).unwrap();
        let upper = disk.folder().join("1/upper");
        fs::write(upper.join("old"), "x").unwrap();
        let before = disk.written();
        fs::create_dir(upper.join("up")).unwrap();
        fs::write(upper.join("up/photo"), "..canary-7..").unwrap();
        let after = disk.written();
        let changed = changed(&before, &after);
        assert_eq!(changed.keys().collect::<Vec<_>>(), [Path::new("/srv/up/photo")]);
        let entry = &changed[Path::new("/srv/up/photo")];
        assert_eq!((entry.kind, entry.size), (Kind::File, 12));
        assert_eq!(entry.find(&["no".into(), "canary-7".into()]), Some("canary-7"));
        assert_eq!(entry.find(&["canary-8".into()]), None);
    }

    #[test]
    fn a_copy_is_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let of = folder.path().join("of");
        fs::create_dir_all(of.join("a")).unwrap();
        fs::write(of.join("a/b"), "1").unwrap();
        std::os::unix::fs::symlink("a/b", of.join("link")).unwrap();
        // Copies are made in the folder itself, when `TMPDIR` is.
        let scratch = of.join("tmp/scratch");
        fs::create_dir_all(scratch.join("disk")).unwrap();
        let disk = Disk::copied(scratch.join("disk"), &of, &scratch).unwrap();
        let directory = disk.directory(Level::Copied).unwrap();
        fs::write(directory.join("a/b"), "2").unwrap();
        assert!(directory.join("tmp").is_dir() && !directory.join("tmp/scratch").exists());
        assert_eq!(fs::read_to_string(of.join("a/b")).unwrap(), "1");
        assert_eq!(fs::read_to_string(directory.join("link")).unwrap(), "2");
    }
}
