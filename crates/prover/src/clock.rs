//! Moves the clock of workers, so that what is done on the hour and at midnight need not be waited for: a library that is loaded into each
//! of their programs (`clock/clock.rs`) adds seconds to the time of day. Waiting takes as long as ever.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

/// The library; empty where it could not be built.
pub(crate) const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));

/// What tells it how far the clock is moved, in seconds.
pub(crate) const OFFSET: &str = "LETHE_CLOCK_OFFSET";

/// What has the loader of programs load it (`ld.so(8)`).
pub(crate) const PRELOAD: &str = "LD_PRELOAD";

/// Seconds of a day.
const DAY: i64 = 86_400;

/// How long before midnight it is at another time, far from any full minute: 29 minutes and 46 seconds after half past eleven.
const BETWEEN: i64 = 30 * 60 + 14;

/// What the clock shows at the moment that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeOfDay {
    /// The beginning of a day, of an hour and of a minute.
    Midnight,
    /// Nothing in particular.
    Between,
}

impl TimeOfDay {
    /// How many seconds a clock must be moved so that it shows this in `lead` seconds, if it is so many seconds after midnight now.
    fn offset(self, after_midnight: i64, lead: i64) -> i64 {
        let until = DAY - after_midnight;
        // Always forwards: what was done before is not done again.
        let until = if until <= lead + BETWEEN { until + DAY } else { until };
        match self {
            Self::Midnight => until - lead,
            Self::Between => until - lead - BETWEEN,
        }
    }

    /// The same now; with the seconds since 1970 at which it does.
    pub(crate) fn in_seconds(self, lead: i64) -> (i64, i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or_default();
        (self.offset(after_midnight(now), lead), now + lead)
    }
}

/// How long after midnight it is, by the clock on the wall.
fn after_midnight(now: i64) -> i64 {
    // SAFETY: all zeros is a valid `tm`, and the call reads a number and writes a `tm`.
    let local = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        let now: libc::time_t = now;
        if libc::localtime_r(&raw const now, &raw mut local).is_null() {
            return now % DAY;
        }
        local
    };
    i64::from(local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec)
}

/// Under which name the processes that make a world are told of a [`PRELOAD`] that is the service's own, and not theirs.
pub(crate) const OF_SERVICE: &str = "LETHE_SERVICE_PRELOAD";

/// Has the service load the library, before what it loads already, which is what this process was told of.
pub(crate) fn load(command: &mut Command, library: Option<&Path>) {
    let own = std::env::var_os(OF_SERVICE);
    command.env_remove(OF_SERVICE);
    if own.is_none() && library.is_none() {
        return;
    }
    let before = own.or_else(|| std::env::var_os(PRELOAD)).unwrap_or_default();
    command.env(PRELOAD, joined(library, &before));
}

/// Both, with a space between them; the loader knows no way to have one in a path.
fn joined(library: Option<&Path>, before: &OsStr) -> OsString {
    let mut all = library.map_or(OsString::new(), |library| library.as_os_str().to_owned());
    if !all.is_empty() && !before.is_empty() {
        all.push(" ");
    }
    all.push(before);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_moved_forwards_to_where_it_shows_that() {
        for (now, lead) in [(0, 2), (43_200, 5), (DAY - 1, 2), (DAY - 2000, 3)] {
            let shown = |time_of_day: TimeOfDay| (now + lead + time_of_day.offset(now, lead)) % DAY;
            assert_eq!(shown(TimeOfDay::Midnight), 0, "{now}");
            assert_eq!(shown(TimeOfDay::Between), 23 * 3600 + 29 * 60 + 46, "{now}");
            assert!(TimeOfDay::Between.offset(now, lead) >= 0, "{now}");
        }
    }

    #[test]
    fn what_a_service_loads_itself_stays() {
        for (library, before, expected) in [
            (Some("/clock.so"), "", "/clock.so"),
            (Some("/clock.so"), "/a.so:/b.so", "/clock.so /a.so:/b.so"),
            (None, "/a.so", "/a.so"),
        ] {
            assert_eq!(joined(library.map(Path::new), OsStr::new(before)), expected);
        }
    }

    #[test]
    fn it_was_built() {
        assert!(LIBRARY.starts_with(b"\x7fELF"));
    }
}
