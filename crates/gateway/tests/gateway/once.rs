//! Routes whose requests are done once, where the test is the one who keeps what was answered.

use std::{pin::Pin, sync::Arc, time::Duration};

use lethe_gateway::{
    allowance::Head,
    config::{
        AccessLog, Config, Route,
        once::{By, Once},
    },
    ledger::{Answer, Beginning, Begun, Clerk, Ending, Ledger, Reading, Refusal, Turn},
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::{
    lab::{Lab, run, service},
    observe::lines,
};

/// What may wait for the test.
const WAITING_MAX: usize = 64;
const BODY_MAX: usize = 32;
const ANSWER_MAX: usize = 64;

/// A request that waits for word of what is to be done with it.
struct Question {
    method: String,
    target: String,
    body: Vec<u8>,
    answer: oneshot::Sender<Begun>,
}

/// How a request has ended, for which its client waits until the test says so.
struct Told {
    ending: Ending,
    noted: oneshot::Sender<()>,
}

/// What the test hears.
struct Desk {
    questions: mpsc::Receiver<Question>,
    endings: mpsc::Receiver<Told>,
    end: mpsc::Sender<Told>,
}

impl Desk {
    /// The next request goes on as the first with its key.
    async fn claim(&mut self) -> Question {
        let mut question = self.questions.recv().await.unwrap();
        let (unused, _) = oneshot::channel();
        let answer = std::mem::replace(&mut question.answer, unused);
        assert!(answer.send(Begun::First(Box::new(Claim(self.end.clone())))).is_ok(), "it waits");
        question
    }

    /// How the next one has ended. Its client gets the answer from now on.
    async fn ending(&mut self) -> Ending {
        let Told { ending, noted } = self.endings.recv().await.unwrap();
        noted.send(()).unwrap();
        ending
    }

    async fn answer(&mut self) -> Answer {
        match self.ending().await {
            Ending::Whole(answer) => answer,
            Ending::Unkept { .. } => panic!("it can be kept"),
        }
    }
}

struct Book(mpsc::Sender<Question>);

impl Ledger for Book {
    fn clerk(&self, _route: &Route, once: &Once) -> Box<dyn Clerk> {
        Box::new(OfRoute { questions: self.0.clone(), required: once.required })
    }
}

struct OfRoute {
    questions: mpsc::Sender<Question>,
    required: bool,
}

impl Clerk for OfRoute {
    fn read(&self, head: Head<'_>) -> Reading {
        match head.values("idempotency-key").next() {
            Some(_) => Reading::Keyed,
            None if self.required => Reading::Refused(refusal(400, "missing")),
            None => Reading::Keyless,
        }
    }

    fn begin(&self, head: Head<'_>, body: &[u8]) -> Beginning {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (method, target) = head.request();
        let (answer, answered) = oneshot::channel();
        let question = Question { method: text(method), target: text(target), body: body.to_vec(), answer };
        let questions = self.questions.clone();
        Box::pin(async move {
            questions.send(question).await.unwrap_or_else(|_| panic!("the test listens"));
            answered.await.unwrap_or(Begun::Away)
        })
    }
}

struct Claim(mpsc::Sender<Told>);

impl Turn for Claim {
    fn end(self: Box<Self>, ending: Ending) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let (noted, is_noted) = oneshot::channel();
            self.0.send(Told { ending, noted }).await.unwrap_or_else(|_| panic!("the test listens"));
            let _ = is_noted.await;
        })
    }
}

fn refusal(status: u16, code: &str) -> Refusal {
    let serde_json::Value::Object(problem) = json!({ "status": status, "code": code }) else {
        unreachable!()
    };
    Refusal { status, fields: vec![(b"retry-after".to_vec(), b"1".to_vec())], problem }
}

fn once(required: bool) -> Once {
    Once {
        methods: vec!["POST".into(), "PATCH".into()],
        required,
        kept: Duration::from_secs(60),
        body_bytes_max: BODY_MAX,
        answer_bytes_max: ANSWER_MAX,
        scope: "route".into(),
        by: By::Session,
    }
}

/// `/` as ever, `/orders` with keys, on one core.
async fn lab_with(workers: u64, required: bool, tweak: impl FnOnce(&mut Config)) -> (Lab, Desk) {
    let (ask, questions) = mpsc::channel(WAITING_MAX);
    let (end, endings) = mpsc::channel(WAITING_MAX);
    let tweak = |config: &mut Config| {
        let orders =
            Route { path: "/orders".into(), once: Some(once(required)), ..Route::everything_to(service()) };
        config.routes.push(orders);
        config.cores = 1;
        tweak(config);
    };
    let lab = Lab::bound(workers, tweak, |bound| bound.recorded_by(Arc::new(Book(ask)))).await;
    (lab, Desk { questions, endings, end })
}

async fn lab(workers: u64) -> (Lab, Desk) {
    lab_with(workers, false, |_| {}).await
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /orders?n=1 HTTP/1.1\r\nhost: h\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

const KEY: &str = "idempotency-key: k\r\n";

#[test]
fn an_answer_is_told_before_it_is_given() {
    run(async {
        let (lab, mut desk) = lab(1).await;
        let mut client = lab.send(post(KEY, "a mug")).await;
        let question = desk.claim().await;
        assert_eq!((&*question.method, &*question.target), ("POST", "/orders?n=1"));
        assert_eq!(question.body, b"a mug");
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.text(), request.header("idempotency-key")), ("a mug", Some("k")));
        let fields = "location: /orders/7\r\nx-request-id: worker\r\n";
        worker.send(format!("HTTP/1.1 201 Created\r\n{fields}content-length: 4\r\n\r\ndone")).await;
        let Told { ending, noted } = desk.endings.recv().await.unwrap();
        let Ending::Whole(answer) = ending else { panic!("it is whole") };
        assert_eq!((answer.status, &answer.body[..]), (201, &b"done"[..]));
        let names: Vec<_> = answer.fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        assert_eq!(names, ["location", "date"], "what is of one answer alone is not kept");
        // Nothing has reached the client yet: another one, on the same core, is served meanwhile.
        let mut other = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut second, _) = lab.workers[0].request().await;
        second.answer("other").await;
        assert_eq!(other.response().await.text(), "other");
        drop(second);
        let mut byte = [0];
        assert!(client.stream.try_read(&mut byte).is_err(), "it is not kept yet");
        noted.send(()).unwrap();
        let response = client.response().await;
        assert_eq!((response.line.as_str(), response.text()), ("HTTP/1.1 201 Created", "done"));
        assert_eq!(response.header("location"), Some("/orders/7"));
        // The connection goes on.
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        worker.request().await;
        worker.answer("more").await;
        assert_eq!(client.response().await.text(), "more");
        assert_eq!(lab.gateway.snapshot().routes["*/orders"].responses, [0, 1, 0, 0, 0]);
    });
}

#[test]
fn an_answer_is_given_again_and_no_worker_hears_of_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (lab, mut desk) =
            lab_with(1, false, |config| config.access_log = AccessLog::File(path.clone())).await;
        let mut client = lab.send(post(KEY, "a mug")).await;
        let fields = vec![(b"location".to_vec(), b"/orders/7".to_vec())];
        let answer = Answer { status: 201, fields, body: b"done".to_vec() };
        let question = desk.questions.recv().await.unwrap();
        assert!(question.answer.send(Begun::Answered(answer.clone())).is_ok());
        let response = client.response().await;
        assert_eq!((response.line.as_str(), response.text()), ("HTTP/1.1 201 Created", "done"));
        assert_eq!(response.header("location"), Some("/orders/7"));
        assert!(response.header("x-request-id").is_some() && response.header("date").is_some());
        // One without a body, on the same connection.
        client.send(post(KEY, "a mug")).await;
        let question = desk.questions.recv().await.unwrap();
        let nothing = Answer { status: 204, ..Answer::default() };
        assert!(question.answer.send(Begun::Answered(nothing)).is_ok());
        let head = client.head().await;
        assert_eq!((head.status(), head.header("content-length")), (204, None));
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.line, "GET / HTTP/1.1", "the first that reaches it");
        worker.answer("other").await;
        assert_eq!(client.response().await.text(), "other");
        let lines = lines(&path, 3).await;
        assert_eq!((&lines[0]["outcome"], &lines[0]["bytes_in"]), (&json!("replayed"), &json!(5)));
        assert_eq!((&lines[0]["status"], &lines[0]["attempts"]), (&json!(201), &json!([])));
        assert_eq!(lab.gateway.snapshot().routes["*/orders"].replayed, 2);
    });
}

#[test]
fn what_is_refused_reaches_no_worker() {
    run(async {
        let (lab, mut desk) = lab_with(1, true, |_| {}).await;
        let mut client = lab.send(post("", "a mug")).await;
        let response = client.response().await;
        assert_eq!((response.status(), &response.problem()["code"]), (400, &json!("missing")));
        for (status, code, begun) in [
            (409, json!("running"), Begun::Refused(refusal(409, "running"))),
            (422, json!("mismatch"), Begun::Refused(refusal(422, "mismatch"))),
            (503, json!(null), Begun::Away),
        ] {
            client.send(post(KEY, "a mug")).await;
            let question = desk.questions.recv().await.unwrap();
            assert!(question.answer.send(begun).is_ok());
            let response = client.response().await;
            assert_eq!((response.status(), &response.problem()["code"]), (status, &code));
            assert_eq!(response.header("retry-after"), Some("1"));
            assert_eq!(response.header("lethe-outcome"), None);
        }
        assert!(!lab.workers[0].is_called());
        let counts = &lab.gateway.snapshot().routes["*/orders"];
        assert_eq!((counts.once_refused, counts.once_away, counts.replayed), (3, 1, 0));
        // Other methods are not asked for a key.
        client.send("GET /orders HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[0].request().await.0.answer("list").await;
        assert_eq!(client.response().await.text(), "list");
    });
}

#[test]
fn a_body_that_is_too_large_is_refused_and_one_without_a_key_is_not() {
    run(async {
        let (lab, mut desk) = lab(1).await;
        let large = "x".repeat(BODY_MAX + 1);
        let mut client = lab.send(post(KEY, &large)).await;
        assert_eq!(client.response().await.status(), 413);
        // It does not say beforehand how large it is.
        let chunks = format!("10\r\n{}\r\n11\r\n{}\r\n0\r\n\r\n", "x".repeat(16), "x".repeat(17));
        let head = format!("POST /orders HTTP/1.1\r\nhost: h\r\n{KEY}transfer-encoding: chunked\r\n\r\n");
        let mut client = lab.send(format!("{head}{chunks}")).await;
        assert_eq!(client.response().await.status(), 413);
        assert!(!lab.workers[0].is_called() && desk.questions.try_recv().is_err());
        let mut client = lab.send(post("", &large)).await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.text(), large);
        worker.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
        // The largest that may be, in pieces.
        let whole = "x".repeat(BODY_MAX);
        let mut client = lab.send(format!("{head}20\r\n{whole}\r\n")).await;
        client.send("0\r\n\r\n").await;
        assert_eq!(desk.claim().await.body, whole.as_bytes());
        assert_eq!(worker.request().await.text(), whole);
        worker.answer("done").await;
        desk.answer().await;
        assert_eq!(client.response().await.text(), "done");
    });
}

#[test]
fn what_may_have_run_is_not_run_again_and_told_as_unknown() {
    run(async {
        // Before it answers, and in the middle of an answer of which nothing was shown.
        for begun in ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
            let (lab, mut desk) = lab(2).await;
            let mut client = lab.send(post(KEY, "a mug")).await;
            desk.claim().await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(begun).await;
            worker.reset();
            let answer = desk.answer().await;
            assert_eq!(answer.status, 502, "{begun:?}");
            assert!(answer.fields.contains(&(b"lethe-outcome".to_vec(), b"unknown".to_vec())));
            let response = client.response().await;
            assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
            assert!(!lab.workers[1].is_called(), "it may have run");
            let counts = lab.gateway.snapshot();
            assert_eq!((counts.unknown, counts.cut), (1, 0));
            assert_eq!(counts.routes["*/orders"].responses, [0, 0, 0, 0, 1], "{begun:?}");
        }
    });
}

#[test]
fn what_may_run_again_does_though_its_answer_had_begun() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (lab, mut desk) = lab_with(2, false, |config| {
            config.routes[1].idempotent = true;
            config.access_log = AccessLog::File(path.clone());
        })
        .await;
        let mut client = lab.send(post(KEY, "a mug")).await;
        desk.claim().await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\nx-half: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        worker.reset();
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.text(), "a mug");
        worker.answer("done").await;
        assert_eq!(desk.answer().await.body, b"done");
        let response = client.response().await;
        assert_eq!((response.text(), response.header("x-half")), ("done", None));
        let counts = lab.gateway.snapshot();
        assert_eq!((counts.unknown, counts.cut), (0, 0));
        let line = &lines(&path, 1).await[0];
        assert_eq!((&line["outcome"], &line["bytes_out"]), (&json!("answered"), &json!(4)), "{line}");
    });
}

#[test]
fn small_answers_are_kept_however_little_memory_there_is() {
    run(async {
        const FREE: usize = 64 << 10;
        let (lab, mut desk) = lab_with(1, false, |config| {
            (config.limits.hold_bytes_max, config.limits.hold_total_bytes_max) = (0, 0);
            config.routes[1].once = Some(Once { answer_bytes_max: 1 << 20, ..once(false) });
        })
        .await;
        let mut client = lab.send(post(KEY, "a mug")).await;
        desk.claim().await;
        let (mut worker, _) = lab.workers[0].request().await;
        let largest = "x".repeat(FREE);
        worker.answer(&largest).await;
        assert_eq!(desk.answer().await.body.len(), FREE);
        assert_eq!(client.response().await.text(), largest);
        client.send(post(KEY, "a mug")).await;
        desk.claim().await;
        worker.request().await;
        worker.answer(&format!("{largest}x")).await;
        assert!(matches!(desk.ending().await, Ending::Unkept { status: 200, is_unknown: false }));
        assert_eq!(client.response().await.text().len(), FREE + 1);
    });
}

#[test]
fn what_has_not_run_goes_to_another_worker() {
    run(async {
        let (mut lab, mut desk) = lab(2).await;
        lab.workers[0].die();
        let mut client = lab.send(post(KEY, "a mug")).await;
        desk.claim().await;
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.text(), "a mug");
        worker.answer("done").await;
        assert_eq!(desk.answer().await.body, b"done");
        assert_eq!(client.response().await.text(), "done");
    });
}

#[test]
fn a_client_that_leaves_changes_nothing() {
    run(async {
        let (lab, mut desk) = lab(1).await;
        let client = lab.send(post(KEY, "a mug")).await;
        desk.claim().await;
        let (mut worker, _) = lab.workers[0].request().await;
        client.reset();
        // Another request shows that the core has had time to see it.
        let mut other = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[0].request().await.0.answer("other").await;
        assert_eq!(other.response().await.text(), "other");
        worker.answer("done").await;
        assert_eq!(desk.answer().await.body, b"done");
        // One that leaves before it is known what is to be done takes its question along.
        let client = lab.send(post(KEY, "a mug")).await;
        let mut question = desk.questions.recv().await.unwrap();
        client.reset();
        question.answer.closed().await;
    });
}

#[test]
fn what_cannot_be_kept_goes_out_as_it_comes() {
    run(async {
        let (lab, mut desk) = lab(1).await;
        let large = "x".repeat(ANSWER_MAX + 1);
        let mut client = lab.send(post(KEY, "a mug")).await;
        desk.claim().await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer(&large).await;
        assert!(matches!(desk.ending().await, Ending::Unkept { status: 200, is_unknown: false }));
        assert_eq!(client.response().await.text(), large);
        // Its status tells the ledger whether something was done, and its field that nobody knows.
        for (fields, is_unknown) in [("", false), ("lethe-outcome: unknown\r\n", true)] {
            client.send(post(KEY, "a mug")).await;
            desk.claim().await;
            worker.request().await;
            let large = "x".repeat(4097);
            worker.send(format!("HTTP/1.1 503 Away\r\n{fields}content-length: 4097\r\n\r\n{large}")).await;
            match desk.ending().await {
                Ending::Unkept { status, is_unknown: told } => assert_eq!((status, told), (503, is_unknown)),
                Ending::Whole(_) => panic!("it is too large"),
            }
            assert_eq!(client.response().await.text(), large);
        }
        // Events, of which the first reaches the client before the second is there.
        client.send(post(KEY, "a mug")).await;
        desk.claim().await;
        worker.request().await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        worker.send(head).await;
        assert!(matches!(desk.ending().await, Ending::Unkept { status: 200, is_unknown: false }));
        assert_eq!(client.head().await.status(), 200);
        worker.send("3\r\none\r\n").await;
        assert_eq!(client.exactly(8).await.unwrap(), b"3\r\none\r\n");
        worker.send("3\r\ntwo\r\n0\r\n\r\n").await;
        assert_eq!(client.exactly(13).await.unwrap(), b"3\r\ntwo\r\n0\r\n\r\n");
        // The largest that is kept, whose length was not told.
        client.send(post(KEY, "a mug")).await;
        desk.claim().await;
        worker.request().await;
        let kept = "y".repeat(ANSWER_MAX);
        worker
            .send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\n{kept}\r\n0\r\n\r\n"))
            .await;
        assert_eq!(desk.answer().await.body, kept.as_bytes());
        let response = client.response().await;
        assert_eq!((response.text(), response.header("content-length")), (&*kept, Some("64")));
    });
}

#[test]
fn without_a_ledger_keys_are_the_workers_concern() {
    run(async {
        let lab = Lab::with(2, |config| config.routes[0].once = Some(once(true))).await;
        let mut client = lab.send(post(KEY, "a mug")).await;
        let (worker, _) = lab.workers[0].request().await;
        worker.reset();
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.text(), "a mug", "as on a route without this");
        worker.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
    });
}
