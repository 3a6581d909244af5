//! The time of day where the reader is.

use lethe_admin::timestamp::Timestamp;

/// `HH:MM:SS.mmm` in the local time zone.
pub fn time_of_day(moment: Timestamp) -> String {
    let ms = moment.unix_ms();
    let seconds = libc::time_t::try_from(ms / 1000).unwrap_or_default();
    // SAFETY: `tm` is a C struct of integers and a pointer, for which all zeros is a value.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type. The environment is only read, and nothing in this
    // process changes it.
    if unsafe { libc::localtime_r(&seconds, &mut local) }.is_null() {
        return moment.to_string();
    }
    format!("{:02}:{:02}:{:02}.{:03}", local.tm_hour, local.tm_min, local.tm_sec, ms % 1000)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn minutes_are_those_of_the_moment_whatever_the_zone() {
        // Zones differ from UTC by whole quarters of an hour today.
        let shown = time_of_day((UNIX_EPOCH + Duration::from_millis(1_750_000_307_045)).into());
        assert_eq!(shown.len(), 12);
        assert!(shown.ends_with(":47.045"), "{shown}");
        let minutes: u32 = shown[3..5].parse().unwrap();
        assert_eq!(minutes % 15, 11, "{shown}");
    }
}
