//! The thread that sends spans. It collects what the cores hand over, sends it in batches, and tries again for a
//! while what the receiver could not take (OTLP specification, "OTLP/HTTP Response"); meanwhile the channel fills,
//! and what does not fit is dropped and counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    balance::Dice,
    batch::{self, Batch, Tray},
    otel::{
        Spans,
        post::{Answer, post},
        settings::Settings,
    },
    shard::Count,
};

/// How often one batch is sent.
const ATTEMPTS_MAX: u32 = 5;
/// Before the second attempt; twice as long before each further one, with jitter.
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest `Retry-After` that is heeded.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// For the last batches at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The exporter of one gateway. Dropping it does not stop its thread; [`Exporter::close`] does.
pub(crate) struct Exporter {
    sender: SyncSender<Batch>,
    thread: Thread,
    closing: Arc<AtomicBool>,
    ended: watch::Receiver<()>,
    dropped: Arc<Count>,
    settings: Arc<Settings>,
}

impl Exporter {
    /// Starts the thread.
    pub(crate) fn start(settings: Settings) -> io::Result<Self> {
        let (sender, inbox) = batch::channel();
        let (ending, ended) = watch::channel(());
        let (closing, dropped) = (Arc::<AtomicBool>::default(), Arc::<Count>::default());
        let settings = Arc::new(settings);
        let mut courier = Courier {
            inbox,
            head: head(&settings),
            settings: Arc::clone(&settings),
            spans: Vec::new(),
            count: 0,
            due: None,
            closing: Arc::clone(&closing),
            dropped: Arc::clone(&dropped),
            trouble: false,
            dice: Dice::new(),
        };
        let run = move || {
            // Dropped at the end, which is how `close` knows.
            let _ending = ending;
            courier.run();
        };
        let thread = thread::Builder::new().name("otel".into()).spawn(run)?;
        Ok(Self { sender, thread: thread.thread().clone(), closing, ended, dropped, settings })
    }

    /// What one core writes into.
    pub(crate) fn spans(&self) -> Spans {
        Spans::new(Tray::new(self.sender.clone(), self.thread.clone()), self.settings.sampler)
    }

    /// Spans that were handed over and could not be sent.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Sends what waits and ends the thread, or leaves it behind if that takes too long. The cores must have handed
    /// over all they have. A second call waits for the same end. Cancellation safe.
    pub(crate) async fn close(&self) {
        self.closing.store(true, Relaxed);
        self.thread.unpark();
        let mut ended = self.ended.clone();
        let ended = async { while ended.changed().await.is_ok() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!(
                receiver = self.settings.authority,
                "spans could not be sent in time and are lost"
            );
        }
    }
}

/// All of a batch that stands before its spans.
fn head(settings: &Settings) -> String {
    let attribute =
        |(key, value): &(String, String)| json!({ "key": key, "value": { "stringValue": value } });
    let resource: Vec<Value> = settings.resource.iter().map(attribute).collect();
    let scope = json!({ "name": "lethe-gateway", "version": env!("CARGO_PKG_VERSION") });
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":{}}},"scopeSpans":[{{"scope":{scope},"spans":["#,
        Value::from(resource)
    )
}

const TAIL: &[u8] = b"]}]}]}";

/// What the thread has in hand.
struct Courier {
    inbox: Receiver<Batch>,
    settings: Arc<Settings>,
    head: String,
    /// Each followed by a comma.
    spans: Vec<u8>,
    count: u64,
    /// When they are to be sent.
    due: Option<Instant>,
    closing: Arc<AtomicBool>,
    dropped: Arc<Count>,
    /// Spans were lost, which was said.
    trouble: bool,
    dice: Dice,
}

/// What came of sending a batch.
enum Sent {
    Taken,
    /// Try again, after this time if the receiver says so.
    Later(Option<Duration>, String),
    Refused(String),
}

impl Courier {
    fn run(&mut self) {
        loop {
            let closing = self.is_closing();
            while self.count < self.settings.batch_max
                && let Ok(batch) = self.inbox.try_recv()
            {
                self.spans.extend_from_slice(&batch.text);
                self.count += batch.items;
                self.due.get_or_insert_with(|| Instant::now() + self.settings.delay);
            }
            let Some(due) = self.due else {
                if closing {
                    return;
                }
                thread::park();
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if closing || left.is_zero() || self.count >= self.settings.batch_max {
                self.send();
            } else {
                thread::park_timeout(left);
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Sends the batch, several times if need be, and begins a new one.
    fn send(&mut self) {
        self.spans.pop();
        let body = [self.head.as_bytes(), &self.spans, TAIL].concat();
        self.spans.clear();
        self.due = None;
        let count = std::mem::take(&mut self.count);
        for attempt in 1.. {
            let problem = match self.try_once(&body) {
                Sent::Taken => {
                    if std::mem::take(&mut self.trouble) {
                        tracing::info!(receiver = self.settings.authority, "spans are taken again");
                    }
                    return;
                }
                Sent::Later(pause, _) if attempt < ATTEMPTS_MAX && !self.is_closing() => {
                    self.pause(
                        pause.map_or_else(|| self.backoff(attempt), |pause| pause.min(RETRY_AFTER_MAX)),
                    );
                    continue;
                }
                Sent::Later(_, problem) | Sent::Refused(problem) => problem,
            };
            self.dropped.add(count);
            if !std::mem::replace(&mut self.trouble, true) {
                tracing::warn!(
                    receiver = self.settings.authority,
                    problem,
                    "spans are lost; is OTEL_EXPORTER_OTLP_ENDPOINT an OTLP receiver for HTTP?"
                );
            }
            return;
        }
    }

    fn try_once(&self, body: &[u8]) -> Sent {
        let Settings { authority, path, headers, timeout, .. } = &*self.settings;
        let timeout = if self.is_closing() { CLOSE_TIMEOUT.min(*timeout) } else { *timeout };
        match post(authority, path, headers, body, timeout) {
            Err(error) => Sent::Later(None, error.to_string()),
            Ok(Answer { status: 200..=299, body, .. }) => {
                say_rejected(&body);
                Sent::Taken
            }
            Ok(Answer { status: status @ (429 | 502 | 503 | 504), retry_after, .. }) => {
                Sent::Later(retry_after, format!("it answered {status}"))
            }
            Ok(Answer { status, .. }) => Sent::Refused(format!("it answered {status}")),
        }
    }

    /// Between half and all of the time that doubles with each attempt.
    fn backoff(&self, attempt: u32) -> Duration {
        let longest = BACKOFF * 2_u32.saturating_pow(attempt - 1);
        longest / 2 + longest.mul_f64((self.dice.next() >> 11) as f64 / (1_u64 << 54) as f64)
    }

    /// Waits, unless the end comes.
    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_closing() && Instant::now() < end {
            thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
    }
}

/// A receiver may take a batch and reject some of it (`partialSuccess`); that is final.
fn say_rejected(body: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return };
    let partial = &answer["partialSuccess"];
    // A 64-bit number, which JSON has as a string; some send a plain one.
    let rejected = partial["rejectedSpans"].as_str().map(str::to_owned);
    let rejected = rejected.unwrap_or_else(|| partial["rejectedSpans"].as_u64().unwrap_or(0).to_string());
    let message = partial["errorMessage"].as_str().unwrap_or_default();
    if rejected != "0" || !message.is_empty() {
        tracing::warn!(rejected, message, "the receiver of spans has rejected some");
    }
}
