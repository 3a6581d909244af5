//! What the command line says beside the source, from what was typed to what is meant.

use std::{net::SocketAddr, path::PathBuf};

use super::{Instances, Overrides, address, problem::Problem};

/// The overrides, understood.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) listen: Option<SocketAddr>,
    pub(super) instances: Option<Instances>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) tls_self_signed: bool,
}

impl Flags {
    /// Understands what was typed; what cannot be understood is told and left out.
    pub(super) fn read(overrides: Overrides) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut bad = |flag: &str, value: &str, why: String| {
            problems.push(Problem::new(format!("{flag} `{value}` {why}")));
        };
        let mut flags = Self { tls_self_signed: overrides.tls_self_signed, ..Self::default() };
        if let Some(text) = overrides.listen {
            flags.listen = address::parse(&text).map_err(|why| bad("--listen", &text, why)).ok();
        }
        if let Some(text) = overrides.instances {
            flags.instances = Instances::parse(&text).map_err(|why| bad("--instances", &text, why)).ok();
        }
        if let Some(path) = overrides.state_dir {
            let shown = path.display().to_string();
            match std::path::absolute(&path) {
                Ok(path) if path.exists() && !path.is_dir() => {
                    bad("--state-dir", &shown, "is a file, not a folder".into());
                }
                Ok(path) => flags.state_dir = Some(path),
                Err(_) => bad("--state-dir", &shown, "names no folder: write one such as `.lethe`".into()),
            }
        }
        (flags, problems)
    }
}
