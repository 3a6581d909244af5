//! A pen that paints pixels, for where no SVG is shown. Its letters are those of old terminals: no machine needs a font for them.

use anyhow::Context;
use font8x8::{BASIC_FONTS, UnicodeFonts};
use tiny_skia::{Color, Paint, PathBuilder, Pixmap, Rect, StrokeDash, Transform};

use super::{Colour, Point, Stroke, Style};

/// Pixels for one of the picture, for screens that have many.
const SCALE: f32 = 2.0;

/// Of a letter, which is drawn in a square of so many dots.
const DOTS: usize = 8;

/// What was drawn so far.
pub(super) struct Pen(Pixmap);

impl Pen {
    /// An error if there is no memory for it.
    pub(super) fn new(width: f64, height: f64) -> anyhow::Result<Self> {
        let pixels = |length: f64| (length as f32 * SCALE) as u32;
        let mut paper = Pixmap::new(pixels(width), pixels(height)).context("no memory for the picture")?;
        paper.fill(Color::WHITE);
        Ok(Self(paper))
    }

    pub(super) fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(self.0.encode_png()?)
    }
}

impl super::Pen for Pen {
    fn text(&mut self, (x, y): Point, style: Style, text: &str) {
        // Letters of one width; their feet stand on the line, with one dot below it for tails.
        let width = if style.is_at_its_end { text.chars().count() * DOTS } else { 0 };
        let (left, top) = (x as f32 - width as f32, y as f32 - (DOTS - 1) as f32);
        let (paint, weight) = (paint(style.colour), if style.is_bold { 1.5 } else { 1.0 });
        for (place, letter) in text.chars().enumerate() {
            let rows = BASIC_FONTS.get(letter).unwrap_or_default();
            for (row, dots) in rows.into_iter().enumerate() {
                for column in (0..DOTS).filter(|column| dots & (1 << column) != 0) {
                    let (x, y) = (left + (place * DOTS + column) as f32, top + row as f32);
                    if let Some(dot) = Rect::from_xywh(x, y, weight, 1.0) {
                        self.0.fill_rect(dot, &paint, Transform::from_scale(SCALE, SCALE), None);
                    }
                }
            }
        }
    }

    fn line(&mut self, points: &[Point], stroke: Stroke) {
        let mut path = PathBuilder::new();
        for (at, &(x, y)) in points.iter().enumerate() {
            if at == 0 { path.move_to(x as f32, y as f32) } else { path.line_to(x as f32, y as f32) }
        }
        // One point is no line.
        let Some(path) = path.finish() else { return };
        let dash = if stroke.is_dashed { StrokeDash::new(vec![6.0, 4.0], 0.0) } else { None };
        let line = tiny_skia::Stroke { width: stroke.width as f32, dash, ..tiny_skia::Stroke::default() };
        self.0.stroke_path(&path, &paint(stroke.colour), &line, Transform::from_scale(SCALE, SCALE), None);
    }
}

fn paint(Colour(red, green, blue): Colour) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, u8::MAX);
    paint
}
