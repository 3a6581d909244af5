//! Load, workers and latency over time, as a picture: what is where. The files of this folder are what it may be drawn with.

mod png;
mod svg;

use std::fmt;

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

/// Red, green and blue.
#[derive(Clone, Copy)]
struct Colour(u8, u8, u8);

/// Of the policies, in their order. They differ in lightness too.
const COLOURS: [Colour; 4] =
    [Colour(0xd5, 0x5e, 0x00), Colour(0x00, 0x9e, 0x73), Colour(0xcc, 0x79, 0xa7), Colour(0x00, 0x72, 0xb2)];
const BLACK: Colour = Colour(0, 0, 0);
const OF_LOAD: Colour = Colour(0x55, 0x55, 0x55);
const OF_MARKS: Colour = Colour(0x99, 0x99, 0x99);
const OF_BOUNDS: Colour = Colour(0xdd, 0xdd, 0xdd);

/// A point, in pixels from the left and from the top.
type Point = (f64, f64);

/// What a text is beside its place.
#[derive(Clone, Copy)]
struct Style {
    colour: Colour,
    is_bold: bool,
    /// It ends at its place, and does not begin there.
    is_at_its_end: bool,
}

/// What a line is beside its points.
#[derive(Clone, Copy)]
struct Stroke {
    colour: Colour,
    width: f64,
    is_dashed: bool,
}

/// Draws on white paper.
trait Pen {
    /// A line of text whose foot is at this place.
    fn text(&mut self, at: Point, style: Style, text: &str);

    /// A line through these points.
    fn line(&mut self, points: &[Point], stroke: Stroke);
}

/// One panel: its title, and curves with their colours.
struct Panel {
    title: &'static str,
    curves: Vec<(Colour, Vec<f64>)>,
    /// A line across at this value.
    mark: Option<f64>,
    is_logarithmic: bool,
}

/// The picture as SVG.
pub fn svg(model: &Model, outcomes: &[Outcome]) -> String {
    let panels = panels(model, outcomes);
    let mut pen = svg::Pen::new(WIDTH, height(&panels));
    draw(&mut pen, outcomes, &panels);
    pen.finish()
}

/// The picture as PNG, with two pixels for one. An error if there is no memory for it.
pub fn png(model: &Model, outcomes: &[Outcome]) -> anyhow::Result<Vec<u8>> {
    let panels = panels(model, outcomes);
    let mut pen = png::Pen::new(WIDTH, height(&panels))?;
    draw(&mut pen, outcomes, &panels);
    pen.finish()
}

fn panels(model: &Model, outcomes: &[Outcome]) -> [Panel; 3] {
    let coloured = |of: fn(&Second) -> f64| -> Vec<_> {
        let coloured = outcomes.iter().zip(COLOURS.iter().cycle());
        coloured.map(|(outcome, colour)| (*colour, peaks(outcome, of))).collect()
    };
    let load = outcomes.first().map(|outcome| (OF_LOAD, peaks(outcome, |second| second.load)));
    [
        Panel {
            title: "requests a second",
            curves: load.into_iter().collect(),
            mark: None,
            is_logarithmic: false,
        },
        Panel {
            title: "workers, with those that are starting",
            curves: coloured(|second| f64::from(second.ready + second.starting)),
            mark: None,
            is_logarithmic: false,
        },
        Panel {
            title: "latency, 99th percentile, in seconds; dashed: the goal",
            curves: coloured(|second| second.p99),
            mark: Some(model.goal.as_secs_f64()),
            is_logarithmic: true,
        },
    ]
}

fn height(panels: &[Panel]) -> f64 {
    panels.len() as f64 * (HEIGHT + ABOVE) + ABOVE
}

fn draw(pen: &mut dyn Pen, outcomes: &[Outcome], panels: &[Panel]) {
    for (at, outcome) in outcomes.iter().enumerate() {
        let style = Style { colour: COLOURS[at % COLOURS.len()], is_bold: true, is_at_its_end: false };
        pen.text((LEFT + 110.0 * at as f64, 22.0), style, outcome.name);
    }
    for (at, panel) in panels.iter().enumerate() {
        panel.draw(pen, ABOVE + at as f64 * (HEIGHT + ABOVE));
    }
}

fn peaks(outcome: &Outcome, of: impl Fn(&Second) -> f64) -> Vec<f64> {
    let stretch = outcome.seconds.len().div_ceil(POINTS_MAX).max(1);
    outcome.seconds.chunks(stretch).map(|seconds| seconds.iter().map(&of).fold(0.0, f64::max)).collect()
}

impl Panel {
    /// Draws it so far from the top.
    fn draw(&self, pen: &mut dyn Pen, top: f64) {
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
        let title = Style { colour: BLACK, is_bold: false, is_at_its_end: false };
        pen.text((LEFT, top - 6.0), title, self.title);
        let across =
            |pen: &mut dyn Pen, at: f64, stroke: Stroke| pen.line(&[(LEFT, at), (right, at)], stroke);
        for (value, at) in [(most, top), (least, bottom)] {
            across(pen, at, Stroke { colour: OF_BOUNDS, width: 1.0, is_dashed: false });
            let scale = Style { is_at_its_end: true, ..title };
            pen.text((LEFT - 6.0, at + 4.0), scale, &short(value));
        }
        if let Some(mark) = self.mark {
            across(pen, y(mark), Stroke { colour: OF_MARKS, width: 1.0, is_dashed: true });
        }
        for (colour, values) in &self.curves {
            let step = (right - LEFT) / values.len().max(2).saturating_sub(1) as f64;
            let points: Vec<Point> =
                (0..).map(f64::from).zip(values).map(|(at, value)| (LEFT + at * step, y(*value))).collect();
            pen.line(&points, Stroke { colour: *colour, width: 1.5, is_dashed: false });
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(red, green, blue) = self;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
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
        let outcomes = [outcome("hpa"), outcome("lethe")];
        let svg = svg(&model, &outcomes);
        // Load, and for each policy its workers and its latency.
        assert_eq!(svg.matches("stroke-width=\"1.5\"").count(), 5);
        assert_eq!(svg.matches(">hpa</text>").count(), 1);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // The load goes from the lower left to the upper right corner of its panel.
        assert!(svg.contains("points=\"70.0,") && svg.contains("940.0,60.0\""), "{svg}");
        let png = png(&model, &outcomes).unwrap();
        let picture = tiny_skia::Pixmap::decode_png(&png).unwrap();
        assert_eq!(
            (f64::from(picture.width()), f64::from(picture.height())),
            (2.0 * WIDTH, 2.0 * height(&panels(&model, &outcomes)))
        );
        for colour in [COLOURS[0], COLOURS[1], OF_LOAD, OF_MARKS, OF_BOUNDS, BLACK] {
            let is_it = |pixel: &tiny_skia::PremultipliedColorU8| {
                (pixel.red(), pixel.green(), pixel.blue()) == (colour.0, colour.1, colour.2)
            };
            assert!(picture.pixels().iter().any(is_it), "{colour} is not there");
        }
    }
}
