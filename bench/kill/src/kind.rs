//! The kinds of request that are measured: what is asked, what is sent along, and what must come back.

use std::time::Duration;

use clap::ValueEnum;

/// A kind of request. Its name is the first segment of the path, its request's id the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// GET, 512 bytes, answered whole after the work is done.
    Small,
    /// GET, 32 KiB: the first half comes at once, the second after the work, so that most deaths come half-way.
    Half,
    /// GET, 2 MiB, in steps over a tenth of a second.
    Large,
    /// PUT of 512 bytes.
    Put,
    /// PUT of 256 KiB.
    PutLarge,
    /// POST of 512 bytes.
    Post,
    /// POST of 256 KiB.
    PostLarge,
    /// POST of 512 bytes with an `Idempotency-Key`.
    Key,
    /// POST of 256 KiB with an `Idempotency-Key`.
    KeyLarge,
}

impl Kind {
    /// Its name in paths, records and flags.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Small => "small",
            Kind::Half => "half",
            Kind::Large => "large",
            Kind::Put => "put",
            Kind::PutLarge => "put-large",
            Kind::Post => "post",
            Kind::PostLarge => "post-large",
            Kind::Key => "key",
            Kind::KeyLarge => "key-large",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|kind| kind.name() == name)
    }

    /// The method.
    pub fn method(self) -> &'static str {
        match self {
            Kind::Small | Kind::Half | Kind::Large => "GET",
            Kind::Put | Kind::PutLarge => "PUT",
            Kind::Post | Kind::PostLarge | Kind::Key | Kind::KeyLarge => "POST",
        }
    }

    /// How much is sent with the request.
    pub fn request_bytes(self) -> usize {
        match self {
            Kind::Small | Kind::Half | Kind::Large => 0,
            Kind::Put | Kind::Post | Kind::Key => 512,
            Kind::PutLarge | Kind::PostLarge | Kind::KeyLarge => 256 * 1024,
        }
    }

    /// How much comes back.
    pub fn response_bytes(self) -> usize {
        match self {
            Kind::Small => 512,
            Kind::Half => 32 * 1024,
            Kind::Large => 2 * 1024 * 1024,
            _ => 64,
        }
    }

    /// Whether the request changes something.
    pub fn writes(self) -> bool {
        self.request_bytes() > 0
    }

    /// Whether the request carries an `Idempotency-Key`.
    pub fn has_key(self) -> bool {
        matches!(self, Kind::Key | Kind::KeyLarge)
    }

    /// A connection sends one request of this kind in this time, on average: failing quickly is not rewarded with more
    /// requests to fail at, and nothing is measured at the limit of the machine.
    pub fn period(self) -> Duration {
        match self {
            Kind::Large => Duration::from_millis(130),
            Kind::PutLarge | Kind::PostLarge | Kind::KeyLarge => Duration::from_millis(80),
            _ => Duration::from_millis(40),
        }
    }
}
