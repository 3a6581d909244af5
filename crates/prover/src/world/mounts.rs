//! Which of the machine's file systems a world gets, and how. An overlay shows one file system and not what is mounted in
//! it, so each one that has files gets an overlay of its own; devices and single files are shown as they are.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Most overlays of a world; what is mounted beyond is shown as it is, and can only be read.
const LAYERS_MAX: usize = 64;

/// Where services write, beside their own folder.
const WRITTEN_TO: [&str; 5] = ["/tmp", "/var", "/run", "/home", "/root"];

/// Folders that are named in one sentence.
const NAMED_MAX: usize = 4;

/// Trees that are never layers: of the kernel, or made anew in each world.
const OF_THE_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// File systems that hold no files of anybody.
const WITHOUT_FILES: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// Where engines of containers mount the files of theirs.
const OF_CONTAINERS: [&str; 2] = ["/var/lib/docker", "/var/lib/containers"];

/// What a world is put together from, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// Folders that are made anew, parents first, where there is no overlay over `/`.
    pub folders: Vec<PathBuf>,
    /// Symbolic links in them, and where they lead.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// What gets an overlay, parents first.
    pub layers: Vec<PathBuf>,
    /// What is shown as it is, parents first. All but devices can only be read.
    pub binds: Vec<PathBuf>,
    /// The folders among them that are there because there are too many for overlays.
    pub beyond: Vec<PathBuf>,
}

impl Mounts {
    /// What the table of `/proc/self/mountinfo` comes to (`proc_pid_mountinfo(5)`) for what runs in the folder `service`. `is_folder` says
    /// what a mount point is.
    pub fn plan(table: &str, service: &Path, is_folder: impl Fn(&Path) -> bool) -> Self {
        // Of several at one place, the last is seen.
        let seen: BTreeMap<PathBuf, &str> = table.lines().filter_map(row).collect();
        let mut mounts = Self { layers: vec!["/".into()], ..Self::default() };
        mounts.binds.extend(OF_THE_KERNEL.iter().filter(|tree| **tree != "/proc").map(PathBuf::from));
        for (point, kind) in seen {
            let is_beneath = |trees: &[&str]| trees.iter().any(|tree| point.starts_with(tree));
            if point == Path::new("/") || WITHOUT_FILES.contains(&kind) {
                continue;
            }
            if is_beneath(&OF_THE_KERNEL) || is_beneath(&OF_CONTAINERS) {
                continue;
            }
            match is_folder(&point) {
                true => mounts.layers.push(point),
                false => mounts.binds.push(point),
            }
        }
        mounts.keep_to_the_bound(service);
        mounts
    }
}

impl Mounts {
    /// What of it is not as it should be, one sentence each.
    pub fn notices(&self) -> Vec<String> {
        if self.beyond.is_empty() {
            return Vec::new();
        }
        let named: Vec<_> =
            self.beyond.iter().take(NAMED_MAX).map(|path| path.display().to_string()).collect();
        let more = match self.beyond.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        vec![format!(
            "workers can only read {}{more}: a world has {LAYERS_MAX} overlays at most; a service that writes there fails",
            named.join(", ")
        )]
    }

    /// Turns layers beyond the bound into what can only be read: first what a service is less likely to write to.
    fn keep_to_the_bound(&mut self, service: &Path) {
        let is_likely = |path: &PathBuf| {
            let is_near = |place: &Path| place.starts_with(path) || path.starts_with(place);
            is_near(service) || WRITTEN_TO.iter().any(|place| is_near(Path::new(place)))
        };
        self.layers.sort_by_key(|path| !is_likely(path));
        self.beyond = self.layers.split_off(self.layers.len().min(LAYERS_MAX));
        self.binds.extend(self.beyond.iter().cloned());
        // Parents first.
        self.layers.sort();
    }

    /// The same for a user namespace, where the kernel lays no overlay over a folder that something is mounted below: an
    /// overlay for each of the largest folders below which nothing is, and new folders above.
    pub fn plan_by_folder(table: &str, service: &Path) -> Self {
        let points: Vec<(PathBuf, &str)> = table.lines().filter_map(row).collect();
        let mut mounts = Self { binds: vec!["/dev".into(), "/sys".into()], ..Self::default() };
        mounts.compose(Path::new("/"), &points);
        mounts.keep_to_the_bound(service);
        mounts
    }

    fn compose(&mut self, folder: &Path, points: &[(PathBuf, &str)]) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            let has_below = points.iter().any(|(point, _)| *point != path && point.starts_with(&path));
            let is_without_files =
                points.iter().any(|(point, kind)| *point == path && WITHOUT_FILES.contains(kind));
            if OF_THE_KERNEL.iter().chain(&OF_CONTAINERS).any(|tree| path == Path::new(tree)) {
                self.folders.push(path);
            } else if kind.is_symlink() {
                self.links.extend(fs::read_link(&path).map(|to| (path, to)));
            } else if !kind.is_dir() {
                self.binds.push(path);
            } else if has_below && !is_without_files {
                self.folders.push(path.clone());
                self.compose(&path, points);
            } else if !is_without_files {
                self.folders.push(path.clone());
                self.layers.push(path);
            }
        }
    }
}

/// Mount point and file system of a row.
fn row(line: &str) -> Option<(PathBuf, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    Some((unescaped(point), file_system.split(' ').next()?))
}

/// The kernel writes space, tab, line end and backslash as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_files_is_a_layer() {
        let table = "\
            22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /proc rw - proc proc rw\n\
            24 22 0:6 / /sys rw - sysfs sysfs rw\n\
            25 24 0:7 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            26 22 0:8 / /dev rw - devtmpfs udev rw\n\
            27 26 0:9 / /dev/shm rw - tmpfs tmpfs rw\n\
            28 22 0:10 / /tmp rw shared:2 - tmpfs tmpfs rw\n\
            29 22 8:2 / /home/a\\040b rw - xfs /dev/sdb rw\n\
            30 22 0:11 / /misc rw - autofs systemd-1 rw\n\
            31 22 8:1 /x /etc/hosts rw - ext4 /dev/sda1 rw\n\
            32 22 0:12 / /var/lib/docker/overlay2/a/merged rw - overlay overlay rw\n";
        let mounts = Mounts::plan(table, Path::new("/srv"), |path| path != Path::new("/etc/hosts"));
        assert_eq!(mounts.layers, ["/", "/home/a b", "/tmp"].map(PathBuf::from));
        assert_eq!(mounts.binds, ["/dev", "/sys", "/etc/hosts"].map(PathBuf::from));
    }

    #[test]
    fn what_is_beyond_the_overlays_is_still_shown() {
        let row = |number: usize| format!("{number} 1 8:1 / /mnt/{number:03} rw - ext4 a rw\n");
        let table: String = (0..LAYERS_MAX + 9).map(row).collect();
        let service = format!("/mnt/{:03}", LAYERS_MAX + 8);
        let mounts = Mounts::plan(&table, Path::new(&service), |_| true);
        assert_eq!((mounts.layers.len(), mounts.beyond.len()), (LAYERS_MAX, 10));
        assert!(mounts.layers.contains(&PathBuf::from(&service)));
        assert!(mounts.beyond.iter().all(|path| mounts.binds.contains(path)));
        assert!(
            mounts.notices()[0].contains("/mnt/062, /mnt/063, /mnt/064, /mnt/065 and 6 more"),
            "{:?}",
            mounts.notices()
        );

        let folder = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> =
            (0..LAYERS_MAX + 9).map(|number| folder.path().join(number.to_string())).collect();
        names.iter().for_each(|name| fs::create_dir(name).unwrap());
        let mut mounts = Mounts::default();
        mounts.compose(folder.path(), &[]);
        mounts.keep_to_the_bound(&names[0]);
        assert_eq!((mounts.layers.len(), mounts.beyond.len()), (LAYERS_MAX, 9));
        assert!(mounts.layers.contains(&names[0]));
        assert!(names.iter().all(|name| mounts.layers.contains(name) || mounts.binds.contains(name)));
    }

    #[test]
    fn the_last_at_a_place_is_seen() {
        let table = "1 1 0:1 / /x rw - ext4 a rw\n2 1 0:2 / /x rw - debugfs b rw\n";
        assert_eq!(Mounts::plan(table, Path::new("/"), |_| true).layers, [PathBuf::from("/")]);
    }

    #[test]
    fn without_an_overlay_over_all_each_folder_is_something() {
        let table = "1 1 0:1 / / rw - ext4 a rw\n2 1 0:2 / /usr/lib rw - ext4 b rw\n";
        let mounts = Mounts::plan_by_folder(table, Path::new("/srv"));
        let has = |list: &[PathBuf], path: &str| list.iter().any(|one| one == Path::new(path));
        assert!(
            has(&mounts.layers, "/etc") && has(&mounts.layers, "/usr/lib") && has(&mounts.layers, "/usr/bin")
        );
        assert!(!has(&mounts.layers, "/usr") && has(&mounts.folders, "/usr"));
        assert!(has(&mounts.folders, "/proc") && !has(&mounts.layers, "/proc"));
    }
}
