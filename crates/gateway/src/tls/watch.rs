//! The certificate files are looked at again and again, in one place for all cores, since those who renew certificates
//! only write files and tell nobody.

use std::{os::unix::fs::MetadataExt, path::Path, sync::PoisonError, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{Certificates, Error, Loaded};
use crate::config::Tls;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(5);

/// What tells one state of a file from another, with no need to read it; `None` when it cannot be looked at. Symbolic
/// links are followed, as they are when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<[i64; 7]>);

impl Stamp {
    fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|data| {
            let (device, inode, size) = (data.dev() as i64, data.ino() as i64, data.size() as i64);
            // The time of the last change of the inode cannot be set back, as that of the contents can.
            [device, inode, size, data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()]
        }))
    }
}

/// The state of all files that `tls` names.
pub(super) fn stamps(tls: &Tls) -> Vec<Stamp> {
    match tls {
        Tls::Files(files) => {
            files.iter().flat_map(|files| [&files.chain, &files.key]).map(|path| Stamp::of(path)).collect()
        }
        Tls::SelfSigned(_) => Vec::new(),
    }
}

/// What a look at the files came to.
#[derive(Debug)]
pub enum Look {
    /// They are as they were.
    Unchanged,
    /// They changed, and what is in them is in use; with what is wrong with it nevertheless, as sentences.
    Replaced(Vec<String>),
    /// They changed, but what is in them cannot be used: what was in use still is. This is said once for each change.
    Kept(Error),
}

impl Certificates {
    /// Looks at the files, and takes what is in them into use if they changed and are good. Blocks while it reads.
    pub fn look(&self) -> Look {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&source.tls);
        if stamps == source.stamps {
            return Look::Unchanged;
        }
        match Loaded::read(&source.tls) {
            Ok(loaded) => {
                let warnings = loaded.warnings().map(String::from).collect();
                let (new, table) = loaded.into_table();
                self.current.set(table);
                *source = new;
                Look::Replaced(warnings)
            }
            Err(error) => {
                // Those from before the files were read: what changed since then is looked at next time.
                source.stamps = stamps;
                Look::Kept(error)
            }
        }
    }

    /// Looks every five seconds, for ever, and says in the log what came of it. To be run once, not on each core.
    ///
    /// Cancel safety: a look that has begun is finished in its own thread.
    pub async fn watch(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A file system may be slow, or hang: no core waits for it.
            let certificates = self.clone();
            match tokio::task::spawn_blocking(move || certificates.look()).await {
                Ok(look) => report(&look),
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
    }
}

/// Says in the log what a look came to.
fn report(look: &Look) {
    match look {
        Look::Unchanged => {}
        Look::Replaced(warnings) => {
            tracing::info!("certificates were replaced by what is in their files now");
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Look::Kept(error) => {
            let cause =
                std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            tracing::error!("the files of a certificate changed, and the one in use is kept: {error}{cause}");
        }
    }
}
