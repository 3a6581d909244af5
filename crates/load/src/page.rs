//! A report as one HTML file that needs nothing else: no script, nothing loaded from elsewhere.

mod picture;

use std::fmt::{Display, Write};

use crate::{
    capacity::Limit,
    report::{Latency, Report, Requests, Summary},
    scalability::{Estimate, Scalability},
};

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8884}
th,td{white-space:nowrap}th:first-child,td:first-child{text-align:left}td:first-child{white-space:normal;overflow-wrap:anywhere}.steps td:first-child{min-width:9rem}\
.wide{overflow-x:auto}h1,li,p{overflow-wrap:anywhere}.bad{color:#c33;font-weight:600}.good{color:#293}svg{width:100%;height:auto}
svg text{fill:currentColor;font-size:12px}svg path,svg polyline{vector-effect:non-scaling-stroke}.note{opacity:.75}\
@media(max-width:40rem){svg text{font-size:26px}h1{font-size:1.4rem}h2{font-size:1.1rem}}";

/// Writes it.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>lethe load {0}</title><style>{STYLE}</style></head><body><h1>Load on {0}</h1>\n",
        Escaped(&report.target)
    );
    for journey in &report.journeys {
        let _ = write!(
            page,
            "<p>Users go through <b>{}</b> ({} step{}).",
            Escaped(&journey.name),
            journey.steps.len(),
            if journey.steps.len() == 1 { "" } else { "s" }
        );
        for note in &journey.notes {
            let _ = write!(page, " <span class=\"note\">{}</span>", Escaped(note));
        }
        page.push_str("</p>\n");
    }
    if let Some(run) = &report.run {
        push_run(&mut page, run);
    }
    push_capacities(&mut page, report);
    if let Some(law) = &report.scalability {
        push_scalability(&mut page, report, law);
    }
    if let Some(why) = &report.scalability_missing_because {
        let _ = writeln!(page, "<p>How it grows with workers is not known: {}.</p>", Escaped(why));
    }
    page.push_str("</body></html>\n");
    page
}

/// Text that is no markup.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

fn ms(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 100.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

fn push_run(page: &mut String, run: &Summary) {
    let (from, to) = run.users_per_s;
    let rate = if from == to { format!("{from:.1}") } else { format!("{from:.1} to {to:.1}") };
    let _ = writeln!(
        page,
        "<p>{} users in {:.1} s, {rate} a second; {} came to the end of their journey. The generator let 99 of 100 in within {} of the planned instant.</p>",
        run.users.arrived,
        run.duration_s,
        run.users.finished,
        ms(run.lag.p99_us)
    );
    for why in &run.invalid_because {
        let _ = writeln!(page, "<p class=\"bad\">Not valid: {}</p>", Escaped(why));
    }
    picture::push_timeline(page, run);
    page.push_str(
        "<div class=\"wide\"><table class=\"steps\"><tr><th>Step or worker</th><th>Requests</th><th>ok/s</th><th>not ok</th><th>unknown</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n",
    );
    let several = run.steps.iter().any(|step| step.journey != run.steps[0].journey);
    for step in &run.steps {
        let journey = if several { format!("{} ", step.journey) } else { String::new() };
        push_row(page, &format!("{journey}{} {}", step.step, step.title), &step.requests, &step.latency);
    }
    push_row(page, "all", &run.requests, &run.latency);
    for worker in &run.workers {
        push_row(page, &worker.name, &worker.requests, &worker.latency);
    }
    page.push_str("</table></div>\n");
    if !run.problems.is_empty() {
        page.push_str("<h2>What went wrong</h2><ul>");
        for problem in &run.problems {
            let _ = write!(page, "<li>{} × {}</li>", problem.count, Escaped(&problem.what));
        }
        page.push_str("</ul>\n");
    }
}

fn push_row(page: &mut String, name: &str, requests: &Requests, latency: &Latency) {
    let wrong = |count: u64| match count {
        0 => "<td>0</td>".into(),
        count => format!("<td class=\"bad\">{count}</td>"),
    };
    let _ = write!(
        page,
        "<tr><td>{}</td><td>{}</td><td>{:.1}</td>{}{}",
        Escaped(name),
        requests.total,
        requests.ok_per_s,
        wrong(requests.unmet + requests.failed + requests.late),
        wrong(requests.unknown)
    );
    for us in [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us] {
        let _ = match requests.ok {
            0 => write!(page, "<td>-</td>"),
            _ => write!(page, "<td>{}</td>", ms(us)),
        };
    }
    page.push_str("</tr>\n");
}

fn push_capacities(page: &mut String, report: &Report) {
    for capacity in &report.capacities {
        let workers = match capacity.workers {
            Some(1) => " with 1 worker".into(),
            Some(count) => format!(" with {count} workers"),
            None => String::new(),
        };
        let held =
            capacity.found.users_per_s.map_or("nothing".into(), |rate| format!("{rate:.0} users a second"));
        let limit = match capacity.found.limit {
            Limit::Service => "",
            Limit::Generator => ", or more: this machine cannot make more load",
            Limit::RateMax => ", the highest rate that is tried, or more",
            Limit::First => ": not even the lowest rate is held",
            Limit::Tries => ", as far as it was found out",
        };
        let is_unknown = capacity.found.users_per_s.is_none() && capacity.found.limit == Limit::Generator;
        let _ = match capacity.found.tries.first().filter(|_| is_unknown) {
            Some(first) => writeln!(
                page,
                "<h2>Capacity{workers}: not known; this machine could not make even {:.0} users a second</h2>",
                first.rate
            ),
            None => writeln!(page, "<h2>Capacity{workers}: {held}{limit}</h2>"),
        };
        page.push_str(
            "<div class=\"wide\"><table><tr><th>Users/s</th><th>served</th><th>p99</th><th></th></tr>\n",
        );
        for tried in &capacity.found.tries {
            let (class, word) = match (tried.held, tried.valid) {
                (true, _) => ("good", "held"),
                (false, true) => ("bad", "not held"),
                (false, false) => ("bad", "not valid"),
            };
            let _ = writeln!(
                page,
                "<tr><td>{:.1}</td><td>{:.1} %</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
                tried.rate,
                tried.share * 100.0,
                ms(tried.p99_us)
            );
        }
        page.push_str("</table></div>\n");
    }
}

fn push_scalability(page: &mut String, report: &Report, law: &Scalability) {
    let points = report.capacities.iter().filter_map(|each| Some((each.workers?, each.found.users_per_s?)));
    picture::push_law(page, law, &points.collect::<Vec<_>>());
    let row = |page: &mut String, name: &str, estimate: &Estimate, factor: f64, unit: &str| {
        let [value, low, high] = [estimate.value, estimate.low, estimate.high].map(|each| each * factor);
        let _ = writeln!(
            page,
            "<tr><td>{name}</td><td>{value:.2}{unit}</td><td>{low:.2} to {high:.2}{unit}</td></tr>"
        );
    };
    page.push_str("<div class=\"wide\"><table><tr><th>Universal Scalability Law</th><th></th><th>95 % confidence</th></tr>\n");
    row(page, "one worker, users a second", &law.one_worker, 1.0, "");
    row(page, "contention", &law.contention, 100.0, " %");
    row(page, "coherence", &law.coherence, 100.0, " %");
    let _ = writeln!(
        page,
        "<tr><td>explained</td><td>{:.1} %</td><td></td></tr></table></div>",
        law.r_squared.max(0.0) * 100.0
    );
    let best = law.best.map(|best| format!("With more than {best} workers, they hold less."));
    for note in best.iter().chain(&law.notes) {
        let _ = writeln!(page, "<p>{}</p>", Escaped(note));
    }
}

#[cfg(test)]
mod tests;
