//! Curves of a report, as SVG within its page.

use std::fmt::Write;

use crate::{
    report::{Stretch, Summary},
    scalability::Scalability,
};

/// Of a whole picture, in pixels.
const WIDTH: f64 = 960.0;

/// Of each panel.
const HEIGHT: f64 = 140.0;

/// Around each panel: left for its scale, above for its title.
const LEFT: f64 = 70.0;
const ABOVE: f64 = 30.0;
const RIGHT: f64 = 20.0;

/// Below the last panel: for what is from left to right.
const BELOW: f64 = 30.0;

/// Where a share of the width is.
fn x(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

/// Where a share of a panel's height is.
fn y(top: f64, share: f64) -> f64 {
    top + HEIGHT * (1.0 - if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 })
}

fn begin(page: &mut String, height: f64, label: &str) {
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">");
}

/// Title and scale of a panel.
fn push_frame(page: &mut String, top: f64, title: &str, most: &str) {
    let bottom = top + HEIGHT;
    let _ = writeln!(page, "<text x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", top - 8.0);
    for (at, text) in [(top, most), (bottom, "0")] {
        let _ = writeln!(page, "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#8886\"/>", WIDTH - RIGHT);
        let _ = writeln!(
            page,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
}

/// What the left and the right end of a picture are.
fn push_ends(page: &mut String, bottom: f64, left: &str, right: &str) {
    let y = bottom + BELOW - 8.0;
    let _ = writeln!(page, "<text x=\"{LEFT}\" y=\"{y:.1}\">{left}</text>");
    let _ = writeln!(page, "<text x=\"{}\" y=\"{y:.1}\" text-anchor=\"end\">{right}</text>", WIDTH - RIGHT);
}

fn push_line(page: &mut String, colour: &str, points: impl Iterator<Item = (f64, f64)>) {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    // No line goes through one point.
    if let [only] = &points[..]
        && let Some((x, y)) = only.split_once(',')
    {
        let _ = writeln!(page, "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/>");
        return;
    }
    let _ = writeln!(
        page,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
        points.join(" ")
    );
}

/// What was served and how quickly over time, with a mark for each worker that was killed.
pub(super) fn push_timeline(page: &mut String, run: &Summary) {
    let Some(last) = run.timeline.last() else { return };
    let stretch = run.timeline.get(1).map_or(1.0, |second| second.at_s);
    let end = (last.at_s + stretch).max(run.duration_s);
    begin(page, 3.0 * (HEIGHT + ABOVE) + BELOW, "requests and latency over time");
    type Panel = (&'static str, &'static str, fn(&Stretch) -> f64);
    let panels: [Panel; 3] = [
        ("requests as expected, a second", "#0072b2", |stretch| stretch.requests.ok_per_s),
        ("requests not as expected", "#c33", |stretch| (stretch.requests.total - stretch.requests.ok) as f64),
        ("latency, 99th percentile, in milliseconds", "#d55e00", |stretch| {
            stretch.latency.p99_us as f64 / 1000.0
        }),
    ];
    for (at, (title, colour, of)) in panels.into_iter().enumerate() {
        let top = ABOVE + at as f64 * (HEIGHT + ABOVE);
        let most = run.timeline.iter().map(of).fold(0.0, f64::max);
        push_frame(page, top, title, &format!("{most:.0}"));
        for kill in &run.kills {
            let at = x((kill.at_s / end).clamp(0.0, 1.0));
            let _ = writeln!(page, "<path d=\"M{at:.1} {top:.1}v{HEIGHT}\" stroke=\"#c338\"/>");
        }
        let point = |stretch_of: &Stretch| {
            (x((stretch_of.at_s + stretch / 2.0) / end), y(top, of(stretch_of) / most))
        };
        push_line(page, colour, run.timeline.iter().map(point));
    }
    push_ends(page, 3.0 * (HEIGHT + ABOVE), "0 s", &format!("{end:.1} s"));
    page.push_str("</svg>\n");
    if !run.kills.is_empty() {
        let _ =
            writeln!(page, "<p>Each red line is a worker that was killed: {} in all.</p>", run.kills.len());
    }
}

/// The law and what it was fitted to.
pub(super) fn push_law(page: &mut String, law: &Scalability, points: &[(u32, f64)]) {
    let values = law.curve.iter().map(|(_, held)| *held).chain(points.iter().map(|(_, held)| *held));
    let most = values.fold(0.0, f64::max);
    begin(page, HEIGHT + ABOVE + BELOW, "capacity by workers");
    push_frame(
        page,
        ABOVE,
        &format!("users a second, with 1 to {} workers; dots: measured", law.reach),
        &format!("{most:.0}"),
    );
    let place = |(workers, held): &(u32, f64)| {
        (x(f64::from(workers - 1) / f64::from(law.reach.max(2) - 1)), y(ABOVE, held / most))
    };
    push_line(page, "#0072b2", law.curve.iter().map(place));
    for (x, y) in points.iter().map(place) {
        let _ = writeln!(page, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#d55e00\"/>");
    }
    push_ends(page, HEIGHT + ABOVE, "1 worker", &format!("{} workers", law.reach));
    page.push_str("</svg>\n");
}
