//! Counts of a service's layers as text that Prometheus reads (exposition format 0.0.4). `lethe` measures requests and
//! workers itself; what only a worker knows, such as tokens that were refused, is asked of the worker.

use std::{collections::BTreeMap, fmt, sync::Arc};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};

/// Something that counts.
pub trait Source: Send + Sync + 'static {
    /// Puts its counts on the page.
    fn count_on(&self, page: &mut Page);
}

/// Counts by family.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<&'static str, Family>);

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: &'static str,
    samples: Vec<String>,
}

impl Page {
    /// A count that only grows. Its name ends in `_total`; `help` is one line.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.sample("counter", name, help, labels, value);
    }

    /// A number that goes up and down.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.sample("gauge", name, help, labels, value);
    }

    fn sample(
        &mut self,
        kind: &'static str,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let family = self.0.entry(name).or_insert(Family { kind, help, samples: Vec::new() });
        family.samples.push(format!("{name}{labels} {value}"));
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Family { kind, help, samples }) in &self.0 {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            samples.iter().try_for_each(|sample| writeln!(f, "{sample}"))?;
        }
        Ok(())
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What a worker answers to who scrapes it.
///
/// ```no_run
/// # use axum::{Router, routing::get};
/// # use lethe_http::{metrics::Metrics, session::SessionLayer, token::Keys};
/// # fn app(keys: Keys, sessions: SessionLayer) -> Router {
/// let metrics = Metrics::default().with(keys).with(sessions.clone());
/// Router::new().route("/metrics", get(move |headers| metrics.clone().answer(headers))).layer(sessions)
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Metrics(Vec<Arc<dyn Source>>);

impl Metrics {
    /// The same with this source too.
    pub fn with(mut self, source: impl Source) -> Self {
        self.0.push(Arc::new(source));
        self
    }

    /// What the sources count now.
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        self.0.iter().for_each(|source| source.count_on(&mut page));
        page
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({} sources)", self.0.len())
    }
}

impl Metrics {
    /// The page, for who asks the worker itself, at its port on this machine. What came through the gateway, which says so in
    /// `X-Forwarded-For`, gets 404: counts are nobody's business outside.
    pub async fn answer(self, headers: HeaderMap) -> Response {
        if headers.contains_key("x-forwarded-for") {
            return StatusCode::NOT_FOUND.into_response();
        }
        let fields = [
            (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (fields, self.page().to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_with_their_family_and_labels_are_escaped() {
        let mut page = Page::default();
        page.counter("b_total", "Of b.", &[("who", "a\"\\\n")], 1);
        page.gauge("a", "Of a.", &[], 7);
        page.counter("b_total", "Of b.", &[("who", "x"), ("why", "y")], 2);
        assert_eq!(
            page.to_string(),
            "# HELP a Of a.\n# TYPE a gauge\na 7\n# HELP b_total Of b.\n# TYPE b_total counter\n\
             b_total{who=\"a\\\"\\\\\\n\"} 1\nb_total{who=\"x\",why=\"y\"} 2\n"
        );
    }
}
