//! `[limits]`: every bound of the gateway, each within bounds of its own, so that a slip of the finger neither opens the
//! door to abuse nor closes it to everyone.

use std::{ops::RangeInclusive, time::Duration};

use lethe_gateway::config::Limits;
use toml::de::DeValue;

use super::{
    problem::Report,
    table::{Table, Value, wrong_type},
};

/// What `[limits]` may say: the names of [`Limits`].
pub(super) const KEYS: [&str; 21] = [
    "head-bytes-max",
    "target-bytes-max",
    "headers-max",
    "head-timeout",
    "idle-timeout",
    "stall-timeout",
    "tunnel-timeout",
    "connect-timeout",
    "queue-timeout",
    "queue-max",
    "replay-bytes-max",
    "replay-total-bytes-max",
    "hold-bytes-max",
    "hold-total-bytes-max",
    "attempts-max",
    "deaths-max",
    "retry-percent-max",
    "connections-max",
    "streams-max",
    "pool-idle-max",
    "drain-timeout",
];

/// Timeouts that are enforced ten times a second cannot be shorter.
const TICK: Duration = Duration::from_millis(100);
/// The longest timeout.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reads `[limits]`; what is not said, or wrong and reported, has its default.
pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Limits {
    let mut limits = Limits::default();
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type("`limits`", "a table such as `{ queue-max = 1024 }`", value, report);
        return limits;
    };
    let mut limit =
        Reader { table: &Table::open("[limits]".into(), value.span(), entries, &KEYS, report), report };
    limit.size("head-bytes-max", 1 << 10..=1 << 20, &mut limits.head_bytes_max);
    limit.size("target-bytes-max", 256..=1 << 20, &mut limits.target_bytes_max);
    limit.count("headers-max", 10..=1000, &mut limits.headers_max);
    limit.time("head-timeout", TICK..=DAY, &mut limits.head_timeout);
    limit.time("idle-timeout", TICK..=DAY, &mut limits.idle_timeout);
    limit.time("stall-timeout", TICK..=DAY, &mut limits.stall_timeout);
    limit.time("tunnel-timeout", TICK..=DAY, &mut limits.tunnel_timeout);
    limit.time("connect-timeout", Duration::from_millis(1)..=DAY, &mut limits.connect_timeout);
    limit.time("queue-timeout", Duration::from_millis(1)..=DAY, &mut limits.queue_timeout);
    limit.count("queue-max", 0..=1_000_000, &mut limits.queue_max);
    limit.size("replay-bytes-max", 0..=1 << 30, &mut limits.replay_bytes_max);
    limit.size("replay-total-bytes-max", 0..=1 << 40, &mut limits.replay_total_bytes_max);
    limit.size("hold-bytes-max", 0..=64 << 20, &mut limits.hold_bytes_max);
    limit.size("hold-total-bytes-max", 0..=1 << 40, &mut limits.hold_total_bytes_max);
    limit.count("attempts-max", 1..=1000, &mut limits.attempts_max);
    limit.count("deaths-max", 1..=100, &mut limits.deaths_max);
    limit.count("retry-percent-max", 0..=100, &mut limits.retry_percent_max);
    limit.count("connections-max", 1..=10_000_000, &mut limits.connections_max);
    limit.count("streams-max", 1..=65_536, &mut limits.streams_max);
    limit.count("pool-idle-max", 0..=65_536, &mut limits.pool_idle_max);
    limit.time("drain-timeout", Duration::ZERO..=DAY, &mut limits.drain_timeout);
    limit.not_above(
        "target-bytes-max",
        &mut limits.target_bytes_max,
        "head-bytes-max",
        limits.head_bytes_max,
    );
    let total = limits.replay_total_bytes_max;
    limit.not_above("replay-bytes-max", &mut limits.replay_bytes_max, "replay-total-bytes-max", total);
    let total = limits.hold_total_bytes_max;
    limit.not_above("hold-bytes-max", &mut limits.hold_bytes_max, "hold-total-bytes-max", total);
    limits
}

/// Reads one limit after the other.
struct Reader<'a, 'v, 't, 'r> {
    table: &'a Table<'v, 't>,
    report: &'a mut Report<'r>,
}

impl Reader<'_, '_, '_, '_> {
    fn size(&mut self, key: &str, bounds: RangeInclusive<u64>, limit: &mut usize) {
        if let Some(bytes) = self.table.size(key, bounds, self.report) {
            *limit = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
    }

    fn count<N: TryFrom<u64>>(&mut self, key: &str, bounds: RangeInclusive<u64>, limit: &mut N) {
        let number = self.table.number(key, bounds, self.report);
        *limit = match number.map(N::try_from) {
            Some(Ok(number)) => number,
            _ => return,
        };
    }

    fn time(&mut self, key: &str, bounds: RangeInclusive<Duration>, limit: &mut Duration) {
        *limit = self.table.duration(key, bounds, self.report).unwrap_or(*limit);
    }

    /// A part is not larger than the whole: one that was written is complained about, a default follows.
    fn not_above(&mut self, part: &str, limit: &mut usize, whole: &str, bound: usize) {
        if *limit <= bound {
            return;
        }
        match self.table.value(part) {
            Some(value) => {
                let message = format!("`{part}` in [limits] is larger than `{whole}`, of which it is a part");
                self.report.at(value.span(), message);
            }
            None => *limit = bound,
        }
    }
}
