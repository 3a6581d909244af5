//! Routes with limits, where the test is the one who keeps count.

use std::{sync::Arc, time::Duration};

use lethe_gateway::{
    allowance::{Allowance, Head, Judge, Judgement, Judging, Refusal},
    config::{
        AccessLog, Config, Network, Route,
        limit::{By, Limit, Outage},
    },
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::{
    lab::{Lab, config, run, service},
    observe::lines,
};

/// Questions that may wait for the test.
const QUESTIONS_MAX: usize = 64;

/// A question that waits for its answer.
struct Question {
    /// The limits of the route, by name.
    limits: Vec<String>,
    client: String,
    keys: Vec<String>,
    answer: oneshot::Sender<Judgement>,
}

/// Who keeps count.
struct Counter(mpsc::Sender<Question>);

struct Asked {
    limits: Vec<String>,
    counter: mpsc::Sender<Question>,
}

impl Counter {
    fn new() -> (Arc<Self>, mpsc::Receiver<Question>) {
        let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
        (Arc::new(Self(sender)), questions)
    }
}

impl Allowance for Counter {
    fn judge(&self, _core: usize, limits: &[Limit]) -> Box<dyn Judge> {
        let limits = limits.iter().map(|limit| limit.name.clone()).collect();
        Box::new(Asked { limits, counter: self.0.clone() })
    }
}

impl Judge for Asked {
    fn judge(&self, head: Head<'_>) -> Judging {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let (answer, answered) = oneshot::channel();
        let question = Question {
            limits: self.limits.clone(),
            client: text(head.values("x-forwarded-for").next().unwrap()),
            keys: head.values("x-api-key").map(text).collect(),
            answer,
        };
        let counter = self.counter.clone();
        Box::pin(async move {
            counter.send(question).await.unwrap();
            answered.await.unwrap()
        })
    }
}

fn limit(name: &str) -> Limit {
    Limit {
        name: name.into(),
        calls: 5,
        period: Duration::from_secs(60),
        burst: 5,
        by: By::Address,
        leased: true,
        on_outage: Outage::Allow,
        timeout: Duration::from_millis(250),
    }
}

/// `/` as ever, `/api` with a limit, on one core.
fn routes(config: &mut Config) {
    let api = Route { path: "/api".into(), limits: vec![limit("api")], ..Route::everything_to(service()) };
    config.routes.push(api);
    config.cores = 1;
}

async fn lab(tweak: impl FnOnce(&mut Config)) -> (Lab, mpsc::Receiver<Question>) {
    let (counter, questions) = Counter::new();
    let tweak = |config: &mut Config| {
        routes(config);
        tweak(config);
    };
    (Lab::bound(1, tweak, |bound| bound.counted_by(counter)).await, questions)
}

fn fields(fields: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn passed() -> Judgement {
    Judgement::Passed(fields(&[("ratelimit", "\"api\";r=4;t=12"), ("ratelimit-policy", "\"api\";q=5;w=60")]))
}

fn refused() -> Judgement {
    let serde_json::Value::Object(problem) =
        json!({ "title": "Too many requests", "code": "quota-exceeded" })
    else {
        unreachable!()
    };
    Judgement::Refused(Refusal {
        fields: fields(&[("ratelimit", "\"api\";r=0;t=12"), ("retry-after", "12")]),
        problem,
    })
}

#[test]
fn what_may_pass_is_answered_with_how_it_stands() {
    run(async {
        let (lab, mut questions) = lab(|_| {}).await;
        let mut client =
            lab.send("GET /api/x HTTP/1.1\r\nhost: h\r\nX-Api-Key: k\r\nx-api-key: l\r\n\r\n").await;
        let question = questions.recv().await.unwrap();
        assert_eq!((question.limits, question.client.as_str()), (vec!["api".to_owned()], "127.0.0.1"));
        assert_eq!(question.keys, ["k", "l"]);
        assert!(!lab.workers[0].is_called(), "before it may pass, no worker hears of it");
        question.answer.send(passed()).unwrap();
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("done").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text()), (200, "done"));
        assert_eq!(response.header("ratelimit"), Some("\"api\";r=4;t=12"));
        assert_eq!(response.header("ratelimit-policy"), Some("\"api\";q=5;w=60"));
        // What the gateway answers itself tells it too.
        client.send("GET /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        questions.recv().await.unwrap().answer.send(passed()).unwrap();
        assert_eq!(worker.request().await.line, "GET /api HTTP/1.1");
        worker.send("nonsense\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("ratelimit")), (502, Some("\"api\";r=4;t=12")));
    });
}

#[test]
fn a_route_without_limits_asks_nobody() {
    run(async {
        let (lab, mut questions) = lab(|_| {}).await;
        let mut client = lab.send("GET /apiary HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[0].request().await.0.answer("done").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("ratelimit")), (200, None));
        assert!(questions.try_recv().is_err());
    });
}

#[test]
fn a_refused_request_costs_the_worker_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (lab, mut questions) = lab(|config| config.access_log = AccessLog::File(path.clone())).await;
        let head = "POST /api HTTP/1.1\r\nhost: h\r\nx-request-id: r-1\r\ncontent-length: 5\r\n\r\n";
        let mut client = lab.send(format!("{head}hello")).await;
        questions.recv().await.unwrap().answer.send(refused()).unwrap();
        let response = client.response().await;
        assert_eq!(response.line, "HTTP/1.1 429 Too Many Requests");
        assert_eq!(
            (response.header("retry-after"), response.header("ratelimit")),
            (Some("12"), Some("\"api\";r=0;t=12"))
        );
        assert_eq!(
            (response.header("cache-control"), response.header("x-request-id")),
            (Some("no-store"), Some("r-1"))
        );
        let problem = response.problem();
        assert_eq!((&problem["code"], &problem["request_id"]), (&json!("quota-exceeded"), &json!("r-1")));
        assert!(!lab.workers[0].is_called());
        // The connection goes on, behind the body that nobody wanted.
        client.send("HEAD /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        questions.recv().await.unwrap().answer.send(refused()).unwrap();
        assert_eq!(client.head().await.status(), 429);
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        lab.workers[0].request().await.0.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
        let lines = lines(&path, 3).await;
        let all = |key: &str| lines.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
        assert_eq!(all("outcome"), ["refused", "refused", "answered"]);
        assert_eq!(all("reason"), [json!("limited"), json!("limited"), json!(null)]);
        assert_eq!((lines[0]["status"].clone(), lines[0]["attempts"].clone()), (json!(429), json!([])));
        let snapshot = lab.gateway.snapshot();
        let (api, other) = (&snapshot.routes["*/api"], &snapshot.routes["*/"]);
        assert_eq!((api.limited, api.responses), (2, [0, 0, 0, 2, 0]));
        assert_eq!((other.limited, other.uncounted, api.limits_away), (0, 0, 0));
    });
}

#[test]
fn what_cannot_be_counted_passes_or_not() {
    run(async {
        let (lab, mut questions) = lab(|_| {}).await;
        let mut client = lab.send("GET /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        questions.recv().await.unwrap().answer.send(Judgement::Away).unwrap();
        let response = client.response().await;
        assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")));
        assert_eq!(response.header("lethe-outcome"), None, "it was not carried out");
        assert!(response.problem()["detail"].as_str().unwrap().contains("asked for too often"));
        assert!(!lab.workers[0].is_called());
        client.send("GET /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        questions.recv().await.unwrap().answer.send(Judgement::Uncounted).unwrap();
        lab.workers[0].request().await.0.answer("done").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("ratelimit")), (200, None));
        let api = &lab.gateway.snapshot().routes["*/api"];
        assert_eq!((api.limited, api.limits_away, api.uncounted), (0, 1, 1));
    });
}

#[test]
fn a_question_holds_up_nobody_else() {
    run(async {
        let (lab, mut questions) = lab(|_| {}).await;
        let mut waits = lab.send("GET /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let question = questions.recv().await.unwrap();
        // On the same core.
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut worker = lab.workers[0].request().await.0;
        worker.answer("done").await;
        assert_eq!(client.response().await.text(), "done");
        question.answer.send(passed()).unwrap();
        assert_eq!(worker.request().await.line, "GET /api HTTP/1.1");
        worker.answer("late").await;
        assert_eq!(waits.response().await.text(), "late");
    });
}

#[test]
fn a_client_that_leaves_takes_its_question_along() {
    run(async {
        let (lab, mut questions) = lab(|_| {}).await;
        let client = lab.send("GET /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut question = questions.recv().await.unwrap();
        client.reset();
        question.answer.closed().await;
        lab.until(|snapshot| snapshot.client_gone == 1).await;
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn the_client_is_whom_the_gateway_believes() {
    run(async {
        let get = "GET /api HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 192.0.2.7\r\n\r\n";
        let (lab_alone, mut questions) = lab(|_| {}).await;
        let client = lab_alone.send(get).await;
        assert_eq!(questions.recv().await.unwrap().client, "127.0.0.1");
        drop(client);
        let loopback = Network { address: [127, 0, 0, 1].into(), prefix_bits: 8 };
        let (lab_behind, mut questions) = lab(|config| config.trusted_proxies = vec![loopback]).await;
        let _client = lab_behind.send(get).await;
        let client = questions.recv().await.unwrap().client;
        assert_eq!(client.split(',').next(), Some("192.0.2.7"));
    });
}

#[test]
fn limits_change_with_the_configuration() {
    run(async {
        let (lab, mut questions) = lab(|_| {}).await;
        let mut new = config();
        routes(&mut new);
        new.routes[0].limits = vec![limit("all"), limit("more")];
        new.routes[1].limits.clear();
        lab.gateway.reload(new).await.unwrap();
        let mut client = lab.send("GET /api HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut worker = lab.workers[0].request().await.0;
        worker.answer("free").await;
        assert_eq!(client.response().await.text(), "free");
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let question = questions.recv().await.unwrap();
        assert_eq!(question.limits, ["all", "more"]);
        question.answer.send(passed()).unwrap();
        worker.request().await;
        worker.answer("counted").await;
        assert_eq!(client.response().await.text(), "counted");
    });
}
