//! HTML, as far as a replay needs it: tags with their attributes and the text between them, in their order. It never fails: what is
//! no tag is text, as in browsers.

use std::borrow::Cow;

/// A piece of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Text, with its character references resolved; not that of scripts and styles.
    Text(String),
    /// A tag that opens an element.
    Open(Tag),
    /// A tag that closes one, by its name in lower case.
    Close(String),
}

/// A tag that opens an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The element, in lower case.
    pub name: String,
    /// Names in lower case, and values with their character references resolved.
    pub attributes: Vec<(String, String)>,
}

impl Tag {
    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether it has the attribute, with whatever value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether it is an element that has no content and is not closed (HTML Standard, section 13.1.2).
    pub fn is_void(&self) -> bool {
        const VOID: [&str; 13] = [
            "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
            "wbr",
        ];
        VOID.contains(&self.name.as_str())
    }
}

/// The pieces of `page`. What is between scripts' and styles' tags is left out.
pub fn tokens(page: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = page;
    while !rest.is_empty() {
        let at = next_tag(rest);
        let (text, markup) = rest.split_at(at);
        if !text.is_empty() {
            tokens.push(Token::Text(resolved(text).into_owned()));
        }
        rest = if markup.is_empty() { "" } else { take_markup(markup, &mut tokens) };
    }
    tokens
}

/// Where the next tag, comment or declaration begins; the end if there is none.
fn next_tag(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find('<').map(|at| at + from) {
        let next = text.as_bytes().get(at + 1);
        if next.is_some_and(|byte| byte.is_ascii_alphabetic() || b"/!?".contains(byte)) {
            return at;
        }
        from = at + 1;
    }
    text.len()
}

/// Takes what begins with `<`, and gives what comes after it.
fn take_markup<'p>(markup: &'p str, tokens: &mut Vec<Token>) -> &'p str {
    let until = |end: &str| markup.find(end).map_or("", |at| &markup[at + end.len()..]);
    if markup.starts_with("<!--") {
        return until("-->");
    }
    if markup.starts_with("<!") || markup.starts_with("<?") {
        return until(">");
    }
    if let Some(closing) = markup.strip_prefix("</") {
        let name: String = closing.chars().take_while(|c| !c.is_whitespace() && *c != '>').collect();
        if !name.is_empty() {
            tokens.push(Token::Close(name.to_ascii_lowercase()));
        }
        return until(">");
    }
    let (tag, rest) = take_tag(&markup[1..]);
    let name = tag.name.clone();
    tokens.push(Token::Open(tag));
    match name.as_str() {
        "script" | "style" => take_raw(&name, rest, false, tokens),
        "textarea" | "title" => take_raw(&name, rest, true, tokens),
        _ => rest,
    }
}

/// Takes the content of an element in which no tag counts but the one that closes it.
fn take_raw<'p>(name: &str, rest: &'p str, is_shown: bool, tokens: &mut Vec<Token>) -> &'p str {
    let closes = |at: &usize| {
        let after = rest.get(at + 2..at + 2 + name.len());
        after.is_some_and(|after| after.eq_ignore_ascii_case(name))
    };
    let at = rest.match_indices("</").map(|(at, _)| at).find(closes).unwrap_or(rest.len());
    if is_shown && at > 0 {
        tokens.push(Token::Text(resolved(&rest[..at]).into_owned()));
    }
    tokens.push(Token::Close(name.into()));
    rest[at..].find('>').map_or("", |end| &rest[at + end + 1..])
}

/// Takes name and attributes, after the `<`, and the `>`.
fn take_tag(text: &str) -> (Tag, &str) {
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(text.len());
    let mut tag = Tag { name: text[..end].to_ascii_lowercase(), attributes: Vec::new() };
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return (tag, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (tag, after);
        }
        let end = rest
            .char_indices()
            .find(|(at, c)| c.is_ascii_whitespace() || *c == '/' || *c == '>' || (*c == '=' && *at > 0))
            .map_or(rest.len(), |(at, _)| at);
        let name = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_whitespace());
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            (value, rest) = take_value(after.trim_start_matches(|c: char| c.is_ascii_whitespace()));
        }
        if !tag.has(&name) {
            tag.attributes.push((name, resolved(value).into_owned()));
        }
    }
}

fn take_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split_once(quote).unwrap_or((inner, ""));
        }
    }
    text.split_at(text.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(text.len()))
}

/// The text with its character references resolved: the numeric ones, and the names that pages are written with.
fn resolved(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        resolved.push_str(&rest[..at]);
        let reference = &rest[at + 1..];
        // The longest name below has four letters, and a number seven digits.
        let end = reference.bytes().take(10).position(|byte| byte == b';');
        match end.and_then(|end| Some((character(&reference[..end])?, end))) {
            Some((character, end)) => {
                resolved.push(character);
                rest = &reference[end + 1..];
            }
            None => {
                resolved.push('&');
                rest = reference;
            }
        }
    }
    resolved.push_str(rest);
    Cow::Owned(resolved)
}

fn character(reference: &str) -> Option<char> {
    let number = |text: &str, radix| u32::from_str_radix(text, radix).ok().and_then(char::from_u32);
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let digits = reference.strip_prefix('#')?;
            match digits.strip_prefix(['x', 'X']) {
                Some(digits) => number(digits, 16),
                None => number(digits, 10),
            }
        }
    }
}

/// The value of the first field of a form called `name`, or of the first `<meta>` of that name, as pages carry tokens.
pub fn field(page: &str, name: &str) -> Option<String> {
    let mut text_of = false;
    for token in tokens(page) {
        match token {
            Token::Open(tag) if tag.get("name") == Some(name) => match tag.name.as_str() {
                "textarea" => text_of = true,
                "meta" => return tag.get("content").map(Into::into),
                _ => return Some(tag.get("value").unwrap_or_default().into()),
            },
            Token::Text(text) if text_of => return Some(text),
            Token::Close(_) if text_of => return Some(String::new()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_in_pieces() {
        let page = "<!doctype html><!-- <p> --><P class=a id='b c' hidden>1 &lt; 2 &#38; 3 < 4</p>\
            <script>if (a < b) '<p>'</script><TEXTAREA name=t><b>&amp;</TEXTAREA><br/><a href=/x?a=1&b=2>y</a";
        let open = |name: &str, attributes: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
            Token::Open(Tag { name: name.into(), attributes: attributes.iter().map(own).collect() })
        };
        let (text, close) = (|text: &str| Token::Text(text.into()), |name: &str| Token::Close(name.into()));
        let expected = [
            open("p", &[("class", "a"), ("id", "b c"), ("hidden", "")]),
            text("1 < 2 & 3 < 4"),
            close("p"),
            open("script", &[]),
            close("script"),
            open("textarea", &[("name", "t")]),
            text("<b>&"),
            close("textarea"),
            open("br", &[]),
            open("a", &[("href", "/x?a=1&b=2")]),
            text("y"),
            close("a"),
        ];
        assert_eq!(tokens(page), expected);
    }

    #[test]
    fn fields_and_metas() {
        let page = "<meta name=csrf content='a&amp;b'><input type=hidden name=cart value=7><input name=bare>\
            <textarea name=note>x</textarea><textarea name=empty></textarea>";
        for (name, value) in [
            ("csrf", Some("a&b")),
            ("cart", Some("7")),
            ("bare", Some("")),
            ("note", Some("x")),
            ("empty", Some("")),
            ("none", None),
        ] {
            assert_eq!(field(page, name).as_deref(), value, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(page in "[<>/!a-c=\"'& ;#x\\-é]{0,60}") {
            tokens(&page);
            tokens(&format!("<script>{page}"));
        }
    }
}
