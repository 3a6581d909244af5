//! The end of an import: all records are read back and compared with the dump, by number and by content. The bytes of blobs are not:
//! they were compared with their hash as they were written.

use std::collections::HashSet;

use anyhow::ensure;
use lethe_state::{
    Millis,
    clock::{Clock, SystemClock},
    portable::{Part, Record},
};
use sha2::{Digest, Sha256};

use super::{
    dump::{Folder, Imported, Manifest, name},
    moving::End,
    progress::Bar,
};

/// What expires sooner than this after the import is not compared: it may be gone by then. Nor are the rows that tell of ends of
/// sessions, which live no longer.
const COMPARED_FROM_MS: Millis = 3600 * 1000;

/// What is later than this is never, to engines that count in doubles.
const NEVER: Millis = 1 << 52;

/// Reads a part back, and compares it with the dump.
pub(super) async fn compare(
    folder: &Folder,
    manifest: &Manifest,
    target: &End,
    part: Part,
    imported: &Imported,
    is_quiet: bool,
) -> anyhow::Result<()> {
    let until = SystemClock.now() + COMPARED_FROM_MS;
    let has_fences = imported.fences_left == 0;
    let (mut expected, mut found) = (Sum::default(), Sum::default());
    for segment in &manifest.parts[&part].segments {
        for record in folder.records(segment)? {
            expected.add(record?, until, has_fences)?;
        }
    }
    let mut bar = Bar::checking(part.name(), manifest.parts[&part].records(), is_quiet);
    // Sixteen bytes for each record where an engine may come to one twice.
    let (mut seen, mut next) = (HashSet::new(), None::<String>);
    loop {
        let page = target.dump(part, next.as_deref()).await?;
        for record in page.records {
            if !page.repeats || seen.insert(name(&record)) {
                bar.add(1, record.value_bytes() as u64);
                found.add(record, until, has_fences)?;
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    bar.end();
    ensure!(
        expected.records == found.records,
        "{} has {} {} after the import, and the dump {}: is something else written there? Empty it and import again, while nobody \
         uses it",
        target.name,
        found.records,
        part.name(),
        expected.records
    );
    ensure!(
        expected == found,
        "{} of {} are as many as in the dump, but not the same: is something else written there? Empty it and import again, while \
         nobody uses it",
        part.name(),
        target.name
    );
    Ok(())
}

/// What records come to, whatever their order: how many there are, and the sum of their hashes.
#[derive(Default, PartialEq)]
struct Sum {
    records: u64,
    hashes: [u64; 4],
}

impl Sum {
    /// Adds a record that lasts until after `until`; of blobs also their fences, if `has_fences`.
    fn add(&mut self, mut record: Record, until: Millis, has_fences: bool) -> anyhow::Result<()> {
        if record.expires_at().is_some_and(|at| at <= until) {
            return Ok(());
        }
        match &mut record {
            Record::Blob(blob) => {
                if !has_fences {
                    blob.fence = None;
                    if blob.size.is_none() {
                        return Ok(());
                    }
                }
                // Only the dump has it. What was written was compared with it on its way.
                blob.sha256 = None;
            }
            // What engines know more or less exactly: a bound, times that are as good as never, until when an id is remembered.
            Record::Session(session) => {
                session.version = 0;
                for time in
                    [&mut session.idle_ms, &mut session.idle_expires_at, &mut session.absolute_expires_at]
                {
                    *time = (*time).min(NEVER);
                }
            }
            Record::Ended(ended) => ended.forget_at = 0,
            _ => {}
        }
        self.records += 1;
        let hash: [u8; 32] = Sha256::digest(serde_json::to_vec(&record)?).into();
        let (words, _) = hash.as_chunks::<8>();
        for (sum, word) in self.hashes.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
        Ok(())
    }
}
