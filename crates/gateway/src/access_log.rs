//! The access log: one JSON object a line for each request, described in `docs/access-log.md`. A line is made where
//! the request was served, and written by one thread for all cores.

pub(crate) mod writer;

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    clock::rfc3339,
    json::Object,
    record::{Attempt, Detail, Phase, Record, Spent},
};

/// Why the access log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or made.
    #[error("cannot open the access log {path}; its folder must exist and be writable")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The standard output is closed, or there is no thread left.
    #[error("cannot write the access log")]
    Start(#[source] io::Error),
}

/// Appends the line of a request that began at `started`, since 1970, and has ended `now`.
pub(crate) fn line(text: &mut Vec<u8>, record: &Record, detail: &Detail, started: Duration, now: Instant) {
    let mut line = Object::begin(text);
    line.plain("time", |text| rfc3339(text, started));
    line.text("client", &detail.client);
    line.text("method", &detail.method);
    line.text("host", &detail.host);
    line.text("path", &detail.path);
    line.flag("query", detail.has_query);
    line.text("protocol", record.protocol.as_str());
    line.flag("tls", detail.is_tls);
    if let Some(target) = record.target() {
        line.text("route", &target.stats.label);
        line.text("service", target.service.name.as_str());
    }
    if let Some(status) = record.status() {
        line.number("status", status.into());
    }
    let (outcome, reason) = record.outcome().words();
    line.text("outcome", outcome);
    if let Some(reason) = reason {
        line.text("reason", reason);
    }
    if record.resumptions() > 0 {
        line.number("resumed", record.resumptions().into());
    }
    let (bytes_in, bytes_out) = record.bytes();
    line.number("bytes_in", bytes_in);
    line.number("bytes_out", bytes_out);
    line.ms("duration_ms", now.saturating_duration_since(record.started));
    let spent = record.spent(now);
    line.ms("queue_ms", spent.of(Phase::Queue));
    if let Some(took) = record.start_took() {
        line.ms("start_ms", took);
    }
    times(&mut line, &spent);
    line.ms("stream_ms", spent.of(Phase::Stream));
    line.text("request_id", &detail.id);
    if let Some(trace) = &detail.trace {
        line.text("trace_id", trace.trace_id());
    }
    if !detail.agent.is_empty() {
        line.text("user_agent", &detail.agent);
    }
    let mut attempts = line.array("attempts");
    detail.attempts.iter().for_each(|each| attempt(&mut attempts.object(), each));
    drop(attempts);
    if detail.attempts_omitted > 0 {
        line.number("attempts_omitted", detail.attempts_omitted);
    }
    drop(line);
    text.push(b'\n');
}

fn attempt(object: &mut Object<'_>, attempt: &Attempt) {
    object.text("worker", attempt.upstream.instance.as_str());
    object.flag("reused", attempt.reused);
    object.text("result", attempt.result.as_str());
    if let Some(status) = attempt.status {
        object.number("status", status.into());
    }
    times(object, &attempt.spent);
}

/// What happens between the gateway and a worker.
fn times(object: &mut Object<'_>, spent: &Spent) {
    object.ms("connect_ms", spent.of(Phase::Connect));
    object.ms("send_ms", spent.of(Phase::Send));
    object.ms("wait_ms", spent.of(Phase::Wait));
    object.ms("hold_ms", spent.of(Phase::Hold));
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        batch::{Tray, channel},
        observer::Observer,
        record::tests::eventful,
        stats::Protocol,
        trace::Context,
    };

    /// What an observer with a log writes of the records that `make` makes.
    fn written(make: impl FnOnce(&Rc<Observer>)) -> String {
        let (sender, inbox) = channel();
        let observer = Observer::new(Arc::default());
        observer.set_log(Some(Tray::new(sender, std::thread::current())));
        make(&observer);
        observer.tick();
        let text = inbox.try_iter().flat_map(|batch| batch.text.into_vec()).collect();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_says_it_all() {
        let log = written(|observer| {
            let (record, _) = eventful(observer);
            let trace = Context::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
            record.names(b"r-1", trace.unwrap());
        });
        assert!(!log.contains("secret"), "{log}");
        let line: Value = serde_json::from_str(&log).unwrap();
        for (key, wanted) in [
            ("client", json!("192.0.2.7")),
            ("method", json!("PUT")),
            ("host", json!("shop.example:8443")),
            ("path", json!("/api/cart")),
            ("query", json!(true)),
            ("protocol", json!("HTTP/2")),
            ("tls", json!(true)),
            ("route", json!("shop.example/api")),
            ("service", json!("shop")),
            ("status", json!(200)),
            ("outcome", json!("answered")),
            ("reason", Value::Null),
            ("bytes_in", json!(7)),
            ("bytes_out", json!(1000)),
            ("request_id", json!("r-1")),
            ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
            ("user_agent", json!("curl/8")),
        ] {
            assert_eq!(line[key], wanted, "{key} in {log}");
        }
        let attempt = |index: usize, key: &str| line["attempts"][index][key].clone();
        assert_eq!([0, 1].map(|index| attempt(index, "worker")), ["shop-1", "shop-2"]);
        assert_eq!([0, 1].map(|index| attempt(index, "result")), ["lost", "answered"]);
        assert_eq!([0, 1].map(|index| attempt(index, "reused")), [false, true]);
        assert_eq!([0, 1].map(|index| attempt(index, "status")), [Value::Null, json!(200)]);
        let seconds = |value: &Value| (value.as_f64().unwrap() / 1000.0).round();
        assert_eq!([0, 1].map(|index| seconds(&attempt(index, "wait_ms"))), [2.0, 3.0]);
        assert_eq!((seconds(&attempt(0, "connect_ms")), seconds(&attempt(1, "hold_ms"))), (2.0, 1.0));
        assert_eq!((seconds(&line["wait_ms"]), seconds(&line["queue_ms"])), (5.0, 1.0));
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
    }

    #[test]
    fn a_long_path_is_cut() {
        let log = written(|observer| {
            let record = Record::begin(observer, Instant::now(), Protocol::Http11);
            record.request(b"GET", b"h", &[b'/'; 100_000], Some(&[b'x'; 100_000]));
        });
        let line: Value = serde_json::from_str(&log).unwrap();
        assert_eq!(line["path"].as_str().unwrap().len(), crate::record::TEXT_BYTES_MAX);
        assert_eq!(line["user_agent"].as_str().unwrap().len(), crate::record::TEXT_BYTES_MAX);
    }

    proptest! {
        /// Whatever bytes a client sends, each request is one line, valid, in ASCII, and shows nothing of the query.
        #[test]
        fn any_bytes_make_one_line(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 5),
            requests in 1_usize..4,
        ) {
            let log = written(|observer| {
                for _ in 0..requests {
                    let record = Record::begin(observer, Instant::now(), Protocol::Http10);
                    let [method, host, path, agent, id] = &texts[..] else { unreachable!() };
                    let target = [path.as_slice(), b"?password=hunter2"].concat();
                    record.client([0, 0, 0, 0].into(), false);
                    record.request(method, host, &target, Some(agent));
                    record.names(id, Context::make(&crate::balance::Dice::new()));
                }
            });
            prop_assert!(log.is_ascii() && log.ends_with('\n') && !log.contains("hunter2"));
            prop_assert_eq!(log.lines().count(), requests);
            for line in log.lines() {
                prop_assert!(!line.bytes().any(|byte| byte.is_ascii_control()));
                let line: Value = serde_json::from_str(line).unwrap();
                prop_assert_eq!(&line["query"], true);
                prop_assert_eq!(&line["outcome"], "client_gone");
            }
        }
    }
}
