//! A proof as one HTML page that needs nothing else: no script, nothing loaded from elsewhere. What services have answered is in it, so
//! all text is escaped, and a policy in the page forbids whatever would still get through.

mod contrast;
mod heard;
mod matrix;
mod timeline;

use std::fmt::{self, Display, Write};

use lethe_journey::journey::Journey;

use crate::{
    finding::Finding,
    proof::{Proof, Verdict},
    report::framework::Framework,
};

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}\
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0}th,td{padding:.2rem .6rem;border:1px solid #8884;text-align:center;overflow-wrap:normal}\
th:first-child,td:first-child{text-align:left;white-space:nowrap}.bad{background:#c333;color:light-dark(#a11,#f88);font-weight:600}.ok{background:#2932}\
.none{opacity:.45}.violation{color:light-dark(#a11,#f88)}.stateless{color:light-dark(#185,#6d9)}.inconclusive{color:light-dark(#850,#db6)}\
section{border:1px solid #8886;border-radius:.5rem;padding:0 1rem 1rem;margin:1.5rem 0}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}\
dd{margin:0}dt{opacity:.7}pre{background:#8881;padding:.6rem;border-radius:.3rem;overflow-x:auto;white-space:pre-wrap;margin:.5rem 0}\
del,ins{text-decoration:none;display:block}del{background:#2933}ins{background:#c333}svg{width:100%;height:auto}svg text{fill:currentColor;font-size:12px}\
.card{display:inline-block;border:1px solid #8886;border-radius:.4rem;padding:.4rem .8rem;font-family:ui-monospace,monospace}.note{opacity:.75}";

/// What the page may do: nothing but look like something.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Writes it. What mends a finding is shown for `framework`, if that is known.
pub fn html<'j>(
    proof: &Proof,
    journeys: impl IntoIterator<Item = &'j Journey>,
    framework: Option<Framework>,
) -> String {
    let mut page = String::new();
    let (class, verdict) = verdict(proof);
    // Writing to a `String` cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"><title>lethe prove: {verdict}</title><style>{STYLE}</style>\
         </head><body><h1 class=\"{class}\">{verdict}</h1>\n<p>{}</p>\n",
        Escaped(&proof.coverage.line())
    );
    for uncovered in &proof.coverage.uncovered {
        let where_ = format!("{} step {}", uncovered.journey, uncovered.step);
        let _ = writeln!(
            page,
            "<p class=\"inconclusive\"><b>Not covered: {}</b>: {}</p>",
            Escaped(&where_),
            Escaped(&uncovered.why)
        );
        if !uncovered.response.is_empty() {
            let _ = writeln!(page, "<pre>{}</pre>", Escaped(&uncovered.response));
        }
    }
    for finding in &proof.findings {
        push_finding(&mut page, proof, finding, framework);
    }
    for journey in journeys {
        matrix::push(&mut page, proof, journey);
    }
    push_rest(&mut page, proof);
    page.push_str("</body></html>\n");
    page
}

fn verdict(proof: &Proof) -> (&'static str, String) {
    match (proof.verdict, proof.violations()) {
        (Verdict::Stateless, _) => ("stateless", "stateless in the steps covered".into()),
        (Verdict::Inconclusive, _) => ("inconclusive", "inconclusive".into()),
        (Verdict::Violation, 1) => ("violation", "1 violation".into()),
        (Verdict::Violation, findings) => ("violation", format!("{findings} violations")),
    }
}

fn push_finding(page: &mut String, proof: &Proof, finding: &Finding, framework: Option<Framework>) {
    let (id, confidence, rule) = (Escaped(&finding.id), finding.confidence.text(), Escaped(finding.rule));
    let _ = writeln!(page, "<section id=\"{id}\"><h2>{id} {confidence}: {rule}</h2>");
    page.push_str("<dl>");
    let (what, place) = (finding.what(), finding.place());
    for (name, text) in [("what", &what), ("where", &place), ("proof", &finding.proof), ("fix", &finding.fix)]
    {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", Escaped(text));
    }
    let _ = writeln!(page, "<dt>again</dt><dd><code>lethe prove --replay {id}</code></dd></dl>");
    timeline::push(page, finding);
    if let Some(deliveries) = proof.deliveries_of(finding) {
        heard::push(page, deliveries);
    }
    if let Some(file) = &finding.file {
        let _ =
            write!(page, "<p class=\"card\">{}<br>{}, {} bytes", Escaped(&file.path), file.kind, file.bytes);
        if let Some(canary) = &file.canary {
            let _ = write!(page, "<br>has “{}” of the journey in it", Escaped(canary));
        }
        page.push_str("</p>\n");
    }
    let is_its = |each: &&crate::contrast::Contrast| {
        each.journey == finding.replay.journey
            && each.step == finding.consumer.step
            && each.workers == finding.replay.workers
    };
    if let Some(of_it) = proof.responses.iter().find(is_its) {
        contrast::push(page, of_it);
    }
    let snippet = framework
        .filter(|_| !finding.is_in_a_database())
        .and_then(|framework| Some((framework, framework.snippet(finding.kind)?)));
    if let Some((framework, snippet)) = snippet {
        let _ = writeln!(page, "<h3>With {}</h3><pre>{}</pre>", framework.name(), Escaped(snippet));
    }
    page.push_str("</section>\n");
}

/// What belongs to a proof and is no finding.
fn push_rest(page: &mut String, proof: &Proof) {
    let coverage = &proof.coverage;
    let masked =
        coverage.masked.iter().map(|each| format!("{} step {}: {}", each.journey, each.step, each.place));
    push_list(page, "Places that differ on one worker too, and were masked", masked);
    push_list(page, "Files that workers wrote", coverage.written.iter().cloned());
    let read_again = coverage.files.iter().filter_map(crate::trace::Trace::warning);
    push_list(page, "Files that a later step reads again", read_again);
    push_list(page, "Services beside that were used", coverage.beside.iter().cloned());
    push_list(page, "Notes", coverage.notices.iter().cloned());
    push_list(page, "Not looked at", coverage.not_looked_at.iter().cloned());
    let _ = writeln!(
        page,
        "<p class=\"note\">seed {}, {} workers, {}</p>",
        coverage.seed,
        coverage.workers,
        Escaped(coverage.isolation)
    );
}

fn push_list(page: &mut String, title: &str, entries: impl Iterator<Item = String>) {
    let entries: Vec<String> = entries.collect();
    if entries.is_empty() {
        return;
    }
    let _ = write!(page, "<details><summary>{title} ({})</summary><ul>", entries.len());
    for entry in entries {
        let _ = write!(page, "<li>{}</li>", Escaped(&entry));
    }
    page.push_str("</ul></details>\n");
}

/// Text that is no markup, in elements and in attributes; control characters show as what they are: nothing to read.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\n' | '\t' => f.write_char(char),
            // Some turn the direction of what stands beside them.
            char if char.is_control()
                || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                f.write_char('\u{fffd}')
            }
            char => f.write_char(char),
        })
    }
}

#[cfg(test)]
mod tests;
