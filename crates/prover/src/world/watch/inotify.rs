//! Events of the kernel for folders and files (`inotify(7)`), which need no rights. Folders are watched one by one, and those are enough
//! that the disk has: before anything is written in another one, the overlay makes that on the disk, of which the folder above it tells.
//! What was written in it before it was watched is found by looking into it.
//!
//! The disk is watched for new folders alone, since the overlay writes past its names; what is done with files is told where they are shown.
//! As with `fanotify(7)`, reads are asked for only of files that were written.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ffi::OsStr,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, ErrorKind},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxFlags,
    inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    statx,
};

use super::written::{Id, WrittenFiles};

/// Most folders of a world that are watched, each by two watches. With those of [`AHEAD_MAX`] and of files ([`WrittenFiles`]) that is a fourth of
/// the 8192 that the kernel allows each user at least (`fs.inotify.max_user_watches`).
const FOLDERS_MAX: usize = 512;

/// Most folders that are watched before anything is written in them, each by one watch: what is written and gone again by the time that a
/// folder is on the disk could not be seen in others.
const AHEAD_MAX: usize = 128;

/// Where programs write what goes again.
const OF_NOBODY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Most files that are written and have gone from their names, and most that are on their way to another, until that is told.
const VANISHED_MAX: usize = 1024;

/// Bytes of events that are read at a time.
const BATCH_BYTES: usize = 16 << 10;

/// Batches that are read before questions are looked at again: all that the kernel keeps, and more.
const BATCHES_MAX: usize = 256;

/// What is asked for of a folder of the disk.
const OF_DISK: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::ONLYDIR).union(WatchFlags::DONT_FOLLOW);

/// What is asked for of a folder as it is shown.
const OF_FOLDER: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// What is asked for of a file that was written.
const OF_FILE: WatchFlags = WatchFlags::ACCESS.union(WatchFlags::DONT_FOLLOW);

const WRITES: ReadFlags = ReadFlags::MODIFY.union(ReadFlags::CLOSE_WRITE);

/// An overlay.
struct Layer {
    /// Where it is shown.
    point: PathBuf,
    /// Where the disk has what is written in it: of the old root, which no name leads to any more.
    upper: PathBuf,
    /// Keeps that open.
    _folder: OwnedFd,
}

/// What of a layer is meant: a path in it.
#[derive(Clone)]
struct Place {
    layer: usize,
    path: PathBuf,
}

/// What a watch is for.
enum Watched {
    Disk(Place),
    Folder(Place),
    File(Id),
}

/// What the kernel told.
struct Event {
    watch: i32,
    what: ReadFlags,
    cookie: u32,
    name: Option<PathBuf>,
}

/// The disk's folders of all layers, opened while names lead to them.
pub(in crate::world) struct Uppers(Vec<(PathBuf, OwnedFd)>);

impl Uppers {
    /// Opens those of `points` on `disk`; what is not there is left out.
    pub(in crate::world) fn open(disk: &Path, points: &[PathBuf]) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = points.iter().enumerate().filter_map(|(at, point)| {
            let upper = disk.join(at.to_string()).join("upper");
            Some((point.clone(), rustix::fs::open(upper, flags, Mode::empty()).ok()?))
        });
        Self(opened.collect())
    }
}

/// What is watched together.
pub(super) struct Group {
    listener: OwnedFd,
    layers: Vec<Layer>,
    watched: HashMap<i32, Watched>,
    folders: usize,
    /// Where something was written that is not there any more. It may be told yet where it went.
    vanished: HashSet<PathBuf>,
    /// Whether what gets another name was written and had vanished.
    moving: HashMap<u32, bool>,
    batch: Vec<MaybeUninit<u8>>,
}

impl Group {
    /// Watches what the disk has by now, and all that it will have; and `home`, where the service runs.
    pub(super) fn new(uppers: Uppers, home: &Path, written: &mut WrittenFiles) -> io::Result<Self> {
        let listener = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let layers = uppers.0.into_iter().map(|(point, folder)| {
            let upper = format!("/proc/self/fd/{}", folder.as_raw_fd()).into();
            Layer { point, upper, _folder: folder }
        });
        let mut group = Self {
            listener,
            layers: layers.collect(),
            watched: HashMap::new(),
            folders: 0,
            vanished: HashSet::new(),
            moving: HashMap::new(),
            batch: vec![MaybeUninit::uninit(); BATCH_BYTES],
        };
        group.begin(written);
        match group.folders {
            0 => Err(io::Error::other("no folder can be watched by inotify")),
            _ => {
                group.ahead(home);
                Ok(group)
            }
        }
    }

    /// Watches folders that are likely to be written in, those first that are not far down. Where it does not, all is seen but what goes
    /// again at once.
    fn ahead(&mut self, home: &Path) {
        let mut folders: VecDeque<PathBuf> = OF_NOBODY.iter().copied().map(PathBuf::from).collect();
        folders.push_back(home.to_owned());
        for _ in 0..AHEAD_MAX {
            let Some(folder) = folders.pop_front() else { return };
            let Some(place) = self.place(&folder) else { continue };
            let Ok(watch) = inotify::add_watch(&self.listener, &folder, OF_FOLDER) else { continue };
            self.watched.entry(watch).or_insert(Watched::Folder(place));
            if folder.starts_with(home) {
                let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                let within = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                folders.extend(within.take(AHEAD_MAX).map(|entry| entry.path()));
            }
        }
    }

    /// What is shown there, of the layer that is over all others.
    fn place(&self, shown: &Path) -> Option<Place> {
        let layers = self.layers.iter().enumerate();
        let within = layers.filter(|(_, layer)| shown.starts_with(&layer.point));
        let (layer, of) = within.max_by_key(|(_, layer)| layer.point.components().count())?;
        Some(Place { layer, path: shown.strip_prefix(&of.point).ok()?.to_owned() })
    }

    /// What is there was not written by whoever runs now.
    fn begin(&mut self, written: &mut WrittenFiles) {
        for layer in 0..self.layers.len() {
            self.enter(Place { layer, path: PathBuf::new() }, false, written);
        }
    }

    /// Notes all that has come, up to a bound.
    pub(super) fn read(&mut self, written: &mut WrittenFiles) {
        for _ in 0..BATCHES_MAX {
            let Some(events) = self.next() else { return };
            for event in events {
                self.note(&event, written);
            }
        }
    }

    /// Notes what was written and has gone by now; no more is told of it.
    pub(super) fn settle(&mut self, written: &mut WrittenFiles) {
        for path in self.vanished.drain() {
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            // No file has this device.
            let id = Id { device: (u32::MAX, u32::MAX), inode: hasher.finish(), born: (0, 0) };
            written.note(id, path.to_string_lossy().into_owned(), true, false, true);
        }
    }

    /// The next batch, if there is one.
    fn next(&mut self) -> Option<Vec<Event>> {
        let mut reader = Reader::new(&self.listener, &mut self.batch);
        let mut events = Vec::new();
        loop {
            let event = reader.next().ok()?;
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).into());
            events.push(Event { watch: event.wd(), what: event.events(), cookie: event.cookie(), name });
            if reader.is_buffer_empty() {
                return Some(events);
            }
        }
    }

    fn note(&mut self, event: &Event, written: &mut WrittenFiles) {
        if event.what.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Folders may have been made of which nothing is known.
            written.cut();
            return self.begin(written);
        }
        if event.what.contains(ReadFlags::IGNORED) {
            return self.forget(event.watch, written);
        }
        let is_folder = event.what.contains(ReadFlags::ISDIR);
        match (self.watched.get(&event.watch), &event.name) {
            (Some(Watched::Disk(place)), Some(name)) if is_folder => {
                self.enter(place.child(name), true, written);
            }
            (Some(Watched::Folder(place)), Some(name)) if !is_folder => {
                let place = place.child(name);
                self.note_file(event, &place, written);
            }
            (Some(Watched::File(id)), _) if event.what.contains(ReadFlags::ACCESS) => written.note_read(id),
            _ => {}
        }
    }

    fn note_file(&mut self, event: &Event, place: &Place, written: &mut WrittenFiles) {
        if event.what.intersects(WRITES) {
            self.written(place, written);
        } else if event.what.contains(ReadFlags::MOVED_FROM) {
            if self.moving.len() >= VANISHED_MAX {
                self.moving.clear();
            }
            let had_vanished = self.vanished.remove(&self.shown(place));
            self.moving.insert(event.cookie, had_vanished);
        } else if event.what.contains(ReadFlags::MOVED_TO) {
            match self.moving.remove(&event.cookie) {
                Some(true) => self.written(place, written),
                _ => self.renamed(place, written),
            }
        }
    }

    /// The watch is no more, since what it was for is gone.
    fn forget(&mut self, watch: i32, written: &mut WrittenFiles) {
        match self.watched.remove(&watch) {
            Some(Watched::Disk(_)) => self.folders -= 1,
            Some(Watched::File(id)) => written.gone(&id),
            Some(Watched::Folder(_)) | None => {}
        }
    }

    /// Watches a folder of the disk, and all folders in it. Where it `is_new`, files in it were written.
    fn enter(&mut self, place: Place, is_new: bool, written: &mut WrittenFiles) {
        let mut places = vec![place];
        while let Some(place) = places.pop() {
            match self.watch_folder(&place).and_then(|()| fs::read_dir(self.on_disk(&place))) {
                Ok(entries) => {
                    for entry in entries.flatten() {
                        let within = place.child(Path::new(&entry.file_name()));
                        match entry.file_type() {
                            Ok(kind) if kind.is_dir() => places.push(within),
                            Ok(kind) if kind.is_file() && is_new => self.found(&within, written),
                            _ => {}
                        }
                    }
                }
                // It has gone meanwhile, or is shown to nobody.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(_) => return written.cut(),
            }
        }
    }

    fn watch_folder(&mut self, place: &Place) -> io::Result<()> {
        let is_full = self.folders >= FOLDERS_MAX;
        let on_disk = inotify::add_watch(&self.listener, self.on_disk(place), OF_DISK)?;
        // One that has got another name is not counted again.
        if !self.watched.contains_key(&on_disk) {
            if is_full {
                inotify::remove_watch(&self.listener, on_disk)?;
                return Err(io::Error::other("too many folders"));
            }
            self.folders += 1;
        }
        self.watched.insert(on_disk, Watched::Disk(place.clone()));
        let shown = inotify::add_watch(&self.listener, self.shown(place), OF_FOLDER)?;
        self.watched.insert(shown, Watched::Folder(place.clone()));
        Ok(())
    }

    /// A file was written there.
    fn written(&mut self, place: &Place, written: &mut WrittenFiles) {
        let path = self.shown(place);
        match self.identity(place) {
            Ok(Some(id)) => self.keep(id, &path, written),
            // A device, a pipe or the like.
            Ok(None) => {}
            Err(error) if error.kind() != ErrorKind::NotFound => written.cut(),
            Err(_) if written.knows_name(&path.to_string_lossy()) => {}
            Err(_) if self.vanished.len() >= VANISHED_MAX => written.cut(),
            Err(_) => drop(self.vanished.insert(path)),
        }
    }

    /// A file is there, in a folder that is new to the disk. If it was known, all that was done with it has been told.
    fn found(&mut self, place: &Place, written: &mut WrittenFiles) {
        if let Ok(Some(id)) = self.identity(place) {
            let path = self.shown(place);
            match written.knows(&id) {
                true => written.rename(&id, path.to_string_lossy().into_owned()),
                false => self.keep(id, &path, written),
            }
        }
    }

    fn renamed(&mut self, place: &Place, written: &mut WrittenFiles) {
        if let Ok(Some(id)) = self.identity(place) {
            written.rename(&id, self.shown(place).to_string_lossy().into_owned());
        }
    }

    /// Notes that it was written, and watches who reads it from then on.
    fn keep(&mut self, id: Id, path: &Path, written: &mut WrittenFiles) {
        let was_known = written.knows(&id);
        let is_known = written.note(id, path.to_string_lossy().into_owned(), true, false, false);
        if was_known || !is_known {
            return;
        }
        match inotify::add_watch(&self.listener, path, OF_FILE) {
            Ok(watch) => drop(self.watched.insert(watch, Watched::File(id))),
            Err(rustix::io::Errno::NOENT) => written.gone(&id),
            Err(_) => written.cut(),
        }
    }

    /// Which file it is, as the disk has it; none is no file.
    fn identity(&self, place: &Place) -> io::Result<Option<Id>> {
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
        let of = statx(CWD, self.on_disk(place), AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        let born = match of.stx_mask & StatxFlags::BTIME.bits() {
            0 => (0, 0),
            _ => (of.stx_btime.tv_sec, of.stx_btime.tv_nsec),
        };
        let id = Id { device: (of.stx_dev_major, of.stx_dev_minor), inode: of.stx_ino, born };
        match FileType::from_raw_mode(of.stx_mode.into()) {
            FileType::RegularFile => Ok(Some(id)),
            // Overlays write "removed" so.
            FileType::CharacterDevice => Err(ErrorKind::NotFound.into()),
            _ => Ok(None),
        }
    }

    fn on_disk(&self, place: &Place) -> PathBuf {
        self.layers[place.layer].upper.join(&place.path)
    }

    fn shown(&self, place: &Place) -> PathBuf {
        self.layers[place.layer].point.join(&place.path)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Place {
    fn child(&self, name: &Path) -> Self {
        Self { layer: self.layer, path: self.path.join(name) }
    }
}
