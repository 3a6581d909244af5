//! What is wrong with a configuration, as a person reads it: file, line, column, what and why, the line itself and a
//! caret under the value. All problems of a source are collected before any is shown.

use std::{fmt, ops::Range};

/// What some editors put before the first character of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Most characters of a source line that are quoted; a longer line is cut around the caret.
const QUOTE_CHARS_MAX: usize = 100;

/// All that is wrong, in the order of the file; never empty. `Display` gives the whole text, problem after problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub(super) Vec<Problem>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when it was not in a file.
    pub(super) quote: Option<Quote>,
    /// What, why, and what to do next.
    pub(super) message: String,
}

/// A place in a file, with the text that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    file: String,
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// The source line, fit to be shown; empty when there is nothing to show.
    source: String,
    /// Characters of `source` before the caret, and carets.
    caret: (usize, usize),
}

impl Problem {
    /// One that has no place in a file.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { quote: None, message: message.into() }
    }
}

impl From<Problem> for Errors {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl Errors {
    /// The problems.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quote {
            None => f.write_str(&self.message),
            Some(quote) => {
                write!(f, "{}:{}:{}: {}", quote.file, quote.line, quote.column, self.message)?;
                quote.fmt(f)
            }
        }
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_empty() {
            return Ok(());
        }
        let (before, carets) = self.caret;
        let number = self.line.to_string();
        let blank = " ".repeat(number.len());
        // Tabs before the caret stay tabs, so that it stands under the value however wide they are shown.
        let indent: String =
            self.source.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(f, "\n  {number} | {}\n  {blank} | {indent}{}", self.source, "^".repeat(carets))
    }
}

/// Collects what is wrong with one text.
pub(super) struct Report<'t> {
    /// The file, as named to people.
    file: &'t str,
    text: &'t str,
    found: Vec<(usize, Problem)>,
}

impl<'t> Report<'t> {
    /// Begins with nothing found in `text`, which was read from `file`.
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    /// Notes `message`, of one line, about the bytes `span` of the text.
    pub(super) fn at(&mut self, span: Range<usize>, message: impl Into<String>) {
        let message = masked(&message.into()).chars().map(harmless).collect();
        self.found.push((span.start, Problem { quote: Some(self.quote(span)), message }));
    }

    /// The same, without the line itself, which may hold a password.
    pub(super) fn at_secret(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.at(span, message);
        if let Some((_, Problem { quote: Some(quote), .. })) = self.found.last_mut() {
            quote.source.clear();
        }
    }

    /// Whether nothing was found so far.
    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// How much was found so far, for [`Report::say_where`].
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Says of what was found since that it is in the table `title`, such as `[services.shop.scale]`, unless it says so itself.
    pub(super) fn say_where(&mut self, since: usize, title: &str) {
        let inside = title.trim_end_matches(']');
        for (_, problem) in self.found.iter_mut().skip(since) {
            if !problem.message.contains(inside) {
                problem.message = format!("{title} {}", problem.message);
            }
        }
    }

    /// The text.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// The line, from 1, of a byte of the text.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&b| b == b'\n').count()
    }

    /// What was found, in the order of the text.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(start, _)| *start);
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }

    /// The place of `span`, which is kept beyond the report.
    pub(super) fn quote(&self, span: Range<usize>) -> Quote {
        let start = boundary(self.text, span.start);
        // A byte order mark is no character of the first line.
        let text_at = if self.text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        let line_at = self.text[..start].rfind('\n').map_or(text_at, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let source = masked(self.text[line_at..line_end.max(line_at)].trim_end_matches('\r'));
        let before = self.text[line_at..start.max(line_at)].chars().count();
        let inside = &self.text[start..boundary(self.text, span.end).clamp(start, line_end)];
        let carets = inside.trim_end().chars().count().max(1);
        let (source, caret) = cut(&source, before, carets);
        Quote { file: self.file.into(), line: self.line_of(start), column: before + 1, source, caret }
    }
}

/// The byte `at`, or the one nearest before it where a letter begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// The same text, where a star stands for each character of what may be a password: all between `//` and the last `@` of a
/// URL, or what was meant to be one, and its query.
fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("//") {
        masked += before;
        masked += "//";
        let end = behind
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ','))
            .unwrap_or(behind.len());
        let secret = behind[..end].rfind('@').unwrap_or(0);
        masked.extend(behind[..secret].chars().map(|_| '*'));
        let query = behind[secret..end].find('?').map_or(end, |at| secret + at + 1);
        masked += &behind[secret..query];
        masked.extend(behind[query..end].chars().map(|_| '*'));
        rest = &behind[end..];
    }
    masked + rest
}

/// What a terminal may be given of a file that anyone wrote: no control characters.
fn harmless(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

/// Cuts a long line around the caret.
fn cut(source: &str, before: usize, carets: usize) -> (String, (usize, usize)) {
    let chars: Vec<char> = source.chars().map(harmless).collect();
    if chars.len() <= QUOTE_CHARS_MAX {
        return (chars.into_iter().collect(), (before, carets));
    }
    let from = before.saturating_sub(QUOTE_CHARS_MAX / 3).min(chars.len() - QUOTE_CHARS_MAX);
    let window: String = chars[from..from + QUOTE_CHARS_MAX].iter().collect();
    let before = (before - from).min(QUOTE_CHARS_MAX - 1);
    (window, (before, carets.min(QUOTE_CHARS_MAX - before)))
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A third of the letters may differ: `comand` is `command`, `port` is not `route`.
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_lowercase(), candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a, b and c`, each in backquotes.
pub(super) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.pop() {
        None => String::new(),
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} and {last}", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Range<usize>, expected: &str) {
        let mut report = Report::new("f", text);
        report.at(span, "no");
        assert_eq!(Errors(report.finish()).to_string(), expected, "{text:?}");
    }

    #[test]
    fn carets_stand_under_the_value() {
        check("a = 1\nb = 22\n", 10..12, "f:2:5: no\n  2 | b = 22\n    |     ^^");
        check("a = 1\r\nb = 22\r\n", 11..13, "f:2:5: no\n  2 | b = 22\n    |     ^^");
        check("\tb\t= é!", 5..8, "f:1:6: no\n  1 | \tb\t= é!\n    | \t \t  ^^");
        // More than one line: only the first is quoted. At the end, and past it, there is still one caret.
        check("a = [\n1]\n", 4..8, "f:1:5: no\n  1 | a = [\n    |     ^");
        check("a =", 3..3, "f:1:4: no\n  1 | a =\n    |    ^");
        check("a =", 9..12, "f:1:4: no\n  1 | a =\n    |    ^");
        check("", 0..0, "f:1:1: no");
        // Ten lines: the gutter grows.
        check(&format!("{}x = 1", "\n".repeat(9)), 9..10, "f:10:1: no\n  10 | x = 1\n     | ^");
        check("\u{feff}a = 1", 3..4, "f:1:1: no\n  1 | a = 1\n    | ^");
        check("a\u{1b}[2J", 0..1, "f:1:1: no\n  1 | a\u{fffd}[2J\n    | ^");
    }

    #[test]
    fn passwords_are_not_quoted() {
        for (text, expected) in [
            ("a = 'redis://:pw@h' # x@y", "a = 'redis://***@h' # x@y"),
            ("url = redis://u:p@ss@h/0", "url = redis://******@h/0"),
            ("url = \"redis//:pw@h\"", "url = \"redis//***@h\""),
            ("a = 'postgres://u:p@h', b = 'http://h/@'", "a = 'postgres://***@h', b = 'http://**@'"),
            ("a = 'https://h/x.tar?key=s3', b = 1", "a = 'https://h/x.tar?******', b = 1"),
            ("a // b @ c", "a // b @ c"),
        ] {
            assert_eq!(masked(text), expected);
        }
        let url = "x = redis://:hunter2@cache";
        check(
            url,
            4..url.len(),
            "f:1:5: no\n  1 | x = redis://********@cache\n    |     ^^^^^^^^^^^^^^^^^^^^^^",
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let line = format!("{}HERE{}", "a".repeat(300), "b".repeat(300));
        let mut report = Report::new("f", &line);
        report.at(300..304, "no");
        let text = Errors(report.finish()).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "f:1:301: no");
        let shown = lines[1].strip_prefix("  1 | ").unwrap();
        let carets = lines[2].strip_prefix("    | ").unwrap();
        assert_eq!(shown.chars().count(), QUOTE_CHARS_MAX);
        assert_eq!(&shown[carets.find('^').unwrap()..carets.len()], "HERE");
    }

    #[test]
    fn problems_come_in_the_order_of_the_text() {
        let mut report = Report::new("f", "ab");
        report.at(1..2, "second");
        report.at(0..1, "first");
        let text = Errors(report.finish()).to_string();
        assert!(text.find("first").unwrap() < text.find("second").unwrap(), "{text}");
    }

    #[test]
    fn nearest_is_near() {
        let known = ["command", "instances", "ready", "listener"];
        assert_eq!(nearest("comand", known), Some("command"));
        assert_eq!(nearest("Instances", known), Some("instances"));
        assert_eq!(nearest("instance", known), Some("instances"));
        assert_eq!(nearest("listen", known), Some("listener"));
        assert_eq!(nearest("replicas", known), None);
    }
}
