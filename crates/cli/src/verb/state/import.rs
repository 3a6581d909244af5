//! `lethe state import`: a folder that was exported, into another engine.

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_util::StreamExt;
use lethe_state::{
    blobs::{BlobInfo, Blobs, ByteStream, Condition, Put},
    error::Error,
    portable::{Blob, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Part, Record},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;

use super::{
    compare::compare,
    dump::{Folder, Imported, Manifest, Segment, hex},
    moving::{End, Movable},
    progress::{Bar, grouped},
};
use crate::{arguments::Target, output};

/// How much of a blob's file is read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Bring what was exported into another engine
///
/// Into the lethe that runs, or into engines by their address, which must have nothing of it yet. An import that was interrupted goes
/// on where it was when it is run again. In the end all records are read back and compared; blobs' bytes are as they are written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe state import dump/
  lethe state import --to 'postgres://shop:${PASSWORD}@db/shop' --only tables --only sessions dump/
  lethe state import --to s3://photos --only blobs dump/")]
pub(super) struct Import {
    /// The folder
    folder: PathBuf,

    /// An address as in [state] of lethe.toml, or embedded:FOLDER; ${NAME} is taken from the environment [default: the lethe that runs]
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
        let (mut counts, mut said) = (serde_json::Map::new(), Vec::new());
        for part in parts.iter().copied().filter(|part| *part != Part::Counters) {
            compare(&folder, &manifest, &target, part, &imported, self.target.json).await?;
            let records = manifest.parts[&part].records();
            counts.insert(part.name().into(), json!(records));
            said.push(format!("{} {}", grouped(records), part.name()));
        }
        let name = target.name.clone();
        target.close().await;
        let fences_left = imported.fences_left;
        if self.target.json {
            let said = json!({ "target": name, "records": counts, "fences_left": fences_left });
            return Ok(output::json(&said)?);
        }
        if fences_left > 0 {
            output::line(&format!(
                "{} fences of blobs were left behind: that engine keeps none. Write such blobs without, or keep them elsewhere",
                grouped(fences_left)
            ))?;
        }
        Ok(output::line(&format!("all is in {name}, read back and compared: {}", said.join(", ")))?)
    }
}

/// What was imported before, if it is still there; else the target must have nothing yet.
async fn begin(folder: &Folder, target: &End, parts: &BTreeSet<Part>) -> anyhow::Result<Imported> {
    let begun = folder.imported()?.filter(|imported| imported.target_identity == target.identity);
    let mut occupied = None;
    for part in parts.iter().copied().filter(|part| *part != Part::Counters) {
        if !target.has_none(part).await? {
            occupied = Some(part);
            break;
        }
    }
    match (begun, occupied) {
        (Some(begun), Some(_)) => return Ok(begun),
        (None, Some(part)) => bail!(
            "{} has {} already: an import is for an engine that has none. Name another one, or remove what is there",
            target.name,
            part.name()
        ),
        (_, None) => {}
    }
    let imported = Imported {
        target: target.name.clone(),
        target_identity: target.identity.clone(),
        files: Vec::new(),
        fences_left: 0,
    };
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
        let (mut page, mut bytes, mut fences_left) = (Vec::new(), 0, 0);
        for record in folder.records(segment)? {
            let record = record?;
            if let Record::Blob(blob) = &record {
                let has_fence = put(folder, &*target.engines.blobs, blob).await?;
                fences_left += u64::from(!has_fence);
                bar.add(1, blob.size.unwrap_or(0));
                continue;
            }
            bytes += record.value_bytes();
            page.push(record);
            if page.len() == PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
                bar.add(page.len() as u64, bytes as u64);
                target.restore(part, std::mem::take(&mut page)).await?;
                bytes = 0;
            }
        }
        bar.add(page.len() as u64, bytes as u64);
        target.restore(part, page).await?;
        imported.fences_left += fences_left;
        imported.files.push(segment.file.clone());
        folder.keep_imported(imported)?;
    }
    bar.end();
    Ok(())
}

/// Writes a blob from its file, if that is as it was exported; or the fence of one that was deleted. Returns whether its fence, if it
/// has one, is there too.
async fn put(folder: &Folder, blobs: &dyn Blobs, blob: &Blob) -> anyhow::Result<bool> {
    let shown = || format!("blob:{}/{}", blob.bucket, blob.key);
    let Some(size) = blob.size else {
        let deleted = blobs.delete(&blob.bucket, &blob.key, Condition::Any, blob.fence).await;
        return match deleted {
            Err(Error::Unsupported { .. }) => Ok(false),
            deleted => deleted.map(|_| true).with_context(shown),
        };
    };
    let (info, has_fence) = match write(folder, blobs, blob, true).await? {
        Err(Error::Unsupported { .. }) if blob.fence.is_some() => {
            (write(folder, blobs, blob, false).await?, false)
        }
        info => (info, true),
    };
    let info = info.with_context(shown)?;
    ensure!(info.size == size, "{} has {} bytes there, and had {size}", shown(), info.size);
    Ok(has_fence)
}

async fn write(
    folder: &Folder,
    blobs: &dyn Blobs,
    blob: &Blob,
    with_fence: bool,
) -> anyhow::Result<Result<BlobInfo, Error>> {
    let shown = || format!("blob:{}/{}", blob.bucket, blob.key);
    let sha256 = blob.sha256.clone().with_context(|| format!("the dump has no hash of {}", shown()))?;
    let path = folder.blob(&blob.bucket, &blob.key);
    let file = tokio::fs::File::open(&path).await;
    let file = file.with_context(|| format!("cannot read {}, which has {}", path.display(), shown()))?;
    let content_type = blob.content_type.clone().unwrap_or_else(|| Put::default().content_type);
    let put = Put { content_type, fence: blob.fence.filter(|_| with_fence), ..Put::default() };
    let body = checked(ReaderStream::with_capacity(file, PIECE_BYTES).boxed(), sha256);
    Ok(blobs.put(&blob.bucket, &blob.key, body, put).await)
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
