//! What is known of the files that were written in a world, within bounds.

use std::collections::HashMap;

use super::{Seen, Touched};

/// Most files that are known at a time.
const FILES_MAX: usize = 1024;

/// Most bytes of names in an answer, which is one message of the channel.
const NAMES_BYTES_MAX: usize = 48 << 10;

/// A file, whatever it is called. Numbers of files are given again after they are removed, so the time of its birth belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) born: (i64, u32),
}

struct File {
    touched: Touched,
    /// Whether no name leads to it any more.
    is_gone: bool,
}

/// The files that were written, and what was done with them since somebody asked.
#[derive(Default)]
pub(super) struct WrittenFiles {
    files: HashMap<Id, File>,
    count: u32,
    is_cut: bool,
}

impl WrittenFiles {
    /// Whether the file is known; only known ones may be read.
    pub(super) fn knows(&self, id: &Id) -> bool {
        self.files.contains_key(id)
    }

    /// Whether that was noted of the file already since somebody asked. Then its name need not be asked for, which costs most of all.
    pub(super) fn is_noted(&self, id: &Id, wrote: bool, read: bool) -> bool {
        self.files.get(id).is_some_and(|file| file.touched.wrote >= wrote && file.touched.read >= read)
    }

    /// Notes what was done with a file. One that was not written before must be; gives whether it is known now.
    pub(super) fn note(&mut self, id: Id, path: String, wrote: bool, read: bool, is_gone: bool) -> bool {
        if !self.knows(&id) {
            if !wrote {
                return false;
            }
            if self.files.len() >= FILES_MAX {
                self.is_cut = true;
                return false;
            }
            self.count += 1;
            let inode = (id.inode, id.born.0, id.born.1);
            let touched =
                Touched { number: self.count, path: String::new(), inode, wrote: false, read: false };
            self.files.insert(id, File { touched, is_gone });
        }
        let Some(file) = self.files.get_mut(&id) else { return false };
        file.touched.path = path;
        file.touched.wrote |= wrote;
        file.touched.read |= read;
        file.is_gone = is_gone;
        true
    }

    /// Whether a known file is called so.
    pub(super) fn knows_name(&self, path: &str) -> bool {
        self.files.values().any(|file| file.touched.path == path)
    }

    /// Notes that a known file was read.
    pub(super) fn note_read(&mut self, id: &Id) {
        if let Some(file) = self.files.get_mut(id) {
            file.touched.read = true;
        }
    }

    /// Notes that a known file has another name.
    pub(super) fn rename(&mut self, id: &Id, path: String) {
        if let Some(file) = self.files.get_mut(id) {
            file.touched.path = path;
        }
    }

    /// Notes that no name leads to a known file any more.
    pub(super) fn gone(&mut self, id: &Id) {
        if let Some(file) = self.files.get_mut(id) {
            file.is_gone = true;
        }
    }

    /// Notes that something was missed.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// What was done since this was asked before.
    pub(super) fn take(&mut self) -> Seen {
        let mut seen = Seen { files: Vec::new(), is_cut: std::mem::take(&mut self.is_cut) };
        let mut bytes = 0;
        for file in self.files.values_mut().filter(|file| file.touched.wrote || file.touched.read) {
            bytes += file.touched.path.len();
            match bytes <= NAMES_BYTES_MAX {
                true => seen.files.push(file.touched.clone()),
                false => seen.is_cut = true,
            }
            (file.touched.wrote, file.touched.read) = (false, false);
        }
        self.files.retain(|_, file| !file.is_gone);
        seen.files.sort_by_key(|touched| touched.number);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(inode: u64) -> Id {
        Id { device: (0, 1), inode, born: (1, 2) }
    }

    #[test]
    fn what_was_written_is_followed_under_any_name() {
        let mut written = WrittenFiles::default();
        assert!(!written.note(id(1), "/read".into(), false, true, false));
        assert!(written.note(id(2), "/a.tmp".into(), true, false, false));
        let first = written.take();
        assert_eq!((first.files.len(), first.files[0].path.as_str(), first.is_cut), (1, "/a.tmp", false));
        assert_eq!(written.take(), Seen::default());
        written.note(id(2), "/a".into(), false, true, false);
        let touched = &written.take().files[0];
        assert_eq!((touched.number, touched.path.as_str()), (first.files[0].number, "/a"));
        assert_eq!((touched.wrote, touched.read), (false, true));
        // What is gone is told once more, and then forgotten.
        written.note(id(2), "/a".into(), true, false, true);
        assert_eq!(written.take().files.len(), 1);
        assert!(!written.knows(&id(2)));
    }

    #[test]
    fn bounds_are_said() {
        let mut written = WrittenFiles::default();
        for number in 0..FILES_MAX as u64 {
            assert!(written.note(id(number), "x".repeat(60), true, false, false));
        }
        assert!(!written.note(id(FILES_MAX as u64), "/one/more".into(), true, false, false));
        let seen = written.take();
        assert!(
            seen.is_cut
                && seen.files.len() < FILES_MAX
                && serde_json::to_vec(&seen).unwrap().len() < 128 << 10
        );
        assert!(!written.take().is_cut);
    }
}
