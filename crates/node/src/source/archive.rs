//! Unpacks a tar archive that may have been made to do harm. The bytes come from a program that knows the compression; what
//! they mean is decided here: nothing is written outside of the folder or through a link, nothing but files, folders and
//! links within the tree is made, and there are bounds on how many and how much.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, SystemTime},
};

use tar::{Archive, Entry, EntryType};

use super::{Bounds, Fault};

/// Most bytes that the headers of one member may have: long names and the like are read into memory.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Longest text that a decompressor's complaint is cut to.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// How an archive may be compressed: its first bytes, and what unpacks it.
const COMPRESSIONS: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];

/// Unpacks `archive` into `tree`, an empty folder. Blocks.
pub(super) fn unpack(archive: &Path, tree: &Path, bounds: Bounds) -> Result<(), Fault> {
    let mut file =
        File::open(archive).map_err(|error| Fault::Refused(format!("it cannot be read: {error}")))?;
    let mut first = Vec::new();
    file.by_ref().take(8).read_to_end(&mut first)?;
    let file = File::open(archive)?;
    if first.starts_with(b"PK\x03\x04") {
        return Err(Fault::Refused("it is a zip file: pack it as a tar archive".into()));
    }
    let Some((_, program)) = COMPRESSIONS.iter().find(|(magic, _)| first.starts_with(magic)) else {
        return members(file, tree, bounds);
    };
    let mut command = Command::new(program);
    command.arg("-dc").stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Fault::Missing(program, error))?;
    let unpacked = match child.stdout.take() {
        Some(stdout) => members(stdout, tree, bounds),
        None => Err(Fault::Written(io::ErrorKind::BrokenPipe.into())),
    };
    if unpacked.is_err() {
        let _ = child.kill();
    }
    let mut complaint = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_string(&mut complaint);
    }
    let status = child.wait()?;
    // What it says of a damaged archive is nearer to the cause than what was made of the half.
    match unpacked {
        Err(fault @ Fault::Written(_)) => Err(fault),
        unpacked if status.code().is_none_or(|code| code == 0) => unpacked,
        _ => Err(Fault::Refused(format!("{program} cannot unpack it: {}", complaint.trim()))),
    }
}

/// Reads no more than it is allowed to before it is allowed more.
struct Allowed<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Allowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are too long"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

fn members(bytes: impl Read, tree: &Path, bounds: Bounds) -> Result<(), Fault> {
    let left = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let mut archive = Archive::new(Allowed { inner: bytes, left: Rc::clone(&left) });
    let mut unpacking = Unpacking { tree, bounds, entries: 0, bytes: 0, links: Vec::new() };
    let damaged = |error: io::Error| Fault::Refused(format!("it is no tar archive, or damaged: {error}"));
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        // The padding after a member is read with the next header.
        left.set(entry.size().saturating_add(HEADER_BYTES_MAX));
        unpacking.member(&mut entry)?;
        left.set(HEADER_BYTES_MAX);
    }
    if fs::read_dir(tree)?.next().is_none() {
        return Err(Fault::Refused("there is nothing in it".into()));
    }
    unpacking.links_stay_inside()
}

struct Unpacking<'a> {
    tree: &'a Path,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
    links: Vec<PathBuf>,
}

impl Unpacking<'_> {
    fn member<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Fault> {
        let kind = entry.header().entry_type();
        self.entries += 1;
        // What is only read over takes its time too.
        self.bounds.check(self.entries, self.bytes.saturating_add(entry.size()))?;
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            self.bytes += entry.size();
        }
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let refused = |why: &str| Fault::Refused(format!("its member {shown:?} {why}"));
        let path = within(&name).map_err(refused)?;
        let mode = entry.header().mode().unwrap_or(0o644);
        let modified = entry.header().mtime().unwrap_or(0);
        if kind == EntryType::Directory {
            return self.folder(&path).map_err(refused)?;
        }
        if path.as_os_str().is_empty() {
            return Err(refused("has no name"));
        }
        if let Some(parent) = path.parent() {
            self.folder(parent).map_err(refused)??;
        }
        let target = self.tree.join(&path);
        match fs::symlink_metadata(&target) {
            Ok(there) if there.is_dir() => return Err(refused("is a folder too")),
            // As in tar, what comes later is meant.
            Ok(_) => fs::remove_file(&target)?,
            Err(_) => {}
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let expected = entry.size();
                let mut file = create(&target, mode)?;
                let written = io::copy(entry, &mut file)?;
                if written != expected {
                    return Err(refused("is cut short"));
                }
                self.bytes += written;
                let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(modified));
                // A date beyond what the system knows is of no use to anybody.
                let _ = modified.map(|modified| file.set_modified(modified));
                Ok(())
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().ok_or_else(|| refused("is a link to nothing"))?;
                let to = Path::new(OsStr::from_bytes(&link)).to_owned();
                stays_inside(&path, &to).map_err(refused)?;
                symlink(&to, &target)?;
                self.links.push(target);
                Ok(())
            }
            EntryType::Link => {
                let link = entry.link_name_bytes().ok_or_else(|| refused("is a link to nothing"))?;
                let to = within(&link).map_err(refused)?;
                self.is_plain(&to).map_err(refused)?;
                let from = self.tree.join(&to);
                let size =
                    fs::symlink_metadata(&from).ok().filter(|file| file.is_file()).map(|file| file.len());
                let size = size.ok_or_else(|| refused("is a link to what is no file before it"))?;
                self.bytes = self.bytes.saturating_add(size);
                self.bounds.check(self.entries, self.bytes)?;
                // A copy: two names for one file would be changed together.
                fs::copy(&from, &target)?;
                Ok(())
            }
            EntryType::Char | EntryType::Block => Err(refused("is a device, which is not unpacked")),
            EntryType::Fifo => Err(refused("is a named pipe, which is not unpacked")),
            _ => Err(refused("is of a kind that is not unpacked (a sparse file, perhaps)")),
        }
    }

    /// Makes a folder and those above it. The outer error is for the member, the inner one of the system.
    fn folder(&mut self, path: &Path) -> Result<Result<(), Fault>, &'static str> {
        self.is_plain(path)?;
        let full = self.tree.join(path);
        if fs::symlink_metadata(&full).is_ok_and(|there| !there.is_dir()) {
            return Err("is inside of a file, or in its place");
        }
        Ok(fs::create_dir_all(full).map_err(Fault::from))
    }

    /// Nothing on the way to `path` is a link, or anything but a folder.
    fn is_plain(&self, path: &Path) -> Result<(), &'static str> {
        let mut way = self.tree.to_owned();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            way.push(part);
            match fs::symlink_metadata(&way) {
                Ok(there) if there.is_symlink() => return Err("goes through a link of the archive"),
                Ok(there) if !there.is_dir() && parts.peek().is_some() => return Err("is inside of a file"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Each link by itself stays inside; several after each other could still lead out.
    fn links_stay_inside(&self) -> Result<(), Fault> {
        let tree = self.tree.canonicalize()?;
        for link in &self.links {
            // What leads to nothing, or in a circle, leads nowhere.
            if link.canonicalize().is_ok_and(|to| !to.starts_with(&tree)) {
                let shown = link.strip_prefix(self.tree).unwrap_or(link).display();
                return Err(Fault::Refused(format!("its link {shown} leads out of it")));
            }
        }
        Ok(())
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    // Neither setuid nor setgid nor the sticky bit; and the owner can always read, write and remove it.
    let mode = (mode & 0o777) | 0o600;
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// The path of a member, without `.`; refused if it begins at the root or goes up.
fn within(name: &[u8]) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("goes up with `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("begins at the root of the file system"),
        }
    }
    Ok(path)
}

/// Whether a link at `path` to `to` stays in the tree, by its words.
fn stays_inside(path: &Path, to: &Path) -> Result<(), &'static str> {
    const OUT: &str = "is a link out of the archive";
    let mut depth = path.components().count().saturating_sub(1);
    for part in to.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1).ok_or(OUT)?,
            Component::RootDir | Component::Prefix(_) => return Err(OUT),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
