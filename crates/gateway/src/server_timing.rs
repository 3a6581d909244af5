//! `Server-Timing` (W3C Server Timing, section 3): tells the client how long each phase took, for a route that says so.

use std::time::Instant;

use crate::{
    json::ms,
    record::{Phase, Record},
};

/// Appends the field's value: milliseconds until `now`, when the response's head is about to go to the client, all
/// attempts together. It is a field line of its own after the worker's, which appends it to theirs (RFC 9110, section 5.3).
pub(crate) fn write(value: &mut Vec<u8>, record: &Record, now: Instant) {
    let spent = record.spent(now);
    for (name, time) in [
        ("queue;dur=", spent.of(Phase::Queue)),
        (", connect;dur=", spent.of(Phase::Connect)),
        (", send;dur=", spent.of(Phase::Send)),
        (", wait;dur=", spent.of(Phase::Wait)),
        (", total;dur=", now.saturating_duration_since(record.started)),
    ] {
        value.extend_from_slice(name.as_bytes());
        ms(value, time);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{observer::Observer, record::tests::eventful};

    #[test]
    fn value() {
        let (record, end) = eventful(&Observer::new(Arc::default()));
        let mut value = b"db;dur=1, ".to_vec();
        write(&mut value, &record, end);
        let value = String::from_utf8(value).unwrap();
        let metrics: Vec<(&str, f64)> = value
            .split(", ")
            .map(|metric| metric.split_once(";dur=").unwrap())
            .map(|(name, ms)| (name, (ms.parse::<f64>().unwrap() / 1000.0).round()))
            .collect();
        let wanted =
            [("db", 0.0), ("queue", 1.0), ("connect", 2.0), ("send", 2.0), ("wait", 5.0), ("total", 15.0)];
        assert_eq!(metrics, wanted);
    }
}
