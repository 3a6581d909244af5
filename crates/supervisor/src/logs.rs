//! What workers print, line by line, kept outside them so that it survives them.

use std::time::SystemTime;

use lethe_model::service::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The worker's standard output.
    Stdout,
    /// The worker's standard error.
    Stderr,
    /// The supervisor, about the worker: started, ready, died, replaced.
    Lethe,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read.
    pub at: SystemTime,
    /// The worker's service.
    pub service: ServiceName,
    /// The worker.
    pub instance: InstanceId,
    /// Where it came from.
    pub source: Source,
    /// The text, without its line end; invalid UTF-8 is replaced, and a line over the limit is cut into several.
    pub text: String,
}
