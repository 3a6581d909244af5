//! The files of a world: overlays over what is there, put together beside the old root, which is then left. Nothing of it
//! is seen outside, since the mount namespace is the world's own and nothing is passed on to others.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, unmount,
    },
};

use super::{Level, Spec};

/// What is written there is no file.
const DEVICES: &str = "/dev";

/// What in `/proc` is of the machine and not of a process: who is root would change it for all.
const OF_THE_MACHINE: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// Which addresses host names have (`hosts(5)`).
const HOSTS: &str = "/etc/hosts";

/// What came of it.
pub(super) struct Entered {
    /// What could not be done, one sentence each.
    pub(super) notices: Vec<String>,
    /// The layers that can only be read, or are not there.
    pub(super) weak: Vec<PathBuf>,
    /// Whether the numbers in `/proc` are those of this world.
    pub(super) has_own_processes: bool,
}

/// Puts the root together and enters it.
pub(super) fn enter(spec: &Spec) -> io::Result<Entered> {
    let (mut notices, mut weak) = (Vec::new(), Vec::new());
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    if spec.level == Level::UserOverlay {
        new_root(spec)?;
    }
    for (at, point) in spec.mounts.layers.iter().enumerate() {
        let target = inside(&spec.root, point);
        if let Err(error) = overlay(spec, at, point, &target) {
            if point == Path::new("/") {
                return Err(io::Error::new(error.kind(), format!("cannot lay an overlay over /: {error}")));
            }
            weak.push(point.clone());
            if read_only(point, &target).is_err() {
                notices.push(format!("{} cannot be shown to workers: {error}", point.display()));
            } else {
                notices.push(format!("{} can only be read by workers: {error}", point.display()));
            }
        }
    }
    let has_own_processes = processes(spec, &mut notices)?;
    hide(&inside(&spec.root, &spec.hidden))?;
    for path in &spec.mounts.binds {
        if let Err(error) = show(path, &spec.root) {
            notices.push(format!("{} cannot be shown to workers: {error}", path.display()));
        }
    }
    // After the files of the machine: in containers, this is one of them.
    if let Err(error) = name_the_host(spec) {
        notices.push(format!("workers have the host name of the machine: {error}"));
    }
    // Memory that is shared by name would be shared with others.
    let shared = inside(&spec.root, Path::new("/dev/shm"));
    if is_within(&spec.root, &shared) && shared.is_dir() {
        mount("tmpfs", &shared, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777")?;
    }
    leave_the_old(&spec.root)?;
    Ok(Entered { notices, weak, has_own_processes })
}

/// A root that has only folders and links; the rest is laid over it.
fn new_root(spec: &Spec) -> io::Result<()> {
    mount("tmpfs", &spec.root, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")?;
    for folder in &spec.mounts.folders {
        fs::create_dir_all(inside(&spec.root, folder))?;
    }
    for (link, to) in &spec.mounts.links {
        std::os::unix::fs::symlink(to, inside(&spec.root, link))?;
    }
    Ok(())
}

/// `path` below `root`.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// `Documentation/filesystems/overlayfs.rst` of the kernel.
fn overlay(spec: &Spec, at: usize, point: &Path, target: &Path) -> io::Result<()> {
    let layer = spec.disk.join(at.to_string());
    let mut options = Vec::new();
    for (name, path) in
        [("lowerdir=", point), (",upperdir=", &layer.join("upper")), (",workdir=", &layer.join("work"))]
    {
        options.extend_from_slice(name.as_bytes());
        options.extend(escaped(path.as_os_str()));
    }
    if spec.level == Level::UserOverlay {
        options.extend_from_slice(b",userxattr");
    }
    let options = CString::new(options)?;
    Ok(mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())?)
}

/// What separates options or folders is escaped.
fn escaped(path: &OsStr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        if b"\\:,".contains(byte) {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    bytes
}

/// Shows `source`, and what is mounted in it, so that it can only be read.
fn read_only(source: &Path, target: &Path) -> io::Result<()> {
    mount_bind_recursive(source, target)?;
    if only_read_below(target).is_ok() {
        return Ok(());
    }
    // Before Linux 5.12 that is for one mount alone: what is mounted in it is not shown, since it could be written.
    unmount(target, UnmountFlags::DETACH)?;
    mount_bind(source, target)?;
    only_read(target)
}

/// `mount_setattr(2)`, which libraries do not have yet: all mounts at and below `target` can only be read.
fn only_read_below(target: &Path) -> io::Result<()> {
    /// `struct mount_attr`, `MOUNT_ATTR_SIZE_VER0`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let read_only = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let at = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: the kernel reads the empty path and the attributes, of the size that it is told, and keeps neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | AT_RECURSIVE,
            &raw const read_only,
            size_of::<Attributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The mount at `target` alone. In a user namespace, what was forbidden outside must stay so.
fn only_read(target: &Path) -> io::Result<()> {
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    let without_devices = read_only | MountFlags::NOSUID | MountFlags::NODEV;
    for flags in [read_only, without_devices, without_devices | MountFlags::NOEXEC] {
        if mount_remount(target, flags, c"").is_ok() {
            return Ok(());
        }
    }
    unmount(target, UnmountFlags::DETACH)?;
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Gives the world its host name, and lets that lead to itself: there is nobody inside who could be asked for it.
fn name_the_host(spec: &Spec) -> io::Result<()> {
    let target = inside(&spec.root, Path::new(HOSTS));
    if let Ok(known) = fs::read(&target) {
        let named = spec.disk.join("hosts");
        let mut text = format!("127.0.0.1\tlocalhost {0}\n::1\tlocalhost {0}\n", spec.host).into_bytes();
        text.extend(known);
        fs::write(&named, text)?;
        mount_bind(&named, &target)?;
    }
    Ok(rustix::system::sethostname(spec.host.as_bytes())?)
}

/// The processes of this world alone, or, where a container's own view of them may not be made anew, the one there is. Tells
/// which.
fn processes(spec: &Spec, notices: &mut Vec<String>) -> io::Result<bool> {
    let target = inside(&spec.root, Path::new("/proc"));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let has_own = mount("proc", &target, "proc", flags, None).is_ok();
    if !has_own {
        mount_bind_recursive("/proc", &target)?;
        notices
            .push("/proc shows workers the processes of the machine, which it names by other numbers".into());
    }
    for path in OF_THE_MACHINE.map(|path| inside(&spec.root, Path::new(path))) {
        if path.exists() {
            let told =
                |error| io::Error::new(io::Error::kind(&error), format!("{}: {error}", path.display()));
            read_only(&path, &path).map_err(told)?;
        }
    }
    Ok(has_own)
}

fn hide(target: &Path) -> io::Result<()> {
    Ok(mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700,size=1m")?)
}

/// Shows `source` as it is, at its place in `root`. In new folders there is nothing to show it on yet. What has gone
/// meanwhile, as sockets do, is not missed.
fn show(source: &Path, root: &Path) -> io::Result<()> {
    let Ok(kind) = fs::metadata(source).map(|metadata| metadata.file_type()) else { return Ok(()) };
    let target = &inside(root, source);
    if !is_within(root, target) {
        return Err(io::Error::other("a symbolic link on its path leads out of the world"));
    }
    if !target.exists() {
        fs::create_dir_all(target.parent().unwrap_or(target))?;
        match kind.is_dir() {
            true => fs::create_dir(target)?,
            false => drop(fs::File::create_new(target)?),
        }
    }
    match source == Path::new(DEVICES) {
        true => Ok(mount_bind_recursive(source, target)?),
        false => read_only(source, target),
    }
}

/// Whether what is there of `path` lies in `root`. An absolute link in the new root still leads into the old one, where
/// something would be mounted, or made, that is not of this world.
fn is_within(root: &Path, path: &Path) -> bool {
    let there = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    there.and_then(|there| there.canonicalize().ok()).is_some_and(|there| there.starts_with(root))
}

/// pivot_root(2): with both at one place, the old root lies over the new one and is taken away.
fn leave_the_old(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("run")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link(&folder.path().join("outside"), "absolute");
        link(Path::new("run"), "relative");
        link(Path::new("/no/such/place"), "dangling");
        for (path, expected) in [
            ("run/db.sock", true),
            ("new/folder/db.sock", true),
            ("relative/db.sock", true),
            ("absolute/db.sock", false),
            ("absolute", false),
            ("dangling", false),
        ] {
            assert_eq!(is_within(&root, &root.join(path)), expected, "{path}");
        }
        assert!(show(&folder.path().join("gone.sock"), &root).is_ok());
    }

    #[test]
    fn names_cannot_become_options() {
        assert_eq!(escaped(OsStr::new("/a:b,c\\d")), b"/a\\:b\\,c\\\\d");
        assert_eq!(inside(Path::new("/s/root"), Path::new("/home/x")), Path::new("/s/root/home/x"));
        assert_eq!(inside(Path::new("/s/root"), Path::new("/")), Path::new("/s/root/"));
    }
}
