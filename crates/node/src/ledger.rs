//! Keeps for the gateway, which knows nothing of state, what was answered to requests that are done once: in the engine that
//! has the keys of services too, by the same rules (`lethe_http::idempotency`).

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, request::Parts};
use lethe_gateway::{
    allowance::Head,
    config::{
        Route,
        once::{By, Once},
    },
    ledger::{Answer, Beginning, Begun, Clerk, Ending, Ledger, Reading, Refusal},
};
use lethe_http::{
    idempotency::{self, IdempotencyLayer, Standing},
    problem::Problem,
};
use lethe_state::{Engines, idempotency::Idempotency, sessions::Sessions};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use crate::visitor::Visitors;

/// How long a request waits to hear whether it was done before. It is not done then.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer waits to be kept. It leaves then, and its key tells that nobody knows what became of the request, unless
/// the engine comes to keep it after all.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The fields that count of a request, beside those by which callers are told apart.
const FIELDS: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-request-id"),
];

/// Marks an answer that says: nobody knows whether the request was carried out.
const OUTCOME: &str = "lethe-outcome";

/// Keeps answers in these engines.
pub(crate) struct AnswerStore {
    keys: Arc<dyn Idempotency>,
    sessions: Arc<dyn Sessions>,
    runtime: Handle,
}

impl AnswerStore {
    /// The engines are asked on the runtime of the caller, never on a core.
    pub(crate) fn new(engines: &Engines) -> Arc<Self> {
        Arc::new(Self {
            keys: Arc::clone(&engines.idempotency),
            sessions: Arc::clone(&engines.sessions),
            runtime: Handle::current(),
        })
    }
}

impl Ledger for AnswerStore {
    fn clerk(&self, route: &Route, once: &Once) -> Box<dyn Clerk> {
        let mut layer =
            IdempotencyLayer::new(Arc::clone(&self.keys)).scope(&once.scope).kept(once.kept).per_host();
        if once.required {
            layer = layer.required();
        }
        // Where it may be done twice, it is done again.
        if !route.idempotent {
            layer = layer.at_most_once();
        }
        let mut fields = FIELDS.to_vec();
        layer = match &once.by {
            By::Session => layer,
            By::Cookie(name) => {
                let name = name.clone();
                layer.identity(move |parts| cookie(&parts.headers, &name))
            }
            By::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => {
                    fields.push(name.clone());
                    layer.identity(move |parts| parts.headers.get(&name).map(text))
                }
                // It was read as one.
                Err(_) => layer,
            },
        };
        let visitors = Visitors::new(Arc::clone(&self.sessions));
        Box::new(OfRoute { layer, fields, visitors, runtime: self.runtime.clone() })
    }
}

/// The value of a cookie (RFC 6265, section 4.2.1), which tells its caller from others if there is one alone.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let values: Vec<&str> = pairs.filter(|(other, _)| *other == name).map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.join(";"))
}

fn text(value: &HeaderValue) -> String {
    value.as_bytes().escape_ascii().to_string()
}

/// Knows the requests of one route.
struct OfRoute {
    layer: IdempotencyLayer,
    /// The fields of a request that are looked at.
    fields: Vec<HeaderName>,
    visitors: Visitors,
    runtime: Handle,
}

impl OfRoute {
    fn parts(&self, head: Head<'_>) -> Parts {
        let (method, target) = head.request();
        let (mut parts, ()) = Request::new(()).into_parts();
        // The gateway has read them as such.
        parts.method = method.try_into().unwrap_or_default();
        parts.uri = target.try_into().unwrap_or_else(|_| odd(target));
        for name in &self.fields {
            for value in head.values(name.as_str()) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    parts.headers.append(name, value);
                }
            }
        }
        parts
    }
}

/// A target that is none of URIs, as one that is like no other.
fn odd(target: &[u8]) -> Uri {
    let digits: String = target.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/odd/{digits}").try_into().unwrap_or_default()
}

impl Clerk for OfRoute {
    fn read(&self, head: Head<'_>) -> Reading {
        match self.layer.key(&self.parts(head).headers) {
            Ok(Some(_)) => Reading::Keyed,
            Ok(None) => Reading::Keyless,
            Err(problem) => Reading::Refused(refusal(&problem)),
        }
    }

    fn begin(&self, head: Head<'_>, body: &[u8]) -> Beginning {
        let mut parts = self.parts(head);
        let Ok(Some(key)) = self.layer.key(&parts.headers) else {
            return Box::pin(std::future::ready(Begun::Away));
        };
        self.visitors.attend(&mut parts);
        // The task may outlive the request while the engine is away: so it has no part of the body.
        let fingerprint = idempotency::fingerprint(&parts, body);
        let (layer, runtime) = (self.layer.clone(), self.runtime.clone());
        let (tell, told) = oneshot::channel();
        // In a task of its own, a claim that nobody waits for any more is given back.
        self.runtime.spawn(async move {
            let begun = layer.begin(key, &mut parts, fingerprint).await;
            let _ = tell.send(Word { begun: Some(begun), runtime });
        });
        let runtime = self.runtime.clone();
        Box::pin(async move {
            // An error means that the runtime has ended.
            match timeout(BEGIN_TIMEOUT, told).await.map(|told| told.ok().and_then(Word::take)) {
                Ok(Some(begun)) => self::begun(begun, &runtime),
                Ok(None) | Err(_) => Begun::Away,
            }
        })
    }
}

/// Word on its way to the gateway. A claim that does not arrive is given back, wherever it is lost: nothing was done.
struct Word {
    begun: Option<Result<Standing, Problem>>,
    runtime: Handle,
}

impl Word {
    fn take(mut self) -> Option<Result<Standing, Problem>> {
        self.begun.take()
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        if let Some(Ok(Standing::First(turn))) = self.begun.take() {
            self.runtime.spawn(async move { turn.abandon().await });
        }
    }
}

fn begun(begun: Result<Standing, Problem>, runtime: &Handle) -> Begun {
    match begun {
        Ok(Standing::First(turn)) => Begun::First(Box::new(Turn::take(turn, runtime))),
        Ok(Standing::Answered(answer)) => {
            let mut fields: Vec<_> =
                answer.fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            fields.push((idempotency::REPLAYED.into(), b"true".to_vec()));
            Begun::Answered(Answer { status: answer.status, fields, body: answer.body.into() })
        }
        // What failed here is said by the gateway, and in the log.
        Err(problem) if problem.status().is_server_error() && !problem.is_unknown() => Begun::Away,
        Err(problem) => Begun::Refused(refusal(&problem)),
    }
}

fn refusal(problem: &Problem) -> Refusal {
    let mut fields = Vec::new();
    if let Some(seconds) = problem.retry_after_s() {
        fields.push((b"retry-after".to_vec(), seconds.to_string().into_bytes()));
    }
    if problem.is_unknown() {
        fields.push((OUTCOME.into(), b"unknown".to_vec()));
    }
    Refusal { status: problem.status().as_u16(), fields, problem: problem.members() }
}

/// A request that is being done: its claim is kept alive for as long as this is here.
struct Turn {
    end: oneshot::Sender<(Ending, oneshot::Sender<()>)>,
}

impl Turn {
    fn take(turn: idempotency::Turn, runtime: &Handle) -> Self {
        let (end, ended) = oneshot::channel::<(Ending, oneshot::Sender<()>)>();
        runtime.spawn(async move {
            // Of one that was dropped nobody knows how it ended: its claim is left as it is.
            let Ok((ending, done)) = turn.alive(ended).await else { return };
            match ending {
                Ending::Whole(answer) => {
                    let (status, is_unknown) = (answer.status, answer.is_unknown());
                    match response(answer) {
                        Some((parts, body)) => turn.end(&parts, body).await,
                        None => turn.end_unkept(status, is_unknown).await,
                    }
                }
                Ending::Unkept { status, is_unknown } => turn.end_unkept(status, is_unknown).await,
            }
            // Whoever waited may have had enough.
            let _ = done.send(());
        });
        Self { end }
    }
}

impl lethe_gateway::ledger::Turn for Turn {
    fn end(self: Box<Self>, ending: Ending) -> Pin<Box<dyn Future<Output = ()>>> {
        let (done, is_done) = oneshot::channel();
        let told = self.end.send((ending, done));
        Box::pin(async move {
            if told.is_ok() && timeout(END_TIMEOUT, is_done).await.is_err() {
                tracing::warn!("an answer leaves before it was kept under its Idempotency-Key");
            }
        })
    }
}

fn response(Answer { status, fields, body }: Answer) -> Option<(http::response::Parts, Bytes)> {
    let (mut parts, ()) = Response::builder().status(status).body(()).ok()?.into_parts();
    for (name, value) in fields {
        parts.headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    Some((parts, body.into()))
}

#[cfg(test)]
mod tests;
