//! Quantities as people read them, short enough for a column.

use std::time::Duration;

/// `45s`, `3m12s`, `2h05m`, `4d03h`.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `512 B`, `14.2 MiB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        // 1023.95 would be shown as 1024.0.
        if value < 1023.95 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `0.42 ms`, `12.3 ms`, `4.10 s`; `-` when there is none.
pub fn latency(us: Option<u64>) -> String {
    let Some(us) = us else { return "-".into() };
    let ms = us as f64 / 1000.0;
    match us {
        0..10_000 => format!("{ms:.2} ms"),
        10_000..100_000 => format!("{ms:.1} ms"),
        100_000..1_000_000 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// `0`, `12.4`, `1240`, `23.5k`.
pub fn rate(per_s: f64) -> String {
    if per_s < 0.05 {
        "0".into()
    } else if per_s < 99.95 {
        format!("{per_s:.1}")
    } else if per_s < 9999.5 {
        format!("{per_s:.0}")
    } else {
        format!("{:.1}k", per_s / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_read_them() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (192, "3m12s"), (7_500, "2h05m"), (356_400, "4d03h")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (14_889_779, "14.2 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (us, text) in [
            (None, "-"),
            (Some(420), "0.42 ms"),
            (Some(12_345), "12.3 ms"),
            (Some(123_456), "123 ms"),
            (Some(4_100_000), "4.10 s"),
        ] {
            assert_eq!(latency(us), text);
        }
        for (per_s, text) in [(0.0, "0"), (12.44, "12.4"), (1240.2, "1240"), (23_460.0, "23.5k")] {
            assert_eq!(rate(per_s), text);
        }
    }
}
