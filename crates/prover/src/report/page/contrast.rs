//! Two responses, line by line: what only one worker gives, what came instead, and what both have.

use std::fmt::Write;

use super::Escaped;
use crate::contrast::Contrast;

/// Most lines of each response that are compared; the rest is left out.
const LINES_MAX: usize = 200;

/// A line, and who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'t> {
    Both(&'t str),
    Alone(&'t str),
    Among(&'t str),
}

/// Writes both as one.
pub(super) fn push(page: &mut String, contrast: &Contrast) {
    let _ = write!(page, "<h3>Step {}: on one worker (−), and what came (+)</h3><pre>", contrast.step);
    for line in lines(&contrast.alone, &contrast.among) {
        let _ = match line {
            Line::Both(text) => writeln!(page, "  {}", Escaped(text)),
            Line::Alone(text) => write!(page, "<del>− {}</del>", Escaped(text)),
            Line::Among(text) => write!(page, "<ins>+ {}</ins>", Escaped(text)),
        };
    }
    page.push_str("</pre>\n");
}

/// The longest common lines stay where they are; all others are before them, those of one worker first.
fn lines<'t>(alone: &'t str, among: &'t str) -> Vec<Line<'t>> {
    let [first, second] = [alone, among].map(|text| text.lines().take(LINES_MAX).collect::<Vec<_>>());
    // How many lines are common from here to the end.
    let mut common = vec![vec![0_usize; second.len() + 1]; first.len() + 1];
    for i in (0..first.len()).rev() {
        for j in (0..second.len()).rev() {
            common[i][j] = match first[i] == second[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < first.len() || j < second.len() {
        if i < first.len() && j < second.len() && first[i] == second[j] {
            lines.push(Line::Both(first[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == second.len() || (i < first.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line::Alone(first[i]));
            i += 1;
        } else {
            lines.push(Line::Among(second[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_told_once() {
        let lines = lines("200 OK\na\nb\n", "404\na\nc\nb\n");
        let expected =
            [Line::Alone("200 OK"), Line::Among("404"), Line::Both("a"), Line::Among("c"), Line::Both("b")];
        assert_eq!(lines, expected);
    }
}
