//! The text of `lethe.toml` made into tables. What is no TOML is reported in the words of someone who writes a
//! configuration, not a parser.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, Error},
};

use super::problem::Report;

/// Reads the text of `report`. `None` if it is not TOML, which is then reported; a key or table that is there twice is
/// reported too, but does not keep the rest from being checked.
pub(super) fn parse<'t>(report: &mut Report<'t>) -> Option<Spanned<DeTable<'t>>> {
    let (table, mut errors) = DeTable::parse_recoverable(report.text());
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    let (twice, broken): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|error| error.message() == "duplicate key");
    if broken.is_empty() {
        report_duplicates(&twice, report);
        return Some(table);
    }
    report_broken(&broken, report);
    None
}

/// One message for each line, and none after the first that may have caused the ones that follow.
fn report_broken(errors: &[Error], report: &mut Report<'_>) {
    let mut last_line = 0;
    for error in errors {
        let span = error.span().unwrap_or_default();
        let line = report.line_of(span.start);
        if line == last_line {
            continue;
        }
        last_line = line;
        if let Some((value, message)) = unquoted(&span, report) {
            report.at(value, message);
            continue;
        }
        let message = match error.message() {
            "invalid basic string, expected `\"`" | "invalid literal string, expected `'`" => {
                "the string has no closing quote: add it at the end of the line"
            }
            _ if colon(&span, report) => "TOML has `=` between a key and its value, not `:`",
            message => &format!("not valid TOML: {message}"),
        };
        report.at(span, message);
        return;
    }
}

/// Whether the error is at the colon of a line `key: value`.
fn colon(span: &Range<usize>, report: &Report<'_>) -> bool {
    let source = &report.text()[line_around(report.text(), span.start)];
    source.split_once(':').is_some_and(|(key, _)| is_plain_key(key.trim()))
}

fn is_plain_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A line `key = word` whose value would be one if it were quoted, the most frequent slip, or has no value at all.
fn unquoted(span: &Range<usize>, report: &Report<'_>) -> Option<(Range<usize>, String)> {
    let line = line_around(report.text(), span.start);
    let source = &report.text()[line.clone()];
    let (key, value) = source.split_once('=')?;
    let value_at = line.start + key.len() + 1 + (value.len() - value.trim_start().len());
    let (key, value) = (key.trim(), value.split(" #").next().unwrap_or(value).trim());
    if !is_plain_key(key) {
        return None;
    }
    if value.is_empty() {
        return Some((line.start..line.end, format!("`{key}` has no value: write one after the `=`")));
    }
    let plain_value = !value.starts_with(['"', '\'', '[', '{', '#']) && !value.contains(['"', '\\']);
    plain_value.then(|| {
        let message = format!("`{key}`: `{value}` needs quotes: write {key} = \"{value}\"");
        (value_at..value_at + value.len(), message)
    })
}

/// A table that is there twice is reported once, at its second header, and not again for each key in it.
fn report_duplicates(errors: &[Error], report: &mut Report<'_>) {
    let text = report.text();
    let mut headers_twice = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        let line = line_around(text, span.start);
        let header = enclosing_header(text, line.end);
        if headers_twice.contains(&header) {
            continue;
        }
        let word = &text[span.clone()];
        let message = if Some(line.start) == header {
            headers_twice.push(header);
            let title = text[line.clone()].trim();
            let first = first_header(text, &line).map(|at| format!(", first on line {}", report.line_of(at)));
            let what = match title.starts_with("[services.") {
                true => format!("two services are named `{word}`"),
                false => format!("`{word}` is there twice"),
            };
            format!("{what}{}; rename one, or put their keys into one table", first.unwrap_or_default())
        } else {
            format!("`{word}` is there twice in the same table; keep one")
        };
        report.at(span, message);
    }
}

fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    start..end
}

/// Where the last line that opens a table begins, before `end`.
fn enclosing_header(text: &str, end: usize) -> Option<usize> {
    headers(&text[..end]).last().map(|(at, _)| at)
}

/// Where the same header as the one at `line` stands for the first time.
fn first_header(text: &str, line: &Range<usize>) -> Option<usize> {
    let wanted = normal(&text[line.clone()]);
    headers(&text[..line.start]).find(|(_, header)| normal(header) == wanted).map(|(at, _)| at)
}

fn headers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    lines.filter(|(_, line)| line.trim_start().starts_with('['))
}

/// A header without what may differ between two of the same: spaces, quotes, a comment.
fn normal(header: &str) -> String {
    let header = header.split('#').next().unwrap_or(header);
    header.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect()
}
