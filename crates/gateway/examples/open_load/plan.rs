//! What is asked for on the command line, and when each request is due.

use std::{error::Error, time::Duration};

use crate::connection::{Target, trusting};

const USAGE: &str = "usage: open_load ADDRESS PATH --rate REQUESTS_PER_SECOND [--seconds NUMBER] [--connections NUMBER] \
                     [--post BYTES] [--close] [--tls CERTIFICATE] [--h2]";
/// Arrivals are the same in every run.
const SEED: u64 = 0x1e7e;

/// What is asked for.
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) connections: usize,
    rate: f64,
    seconds: f64,
}

impl Plan {
    pub(crate) fn from_arguments() -> Result<Self, Box<dyn Error>> {
        let mut arguments = std::env::args().skip(1);
        let mut target = Target {
            address: arguments.next().ok_or(USAGE)?.parse()?,
            path: arguments.next().ok_or(USAGE)?,
            post: None,
            close: false,
            h2: false,
            tls: None,
        };
        let (mut rate, mut seconds, mut connections, mut certificate) = (None, 5.0, 32, None);
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            match option.as_str() {
                "--rate" => rate = Some(value()?.parse()?),
                "--seconds" => seconds = value()?.parse()?,
                "--connections" => connections = value()?.parse()?,
                "--post" => target.post = Some(value()?.parse()?),
                "--close" => target.close = true,
                "--h2" => target.h2 = true,
                "--tls" => certificate = Some(value()?),
                _ => return Err(USAGE.into()),
            }
        }
        if target.h2 && (target.post.is_some() || target.close) {
            return Err("--h2 goes neither with --post nor with --close".into());
        }
        if let Some(path) = certificate {
            target.tls = Some(trusting(&path, target.h2)?);
        }
        Ok(Self { target, connections, rate: rate.ok_or(USAGE)?, seconds })
    }

    /// How long a backlog is worked off before what is left of it is given up, from the start.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_secs_f64(self.seconds * 2.0)
    }

    /// When requests are due, from the start.
    pub(crate) fn arrivals(&self) -> Vec<Duration> {
        let (mut state, mut at, mut due) = (SEED, 0.0, Vec::new());
        loop {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let uniform = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
            at -= (1.0 - uniform).ln() / self.rate;
            if at >= self.seconds {
                return due;
            }
            due.push(Duration::from_secs_f64(at));
        }
    }
}
