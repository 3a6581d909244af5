//! `lethe state cache`: what a cache holds, and an end to it, of one value or of all.

use std::{
    io::{self, Write},
    str,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::with;
use crate::{arguments::Target, figures, output};

#[derive(Debug, Subcommand)]
pub(super) enum Caches {
    Usage(Usage),
    Get(Get),
    Remove(Remove),
    Clear(Clear),
}

/// Print how much a cache holds
#[derive(Debug, Args)]
pub(super) struct Usage {
    /// The cache
    cache: String,
    #[command(flatten)]
    target: Target,
}

/// Print a value, byte for byte
#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    entry: Place,
    #[command(flatten)]
    target: Target,
}

/// Remove a value, so that it is computed anew
///
/// A value that is just being computed is not kept then.
#[derive(Debug, Args)]
pub(super) struct Remove {
    #[command(flatten)]
    entry: Place,
    #[command(flatten)]
    target: Target,
}

/// Remove all values of a cache
#[derive(Debug, Args)]
pub(super) struct Clear {
    /// The cache
    cache: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Place {
    /// The cache
    cache: String,
    /// The key
    key: String,
}

impl Caches {
    /// Does it.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Usage(usage) => usage.run(),
            Self::Get(get) => get.run(),
            Self::Remove(remove) => remove.run(),
            Self::Clear(clear) => clear.run(),
        }
    }
}

impl Usage {
    fn run(self) -> anyhow::Result<()> {
        let usage = with(&self.target, async |engines| Ok(engines.cache.usage(&self.cache).await?))?;
        if self.target.json {
            return Ok(output::json(&usage)?);
        }
        let noun = if usage.entries == 1 { "entry" } else { "entries" };
        Ok(output::line(&format!("{} {noun}, {}", usage.entries, figures::bytes(usage.bytes)))?)
    }
}

impl Get {
    fn run(self) -> anyhow::Result<()> {
        let Place { cache, key } = &self.entry;
        let entry = with(&self.target, async |engines| Ok(engines.cache.get(cache, key).await?))?;
        let entry = entry.with_context(|| format!("the cache `{cache}` has nothing under `{key}`"))?;
        if self.target.json {
            let (value, encoding) = match entry.value.as_deref().map(|value| (value, str::from_utf8(value))) {
                None => (None, "utf8"),
                Some((_, Ok(text))) => (Some(text.to_owned()), "utf8"),
                Some((value, Err(_))) => {
                    (Some(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, value)), "base64")
                }
            };
            let (fresh_ms, left_ms) = (entry.fresh.as_millis() as u64, entry.left.as_millis() as u64);
            let entry =
                json!({ "value": value, "encoding": encoding, "fresh_ms": fresh_ms, "left_ms": left_ms });
            return Ok(output::json(&entry)?);
        }
        let Some(value) = entry.value else {
            bail!("the cache `{cache}` remembers that there is nothing under `{key}`")
        };
        let mut out = io::stdout().lock();
        out.write_all(&value)?;
        Ok(out.flush()?)
    }
}

impl Remove {
    fn run(self) -> anyhow::Result<()> {
        let Place { cache, key } = &self.entry;
        with(&self.target, async |engines| Ok(engines.cache.remove(cache, key).await?))
    }
}

impl Clear {
    fn run(self) -> anyhow::Result<()> {
        with(&self.target, async |engines| Ok(engines.cache.clear(&self.cache).await?))
    }
}
