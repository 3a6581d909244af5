//! `lethe state blobs`: files in buckets, listed, copied and removed.

use std::{io, os::fd::AsFd, path::Path, time::SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt};
use lethe_state::blobs::{BlobInfo, Blobs as Kind, ByteStream, Condition, LIST_MAX, Put};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::with;
use crate::{
    ansi,
    arguments::Target,
    figures, output,
    paint::Paint,
    table::{self, Cell, Column},
};

/// Standard input, or standard output.
const STANDARD: &str = "-";
/// What a blob's name begins with, as in `source` of a `lethe.toml`.
const SCHEME: &str = "blob:";

const COLUMNS: [Column; 4] =
    [Column::left("KEY", 0), Column::right("SIZE", 0), Column::right("AGE", 0), Column::left("TYPE", 0)];

#[derive(Debug, Subcommand)]
pub(super) enum Blobs {
    Ls(Ls),
    Cp(Cp),
    Rm(Rm),
}

/// List the blobs of a bucket
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// The bucket
    bucket: String,

    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: String,

    /// Only keys behind this one
    #[arg(long, value_name = "KEY")]
    after: Option<String>,

    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,

    #[command(flatten)]
    target: Target,
}

/// Copy a file to a blob, a blob to a file, or a blob to a blob
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe state blobs cp photo.png blob:photos/mug --type image/png
  lethe state blobs cp blob:photos/mug copy.png
  pg_dump shop | lethe state blobs cp - blob:backups/shop.sql
  lethe state blobs cp blob:backups/shop.sql - | psql shop")]
pub(super) struct Cp {
    /// A file, blob:BUCKET/KEY, or - for standard input
    from: String,

    /// A file, blob:BUCKET/KEY, or - for standard output
    to: String,

    /// The media type of the new blob [default: that of the old one, or application/octet-stream]
    #[arg(long = "type", value_name = "TYPE")]
    content_type: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// Remove a blob
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// As blob:BUCKET/KEY
    blob: String,
    #[command(flatten)]
    target: Target,
}

impl Blobs {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Ls(ls) => ls.run(),
            Self::Cp(cp) => cp.run(),
            Self::Rm(rm) => rm.run(),
        }
    }
}

impl Ls {
    fn run(self) -> anyhow::Result<()> {
        let (blobs, next) = with(&self.target, async |engines| {
            let (mut blobs, mut after) = (Vec::new(), self.after.clone());
            while blobs.len() < self.limit {
                let limit = (self.limit - blobs.len()).min(LIST_MAX);
                let page = engines.blobs.list(&self.bucket, &self.prefix, after.as_deref(), limit).await?;
                blobs.extend(page.blobs);
                after = page.next;
                if after.is_none() {
                    return Ok((blobs, None));
                }
            }
            Ok((blobs, after))
        })?;
        if self.target.json {
            return Ok(output::json(&json!({ "blobs": blobs, "next": next }))?);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let cells = |info: &BlobInfo| {
            let written = std::time::Duration::from_millis(u64::try_from(info.modified_at).unwrap_or(0));
            vec![
                Cell::new(ansi::clean(&info.key, false)),
                Cell::new(figures::bytes(info.size)),
                Cell::new(figures::age(now.saturating_sub(written))),
                Cell::new(ansi::clean(&info.content_type, false)),
            ]
        };
        let rows: Vec<Vec<Cell>> = blobs.iter().map(cells).collect();
        output::line(&table::lines(&COLUMNS, &rows, Paint::for_stdout()).join("\n"))?;
        if next.is_some() {
            output::line("there are more; raise --limit, or go on behind the last with --after")?;
        }
        Ok(())
    }
}

impl Cp {
    fn run(self) -> anyhow::Result<()> {
        let (from, to) = (blob(&self.from)?, blob(&self.to)?);
        let info = with(&self.target, async |engines| {
            let blobs = &*engines.blobs;
            match (from, to) {
                (Some(from), None) if self.to == STANDARD => print(blobs, from).await.map(|()| None),
                (None, Some(to)) => self.upload(blobs, to).await.map(Some),
                (Some(from), None) => download(blobs, from, Path::new(&self.to)).await.map(|()| None),
                (Some(from), Some(to)) => self.copy(blobs, from, to).await.map(Some),
                (None, None) => bail!("neither is a blob; write one as blob:BUCKET/KEY"),
            }
        })?;
        match info {
            Some(info) if self.target.json => Ok(output::json(&info)?),
            _ => Ok(()),
        }
    }

    fn put(&self, otherwise: &str) -> Put {
        let content_type = self.content_type.clone().unwrap_or_else(|| otherwise.to_owned());
        Put { content_type, ..Put::default() }
    }

    async fn upload(&self, blobs: &dyn Kind, (bucket, key): (&str, &str)) -> anyhow::Result<BlobInfo> {
        let put = self.put(&Put::default().content_type);
        let body = if self.from == STANDARD {
            let stdin = io::stdin().as_fd().try_clone_to_owned()?;
            ReaderStream::new(tokio::fs::File::from_std(stdin.into())).boxed()
        } else {
            let file = tokio::fs::File::open(&self.from).await;
            ReaderStream::new(file.with_context(|| format!("cannot read {}", self.from))?).boxed()
        };
        Ok(blobs.put(bucket, key, body, put).await?)
    }

    async fn copy(
        &self,
        blobs: &dyn Kind,
        from: (&str, &str),
        (bucket, key): (&str, &str),
    ) -> anyhow::Result<BlobInfo> {
        let read = blobs.get(from.0, from.1, None).await?.with_context(|| missing(from))?;
        let put = self.put(&read.info.content_type);
        Ok(blobs.put(bucket, key, read.body, put).await?)
    }
}

/// Writes a blob to standard output. One that breaks off has been written as far as it came.
async fn print(blobs: &dyn Kind, from: (&str, &str)) -> anyhow::Result<()> {
    let mut read = blobs.get(from.0, from.1, None).await?.with_context(|| missing(from))?;
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let mut out = tokio::fs::File::from_std(stdout.into());
    while let Some(piece) = read.body.try_next().await.context("the blob could not be read to its end")? {
        out.write_all(&piece).await?;
    }
    Ok(out.flush().await?)
}

/// Writes a blob into a new file beside the one it replaces, so that a copy that is cut leaves that as it was. A link goes on to
/// lead to it; a pipe, a device or whatever else is no file is written to.
async fn download(blobs: &dyn Kind, from: (&str, &str), to: &Path) -> anyhow::Result<()> {
    let mut read = blobs.get(from.0, from.1, None).await?.with_context(|| missing(from))?;
    let failed = || format!("cannot write {}", to.display());
    if to.metadata().is_ok_and(|found| !found.is_file()) {
        let mut out = tokio::fs::OpenOptions::new().write(true).open(to).await.with_context(failed)?;
        fill(&mut out, &mut read.body, failed).await?;
        return out.flush().await.with_context(failed);
    }
    let place = to.canonicalize().unwrap_or_else(|_| to.to_owned());
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".lethe-").tempfile_in(folder).with_context(failed)?;
    let (file, path) = beside.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    fill(&mut file, &mut read.body, failed).await?;
    file.sync_all().await.with_context(failed)?;
    path.persist(&place).with_context(failed)?;
    Ok(())
}

async fn fill(
    file: &mut tokio::fs::File,
    body: &mut ByteStream,
    failed: impl Fn() -> String,
) -> anyhow::Result<()> {
    while let Some(piece) = body.try_next().await.context("the blob could not be read to its end")? {
        file.write_all(&piece).await.with_context(&failed)?;
    }
    Ok(())
}

impl Rm {
    fn run(self) -> anyhow::Result<()> {
        let Some((bucket, key)) = blob(&self.blob)? else {
            bail!("`{}` is no blob; write it as blob:BUCKET/KEY", self.blob)
        };
        let existed = with(&self.target, async |engines| {
            Ok(engines.blobs.delete(bucket, key, Condition::Any, None).await?)
        })?;
        match existed {
            _ if self.target.json => Ok(output::json(&json!({ "existed": existed }))?),
            true => Ok(()),
            false => bail!(missing((bucket, key))),
        }
    }
}

/// The bucket and key of `blob:BUCKET/KEY`; `None` for the name of a file.
fn blob(text: &str) -> anyhow::Result<Option<(&str, &str)>> {
    let Some(name) = text.strip_prefix(SCHEME) else { return Ok(None) };
    match name.split_once('/') {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok(Some((bucket, key))),
        _ => bail!("`{text}` names no blob; write it as blob:BUCKET/KEY"),
    }
}

fn missing((bucket, key): (&str, &str)) -> String {
    format!("the bucket `{bucket}` has no blob `{key}`; `lethe state blobs ls {bucket}` lists them")
}
