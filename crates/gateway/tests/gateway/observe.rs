//! What is to be seen of requests afterwards: in the access log, in the counts, and by the client.

use std::{path::Path, time::Duration};

use lethe_gateway::{
    config::AccessLog,
    stats::{Retry, Shed, UNROUTED},
};
use serde_json::{Value, json};

use crate::lab::{Lab, Peer, run};

/// The lines of the log once there are so many; a file tells nobody when it grows.
pub async fn lines(path: &Path, count: usize) -> Vec<Value> {
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The connection on which one of two workers got a whole request, as the first on it.
async fn taken(lab: &Lab) -> Peer {
    tokio::select! {
        (worker, _) = lab.workers[0].request() => worker,
        (worker, _) = lab.workers[1].request() => worker,
    }
}

#[test]
fn each_request_is_a_line() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lab = Lab::with(2, |config| config.access_log = AccessLog::File(path.clone())).await;
        // Answered in the second attempt.
        let get = "GET /a?b=c HTTP/1.1\r\nhost: h\r\nx-request-id: r-1\r\nuser-agent: test\r\n\
                   authorization: Bearer hunter2\r\ncookie: id=hunter2\r\n\r\n";
        let mut client = lab.send(get).await;
        taken(&lab).await.reset();
        taken(&lab)
            .await
            .send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            .await;
        client.response().await;
        // Sent, may have run, and may not be run again.
        client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello").await;
        taken(&lab).await.reset();
        assert_eq!(client.response().await.status(), 502);
        // Cut half-way.
        client.send("GET /big HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut worker = taken(&lab).await;
        worker.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegin").await;
        client.head().await;
        assert_eq!(client.exactly(5).await.unwrap(), b"begin");
        drop(worker);
        client.closed().await;
        // Refused.
        lab.send("GET / HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n").await.response().await;
        // The client leaves.
        let client = lab.send("GET /left HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let left = taken(&lab).await;
        client.reset();
        let lines = lines(&path, 5).await;
        drop(left);
        let all = |key: &str| lines.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
        assert_eq!(all("outcome"), ["answered", "unknown", "cut", "refused", "client_gone"]);
        assert_eq!(all("reason"), [json!(null), json!("lost"), json!(null), json!("malformed"), json!(null)]);
        assert_eq!(all("status"), [json!(200), json!(502), json!(200), json!(400), json!(null)]);
        assert_eq!(all("bytes_in"), [0, 5, 0, 0, 0]);
        let results: Vec<Vec<&str>> = lines
            .iter()
            .map(|line| line["attempts"].as_array().unwrap())
            .map(|attempts| attempts.iter().map(|attempt| attempt["result"].as_str().unwrap()).collect())
            .collect();
        let wanted: [&[&str]; 5] = [&["lost", "answered"], &["lost"], &["cut"], &[], &["abandoned"]];
        assert_eq!(results, wanted);
        let first = &lines[0];
        assert_eq!((&first["path"], &first["query"]), (&json!("/a"), &json!(true)));
        assert_eq!((&first["request_id"], &first["user_agent"]), (&json!("r-1"), &json!("test")));
        assert_eq!((&first["bytes_out"], &lines[2]["bytes_out"]), (&json!(5), &json!(5)));
        assert_eq!((&first["route"], &first["service"]), (&json!("*/"), &json!("shop")));
        assert!(!std::fs::read_to_string(&path).unwrap().contains("hunter2"));
        let snapshot = lab.gateway.snapshot();
        assert_eq!((snapshot.unknown, snapshot.cut, snapshot.client_gone), (1, 1, 1));
        assert_eq!(snapshot.retries_by[&Retry::Lost], 1);
        let (route, unrouted) = (&snapshot.routes["*/"], &snapshot.routes[UNROUTED]);
        assert_eq!((route.responses, unrouted.responses), ([0, 2, 0, 0, 1], [0, 0, 0, 1, 0]));
        assert_eq!((route.bytes_in, route.bytes_out > 10, snapshot.log_dropped), (5, true, 0));
        lab.gateway.drain().await;
    });
}

#[test]
fn a_request_that_waited_in_vain_is_counted_as_shed() {
    run(async {
        let lab = Lab::with(0, |config| config.limits.queue_timeout = Duration::ZERO).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 503);
        drop(client);
        lab.until(|snapshot| snapshot.shed_by[&Shed::QueueTimeout] == 1).await;
        let snapshot = lab.gateway.snapshot();
        assert_eq!(snapshot.queue_us.iter().map(|bucket| bucket.1).sum::<u64>(), 1);
    });
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lab = Lab::with(1, |config| config.access_log = AccessLog::File(path.clone())).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("").await;
        client.response().await;
        drop(client);
        lab.gateway.drain().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.contains("\"answered\"")), (1, true), "{text}");
    });
}

#[test]
fn the_client_is_told_how_long_it_took() {
    run(async {
        let lab = Lab::with(1, |config| config.routes[0].server_timing = true).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\nserver-timing: db;dur=1\r\ncontent-length: 0\r\n\r\n").await;
        let response = client.response().await;
        let fields = response.headers.iter().filter(|(name, _)| name == "server-timing");
        let fields: Vec<&str> = fields.map(|(_, value)| value.as_str()).collect();
        assert_eq!((fields.len(), fields[0]), (2, "db;dur=1"), "the worker's own comes first: {response:?}");
        let ms = |name: &str| -> f64 {
            let metric = fields[1].split(", ").find_map(|metric| metric.strip_prefix(name)).unwrap();
            metric.strip_prefix(";dur=").unwrap().parse().unwrap()
        };
        let phases = ["queue", "connect", "send", "wait"].map(ms);
        assert!(phases.iter().sum::<f64>() <= ms("total") + 0.005 && phases[3] > 0.0, "{fields:?}");
        assert!(fields[1].ends_with(", worker;desc=\"shop-1\""), "{fields:?}");
    });
}

#[test]
fn a_trace_that_begins_here_is_not_sampled() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, request) = lab.workers[0].request().await;
        let parent = request.header("traceparent").unwrap();
        assert!(parent.starts_with("00-") && parent.ends_with("-00"), "{parent}");
        assert_eq!(request.header("x-request-id"), parent.get(3..35));
        worker.answer("").await;
        client.response().await;
        // One of a version to come passes as it is.
        let theirs = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        client.send(format!("GET / HTTP/1.1\r\nhost: h\r\ntraceparent: {theirs}\r\n\r\n")).await;
        assert_eq!(worker.request().await.header("traceparent"), Some(theirs));
        worker.answer("").await;
        client.response().await;
    });
}

/// What is refused can be found in the log by what its client was told, whatever it was.
#[test]
fn refused_requests_have_a_name_and_a_client() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lab = Lab::with(1, |config| {
            config.access_log = AccessLog::File(path.clone());
            config.routes[0].path = "/shop".into();
        })
        .await;
        let mut ids = Vec::new();
        for request in [
            // A bare line feed, which no record of a request comes from.
            "GET / HTTP/1.1\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nx-request-id: mine\r\n\r\n",
        ] {
            let response = lab.send(request).await.response().await;
            ids.push(response.header("x-request-id").unwrap().to_owned());
        }
        assert_eq!(ids[2], "mine");
        let lines = lines(&path, 3).await;
        for (line, id) in lines.iter().zip(ids) {
            assert_eq!((&line["client"], &line["request_id"]), (&json!("127.0.0.1"), &json!(id)), "{line}");
        }
        let reasons: Vec<_> = lines.iter().map(|line| line["reason"].clone()).collect();
        assert_eq!(reasons, ["malformed", "malformed", "no_route"]);
    });
}
