//! Load, workers and latency over time, as SVG.

use std::fmt::Write;

use lethe_scaler::simulation::{Model, Outcome, Second};

/// Of the whole picture, in pixels.
const WIDTH: f64 = 960.0;

/// Of each panel.
const HEIGHT: f64 = 200.0;

/// Around each panel: left for its scale, above for its title.
const LEFT: f64 = 70.0;
const ABOVE: f64 = 40.0;

/// No curve has more points; of those in between it is the highest that is drawn.
const POINTS_MAX: usize = 800;

/// Of the policies, in their order. They differ in lightness too.
const COLOURS: [&str; 4] = ["#d55e00", "#009e73", "#cc79a7", "#0072b2"];

/// One panel: its title, and curves with their colours.
struct Panel<'a> {
    title: String,
    curves: Vec<(&'a str, Vec<f64>)>,
    /// A line across at this value.
    mark: Option<f64>,
    is_logarithmic: bool,
}

/// Draws it.
pub fn svg(model: &Model, outcomes: &[Outcome]) -> String {
    let coloured = |of: fn(&Second) -> f64| -> Vec<_> {
        outcomes
            .iter()
            .zip(COLOURS.iter().cycle())
            .map(|(outcome, colour)| (*colour, peaks(outcome, of)))
            .collect()
    };
    let load = outcomes.first().map(|outcome| ("#555", peaks(outcome, |second| second.load)));
    let panels = [
        Panel {
            title: "requests a second".into(),
            curves: load.into_iter().collect(),
            mark: None,
            is_logarithmic: false,
        },
        Panel {
            title: "workers, with those that are starting".into(),
            curves: coloured(|second| f64::from(second.ready + second.starting)),
            mark: None,
            is_logarithmic: false,
        },
        Panel {
            title: "latency, 99th percentile, in seconds; dashed: the goal".into(),
            curves: coloured(|second| second.p99),
            mark: Some(model.goal.as_secs_f64()),
            is_logarithmic: true,
        },
    ];
    let height = panels.len() as f64 * (HEIGHT + ABOVE) + ABOVE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    // Writing to a `String` cannot fail.
    for (at, outcome) in outcomes.iter().enumerate() {
        let (x, colour) = (LEFT + 110.0 * at as f64, COLOURS[at % COLOURS.len()]);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"22\" fill=\"{colour}\" font-weight=\"bold\">{}</text>",
            outcome.name
        );
    }
    for (at, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, ABOVE + at as f64 * (HEIGHT + ABOVE));
    }
    svg.push_str("</svg>\n");
    svg
}

fn peaks(outcome: &Outcome, of: impl Fn(&Second) -> f64) -> Vec<f64> {
    let stretch = outcome.seconds.len().div_ceil(POINTS_MAX).max(1);
    outcome.seconds.chunks(stretch).map(|seconds| seconds.iter().map(&of).fold(0.0, f64::max)).collect()
}

impl Panel<'_> {
    /// Draws it so far from the top.
    fn draw(&self, svg: &mut String, top: f64) {
        let values = || self.curves.iter().flat_map(|(_, values)| values).copied().chain(self.mark);
        let most = values().fold(0.0, f64::max);
        let least = if self.is_logarithmic { values().fold(f64::INFINITY, f64::min) } else { 0.0 };
        let share = |value: f64| {
            let share =
                if self.is_logarithmic { (value / least).ln() / (most / least).ln() } else { value / most };
            if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
        };
        let (top, bottom) = (top + ABOVE / 2.0, top + ABOVE / 2.0 + HEIGHT);
        let y = |value: f64| bottom - share(value) * HEIGHT;
        let right = WIDTH - 20.0;
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", top - 6.0, self.title);
        for (value, at) in [(most, top), (least, bottom)] {
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(value)
            );
        }
        if let Some(mark) = self.mark {
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {:.1}H{right}\" stroke=\"#999\" stroke-dasharray=\"6 4\"/>",
                y(mark)
            );
        }
        for (colour, values) in &self.curves {
            let step = (right - LEFT) / values.len().max(2).saturating_sub(1) as f64;
            let points = values
                .iter()
                .enumerate()
                .map(|(at, value)| format!("{:.1},{:.1}", LEFT + at as f64 * step, y(*value)));
            let points: Vec<String> = points.collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                points.join(" ")
            );
        }
    }
}

/// As few digits as tell the scale.
fn short(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "-".into(),
        0.0..0.001 => format!("{value:.0}"),
        0.001..10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_policy_has_its_curves_within_the_picture() {
        let model = Model {
            service_time: Duration::from_millis(50),
            startup: Duration::from_secs(2),
            slots: 1,
            goal: Duration::from_millis(200),
            min: 1,
            max: 10,
            utilization: 0.7,
        };
        let seconds: Vec<_> =
            (0..10_000).map(|at| Second { load: f64::from(at), ready: 3, starting: 1, p99: 0.05 }).collect();
        let outcome = |name| Outcome {
            name,
            seconds: seconds.clone(),
            worker_hours: 0.0,
            requests: 0.0,
            over: 0.0,
            changes: 0,
            most: 4,
        };
        let svg = svg(&model, &[outcome("hpa"), outcome("lethe")]);
        assert_eq!(svg.matches("<polyline").count(), 5);
        assert_eq!(svg.matches(">hpa</text>").count(), 1);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // The load goes from the lower left to the upper right corner of its panel.
        assert!(svg.contains("points=\"70.0,") && svg.contains("940.0,60.0\""), "{svg}");
    }
}
