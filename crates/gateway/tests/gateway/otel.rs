//! Spans as an OpenTelemetry receiver gets them.

use std::collections::{BTreeMap, BTreeSet};

use lethe_gateway::otel::settings::Settings;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::lab::{Lab, Message, Peer, run};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A receiver, and the settings by which it is found.
async fn receiver(more: &[(&'static str, &str)]) -> (TcpListener, Settings) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut variables = BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}/base/", listener.local_addr().unwrap())),
        ("OTEL_BSP_SCHEDULE_DELAY", "1".into()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b".into()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=Wien%C3%A9".into()),
    ]);
    variables.extend(more.iter().map(|&(name, value)| (name, value.to_owned())));
    let settings = Settings::read(|name| variables.get(name).cloned()).unwrap().unwrap();
    (listener, settings)
}

async fn lab(settings: Settings) -> Lab {
    Lab::bound(2, |_| {}, |bound| bound.export(settings).unwrap()).await
}

async fn receive(listener: &TcpListener, answer: &str) -> Message {
    let mut peer = Peer::new(listener.accept().await.unwrap().0);
    let request = peer.request().await;
    peer.send(answer).await;
    request
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// What a message may have, by its name in opentelemetry-proto; anything else would be a mistake.
fn check(value: &Value, message: &str) {
    let fields: &[(&str, &str)] = match message {
        "ExportTraceServiceRequest" => &[("resourceSpans", "[ResourceSpans")],
        "ResourceSpans" => &[("resource", "Resource"), ("scopeSpans", "[ScopeSpans")],
        "Resource" => &[("attributes", "[KeyValue")],
        "ScopeSpans" => &[("scope", "InstrumentationScope"), ("spans", "[Span")],
        "InstrumentationScope" => &[("name", "string"), ("version", "string")],
        "KeyValue" => &[("key", "string"), ("value", "AnyValue")],
        "AnyValue" => &[("stringValue", "string"), ("intValue", "integer"), ("boolValue", "bool")],
        "Status" => &[("code", "enum")],
        "Span" => &[
            ("traceId", "hex32"),
            ("spanId", "hex16"),
            ("parentSpanId", "hex16"),
            ("name", "string"),
            ("kind", "enum"),
            ("startTimeUnixNano", "integer"),
            ("endTimeUnixNano", "integer"),
            ("attributes", "[KeyValue"),
            ("status", "Status"),
        ],
        list if list.starts_with('[') => {
            return value.as_array().unwrap().iter().for_each(|each| check(each, &list[1..]));
        }
        _ => {
            let text = value.as_str().unwrap_or_default();
            let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let is_right = match message {
                "string" => value.is_string(),
                "bool" => value.is_boolean(),
                "enum" => value.as_u64().is_some_and(|number| number <= 5),
                "integer" => text.parse::<i64>().is_ok(),
                "hex32" => is_hex && text.len() == 32,
                "hex16" => is_hex && text.len() == 16,
                _ => unreachable!("{message}"),
            };
            return assert!(is_right, "{value} is no {message}");
        }
    };
    for (key, value) in value.as_object().unwrap() {
        let (_, message) =
            fields.iter().find(|(name, _)| name == key).unwrap_or_else(|| panic!("{message}.{key}"));
        check(value, message);
    }
}

/// Reads a batch. Returns its spans, and the attributes of its resource.
fn spans(request: &Message) -> (Vec<Value>, BTreeMap<String, Value>) {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    check(&body, "ExportTraceServiceRequest");
    let resource = &body["resourceSpans"][0];
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    (spans, attributes(&resource["resource"]))
}

fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let each = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap().clone();
        (attribute["key"].as_str().unwrap().to_owned(), value)
    };
    of["attributes"].as_array().unwrap().iter().map(each).collect()
}

#[test]
fn a_request_and_its_attempts_are_spans_of_the_clients_trace() {
    run(async {
        let (listener, settings) = receiver(&[]).await;
        let lab = lab(settings).await;
        let get =
            format!("GET /a?b HTTP/1.1\r\nhost: shop.test:80\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n");
        let mut client = lab.send(get).await;
        lab.workers[0].request().await.0.reset();
        let (mut worker, request) = lab.workers[1].request().await;
        worker.answer("hello").await;
        client.response().await;
        let export = receive(&listener, TAKEN).await;
        assert_eq!(export.line, "POST /base/v1/traces HTTP/1.1");
        assert_eq!(
            (export.header("content-type"), export.header("api-key")),
            (Some("application/json"), Some("a b"))
        );
        let (spans, resource) = spans(&export);
        assert_eq!(resource["service.name"], "lethe");
        assert_eq!(resource["deployment.environment.name"], "Wiené");
        assert_eq!(spans.len(), 3);
        let (server, attempts) = (&spans[0], &spans[1..]);
        // The worker's parent is the gateway's span, whose parent is the client's.
        let own = server["spanId"].as_str().unwrap();
        assert_eq!(request.header("traceparent"), Some(format!("00-{TRACE}-{own}-01").as_str()));
        assert_eq!((&server["traceId"], &server["parentSpanId"]), (&json!(TRACE), &json!(PARENT)));
        assert_eq!(
            (&server["name"], &server["kind"], &server["status"]),
            (&json!("GET /"), &json!(2), &json!(null))
        );
        let about = attributes(server);
        for (key, wanted) in [
            ("http.request.method", "GET"),
            ("url.path", "/a"),
            ("url.scheme", "http"),
            ("http.route", "/"),
            ("http.response.status_code", "200"),
            ("server.address", "shop.test"),
            ("server.port", "80"),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("lethe.outcome", "answered"),
        ] {
            assert_eq!(about[key], wanted, "{key}");
        }
        let ids: BTreeSet<&str> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 3);
        let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        for (attempt, result, number) in [(&attempts[0], "lost", 0), (&attempts[1], "answered", 1)] {
            assert_eq!((&attempt["parentSpanId"], &attempt["kind"]), (&json!(own), &json!(3)));
            let about = attributes(attempt);
            assert_eq!(about["lethe.result"], result);
            assert_eq!(about["server.port"], lab.workers[number].entry.address.port().unwrap().to_string());
            assert_eq!(about.contains_key("error.type"), number == 0);
            assert_eq!(attempt["status"]["code"], if number == 0 { json!(2) } else { json!(null) });
            let (begun, ended) = (nanos(attempt, "startTimeUnixNano"), nanos(attempt, "endTimeUnixNano"));
            assert!(nanos(server, "startTimeUnixNano") <= begun && begun <= ended);
            assert!(ended <= nanos(server, "endTimeUnixNano"));
        }
        assert_eq!(attributes(&attempts[1])["http.request.resend_count"], "1");
    });
}

#[test]
fn what_is_not_sampled_is_not_exported() {
    run(async {
        // Of its own traces none, of the clients' those that they have sampled.
        let (listener, settings) = receiver(&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]).await;
        let lab = lab(settings).await;
        let mut client = lab.client().await;
        for (turn, (field, flags)) in [
            (String::new(), "00"),
            (format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n"), "00"),
            (format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"), "01"),
        ]
        .into_iter()
        .enumerate()
        {
            client.send(format!("GET /{flags} HTTP/1.1\r\nhost: h\r\n{field}\r\n")).await;
            let (mut worker, request) = lab.workers[turn % 2].request().await;
            assert!(request.header("traceparent").unwrap().ends_with(flags));
            worker.answer("").await;
            client.response().await;
        }
        let (spans, _) = spans(&receive(&listener, TAKEN).await);
        assert_eq!(spans.len(), 2);
        assert_eq!(attributes(&spans[0])["url.path"], "/01");
    });
}

#[test]
fn a_receiver_that_is_busy_gets_the_same_batch_again_and_one_that_refuses_does_not() {
    run(async {
        let (listener, settings) = receiver(&[]).await;
        let lab = lab(settings).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[0].request().await.0.answer("").await;
        client.response().await;
        let busy = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
        let first = receive(&listener, busy).await;
        let second = receive(&listener, "HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(first.body, second.body);
        lab.until(|snapshot| snapshot.spans_dropped == 2).await;
        // The next batch is sent at the latest before the end.
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[1].request().await.0.answer("").await;
        client.response().await;
        drop(client);
        let (third, ()) = tokio::join!(receive(&listener, TAKEN), lab.gateway.drain());
        assert_eq!(spans(&third).0.len(), 2);
        assert_eq!(lab.gateway.snapshot().spans_dropped, 2);
    });
}
