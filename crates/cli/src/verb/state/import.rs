//! `lethe state import`: a folder that was exported, into another engine.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_util::StreamExt;
use lethe_state::{
    Millis,
    blobs::{Blobs, ByteStream, Condition, Put},
    clock::{Clock, SystemClock},
    portable::{Blob, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Part, Record},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;

use super::{
    dump::{Folder, Imported, Manifest, Segment, hex, name},
    moving::{End, Movable},
    progress::Bar,
};
use crate::{arguments::Target, output};

/// What expires sooner than this after the import is not compared at its end: it may be gone by then.
const COMPARED_FROM_MS: Millis = 3600 * 1000;

/// What is later than this is never, to engines that count in doubles.
const NEVER: Millis = 1 << 52;

/// Bring what was exported into another engine
///
/// Into the lethe that runs, or into engines by their address, which must have nothing of it yet. An import that was interrupted goes
/// on where it was when it is run again. In the end all is read back and compared.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe state import dump/
  lethe state import --to postgres://shop@db/shop --only tables --only sessions dump/")]
pub(super) struct Import {
    /// The folder
    folder: PathBuf,

    /// An address as in [state] of lethe.toml, or embedded:FOLDER [default: the lethe that runs]
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// Only this kind; can be given several times [default: all that the dump has and that are kept there]
    #[arg(long, value_name = "KIND", value_enum)]
    only: Vec<Movable>,

    #[command(flatten)]
    target: Target,
}

impl Import {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?
            .block_on(self.import())
    }

    async fn import(self) -> anyhow::Result<()> {
        let folder = Folder::open(&self.folder)?;
        let manifest = folder.manifest()?.context("the dump has no list of its files")?;
        ensure!(
            manifest.is_complete,
            "{} is not whole: the export was interrupted. Run it again, with the same words, and it goes on",
            self.folder.display()
        );
        let target = End::open(self.to.as_deref(), &self.target, &self.only, false).await?;
        let parts: BTreeSet<Part> =
            target.parts.iter().copied().filter(|part| manifest.parts.contains_key(part)).collect();
        let left: Vec<&str> =
            manifest.parts.keys().filter(|part| !parts.contains(part)).map(|part| part.name()).collect();
        if !left.is_empty() && !self.target.json {
            output::line(&format!("not imported here: {}", left.join(", ")))?;
        }
        let mut imported = begin(&folder, &target, &parts).await?;
        for part in &parts {
            import_part(&folder, &manifest, &target, *part, &mut imported, self.target.json).await?;
        }
        let mut counts = serde_json::Map::new();
        for part in parts.iter().copied().filter(|part| *part != Part::Counters) {
            compare(&folder, &manifest, &target, part).await?;
            counts.insert(part.name().into(), json!(manifest.parts[&part].records()));
        }
        let name = target.name.clone();
        target.close().await;
        if self.target.json {
            return Ok(output::json(&json!({ "target": name, "records": counts }))?);
        }
        Ok(output::line(&format!("all is in {name}, read back and compared"))?)
    }
}

/// What was imported before; else the target must have nothing yet.
async fn begin(folder: &Folder, target: &End, parts: &BTreeSet<Part>) -> anyhow::Result<Imported> {
    if let Some(imported) = folder.imported()?
        && imported.target == target.name
    {
        return Ok(imported);
    }
    for part in parts.iter().copied().filter(|part| *part != Part::Counters) {
        let found = target.dump(part, None).await?;
        if !found.records.is_empty() {
            bail!(
                "{} has {} already: an import is for an engine that has none. Name another one, or remove what is there",
                target.name,
                part.name()
            );
        }
    }
    let imported = Imported { target: target.name.clone(), files: Vec::new() };
    folder.keep_imported(&imported)?;
    Ok(imported)
}

async fn import_part(
    folder: &Folder,
    manifest: &Manifest,
    target: &End,
    part: Part,
    imported: &mut Imported,
    is_quiet: bool,
) -> anyhow::Result<()> {
    let progress = &manifest.parts[&part];
    let is_done = |segment: &&Segment| imported.files.contains(&segment.file);
    let done = progress.segments.iter().filter(is_done).map(|segment| segment.records).sum();
    let mut bar = Bar::new(part.name(), Some(progress.records()), done, is_quiet || part == Part::Counters);
    for segment in &progress.segments {
        if imported.files.contains(&segment.file) {
            continue;
        }
        folder.check(segment)?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        for record in folder.records(segment)? {
            let record = record?;
            if let Record::Blob(blob) = &record {
                let size = put(folder, &*target.engines.blobs, blob).await?;
                bar.add(1, size);
                continue;
            }
            bytes += weight(&record);
            page.push(record);
            if page.len() == PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
                bar.add(page.len() as u64, bytes as u64);
                target.restore(part, std::mem::take(&mut page)).await?;
                bytes = 0;
            }
        }
        bar.add(page.len() as u64, bytes as u64);
        target.restore(part, page).await?;
        imported.files.push(segment.file.clone());
        folder.keep_imported(imported)?;
    }
    bar.end();
    Ok(())
}

/// How many bytes of values a record has.
fn weight(record: &Record) -> usize {
    match record {
        Record::Row(row) => row.value.0.len(),
        Record::Session(session) => session.fields.values().map(|(value, _)| value.to_string().len()).sum(),
        Record::Answer(answer) => answer.body.0.len(),
        Record::Counter(_) | Record::Ended(_) | Record::Blob(_) => 0,
    }
}

/// Writes a blob from its file, if that is as it was exported; or the fence of one that was deleted.
async fn put(folder: &Folder, blobs: &dyn Blobs, blob: &Blob) -> anyhow::Result<u64> {
    let shown = || format!("blob:{}/{}", blob.bucket, blob.key);
    let (Some(size), Some(sha256)) = (blob.size, &blob.sha256) else {
        blobs.delete(&blob.bucket, &blob.key, Condition::Any, blob.fence).await.with_context(shown)?;
        return Ok(0);
    };
    let path = folder.blob(&blob.bucket, &blob.key);
    let file = tokio::fs::File::open(&path).await;
    let file = file.with_context(|| format!("cannot read {}, which has {}", path.display(), shown()))?;
    let content_type = blob.content_type.clone().unwrap_or_else(|| Put::default().content_type);
    let put = Put { content_type, fence: blob.fence, ..Put::default() };
    let body = checked(ReaderStream::new(file).boxed(), sha256.clone());
    let info = blobs.put(&blob.bucket, &blob.key, body, put).await;
    let info = info.with_context(|| format!("{}, from {}", shown(), path.display()))?;
    ensure!(info.size == size, "{} has {} bytes there, and had {size}", shown(), info.size);
    Ok(size)
}

/// The same bytes, and an error at their end if they are not those with this hash: then nothing is written.
fn checked(body: ByteStream, sha256: String) -> ByteStream {
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let hashing = Arc::clone(&hash);
    let pieces = body.inspect(move |piece| {
        if let Ok(piece) = piece {
            hashing.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
        }
    });
    let end = futures_util::stream::once(async move {
        let found = hex(&hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize());
        match found == sha256 {
            true => None,
            false => Some(Err(io::Error::other("the file is damaged: its SHA-256 is not that of the dump"))),
        }
    });
    pieces.chain(end.filter_map(async |end| end)).boxed()
}

/// What records come to, whatever their order: how many there are, and the sum of their hashes.
#[derive(Default, PartialEq)]
struct Sum {
    records: u64,
    hashes: [u64; 4],
}

impl Sum {
    /// Adds a record that lasts until after `until`.
    fn add(&mut self, mut record: Record, until: Millis) -> anyhow::Result<()> {
        if record.expires_at().is_some_and(|at| at <= until) {
            return Ok(());
        }
        match &mut record {
            // Only the dump has it. What was written was compared with it on its way.
            Record::Blob(blob) => blob.sha256 = None,
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

/// Reads a part back, and compares it with the dump.
async fn compare(folder: &Folder, manifest: &Manifest, target: &End, part: Part) -> anyhow::Result<()> {
    let until = SystemClock.now() + COMPARED_FROM_MS;
    let (mut expected, mut found) = (Sum::default(), Sum::default());
    for segment in &manifest.parts[&part].segments {
        for record in folder.records(segment)? {
            expected.add(record?, until)?;
        }
    }
    // Sixteen bytes for each record where an engine may come to one twice.
    let (mut seen, mut next) = (HashSet::new(), None::<String>);
    loop {
        let page = target.dump(part, next.as_deref()).await?;
        for record in page.records {
            if !page.repeats || seen.insert(name(&record)) {
                found.add(record, until)?;
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    ensure!(
        expected.records == found.records,
        "{} has {} {} after the import, and the dump {}: is something else written there? Import into an engine that nobody uses",
        target.name,
        found.records,
        part.name(),
        expected.records
    );
    ensure!(
        expected == found,
        "{} of {} are as many as in the dump, but not the same: is something else written there? Import into an engine that nobody uses",
        part.name(),
        target.name
    );
    Ok(())
}
