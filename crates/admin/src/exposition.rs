//! The Prometheus text exposition format, version 0.0.4: families with `HELP` and `TYPE`, samples with labels.

use std::fmt::{self, Write};

/// What `Content-Type` says.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, except that it begins again at zero.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by their size.
    Histogram,
}

/// A label's name and value.
pub type Label<'a> = (&'a str, &'a str);

/// The text while it is written.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// One family while its samples are written.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family. `name` follows the format's rules for names; a family is begun once.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        write(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl fmt::Display) {
        self.line("", labels, value);
    }

    /// One histogram: `counts[n]` values were at most `bounds[n]` and more than the bound before; the last count, one
    /// more than there are bounds, is of the values above all bounds. `sum` is that of all values.
    pub fn histogram(&mut self, labels: &[Label<'_>], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut all = 0;
        for (at, count) in counts.iter().enumerate() {
            all += count;
            let bound = bounds.get(at).map_or_else(|| "+Inf".into(), f64::to_string);
            let with_bound: Vec<Label<'_>> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.line("_bucket", &with_bound, all);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, all);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: impl fmt::Display) {
        write(self.text, format_args!("{}{suffix}", self.name));
        for (at, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if at == 0 { '{' } else { ',' };
            write(self.text, format_args!("{before}{name}=\"{value}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        write(self.text, format_args!("{after} {value}\n"));
    }
}

fn write(text: &mut String, arguments: fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = text.write_fmt(arguments);
}
