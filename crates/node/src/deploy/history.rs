//! What was rolled out: a file for each service in the state folder, so that it is there after `lethe` has ended, whichever
//! engines keep the state and whether they can be reached. It is of this machine, as its workers are. There are no secrets
//! in it: of a command and its environment only a digest under a key of this folder, and sources without credentials.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use lethe_admin::releases::{Cause, Operator, Outcome, Release};
use lethe_model::service::ServiceName;
use sha2::{Digest, Sha256};

use crate::config::ServiceConfig;

/// Rollouts of one service that are remembered.
const KEPT: usize = 50;
const KEY_BYTES: usize = 32;
/// Hexadecimal digits of a digest.
const DIGEST_LEN: usize = 12;
/// What may be read of a file that somebody else may have written: 50 rollouts with their reasons are far less.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The history of all services.
pub(crate) struct History {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    /// Held by who changes a file. The highest number of a release in files that could not be read, and were put aside.
    writing: Mutex<BTreeMap<ServiceName, u64>>,
}

/// What a rollout begins with.
pub(crate) struct Begin<'a> {
    pub(crate) service: &'a ServiceName,
    /// The release that it goes back to; a new number when there is none.
    pub(crate) release: Option<u64>,
    pub(crate) cause: Cause,
    pub(crate) by: Option<Operator>,
    pub(crate) message: Option<String>,
    /// What it runs, as [`History::digest`] has it.
    pub(crate) digest: String,
    /// Where its program comes from, and where the file says that it does; without credentials.
    pub(crate) source: Option<String>,
    pub(crate) configured: Option<String>,
}

impl History {
    /// Opens it in the state folder, which exists.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("releases");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let key = key(&folder.join("key"))?;
        Ok(Self { folder, key, writing: Mutex::default() })
    }

    /// What tells one version of a service from another, beside its source: the same for the same, and nothing can be
    /// learnt from it without the key.
    pub(crate) fn digest(&self, service: &ServiceConfig) -> String {
        let spec = &service.spec;
        let build = service.build.as_ref().map(|build| &build.command);
        let words = format!(
            "{:?}",
            (
                (&spec.command, &spec.env, &spec.withheld, build),
                (&spec.ready, spec.listener, spec.protocol, spec.drain, &spec.directory)
            )
        );
        // Twice with the key, as HMAC does it (RFC 2104): what is known of one text says nothing of a longer one.
        let inner = Sha256::new().chain_update(self.key).chain_update(words).finalize();
        let outer = Sha256::new().chain_update(self.key).chain_update(inner).finalize();
        outer.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..DIGEST_LEN].into()
    }

    /// Puts a file aside that cannot be understood, so that a new one is begun: what it says is of use to people, and must
    /// not keep a service from being started. Numbers go on from the highest that is in it.
    pub(crate) fn mend(&self, service: &ServiceName) -> io::Result<()> {
        let Some(text) = self.text(service)? else { return Ok(()) };
        let Err(error) = serde_json::from_slice::<Vec<Release>>(&text) else { return Ok(()) };
        let (file, aside) = (self.file(service), self.folder.join(format!("{service}.json.broken")));
        fs::rename(&file, &aside)?;
        tracing::warn!(
            "{} is no history of releases ({error}); it is {} from now on, and another one begins",
            file.display(),
            aside.display()
        );
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.insert(service.clone(), highest(&String::from_utf8_lossy(&text)));
        Ok(())
    }

    /// What the file of a service says, if there is one.
    fn text(&self, service: &ServiceName) -> io::Result<Option<Vec<u8>>> {
        let file = match fs::File::open(self.file(service)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// The rollouts of a service, the oldest first.
    pub(crate) fn of(&self, service: &ServiceName) -> io::Result<Vec<Release>> {
        let Some(json) = self.text(service)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&json).map_err(|error| {
            let file = self.file(service);
            let text = format!(
                "{} is no history of releases ({error}); move it away to begin a new one",
                file.display()
            );
            io::Error::other(text)
        })
    }

    /// Notes that a rollout begins, and gives the number of its release.
    pub(crate) fn begin(&self, begin: Begin<'_>) -> io::Result<u64> {
        self.change(begin.service, |releases, before| {
            let next = releases.iter().map(|known| known.release).max().unwrap_or(before) + 1;
            let release = begin.release.unwrap_or(next);
            releases.push(Release {
                release,
                from: good(releases).map(|good| good.release),
                at: SystemTime::now().into(),
                ended_at: None,
                by: begin.by,
                cause: begin.cause,
                message: begin.message,
                source: begin.source,
                configured: begin.configured,
                revision: None,
                digest: begin.digest,
                outcome: Outcome::UnderWay,
                reason: None,
            });
            release
        })
    }

    /// Notes what the source of the last rollout of a release has turned out to be.
    pub(crate) fn made(
        &self,
        service: &ServiceName,
        release: u64,
        revision: Option<String>,
    ) -> io::Result<()> {
        self.change(service, |releases, _| {
            if let Some(last) = releases.iter_mut().rev().find(|known| known.release == release) {
                last.revision = revision;
            }
        })
    }

    /// Notes how the last rollout of a release has ended.
    pub(crate) fn end(
        &self,
        service: &ServiceName,
        release: u64,
        outcome: Outcome,
        reason: Option<String>,
    ) -> io::Result<()> {
        if self
            .of(service)?
            .iter()
            .all(|known| known.release != release || known.outcome != Outcome::UnderWay)
        {
            return Ok(());
        }
        self.change(service, |releases, _| {
            let mut open = releases.iter_mut().rev();
            if let Some(last) = open.find(|it| it.release == release && it.outcome == Outcome::UnderWay) {
                (last.outcome, last.reason, last.ended_at) =
                    (outcome, reason, Some(SystemTime::now().into()));
            }
        })
    }

    /// Notes that what was under way was cut off by the end of `lethe`.
    pub(crate) fn cut_off(&self, service: &ServiceName) -> io::Result<()> {
        if self.of(service)?.iter().all(|known| known.outcome != Outcome::UnderWay) {
            return Ok(());
        }
        self.change(service, |releases, _| {
            for open in releases.iter_mut().filter(|known| known.outcome == Outcome::UnderWay) {
                open.outcome = Outcome::Interrupted;
                open.reason = Some("lethe ended meanwhile".into());
            }
        })
    }

    /// Changes what is known of a service; told with it is the highest number that is not in it any more.
    fn change<T>(
        &self,
        service: &ServiceName,
        change: impl FnOnce(&mut Vec<Release>, u64) -> T,
    ) -> io::Result<T> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut releases = self.of(service)?;
        let changed = change(&mut releases, writing.get(service).copied().unwrap_or(0));
        // The last good one stays, however many have failed since.
        while releases.len() > KEPT {
            let good = good(&releases).map(|good| good.release);
            let oldest = releases.iter().position(|it| Some(it.release) != good).unwrap_or(0);
            releases.remove(oldest);
        }
        let json = serde_json::to_vec_pretty(&releases).map_err(io::Error::other)?;
        write(&self.file(service), &json)?;
        Ok(changed)
    }

    fn file(&self, service: &ServiceName) -> PathBuf {
        self.folder.join(format!("{service}.json"))
    }
}

/// The one that runs, or that ran last: the last that was promoted.
pub(crate) fn good(releases: &[Release]) -> Option<&Release> {
    releases.iter().rev().find(|known| known.outcome == Outcome::Promoted)
}

/// The last good one before the one that runs.
pub(crate) fn previous(releases: &[Release]) -> Option<&Release> {
    let current = good(releases)?.release;
    let mut promoted = releases.iter().rev().filter(|known| known.outcome == Outcome::Promoted);
    promoted.find(|known| known.release != current && known.release < current).or_else(|| {
        let mut promoted = releases.iter().rev().filter(|known| known.outcome == Outcome::Promoted);
        promoted.find(|known| known.release != current)
    })
}

/// What a service is to start from when `lethe` does, if that is not simply what the file says: the source and revision of
/// the last good release, when somebody chose it by hand or what came after it was not good; as long as the file names
/// the same source as it did then.
pub(crate) fn pinned<'a>(releases: &'a [Release], configured: Option<&str>) -> Option<&'a Release> {
    let good = good(releases)?;
    let is_by_hand = is_by_hand(releases, configured);
    let is_last = releases.last().is_some_and(|last| last.outcome == Outcome::Promoted);
    let is_same = good.configured.as_deref() == configured;
    (good.source.is_some() && is_same && (is_by_hand || !is_last)).then_some(good)
}

/// Whether somebody chose the version that runs: its source was named by hand or it was gone back to, or it has the version
/// of one that was, since only something else was edited then.
fn is_by_hand(releases: &[Release], configured: Option<&str>) -> bool {
    let mut promoted = releases.iter().rev().filter(|known| known.outcome == Outcome::Promoted).peekable();
    while let Some(release) = promoted.next() {
        if release.source.as_deref() != configured || release.cause == Cause::Rollback {
            return true;
        }
        let is_same =
            |before: &&Release| (&before.source, &before.revision) == (&release.source, &release.revision);
        let was_kept = release.cause == Cause::Reload && release.revision.is_some();
        if !was_kept || !promoted.peek().is_some_and(is_same) {
            return false;
        }
    }
    false
}

/// The highest number of a release in what may be anything.
fn highest(text: &str) -> u64 {
    let numbers = text.split("\"release\":").skip(1).filter_map(|rest| {
        let digits = rest.trim_start().split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    // Beyond that no honest number is.
    numbers.filter(|number| *number < u64::from(u32::MAX)).max().unwrap_or(0)
}

/// Replaced as a whole, so that it is always one or the other.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Ok(known) = fs::read(path)
        && let Ok(key) = known.try_into()
    {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    write(path, &key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    fn begin(history: &History, cause: Cause, release: Option<u64>, source: &str) -> u64 {
        let web = web();
        let (source, configured) = (Some(source.to_owned()), Some("git#main".to_owned()));
        let (by, message, digest) = (None, None, "0".into());
        history
            .begin(Begin { service: &web, release, cause, by, message, digest, source, configured })
            .unwrap()
    }

    #[test]
    fn bounded_and_the_last_good_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path()).unwrap();
        assert_eq!(begin(&history, Cause::Up, None, "git#main"), 1);
        history.end(&web(), 1, Outcome::Promoted, None).unwrap();
        for number in 2..2 + 2 * KEPT as u64 {
            assert_eq!(begin(&history, Cause::Deploy, None, "git#main"), number);
            history.end(&web(), number, Outcome::RolledBack, Some("it fails".into())).unwrap();
        }
        // Another process reads what this one has written.
        let releases = History::open(folder.path()).unwrap().of(&web()).unwrap();
        assert_eq!(releases.len(), KEPT);
        assert_eq!(releases[0].release, 1);
        assert_eq!((releases[1].release, releases[1].from), (2 * KEPT as u64 - KEPT as u64 + 3, Some(1)));
        assert_eq!(good(&releases).unwrap().release, 1);
    }

    #[test]
    fn what_cannot_be_read_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path()).unwrap();
        history.mend(&web()).unwrap();
        begin(&history, Cause::Up, None, "git#main");
        begin(&history, Cause::Deploy, None, "git#main");
        history.mend(&web()).unwrap();
        let file = folder.path().join("releases/web.json");
        let whole = fs::read_to_string(&file).unwrap();
        assert_eq!(history.of(&web()).unwrap().len(), 2, "it is as it was");
        for torn in [&whole[..whole.len() - 9], &whole.replace("\"deploy\"", "\"miracle\"")] {
            fs::write(&file, torn).unwrap();
            let error = history.of(&web()).unwrap_err().to_string();
            assert!(error.contains("web.json is no history of releases"), "{error}");
            history.mend(&web()).unwrap();
            assert!(history.of(&web()).unwrap().is_empty());
            assert_eq!(fs::read_to_string(file.with_extension("json.broken")).unwrap(), torn);
            assert_eq!(begin(&history, Cause::Up, None, "git#main"), 3, "no number comes twice");
        }
        fs::write(&file, "\u{0}").unwrap();
        History::open(folder.path()).unwrap().mend(&web()).unwrap();
        assert_eq!(begin(&History::open(folder.path()).unwrap(), Cause::Up, None, "git#main"), 1);
    }

    #[test]
    fn what_a_start_is_pinned_to() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path()).unwrap();
        let is_pinned = |to: Option<u64>| {
            let releases = history.of(&web()).unwrap();
            assert_eq!(pinned(&releases, Some("git#main")).map(|it| it.release), to);
            assert_eq!(pinned(&releases, Some("other")), None, "the file names another source now");
        };
        is_pinned(None);
        begin(&history, Cause::Up, None, "git#main");
        history.end(&web(), 1, Outcome::Promoted, None).unwrap();
        is_pinned(None);
        begin(&history, Cause::Deploy, None, "git#main");
        is_pinned(Some(1));
        history.cut_off(&web()).unwrap();
        assert_eq!(history.of(&web()).unwrap()[1].outcome, Outcome::Interrupted);
        is_pinned(Some(1));
        begin(&history, Cause::Deploy, None, "git#main");
        history.end(&web(), 3, Outcome::Promoted, None).unwrap();
        is_pinned(None);
        begin(&history, Cause::Deploy, None, "git#v2");
        history.end(&web(), 4, Outcome::Promoted, None).unwrap();
        is_pinned(Some(4));
        assert_eq!(previous(&history.of(&web()).unwrap()).unwrap().release, 3);
        begin(&history, Cause::Rollback, Some(3), "git#main");
        history.end(&web(), 3, Outcome::Promoted, None).unwrap();
        is_pinned(Some(3));
        assert_eq!(previous(&history.of(&web()).unwrap()).unwrap().release, 1);
        // Its environment is edited, and it is what was gone back to all the same.
        let reload = |revision: &str| {
            let release = begin(&history, Cause::Reload, None, "git#main");
            history.made(&web(), release, Some(revision.into())).unwrap();
            history.end(&web(), release, Outcome::Promoted, None).unwrap();
            release
        };
        history.made(&web(), 3, Some("abc".into())).unwrap();
        for _ in 0..2 {
            let release = reload("abc");
            is_pinned(Some(release));
        }
        reload("def");
        is_pinned(None);
        reload("def");
        is_pinned(None);
    }
}
