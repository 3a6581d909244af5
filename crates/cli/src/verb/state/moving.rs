//! The two ends of a move: the `lethe` that runs, or engines by their addresses, without any.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use lethe_state::{
    Engines,
    embedded::{DATABASE, Embedded},
    error::Error,
    open,
    place::{Address, Kind, Placement, expand, public},
    portable::{Page, Part, Portable, Record, Whole},
    remote::Remote,
    revocations,
};
use sha2::{Digest, Sha256};

use super::dump::hex;
use crate::{arguments::Target, running};

/// A kind of state that can be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Movable {
    /// Tables
    Tables,
    /// Sessions, and the ids of those that have ended
    Sessions,
    /// Answers under idempotency keys
    Idempotency,
    /// Blobs
    Blobs,
}

impl Movable {
    const ALL: [Self; 4] = [Self::Tables, Self::Sessions, Self::Idempotency, Self::Blobs];

    fn kind(self) -> Kind {
        match self {
            Self::Tables => Kind::Tables,
            Self::Sessions => Kind::Sessions,
            Self::Idempotency => Kind::Idempotency,
            Self::Blobs => Kind::Blobs,
        }
    }

    fn parts(self) -> &'static [Part] {
        match self {
            Self::Tables => &[Part::Rows],
            Self::Sessions => &[Part::Ended, Part::Sessions],
            Self::Idempotency => &[Part::Answers],
            Self::Blobs => &[Part::Blobs],
        }
    }
}

/// One end.
pub(super) struct End {
    /// Its address, without what is secret.
    pub(super) name: String,
    /// What tells it from others, in a form from which nothing can be read.
    pub(super) identity: String,
    pub(super) engines: Engines,
    /// The parts that are moved, in their order; counters are always among them.
    pub(super) parts: BTreeSet<Part>,
    /// Kept open; closed at the end.
    embedded: Option<Embedded>,
}

impl End {
    /// Opens the engine at `address`, or else asks the `lethe` that `target` means. `only` are the kinds that are moved;
    /// all that are kept there, if none is named. A source must be there already.
    pub(super) async fn open(
        address: Option<&str>,
        target: &Target,
        only: &[Movable],
        is_source: bool,
    ) -> anyhow::Result<Self> {
        let Some(text) = address else {
            let node = running::node(target)?;
            let url = node
                .state
                .context("the lethe that runs is older and does not say where its state is; restart it")?;
            let engines = Remote::connect(&url)?.engines();
            let name = format!("the lethe of {}", node.state_dir.display());
            let identity = hashed(&name);
            return Ok(Self { name, identity, engines, parts: parts(only, |_| true)?, embedded: None });
        };
        let text = expand(text, &|name| std::env::var(name).ok()).map_err(anyhow::Error::msg)?;
        let address = Address::parse(&text).map_err(|why| anyhow::anyhow!("the address {why}"))?;
        open::check(&address).map_err(anyhow::Error::msg)?;
        let parts = parts(only, |kind| address.engine().keeps(kind))?;
        let (name, identity) = (address.to_string(), identity(&address)?);
        let (engines, embedded) = match &address {
            Address::Embedded(None) => {
                bail!("`embedded` names no folder here: write `embedded:FOLDER`, such as `embedded:.lethe`")
            }
            Address::Embedded(Some(folder)) => {
                ensure!(
                    !is_source || folder.join(DATABASE).exists(),
                    "{} has no state: it has no {DATABASE}",
                    folder.display()
                );
                let engine = open_folder(folder.clone()).await?;
                (engine.engines(), Some(engine))
            }
            Address::Url(engine, _) => {
                let mut placement = Placement { default: address.clone(), ..Placement::default() };
                for kind in Kind::ALL.into_iter().filter(|kind| !engine.keeps(*kind)) {
                    placement.kinds.insert(kind, Address::Embedded(None));
                }
                (open::open(&placement, &Engines::absent(engine.name()))?.engines, None)
            }
        };
        Ok(Self { name, identity, engines, parts, embedded })
    }

    /// Reads a page. An engine that is away for a moment is asked again by itself.
    pub(super) async fn dump(&self, part: Part, after: Option<&str>) -> anyhow::Result<Page> {
        let read = Whole(self.engines.clone()).dump(part, after).await;
        self.explain(part, read)
    }

    /// Whether there is nothing of this part. That sessions have ended is told in a table, which is not what anybody keeps.
    pub(super) async fn has_none(&self, part: Part) -> anyhow::Result<bool> {
        let is_kept = |record: &Record| match record {
            Record::Row(row) => row.table != revocations::TABLE,
            _ => true,
        };
        let mut next = None::<String>;
        loop {
            let page = self.dump(part, next.as_deref()).await?;
            if page.records.iter().any(is_kept) {
                return Ok(false);
            }
            next = page.next;
            if next.is_none() {
                return Ok(true);
            }
        }
    }

    /// Writes records of one part.
    pub(super) async fn restore(&self, part: Part, records: Vec<Record>) -> anyhow::Result<()> {
        let written = Whole(self.engines.clone()).restore(records).await;
        self.explain(part, written)
    }

    /// Waits until all is on the disk.
    pub(super) async fn close(self) {
        if let Some(embedded) = self.embedded {
            drop(self.engines);
            embedded.close().await;
        }
    }

    fn explain<T>(&self, part: Part, result: Result<T, Error>) -> anyhow::Result<T> {
        result
            .map_err(|error| match error {
                // Its own text says no more than that it failed.
                Error::Engine(cause) => anyhow::Error::from_boxed(cause),
                error => error.into(),
            })
            .with_context(|| format!("{} of {}", part.name(), self.name))
    }
}

/// What tells an engine from others: its address without the login, which may be another one tomorrow.
fn identity(address: &Address) -> anyhow::Result<String> {
    Ok(hashed(&match address {
        Address::Embedded(None) => "embedded".into(),
        Address::Embedded(Some(folder)) => format!("embedded:{}", std::path::absolute(folder)?.display()),
        Address::Url(_, url) => {
            let (place, options) = url.split_once('?').unwrap_or((url, ""));
            let options = options.split('&').filter(|option| !option.contains("password"));
            format!("{}?{}", public(place), options.collect::<Vec<_>>().join("&"))
        }
    }))
}

fn hashed(text: &str) -> String {
    hex(&Sha256::digest(text))
}

async fn open_folder(folder: PathBuf) -> anyhow::Result<Embedded> {
    let shown = folder.display().to_string();
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&folder)).await?;
    opened
        .map_err(|error| match error {
            Error::Engine(cause) => anyhow::Error::from_boxed(cause),
            error => error.into(),
        })
        .with_context(|| format!("cannot open embedded:{shown}; leave the address out for a lethe that runs"))
}

/// The parts of these kinds.
fn parts(only: &[Movable], keeps: impl Fn(Kind) -> bool) -> anyhow::Result<BTreeSet<Part>> {
    let mut parts = BTreeSet::from([Part::Counters]);
    for movable in Movable::ALL {
        let is_kept = keeps(movable.kind());
        if only.contains(&movable) && !is_kept {
            bail!("that engine does not keep {}", movable.kind().name());
        }
        if is_kept && (only.is_empty() || only.contains(&movable)) {
            parts.extend(movable.parts());
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_the_same_under_another_login_and_another_one_elsewhere() {
        let of = |text: &str| identity(&Address::parse(text).unwrap()).unwrap();
        let one = of("redis://ada:secret@cache/?namespace=shop&sentinel_password=x");
        assert_eq!(one, of("redis://bob:other@cache/?namespace=shop"));
        for other in [
            "redis://cache/?namespace=blog",
            "redis://cache/1?namespace=shop",
            "redis://other/?namespace=shop",
        ] {
            assert_ne!(one, of(other), "{other}");
        }
        let here = std::path::absolute("state").unwrap();
        assert_eq!(of("embedded:state"), of(&format!("embedded:{}", here.display())));
        assert_ne!(of("embedded:state"), of("embedded:other"));
    }
}
