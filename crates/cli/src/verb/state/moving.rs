//! The two ends of a move: the `lethe` that runs, or engines by their addresses, without any.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use lethe_state::{
    Engines,
    embedded::{DATABASE, Embedded},
    error::Error,
    open,
    place::{Address, Kind, Placement},
    portable::{Page, Part, Portable, Record, Whole},
    remote::Remote,
};

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
            return Ok(Self { name, engines, parts: parts(only, |_| true)?, embedded: None });
        };
        let address = Address::parse(text).map_err(|why| anyhow::anyhow!("the address {why}"))?;
        open::check(&address).map_err(anyhow::Error::msg)?;
        let parts = parts(only, |kind| address.engine().keeps(kind))?;
        let name = address.to_string();
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
                (open::open(&placement, &Engines::absent(engine.name()))?, None)
            }
        };
        Ok(Self { name, engines, parts, embedded })
    }

    /// Reads a page. An engine that is away for a moment is asked again by itself.
    pub(super) async fn dump(&self, part: Part, after: Option<&str>) -> anyhow::Result<Page> {
        let read = Whole(self.engines.clone()).dump(part, after).await;
        self.explain(part, read)
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
