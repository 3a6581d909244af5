//! The service that is recorded, where no other one runs: in a world of its own if there can be one.

use std::{net::TcpStream, sync::Arc, time::Duration};

use lethe_prover::{scratch::Scratch, worker::Error};

use super::{
    apart::Apart,
    process::Process,
    proxy::{CONNECT_MAX, Way},
};
use crate::verb::prove::{source::Chosen, tier::Tier};

/// How long it may take to end after SIGTERM.
pub(super) const END_MAX: Duration = Duration::from_secs(5);

/// Where it is to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// In a world of its own; else in a copy of its folder if it may; else here, and that is said.
    Apart { may_copy: bool },
    /// In its folder.
    Here,
}

/// The service. It is killed when this is dropped.
pub(super) enum Service {
    /// What it writes is gone with it.
    Apart(Apart),
    /// What it writes stays: that was wished, or no world can be made here, for this reason.
    Here(Process, Option<Error>),
}

impl Service {
    /// Starts it, and waits until it listens, for no longer than `start_timeout` seconds.
    pub(super) async fn start(
        chosen: Chosen,
        wish: Wish,
        scratch: Arc<Scratch>,
        tier: Option<&Tier>,
        start_timeout: u64,
    ) -> anyhow::Result<Self> {
        let mut refusal = None;
        if let Wish::Apart { may_copy } = wish {
            match Apart::start(scratch, chosen.service(start_timeout, tier), may_copy).await {
                Ok(apart) => return Ok(Self::Apart(apart)),
                Err(none @ Error::NoWorlds(_)) => refusal = Some(none),
                Err(error @ Error::NotListening { .. }) => {
                    return Err(anyhow::Error::from(error).context(
                        "the service does not start in a world of its own, from which it reaches no other machine: if it needs one, \
                         pass --in-place",
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let (command, directory, mut env) = chosen.into_program();
        env.extend(tier.map(|tier| ("LETHE_STATE".to_owned(), tier.url().to_owned())));
        let limit = Duration::from_secs(start_timeout);
        Ok(Self::Here(Process::start(&command, &directory, env, limit).await?, refusal))
    }

    /// What opens connections to it.
    pub(super) fn way(&self) -> Way {
        match self {
            Self::Apart(apart) => apart.way(),
            Self::Here(process, _) => {
                let address = process.address();
                Arc::new(move || TcpStream::connect_timeout(&address, CONNECT_MAX))
            }
        }
    }

    /// What becomes of what it writes, in a sentence.
    pub(super) fn of_files(&self) -> String {
        match self {
            Self::Apart(apart) if apart.is_copied() => {
                "what the service writes to its folder is gone when the recording ends; what it writes elsewhere stays".into()
            }
            Self::Apart(_) => "what the service writes to files is gone when the recording ends".into(),
            Self::Here(_, refusal) => {
                let why = refusal.as_ref().map(|refusal| format!(" ({refusal})")).unwrap_or_default();
                format!(
                    "what the service writes to files stays: remove it before a proof, or all workers will find it there{why}"
                )
            }
        }
    }

    /// What it cannot reach, in a sentence.
    pub(super) fn of_network(&self) -> Option<&'static str> {
        match self {
            Self::Apart(apart) if !apart.is_copied() => Some(
                "the service reaches what listens on this machine, and no other machine: --in-place if it needs one",
            ),
            _ => None,
        }
    }

    /// Waits until it has ended, and says how. Cancellation safe.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Apart(apart) => apart.ended().await,
            Self::Here(process, _) => process.ended().await,
        }
    }

    /// Ends it, and all that it has started.
    pub(super) async fn end(self) {
        match self {
            Self::Apart(apart) => apart.end().await,
            Self::Here(process, _) => process.end().await,
        }
    }
}
