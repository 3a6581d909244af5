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
enum Side {
    Left,
    Right,
}

/// A column's title, side and least width. With a least width, cells that change do not move their neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    side: Side,
    columns_min: usize,
}

impl Column {
    /// One whose cells begin below each other.
    pub const fn left(title: &'static str, columns_min: usize) -> Self {
        Self { title, side: Side::Left, columns_min }
    }

    /// One whose cells end below each other.
    pub const fn right(title: &'static str, columns_min: usize) -> Self {
        Self { title, side: Side::Right, columns_min }
    }
}

/// Between two columns.
const GAP: &str = "  ";

/// The table as lines without line ends: a heading of titles, then the rows.
pub fn lines(columns: &[Column], rows: &[Vec<Cell>], paint: Paint) -> Vec<String> {
    let heading: Vec<Cell> = columns.iter().map(|column| Cell::styled(column.title, Style::DIM)).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().chain([&heading]).filter_map(|row| row.get(at));
            cells.map(|cell| ansi::width(&cell.text)).max().unwrap_or(0).max(column.columns_min)
        })
        .collect();
    std::iter::once(&heading).chain(rows).map(|row| line(columns, &widths, row, paint)).collect()
}

fn line(columns: &[Column], widths: &[usize], row: &[Cell], paint: Paint) -> String {
    let mut line = String::new();
    for ((cell, column), width) in row.iter().zip(columns).zip(widths) {
        let padding = " ".repeat(width.saturating_sub(ansi::width(&cell.text)));
        let text = cell.style.map_or_else(|| cell.text.clone(), |style| paint.text(style, &cell.text));
        if !line.is_empty() {
            line.push_str(GAP);
        }
        match column.side {
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
        let titles = [Column::left("NAME", 0), Column::right("N", 4), Column::left("NOTE", 9)];
        let rows = [
            vec![Cell::styled("é漢", Style::RED), Cell::new("1"), Cell::new("")],
            vec![Cell::new("longer"), Cell::new("200"), Cell::new("note")],
        ];
        let plain = lines(&titles, &rows, Paint { on: false });
        assert_eq!(plain, ["NAME       N  NOTE", "é漢        1", "longer   200  note"]);
        let painted = lines(&titles, &rows, Paint { on: true });
        let bare: Vec<String> = painted.iter().map(|line| ansi::clean(line, false)).collect();
        assert_eq!(bare[1..], plain[1..]);
        assert!(painted[1].starts_with("\x1b[31mé漢\x1b[0m  "));
    }
}
