//! The cgroups below `lethe`'s own: who may have one, and how the place for them is prepared. Nothing is done before the
//! first service asks for it; then `lethe` moves itself into a leaf, because a cgroup that gives controllers to those below it
//! may hold no process itself (cgroup-v2.rst, "No Internal Process Constraint").
//!
//! In `lethe`'s own cgroup: `lethe.self`, and `lethe.<pid>.<start ticks>.<instance>` for each worker. The name tells a later
//! `lethe` whose it was, so that what one leaves behind that was killed is cleared by the next.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use lethe_model::service::InstanceId;
use rustix::{
    fs::{Access, access},
    process::Pid,
};

use crate::{
    cell::{self, Cell, ENTRANCE},
    process,
    resources::{Controller, Enforce},
    service::Spec,
    supervisor::Error,
};

/// The leaf that `lethe` itself is in.
const SELF: &str = "lethe.self";
/// What the names of workers' cgroups begin with.
const PREFIX: &str = "lethe.";
/// How often processes that came meanwhile are moved too.
const MOVES_MAX: usize = 8;
/// Processes that are named as being in the way.
const NAMED_MAX: usize = 3;

/// Why workers get no cgroups.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("cgroup v2 is not mounted here; mount it, or boot with systemd.unified_cgroup_hierarchy=1")]
    NotMounted,
    #[error(
        "lethe may not make cgroups in {folder} ({why}); under systemd write Delegate=yes into its unit, in a \
         shell run it by `systemd-run --user --scope -p Delegate=yes lethe up`, in a container let it write \
         /sys/fs/cgroup (docker: --security-opt writable-cgroups=true, podman: --security-opt unmask=/sys/fs/cgroup)"
    )]
    NotWritable { folder: String, why: String },
    #[error(
        "other processes are in the cgroup of lethe, {folder}: {processes}; start lethe in a cgroup of its own \
         (systemd: Delegate=yes), or by `exec` if a shell starts it in a container"
    )]
    Shared { folder: String, processes: String },
}

/// The place for workers' cgroups.
#[derive(Debug)]
struct Ground {
    folder: PathBuf,
    controllers: BTreeSet<Controller>,
    /// What the names of this `lethe`'s begin with.
    prefix: String,
}

/// Gives out cgroups.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    ground: Mutex<Option<Result<Arc<Ground>, Unavailable>>>,
}

impl Cgroups {
    /// Refuses a service whose limits cannot be kept up, or warns of it, as it wishes. Prepares the place the first
    /// time.
    pub(crate) fn check(&self, spec: &Spec) -> Result<(), Error> {
        let limiting = spec.resources.limiting();
        if limiting.is_empty() {
            return Ok(());
        }
        let Some(why) = missing(&limiting, self.ground().as_deref()) else { return Ok(()) };
        match spec.resources.enforce {
            Enforce::IfPossible => {
                tracing::warn!("service `{}` runs WITHOUT its limits: {why}", spec.name);
                Ok(())
            }
            Enforce::Always => {
                let reason = format!(
                    "its limits cannot be kept up: {why}. To run it without them, write enforce = \"if-possible\" \
                     under [services.{}.resources]",
                    spec.name
                );
                Err(Error::Command { service: spec.name.clone(), reason })
            }
        }
    }

    /// The cgroup of a worker that is to be started; `None` if it needs none, or may do without and there is none.
    pub(crate) fn cell(&self, spec: &Spec, instance: &InstanceId) -> Result<Option<Arc<Cell>>, Error> {
        let resources = &spec.resources;
        if !resources.needs_cgroup() {
            return Ok(None);
        }
        let Ok(ground) = self.ground() else { return Ok(None) };
        let folder = ground.folder.join(format!("{}{instance}", ground.prefix));
        match Cell::make(folder, resources, &ground.controllers) {
            Ok(cell) => Ok(Some(Arc::new(cell))),
            Err(_) if resources.enforce == Enforce::IfPossible => Ok(None),
            Err(error) => {
                let reason = format!("its limits could not be set: {error}");
                Err(Error::Command { service: spec.name.clone(), reason })
            }
        }
    }

    /// Removes what is left of this `lethe`'s workers.
    pub(crate) fn clear(&self) {
        let ground = self.ground.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Ok(ground)) = ground {
            clear(&ground.folder, |owner| ground.prefix.strip_prefix(PREFIX) == Some(&format!("{owner}.")));
        }
    }

    fn ground(&self) -> Result<Arc<Ground>, Unavailable> {
        let mut ground = self.ground.lock().unwrap_or_else(PoisonError::into_inner);
        ground.get_or_insert_with(|| Ground::prepare().map(Arc::new)).clone()
    }
}

/// Why not all of `limiting` can be had, if so.
fn missing(limiting: &BTreeSet<Controller>, ground: Result<&Ground, &Unavailable>) -> Option<String> {
    let ground = match ground {
        Ok(ground) => ground,
        Err(why) => return Some(why.to_string()),
    };
    let names: Vec<&str> = limiting.difference(&ground.controllers).map(|it| it.name()).collect();
    if names.is_empty() {
        return None;
    }
    let elsewhere = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let is_in_v1 = names.iter().any(|name| is_in_v1(&elsewhere, name));
    let hint = match is_in_v1 {
        true => "cgroup v1 has it on this machine; boot with systemd.unified_cgroup_hierarchy=1",
        false => "it must be in `cgroup.controllers` there (systemd: Delegate=yes)",
    };
    let folder = ground.folder.display();
    Some(format!("the cgroup of lethe, {folder}, has no `{}` controller: {hint}", names.join("` and no `")))
}

/// Whether a controller belongs to a hierarchy of cgroup v1, by `/proc/cgroups` (cgroups(7)).
fn is_in_v1(cgroups: &str, controller: &str) -> bool {
    let mut lines = cgroups.lines().map(|line| line.split_ascii_whitespace());
    lines.any(|mut fields| {
        fields.next() == Some(controller) && fields.next().is_some_and(|hierarchy| hierarchy != "0")
    })
}

impl Ground {
    /// Finds the cgroup of this process and makes it ready.
    fn prepare() -> Result<Self, Unavailable> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let own = own_folder(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        Self::prepare_in(own.ok_or(Unavailable::NotMounted)?)
    }

    fn prepare_in(folder: PathBuf) -> Result<Self, Unavailable> {
        let refused = |error: io::Error| Unavailable::NotWritable {
            folder: folder.display().to_string(),
            why: error.kind().to_string(),
        };
        for file in ["", ENTRANCE] {
            access(folder.join(file), Access::WRITE_OK).map_err(|error| refused(error.into()))?;
        }
        let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        let is_offered = |it: &Controller| text.split_ascii_whitespace().any(|name| name == it.name());
        let offered: Vec<Controller> = Controller::ALL.into_iter().filter(is_offered).collect();
        // The root of all alone may hold processes beside cgroups with controllers, and has no such file.
        if folder.join("cgroup.events").exists() {
            let others: Vec<Pid> = processes(&folder).into_iter().filter(|&pid| !is_ours(pid)).collect();
            // Before anything is moved: with them there, the kernel gives out no controller.
            if !others.is_empty() && !offered.is_empty() {
                return Err(shared(&folder, &others));
            }
            move_into_leaf(&folder).map_err(refused)?;
        }
        let mut controllers = BTreeSet::new();
        for controller in offered {
            match fs::write(folder.join("cgroup.subtree_control"), format!("+{}", controller.name())) {
                Ok(()) => _ = controllers.insert(controller),
                // Somebody came meanwhile.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    return Err(shared(&folder, &processes(&folder)));
                }
                Err(error) => return Err(refused(error)),
            }
        }
        clear(&folder, |owner| !lives(owner));
        let own = rustix::process::getpid();
        let start_ticks = process::start_ticks(own).unwrap_or(0);
        let prefix = format!("{PREFIX}{}.{start_ticks}.", own.as_raw_nonzero());
        Ok(Self { folder, controllers, prefix })
    }
}

/// Where the cgroup of a process is found, of whom these are the `mountinfo` and `cgroup` of `/proc` (proc(5)).
fn own_folder(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let own = Path::new(cgroup.lines().find_map(|line| line.strip_prefix("0::"))?);
    // Who was started by another lethe is in the leaf of that one.
    let own = if own.ends_with(SELF) { own.parent()? } else { own };
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let is_v2 = filesystem.split(' ').next() == Some("cgroup2");
        let below = own.strip_prefix(root).ok().filter(|_| is_v2)?;
        Some(Path::new(&unescaped(point)).join(below))
    })
}

/// A path as `mountinfo` writes it: space, tab, line end and backslash are in octal.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.into(), |path: String, (escape, meant)| path.replace(escape, meant))
}

/// Moves this process and its descendants into the leaf. Processes of others stay where they are.
fn move_into_leaf(folder: &Path) -> io::Result<()> {
    let leaf = folder.join(SELF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for _ in 0..MOVES_MAX {
        let ours: Vec<Pid> = processes(folder).into_iter().filter(|&pid| is_ours(pid)).collect();
        if ours.is_empty() {
            break;
        }
        for pid in ours {
            match fs::write(leaf.join(ENTRANCE), pid.as_raw_nonzero().to_string()) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Ok(())
}

fn processes(folder: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(folder.join(ENTRANCE)).unwrap_or_default();
    list.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Whether a process is this one, or descends from it.
fn is_ours(pid: Pid) -> bool {
    let own = rustix::process::getpid();
    let parent = |pid: &Pid| process::stat(*pid).and_then(|stat| Pid::from_raw(stat.parent));
    std::iter::successors(Some(pid), parent).any(|pid| pid == own)
}

/// Others are in a cgroup.
fn shared(folder: &Path, others: &[Pid]) -> Unavailable {
    let name = |pid: &Pid| {
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
        format!("{} (pid {})", name.trim(), pid.as_raw_nonzero())
    };
    let mut named: Vec<String> = others.iter().take(NAMED_MAX).map(name).collect();
    if others.len() > NAMED_MAX {
        named.push(format!("{} more", others.len() - NAMED_MAX));
    }
    Unavailable::Shared { folder: folder.display().to_string(), processes: named.join(", ") }
}

/// Kills what is in the workers' cgroups of whom `is_due` says so, by `<pid>.<start ticks>`, and removes them.
fn clear(folder: &Path, is_due: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(owner).is_some_and(&is_due) {
            cell::kill(&entry.path());
            if !cell::remove(&entry.path()) {
                tracing::debug!("{} is not empty yet; the next lethe removes it", entry.path().display());
            }
        }
    }
}

/// `<pid>.<start ticks>` of the name of a worker's cgroup.
fn owner(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PREFIX)?;
    let (owner, _instance) = rest.rsplit_once('.')?;
    let (pid, start_ticks) = owner.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(pid) && is_number(start_ticks)).then_some(owner)
}

/// Whether the `lethe` of that process id and start lives.
fn lives(owner: &str) -> bool {
    let Some((pid, start_ticks)) = owner.split_once('.') else { return true };
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    pid.and_then(process::start_ticks).is_some_and(|found| found.to_string() == start_ticks)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lethe_model::{roster::Protocol, service::ServiceName};

    use super::*;
    use crate::{resources::Resources, service::Listener};

    #[test]
    fn where_the_own_cgroup_is() {
        let mount = |root: &str, point: &str, kind: &str| {
            format!(
                "25 24 0:23 / /proc rw - proc proc rw\n36 35 0:31 {root} {point} rw,nosuid shared:9 - {kind} cgroup rw\n"
            )
        };
        for (root, point, own, expected) in [
            ("/", "/sys/fs/cgroup", "0::/system.slice/a.service\n", "/sys/fs/cgroup/system.slice/a.service"),
            ("/", "/sys/fs/cgroup", "4:memory:/x\n0::/\n", "/sys/fs/cgroup/"),
            ("/", "/sys/fs/cgroup", "0::/a.service/lethe.self\n", "/sys/fs/cgroup/a.service"),
            ("/docker/ab", "/sys/fs/c\\040g", "0::/docker/ab/x", "/sys/fs/c g/x"),
        ] {
            let found = own_folder(&mount(root, point, "cgroup2"), own);
            assert_eq!(found.as_deref(), Some(Path::new(expected)), "{own}");
        }
        assert_eq!(own_folder(&mount("/", "/sys/fs/cgroup", "tmpfs"), "0::/\n"), None);
        assert_eq!(own_folder(&mount("/elsewhere", "/sys/fs/cgroup", "cgroup2"), "0::/a\n"), None);
        assert_eq!(own_folder(&mount("/", "/sys/fs/cgroup", "cgroup2"), "4:memory:/x\n"), None);
    }

    #[test]
    fn whose_a_cgroup_was() {
        for (name, expected) in [
            ("lethe.12.345.web-1", Some("12.345")),
            ("lethe.self", None),
            ("lethe.12.web-1", None),
            ("lethe.x.345.web-1", None),
            ("other.12.345.web-1", None),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    /// A folder that looks like a cgroup below the root.
    fn fake(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in
            [("cgroup.events", "populated 1\n"), (ENTRANCE, ""), ("cgroup.controllers", controllers)]
        {
            fs::write(folder.path().join(file), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_place_is_prepared() {
        let folder = fake("cpuset cpu io memory pids\n");
        let own = rustix::process::getpid();
        fs::write(folder.path().join(ENTRANCE), format!("{}\n", own.as_raw_nonzero())).unwrap();
        let ticks = process::start_ticks(own).unwrap();
        let (dead, alive) =
            ("lethe.4194304.7.web-1", format!("lethe.{}.{ticks}.web-1", own.as_raw_nonzero()));
        let reborn = format!("lethe.{}.{}.web-1", own.as_raw_nonzero(), ticks + 1);
        for name in [dead, &alive, &reborn, "else"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let ground = Ground::prepare_in(folder.path().into()).unwrap();
        assert_eq!(ground.controllers, Controller::ALL.into());
        let moved = fs::read_to_string(folder.path().join(SELF).join(ENTRANCE)).unwrap();
        assert_eq!(moved, own.as_raw_nonzero().to_string());
        // A real one vanishes with the files that the kernel has put in; here each has been given one by the kill.
        let was_killed = |name: &str| folder.path().join(name).join("cgroup.kill").exists();
        assert_eq!([dead, &reborn, &alive, "else"].map(was_killed), [true, true, false, false]);
    }

    #[test]
    fn where_others_are_nothing_is_touched() {
        let folder = fake("cpu memory\n");
        let own = rustix::process::getpid().as_raw_nonzero();
        fs::write(folder.path().join(ENTRANCE), format!("1\n{own}\n")).unwrap();
        let error = Ground::prepare_in(folder.path().into()).unwrap_err().to_string();
        assert!(error.contains("(pid 1); start lethe in a cgroup of its own"), "{error}");
        assert!(!error.contains(&own.to_string()), "it is not in its own way: {error}");
        assert!(!folder.path().join(SELF).exists(), "it is where it was");
        assert!(!folder.path().join("cgroup.subtree_control").exists());
        // Without a controller to be given out, they are in nobody's way.
        fs::write(folder.path().join("cgroup.controllers"), "").unwrap();
        Ground::prepare_in(folder.path().into()).unwrap();
        let moved = fs::read_to_string(folder.path().join(SELF).join(ENTRANCE)).unwrap();
        assert_eq!(moved, own.to_string(), "what is ours, and nobody else");
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = fake("memory\n");
        let ground = Ground::prepare_in(folder.path().into()).unwrap();
        assert_eq!(ground.controllers, [Controller::Memory].into());
        assert_eq!(missing(&[Controller::Memory].into(), Ok(&ground)), None);
        let cpu = missing(&Controller::ALL.into(), Ok(&ground)).unwrap();
        assert!(cpu.contains("has no `cpu` controller"), "{cpu}");
        let nothing = missing(&[Controller::Cpu].into(), Err(&Unavailable::NotMounted)).unwrap();
        assert!(nothing.contains("not mounted"), "{nothing}");
        let gone = Ground::prepare_in(folder.path().join("no-such")).unwrap_err().to_string();
        assert!(gone.contains("may not make cgroups in") && gone.contains("Delegate=yes"), "{gone}");
        let cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t4\t74\t1\n";
        assert!(is_in_v1(cgroups, "memory") && !is_in_v1(cgroups, "cpu") && !is_in_v1(cgroups, "io"));
    }

    #[test]
    fn cells_are_named_for_their_owner() {
        let folder = fake("cpu memory\n");
        let ground = Ground::prepare_in(folder.path().into()).unwrap();
        let prefix = ground.prefix.clone();
        let cgroups = Cgroups { ground: Mutex::new(Some(Ok(Arc::new(ground)))) };
        let mut spec = Spec {
            name: ServiceName::new("web").unwrap(),
            command: vec!["true".into()],
            instances: 1,
            ready: None,
            warm_up: Vec::new(),
            listener: Listener::Port,
            protocol: Protocol::Http1,
            drain: Duration::ZERO,
            env: [].into(),
            release: 0,
            withheld: [].into(),
            directory: folder.path().into(),
            resources: Resources::default(),
        };
        let instance = InstanceId::new(&ServiceName::new("web").unwrap(), 3);
        assert!(cgroups.cell(&spec, &instance).unwrap().is_none(), "it has asked for nothing");
        spec.resources.memory_limit_bytes = Some(1 << 20);
        cgroups.check(&spec).unwrap();
        let cell = cgroups.cell(&spec, &instance).unwrap().unwrap();
        let path = folder.path().join(format!("{prefix}web-3"));
        assert_eq!(fs::read_to_string(path.join("memory.max")).unwrap(), "1048576");
        assert!(!path.join("cpu.max").exists());
        drop(cell);
        let refused = Cgroups { ground: Mutex::new(Some(Err(Unavailable::NotMounted))) };
        let error = refused.check(&spec).unwrap_err().to_string();
        assert!(error.starts_with("web: its limits cannot be kept up: cgroup v2 is not mounted"), "{error}");
        assert!(error.contains("enforce = \"if-possible\" under [services.web.resources]"), "{error}");
        spec.resources.enforce = Enforce::IfPossible;
        refused.check(&spec).unwrap();
        assert!(refused.cell(&spec, &instance).unwrap().is_none());
    }
}
