//! What `lethe` says of itself: `tracing` events, caught whole and handed to the one place that prints, so that they
//! do not tear the live table.

use std::{fmt, time::SystemTime};

use lethe_admin::timestamp::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Level,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, filter::Targets, layer::Context, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::ui::Printer;

/// The environment variable that chooses events, in the syntax of [`Targets`]: `debug`, `info,lethe_gateway=trace`.
const FILTER_VARIABLE: &str = "LETHE_LOG";

/// What is shown when it is not set.
const FILTER_DEFAULT: &str = "info";

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// How bad.
    pub level: Level,
    /// The module that says it.
    pub target: &'static str,
    /// What it says.
    pub text: String,
    /// The rest of its fields.
    pub fields: Map<String, Value>,
}

impl Event {
    /// One that is said by the command line itself.
    pub fn new(level: Level, text: impl Into<String>) -> Self {
        let at = SystemTime::now().into();
        Self { at, level, target: module_path!(), text: text.into(), fields: Map::new() }
    }

    /// As text: `warn: what it says field=value`; an informational one without its level.
    pub fn line(&self) -> String {
        let mut line = match self.level {
            Level::INFO => self.text.clone(),
            level => format!("{}: {}", level.as_str().to_ascii_lowercase(), self.text),
        };
        for (name, value) in &self.fields {
            let value = value.as_str().map_or_else(|| value.to_string(), String::from);
            line.push_str(&format!(" {name}={value}"));
        }
        line
    }

    /// As one JSON object, in the shape that log lines have too.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("at".into(), self.at.to_string().into());
        object.insert("source".into(), "lethe".into());
        object.insert("level".into(), self.level.as_str().to_ascii_lowercase().into());
        object.insert("target".into(), self.target.into());
        object.insert("text".into(), self.text.clone().into());
        for (name, value) in &self.fields {
            object.entry(name).or_insert_with(|| value.clone());
        }
        object.into()
    }
}

/// Hands the events of this process to `printer` from now on. A filter that cannot be read is an error.
pub fn install(printer: Printer) -> anyhow::Result<()> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| FILTER_DEFAULT.into());
    let filter: Targets = filter
        .parse()
        .map_err(|error| anyhow::anyhow!("{FILTER_VARIABLE}={filter} is no filter: {error}"))?;
    tracing_subscriber::registry().with(Catch(printer).with_filter(filter)).try_init()?;
    Ok(())
}

struct Catch(Printer);

impl<S: tracing::Subscriber> Layer<S> for Catch {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.event(Event {
            at: SystemTime::now().into(),
            level: *meta.level(),
            target: meta.target(),
            text: fields.text,
            fields: fields.rest,
        });
    }
}

#[derive(Default)]
struct Fields {
    text: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn keep(&mut self, field: &Field, value: Value) {
        self.rest.insert(field.name().into(), value);
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text = value.into(),
            _ => self.keep(field, value.into()),
        }
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let text: Vec<String> = causes.map(ToString::to_string).collect();
        self.keep(field, text.join(": ").into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
