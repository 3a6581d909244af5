//! How many client connections there are descriptors for. Each client may need a connection to a worker as well, and a worker
//! that died needs some to be started again: clients alone must never take them all.

use rustix::process::{Resource, getrlimit};

use crate::config::Limits;

/// Kept for everything but connections: logs, the state, the pipes of workers.
const RESERVE: u64 = 256;
/// Fewer than that are said in any case.
const ROOM_MIN: usize = 1000;

/// `connections_max`, or what there are descriptors for, if that is less; which is said then.
pub(crate) fn bounded(mut limits: Limits) -> Limits {
    let Some(files) = getrlimit(Resource::Nofile).current else { return limits };
    let room = room(files);
    if limits.connections_max > room {
        // Nobody has asked for the default.
        if limits.connections_max != Limits::default().connections_max || room < ROOM_MIN {
            tracing::warn!(
                "`connections-max` is {}, and the limit of open files, {files}, is enough for {room}, which it is then; \
                 raise that limit (`ulimit -Hn`) for more",
                limits.connections_max,
            );
        }
        limits.connections_max = room;
    }
    limits
}

/// Half of what is left, since each client may need another one towards a worker.
fn room(files: u64) -> usize {
    usize::try_from(files.saturating_sub(RESERVE) / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_half_of_what_is_left() {
        for (files, expected) in [(0, 1), (256, 1), (1024, 384), (65_536, 32_640)] {
            assert_eq!(room(files), expected, "{files}");
        }
    }

    #[test]
    fn only_what_is_too_much_is_changed() {
        let limits = |connections_max| Limits { connections_max, ..Limits::default() };
        assert_eq!(bounded(limits(1)), limits(1));
        if let Some(files) = getrlimit(Resource::Nofile).current {
            assert_eq!(bounded(limits(usize::MAX)), limits(room(files)));
        }
    }
}
