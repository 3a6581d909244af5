//! `Server-Timing` (W3C Server Timing, section 3): tells the client how long each phase took and which worker answered, for a route that says so; and
//! on each route how long it waited for a worker to start, if it had to.

use std::time::{Duration, Instant};

use lethe_model::service::InstanceId;

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
    if let Some(took) = record.start_took() {
        value.extend_from_slice(b", ");
        write_start(value, took);
    }
}

/// Appends the metric that names the worker which has answered, in its description. A worker's name needs no quoting.
pub(crate) fn write_worker(value: &mut Vec<u8>, worker: &InstanceId) {
    value.extend_from_slice(b", worker;desc=\"");
    value.extend_from_slice(worker.as_str().as_bytes());
    value.push(b'"');
}

/// Appends the metric that tells of a start: how long, of the time in the queue, no worker was there.
pub(crate) fn write_start(value: &mut Vec<u8>, took: Duration) {
    value.extend_from_slice(b"start;dur=");
    ms(value, took);
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
        record.waited_for_start(Duration::from_micros(1500));
        let mut value = Vec::new();
        write(&mut value, &record, end);
        assert!(value.ends_with(b", start;dur=1.500"), "{}", String::from_utf8_lossy(&value));
    }
}
