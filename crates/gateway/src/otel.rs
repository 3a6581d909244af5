//! Export of spans to OpenTelemetry (feature `otel`): a server span for each sampled request and a client span for
//! each of its attempts, by OTLP over HTTP in its JSON encoding. A core writes spans as it writes log lines, and one
//! thread sends them in batches.
//!
//! The protocol is spoken here and not by the `opentelemetry` crates: those bring an HTTP client, protobuf and a
//! model of spans that allocates for each attribute, for what is one JSON object and one POST.

pub(crate) mod exporter;
pub(crate) mod post;
pub mod settings;
mod span;

use std::time::{Duration, Instant};

use crate::{
    balance::Dice,
    batch::Tray,
    otel::settings::Sampler,
    record::{Detail, Record},
    trace::Context,
};

/// One core's part of the export.
pub(crate) struct Spans {
    tray: Tray,
    sampler: Sampler,
}

impl Spans {
    pub(crate) fn new(tray: Tray, sampler: Sampler) -> Self {
        Self { tray, sampler }
    }

    /// Decides whether a request is recorded, and puts the gateway's span between the client's and the workers'.
    pub(crate) fn enter(&self, mut context: Context, dice: &Dice) -> Context {
        // What came from the client has a parent there; what was made here begins with our span.
        let parent = context.is_as_sent.then(|| context.is_sampled());
        if parent.is_some() {
            context.enter(dice.next() | 1);
        }
        context.sample(self.sampler.samples(parent, context.trace));
        context
    }

    /// Adds the spans of a request, if it is recorded. Returns how many were dropped.
    pub(crate) fn add(&mut self, record: &Record, detail: &Detail, started: Duration, now: Instant) -> u64 {
        let Some(trace) = detail.trace.filter(Context::is_sampled) else { return 0 };
        let spans = 1 + detail.attempts.len() as u64;
        let is_added = self.tray.add(spans, |text| {
            span::server(text, record, detail, &trace, started, now);
            detail.attempts.iter().enumerate().for_each(|(index, attempt)| {
                span::client(
                    text,
                    detail,
                    &trace,
                    (index, attempt),
                    started,
                    started + (now - record.started),
                );
            });
        });
        if is_added { 0 } else { spans }
    }

    pub(crate) fn hand_over(&mut self) {
        self.tray.hand_over();
    }
}
