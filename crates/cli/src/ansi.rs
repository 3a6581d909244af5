//! Text for a terminal: what workers print is made harmless, and rows are measured, cut and wrapped by the columns
//! that they take.

use std::{
    io::{self, IsTerminal},
    iter::Peekable,
};

/// Makes a printed line fit to be shown: colours (SGR, ECMA-48 section 8.3.117) stay when `colour`, every other
/// control is taken out, a tab becomes spaces, and of what was overwritten after a carriage return the last remains.
/// Nothing that a worker prints can move the cursor, retitle the window or reorder what is read.
pub fn clean(text: &str, colour: bool) -> String {
    let trimmed = text.trim_end_matches('\r');
    let shown = trimmed.rsplit('\r').next().unwrap_or(trimmed);
    let mut clean = String::with_capacity(shown.len());
    let (mut column, mut painted) = (0, false);
    let mut rest = shown.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\x1b' => {
                if let Some(parameters) = escape(&mut rest).filter(|_| colour) {
                    painted = !matches!(parameters.as_str(), "" | "0");
                    clean.push_str("\x1b[");
                    clean.push_str(&parameters);
                    clean.push('m');
                }
            }
            '\t' => {
                let spaces = 8 - column % 8;
                clean.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            // What reorders or hides text (Unicode Standard Annex 9, section 2) misleads the reader as controls do.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            char if char.is_control() => {}
            char => {
                column += columns(char);
                clean.push(char);
            }
        }
    }
    if painted {
        clean.push_str("\x1b[0m");
    }
    clean
}

/// `text`, of one line or several, as standard error may get it: made harmless where that is a terminal. What is said there
/// quotes what workers and builds have printed.
pub fn for_stderr(text: &str) -> String {
    if io::stderr().is_terminal() { clean_lines(text) } else { text.into() }
}

fn clean_lines(text: &str) -> String {
    text.split('\n').map(|line| clean(line, false)).collect::<Vec<_>>().join("\n")
}

/// Takes an escape sequence, whose ESC has been taken; returns the parameters when it is a colour.
fn escape(rest: &mut Peekable<impl Iterator<Item = char>>) -> Option<String> {
    match rest.next()? {
        '[' => {
            let mut parameters = String::new();
            loop {
                match rest.next()? {
                    'm' => {
                        return parameters
                            .bytes()
                            .all(|b| b.is_ascii_digit() || b";:".contains(&b))
                            .then_some(parameters);
                    }
                    '\x40'..='\x7e' => return None,
                    char => parameters.push(char),
                }
            }
        }
        // Strings (OSC, DCS, SOS, PM, APC) go to BEL or ST.
        ']' | 'P' | 'X' | '^' | '_' => {
            while let Some(char) = rest.next() {
                if char == '\x07' || (char == '\x1b' && rest.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
            None
        }
        '\x20'..='\x2f' => {
            while rest.next_if(|char| ('\x20'..='\x2f').contains(char)).is_some() {}
            rest.next();
            None
        }
        _ => None,
    }
}

/// The columns that `text` takes; colours take none.
pub fn width(text: &str) -> usize {
    pieces(text).map(|piece| piece.columns()).sum()
}

/// `text`, cut to at most `width` columns; `…` stands for what was cut.
pub fn cut(text: &str, width: usize) -> String {
    if self::width(text) <= width {
        return text.into();
    }
    let mut kept = String::new();
    let mut used = 0;
    for piece in pieces(text) {
        if used + piece.columns() >= width {
            break;
        }
        used += piece.columns();
        kept.push_str(piece.text);
    }
    if width > 0 {
        kept.push('…');
    }
    if kept.contains('\x1b') {
        kept.push_str("\x1b[0m");
    }
    kept
}

/// `text` in rows of at most `width` columns. Colours go on in the next row; each row ends without one.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut rows = Vec::new();
    let (mut row, mut used) = (String::new(), 0);
    let mut active = String::new();
    for piece in pieces(text) {
        if used > 0 && used + piece.columns() > width {
            if !active.is_empty() {
                row.push_str("\x1b[0m");
            }
            rows.push(std::mem::replace(&mut row, active.clone()));
            used = 0;
        }
        if piece.colour {
            if matches!(piece.text, "\x1b[m" | "\x1b[0m") {
                active.clear();
            } else {
                active.push_str(piece.text);
            }
        }
        used += piece.columns();
        row.push_str(piece.text);
    }
    rows.push(row);
    rows
}

/// A character or a colour.
struct Piece<'t> {
    text: &'t str,
    colour: bool,
}

impl Piece<'_> {
    fn columns(&self) -> usize {
        if self.colour { 0 } else { self.text.chars().map(columns).sum() }
    }
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let colour = rest.starts_with("\x1b[");
        let length = if colour {
            rest.find('m').map_or(rest.len(), |end| end + 1)
        } else {
            rest.chars().next()?.len_utf8()
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(Piece { text: piece, colour })
    })
}

/// The columns that a character takes on a terminal: the ranges of Unicode Standard Annex 11 that matter, coarsely. A
/// wrong guess shifts a cell of the table, no more.
fn columns(char: char) -> usize {
    match char {
        '\u{300}'..='\u{36f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{1fa70}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless() {
        for (text, shown) in [
            ("plain é 漢", "plain é 漢"),
            ("a\tb", "a       b"),
            ("漢\tb", "漢      b"),
            ("10%\r50%\r100%", "100%"),
            ("windows\r", "windows"),
            ("\x1b[2J\x1b[1;1Hgone", "gone"),
            ("\x1b]0;title\x07a\x1b]8;;x\x1b\\b", "ab"),
            ("\x1b]52;c;never ends", ""),
            ("\x1b(Ba\x1bcb\x1bP+q\x1b\\c", "abc"),
            ("bell\x07 back\x08 c1\u{9b}31m del\x7f", "bell back c131m del"),
            ("safe\u{202e}fdp.exe", "safefdp.exe"),
            ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
            ("\x1b[1;31mred\x1b[0m calm", "\x1b[1;31mred\x1b[0m calm"),
            ("\x1b[>4;1mnot a colour", "not a colour"),
            ("\x1b[", ""),
            ("\x1b", ""),
        ] {
            assert_eq!(clean(text, true), shown, "{text:?}");
        }
        assert_eq!(clean("\x1b[31mred\x1b[0m calm", false), "red calm");
        assert_eq!(clean_lines("error: it said\n\x1b]0;title\x07\x1b[1Aok\n"), "error: it said\nok\n");
    }

    #[test]
    fn cut_and_measured() {
        for (text, columns, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("漢漢", 4, "漢漢"),
            ("漢漢", 3, "漢…"),
            ("漢漢", 2, "…"),
            ("abc", 0, ""),
            ("\x1b[31mabcd\x1b[0m", 3, "\x1b[31mab…\x1b[0m"),
        ] {
            let cut = cut(text, columns);
            assert_eq!(cut, shown);
            assert!(width(&cut) <= columns);
        }
    }

    #[test]
    fn wrapped() {
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("abcdef", 3), ["abc", "def"]);
        assert_eq!(wrap("a漢漢", 2), ["a", "漢", "漢"]);
        assert_eq!(wrap("漢", 1), ["漢"]);
        let rows = wrap("\x1b[31mabcd\x1b[0mef", 3);
        assert_eq!(rows, ["\x1b[31mabc\x1b[0m", "\x1b[31md\x1b[0mef"]);
    }
}
