//! A table of text, aligned by the columns that its cells take.

use crate::{
    ansi,
    paint::{Paint, Style},
};

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// A plain one.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: None }
    }

    /// In a style.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style: Some(style) }
    }
}

/// On which side of its column a cell's text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Names and texts.
    Left,
    /// Quantities.
    Right,
}

/// Between two columns.
const GAP: &str = "  ";

/// The table as lines without line ends: a heading of `titles`, then the rows.
pub fn lines(titles: &[(&str, Side)], rows: &[Vec<Cell>], paint: Paint) -> Vec<String> {
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(at, (title, _))| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| ansi::width(&cell.text));
            cells.chain([ansi::width(title)]).max().unwrap_or(0)
        })
        .collect();
    let heading = titles.iter().map(|(title, _)| Cell::styled(*title, Style::DIM)).collect();
    std::iter::once(&heading).chain(rows).map(|row: &Vec<Cell>| line(titles, &widths, row, paint)).collect()
}

fn line(titles: &[(&str, Side)], widths: &[usize], row: &[Cell], paint: Paint) -> String {
    let mut line = String::new();
    for (at, cell) in row.iter().enumerate() {
        let padding = " ".repeat(widths[at].saturating_sub(ansi::width(&cell.text)));
        let text = cell.style.map_or_else(|| cell.text.clone(), |style| paint.text(style, &cell.text));
        if at > 0 {
            line.push_str(GAP);
        }
        match titles[at].1 {
            Side::Left if at + 1 == row.len() => line.push_str(&text),
            Side::Left => line.extend([text, padding]),
            Side::Right => line.extend([padding, text]),
        }
    }
    line.trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned() {
        let titles = [("NAME", Side::Left), ("N", Side::Right), ("NOTE", Side::Left)];
        let rows = [
            vec![Cell::styled("é漢", Style::RED), Cell::new("1"), Cell::new("")],
            vec![Cell::new("longer"), Cell::new("200"), Cell::new("note")],
        ];
        let plain = lines(&titles, &rows, Paint { on: false });
        assert_eq!(plain, ["NAME      N  NOTE", "é漢       1", "longer  200  note"]);
        let painted = lines(&titles, &rows, Paint { on: true });
        let bare: Vec<String> = painted.iter().map(|line| ansi::clean(line, false)).collect();
        assert_eq!(bare[1..], plain[1..]);
        assert!(painted[1].starts_with("\x1b[31mé漢\x1b[0m  "));
    }
}
