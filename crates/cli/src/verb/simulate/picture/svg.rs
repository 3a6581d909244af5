//! A pen that writes SVG, which browsers show and scale.

use std::fmt::Write;

use super::{Point, Stroke, Style};

/// What was drawn so far.
pub(super) struct Pen(String);

impl Pen {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        ))
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

// Writing to a `String` cannot fail. No text is from elsewhere, so that none has to be escaped.
impl super::Pen for Pen {
    fn text(&mut self, (x, y): Point, style: Style, text: &str) {
        let bold = if style.is_bold { " font-weight=\"bold\"" } else { "" };
        let anchor = if style.is_at_its_end { " text-anchor=\"end\"" } else { "" };
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\"{bold}{anchor}>{text}</text>",
            style.colour
        );
    }

    fn line(&mut self, points: &[Point], stroke: Stroke) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = if stroke.is_dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let _ = writeln!(
            self.0,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{dashes}/>",
            points.join(" "),
            stroke.colour,
            stroke.width
        );
    }
}
