//! `lethe state export`: all that is kept, into a folder.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::TryStreamExt;
use lethe_state::{
    blobs::Blobs,
    portable::{Blob, Part, Record},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{
    dump::{FORMAT, Folder, Manifest, Progress, create, hex, name},
    moving::{End, Movable},
    progress::Bar,
};
use crate::{arguments::Target, output};

/// A file of records ends behind the page with which it reaches so many bytes, blobs' own included: what is done again
/// when an export was interrupted.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Write all that is kept into a folder
///
/// From the lethe that runs, or from engines by their address. An export that was interrupted goes on where it was when it is
/// run again. What is written meanwhile may be in it or not: for a move, stop the services first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe state export dump/
  lethe state export --from redis://cache-1/ --only tables --only sessions dump/")]
pub(super) struct Export {
    /// The folder; made, or gone on with
    folder: PathBuf,

    /// An address as in [state] of lethe.toml, or embedded:FOLDER; ${NAME} is taken from the environment [default: the lethe that runs]
    #[arg(long, value_name = "URL")]
    from: Option<String>,

    /// Only this kind; can be given several times [default: all that are kept there]
    #[arg(long, value_name = "KIND", value_enum)]
    only: Vec<Movable>,

    #[command(flatten)]
    target: Target,
}

impl Export {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?
            .block_on(self.export())
    }

    async fn export(self) -> anyhow::Result<()> {
        let source = End::open(self.from.as_deref(), &self.target, &self.only, true).await?;
        let folder = Folder::create(&self.folder)?;
        let mut manifest = begin(&folder, &source, &self.folder)?;
        // Counters last: they are to be no less than anything that was read.
        let counters = |part: &Part| *part == Part::Counters;
        let others = source.parts.iter().copied().filter(|part| !counters(part));
        for part in others.chain([Part::Counters]).collect::<Vec<_>>() {
            export_part(&folder, &mut manifest, &source, part, self.target.json).await?;
        }
        manifest.is_complete = true;
        folder.keep_manifest(&manifest)?;
        source.close().await;
        let counts: serde_json::Map<_, _> = manifest
            .parts
            .iter()
            .filter(|(part, _)| **part != Part::Counters)
            .map(|(part, progress)| (part.name().to_owned(), json!(progress.records())))
            .collect();
        if self.target.json {
            return Ok(output::json(&json!({ "folder": self.folder, "records": counts }))?);
        }
        Ok(output::line(&format!(
            "all is in {}; `lethe state import` brings it elsewhere",
            self.folder.display()
        ))?)
    }
}

/// A new list, or that of an export that was interrupted.
fn begin(folder: &Folder, source: &End, shown: &Path) -> anyhow::Result<Manifest> {
    let parts = || source.parts.iter().map(|part| (*part, Progress::default())).collect();
    let Some(manifest) = folder.manifest()? else {
        let manifest = Manifest {
            format: FORMAT,
            source: source.name.clone(),
            source_identity: source.identity.clone(),
            is_complete: false,
            parts: parts(),
        };
        folder.keep_manifest(&manifest)?;
        return Ok(manifest);
    };
    let shown = shown.display();
    ensure!(
        !manifest.is_complete,
        "{shown} has a whole dump already, of {}: name another folder",
        manifest.source
    );
    ensure!(
        manifest.source_identity == source.identity && manifest.parts.keys().eq(&source.parts),
        "{shown} has a part of a dump of {}: go on with the same source and the same --only, or name another folder",
        manifest.source
    );
    Ok(manifest)
}

async fn export_part(
    folder: &Folder,
    manifest: &mut Manifest,
    source: &End,
    part: Part,
    is_quiet: bool,
) -> anyhow::Result<()> {
    let progress = manifest.parts.entry(part).or_default();
    if progress.is_complete {
        return Ok(());
    }
    let (mut next, mut number) = (progress.next.clone(), progress.segments.len());
    let done = progress.records();
    let mut seen = Seen::default();
    let mut bar = Bar::new(part.name(), None, done, is_quiet || part == Part::Counters);
    loop {
        number += 1;
        let mut writing = folder.begin(part, number)?;
        let mut bytes_of_blobs = 0;
        loop {
            let page = source.dump(part, next.as_deref()).await?;
            if let Some(total) = page.total {
                bar.expect(total);
            }
            for mut record in page.records {
                if page.repeats && !seen.is_new(folder, &manifest.parts[&part], &record)? {
                    continue;
                }
                let before = writing.bytes;
                let mut size = 0;
                if let Record::Blob(blob) = &mut record {
                    let Some(copied) = fetch(folder, &*source.engines.blobs, blob).await? else { continue };
                    size = copied;
                }
                writing.add(&record)?;
                bytes_of_blobs += size;
                bar.add(1, writing.bytes - before + size);
            }
            next = page.next;
            if next.is_none() || writing.bytes + bytes_of_blobs >= SEGMENT_BYTES {
                break;
            }
        }
        let segment = writing.end()?;
        let progress = manifest.parts.entry(part).or_default();
        progress.segments.push(segment);
        (progress.next, progress.is_complete) = (next.clone(), next.is_none());
        folder.keep_manifest(manifest)?;
        if next.is_none() {
            bar.end();
            return Ok(());
        }
    }
}

/// What is in the dump already of a part whose engine may come to one thing twice: sixteen bytes for each.
#[derive(Default)]
struct Seen {
    names: Option<HashSet<u128>>,
}

impl Seen {
    /// Whether a record is there for the first time. Those of files that an earlier try has written are read first.
    fn is_new(&mut self, folder: &Folder, progress: &Progress, record: &Record) -> anyhow::Result<bool> {
        let names = match &mut self.names {
            Some(names) => names,
            empty => {
                let mut names = HashSet::new();
                for segment in &progress.segments {
                    for written in folder.records(segment)? {
                        names.insert(name(&written?));
                    }
                }
                empty.insert(names)
            }
        };
        Ok(names.insert(name(record)))
    }
}

/// Copies the bytes of a blob, and notes what they are; `None` when it was deleted meanwhile.
async fn fetch(folder: &Folder, blobs: &dyn Blobs, blob: &mut Blob) -> anyhow::Result<Option<u64>> {
    if blob.size.is_none() {
        return Ok(Some(0));
    }
    let shown = format!("blob:{}/{}", blob.bucket, blob.key);
    let Some(mut read) = blobs.get(&blob.bucket, &blob.key, None).await.with_context(|| shown.clone())?
    else {
        return Ok(None);
    };
    let path = folder.blob(&blob.bucket, &blob.key);
    let beside = path.with_extension("part");
    let failed = || format!("cannot write {}", beside.display());
    let mut file = tokio::fs::File::from_std(create(&beside).with_context(failed)?);
    let (mut hash, mut size) = (Sha256::new(), 0);
    while let Some(piece) =
        read.body.try_next().await.with_context(|| format!("{shown} could not be read to its end"))?
    {
        hash.update(&piece);
        size += piece.len() as u64;
        file.write_all(&piece).await.with_context(failed)?;
    }
    file.sync_all().await.with_context(failed)?;
    fs::rename(&beside, &path).with_context(failed)?;
    // As it is now: another one may have been written since the list was read.
    (blob.size, blob.content_type) = (Some(size), Some(read.info.content_type));
    blob.sha256 = Some(hex(&hash.finalize()));
    Ok(Some(size))
}
