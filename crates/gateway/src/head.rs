//! The one parser of HTTP/1.1 heads, for requests and responses. It is strict where two readers could differ (RFC 9112):
//! lines end with CRLF, names are tokens with the colon at once after them, nothing is folded, and there is one space
//! where the grammar has one. It copies nothing: a head is a list of places in the bytes it was read from.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::ops::Range;

use crate::field::Known;

/// A place in the bytes of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(range: Range<usize>) -> Self {
        // Heads are bounded far below 4 GiB.
        Self { start: range.start as u32, end: range.end as u32 }
    }

    /// The bytes that it names in `head`.
    pub(crate) fn of(self, head: &[u8]) -> &[u8] {
        &head[self.start as usize..self.end as usize]
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Span,
    /// Without the white space around it.
    pub(crate) value: Span,
    pub(crate) known: Known,
}

/// The version that a message names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    #[default]
    Http11,
}

/// The head of a request. Kept and used again for the next one, for its memory.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) version: Version,
    pub(crate) fields: Vec<Field>,
    /// Its bytes, with the empty line.
    pub(crate) bytes: usize,
}

/// The head of a response. Kept and used again, as a request's.
#[derive(Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) fields: Vec<Field>,
    /// Its bytes, with the empty line.
    pub(crate) bytes: usize,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It breaks the grammar; the text says how.
    Malformed(&'static str),
    /// Its target is longer than allowed.
    LongTarget,
    /// It is longer than allowed, or has more fields.
    Large,
}

/// The bounds of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) head_bytes_max: usize,
    pub(crate) target_bytes_max: usize,
    pub(crate) headers_max: usize,
}

impl Bounds {
    /// The same, for a head of `bytes` that was let in by another reader's bound.
    pub(crate) fn loosened(self, bytes: usize) -> Self {
        Self { head_bytes_max: self.head_bytes_max.max(bytes + 1), ..self }
    }
}

/// Most empty lines before a request that are passed over (RFC 9112, section 2.2).
const EMPTY_LINES_MAX: usize = 2;

impl RequestHead {
    /// Reads a request's head from the start of `bytes`: false if it is not whole yet.
    pub(crate) fn parse(&mut self, bytes: &[u8], bounds: Bounds) -> Result<bool, Fault> {
        let mut at = 0;
        while bytes[at..].starts_with(b"\r\n") {
            at += 2;
            if at > 2 * EMPTY_LINES_MAX {
                return Err(Fault::Malformed("The request begins with empty lines."));
            }
        }
        if bytes.get(at).is_some_and(|&first| !is_token(first) && first != b'\r') {
            return Err(Fault::Malformed("The request does not begin with a method."));
        }
        let Some((line, next)) = line(bytes, at)? else {
            // A target that is too long is told from other fields that are, where it can be.
            let long = bytes.len() - at > bounds.target_bytes_max + LONGEST_LINE_WITHOUT_TARGET;
            return if long { Err(Fault::LongTarget) } else { incomplete(bytes, bounds) };
        };
        self.request_line(bytes, line, bounds)?;
        let Some(end) = fields(bytes, next, bounds, &mut self.fields)? else {
            return incomplete(bytes, bounds);
        };
        self.bytes = end;
        Ok(true)
    }

    fn request_line(&mut self, bytes: &[u8], line: Range<usize>, bounds: Bounds) -> Result<(), Fault> {
        const MALFORMED: Fault = Fault::Malformed("The request line is not `METHOD target HTTP/1.1`.");
        let text = &bytes[line.clone()];
        let method = text.iter().position(|&byte| byte == b' ').ok_or(MALFORMED)?;
        let version = text.len().checked_sub(9).filter(|&space| space > method).ok_or(MALFORMED)?;
        if method == 0 || !text[..method].iter().all(|&byte| is_token(byte)) || text[version] != b' ' {
            return Err(MALFORMED);
        }
        self.version = match &text[version + 1..] {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(MALFORMED),
        };
        let target = &text[method + 1..version];
        if target.len() > bounds.target_bytes_max {
            return Err(Fault::LongTarget);
        }
        if target.is_empty() || !target.iter().all(|&byte| byte > b' ' && byte != 0x7f && byte != b'#') {
            return Err(Fault::Malformed("The request target is not valid."));
        }
        self.method = Span::new(line.start..line.start + method);
        self.target = Span::new(line.start + method + 1..line.start + version);
        Ok(())
    }
}

/// What a request line has beside its target, at most: the longest method in use, two spaces and the version.
const LONGEST_LINE_WITHOUT_TARGET: usize = 32;

impl ResponseHead {
    /// Reads a response's head from the start of `bytes`: false if it is not whole yet.
    pub(crate) fn parse(&mut self, bytes: &[u8], bounds: Bounds) -> Result<bool, Fault> {
        const MALFORMED: Fault = Fault::Malformed("The status line is not `HTTP/1.1 200 Reason`.");
        let start = b"HTTP/1.";
        let seen = bytes.len().min(start.len());
        if bytes[..seen] != start[..seen] {
            return Err(MALFORMED);
        }
        let Some((line, next)) = line(bytes, 0)? else { return incomplete(bytes, bounds) };
        let text = &bytes[line.clone()];
        // Some servers leave out the reason and the space before it.
        if text.len() < 12 || text[8] != b' ' || text.get(12).is_some_and(|&byte| byte != b' ') {
            return Err(MALFORMED);
        }
        self.version = match text[7] {
            b'1' => Version::Http11,
            b'0' => Version::Http10,
            _ => return Err(MALFORMED),
        };
        let digits = &text[9..12];
        if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
            return Err(MALFORMED);
        }
        self.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let reason = line.start + text.len().min(13)..line.end;
        if !is_value(&bytes[reason.clone()]) {
            return Err(MALFORMED);
        }
        self.reason = Span::new(reason);
        let Some(end) = fields(bytes, next, bounds, &mut self.fields)? else {
            return incomplete(bytes, bounds);
        };
        self.bytes = end;
        Ok(true)
    }
}

/// Room that is made at once, since most heads have no more fields.
const USUAL_FIELDS: usize = 8;

/// Reads field lines up to and with the empty line, from `at` on: where they end, or `None` if they are not whole yet.
pub(crate) fn fields(
    bytes: &[u8],
    mut at: usize,
    bounds: Bounds,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, Fault> {
    fields.clear();
    fields.reserve(USUAL_FIELDS);
    loop {
        let Some((line, next)) = line(bytes, at)? else { return Ok(None) };
        if next > bounds.head_bytes_max {
            return Err(Fault::Large);
        }
        if line.is_empty() {
            return Ok(Some(next));
        }
        if fields.len() == bounds.headers_max {
            return Err(Fault::Large);
        }
        fields.push(field(bytes, line)?);
        at = next;
    }
}

fn field(bytes: &[u8], line: Range<usize>) -> Result<Field, Fault> {
    let text = &bytes[line.clone()];
    let name = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
    if name == 0 {
        return Err(Fault::Malformed("A header line begins with white space, or its name is missing."));
    }
    if text.get(name) != Some(&b':') {
        return Err(Fault::Malformed("A header's name is not followed by a colon at once."));
    }
    let mut value = name + 1..text.len();
    let is_space = |&byte: &u8| byte == b' ' || byte == b'\t';
    while text.get(value.start).is_some_and(is_space) && value.start < value.end {
        value.start += 1;
    }
    while value.end > value.start && is_space(&text[value.end - 1]) {
        value.end -= 1;
    }
    if !is_value(&text[value.clone()]) {
        return Err(Fault::Malformed("A header's value has a control character."));
    }
    let start = line.start;
    Ok(Field {
        name: Span::new(start..start + name),
        value: Span::new(start + value.start..start + value.end),
        known: Known::of(&text[..name]),
    })
}

/// The line that begins at `at`, without its CRLF, and where the next one begins; `None` if its end is not there yet.
fn line(bytes: &[u8], at: usize) -> Result<Option<(Range<usize>, usize)>, Fault> {
    let Some(length) = memchr::memchr(b'\n', &bytes[at..]) else { return Ok(None) };
    let end = at + length;
    if end == at || bytes[end - 1] != b'\r' {
        return Err(Fault::Malformed("A line does not end with CRLF."));
    }
    Ok(Some((at..end - 1, end + 1)))
}

fn incomplete(bytes: &[u8], bounds: Bounds) -> Result<bool, Fault> {
    if bytes.len() >= bounds.head_bytes_max { Err(Fault::Large) } else { Ok(false) }
}

/// RFC 9110, section 5.5: visible characters, space, tab and what is beyond ASCII. A lone CR is a control character here.
fn is_value(value: &[u8]) -> bool {
    // Any byte below a space is looked at again for being a tab; they are rare.
    value.iter().all(|&byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t')
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { head_bytes_max: 1000, target_bytes_max: 100, headers_max: 10 };

    type Read = (String, Vec<(String, String)>, usize);

    fn request(text: &str) -> Result<Option<Read>, Fault> {
        let (mut head, bytes) = (RequestHead::default(), text.as_bytes());
        let show = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
        Ok(head.parse(bytes, BOUNDS)?.then(|| {
            let line = format!("{} {} {:?}", show(head.method), show(head.target), head.version);
            (line, head.fields.iter().map(|f| (show(f.name), show(f.value))).collect(), head.bytes)
        }))
    }

    #[test]
    fn a_request() {
        let text = "\r\nPOST /a?b=%20 HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nX-Space: \t a b\t \r\n\r\nbody";
        let (line, fields, bytes) = request(text).unwrap().unwrap();
        assert_eq!(line, "POST /a?b=%20 Http11");
        let expected = [("Host", "h"), ("X-Empty", ""), ("X-Space", "a b")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(&text[bytes..], "body");
    }

    #[test]
    fn every_part_of_a_head_is_not_whole() {
        let text = "\r\nGET / HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(request(&text[..length]), Ok(None), "{:?}", &text[..length]);
        }
        assert!(request(text).unwrap().is_some());
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_malformed() {
        for text in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\t: h\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nX(y): a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /  HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\t/ HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /a\u{b}b HTTP/1.1\r\n\r\n",
            "GET /#a HTTP/1.1\r\n\r\n",
            "G@T / HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "\x16\x03\x01",
        ] {
            assert!(matches!(request(text), Err(Fault::Malformed(_))), "{text:?}: {:?}", request(text));
        }
    }

    #[test]
    fn bounds() {
        let long = "x".repeat(101);
        assert_eq!(request(&format!("GET /{long} HTTP/1.1\r\n\r\n")), Err(Fault::LongTarget));
        assert_eq!(request(&format!("GET /{}", "x".repeat(200))), Err(Fault::LongTarget));
        assert_eq!(request(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(11))), Err(Fault::Large));
        assert!(request(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10))).unwrap().is_some());
        assert_eq!(request(&format!("GET / HTTP/1.1\r\na: {}", "x".repeat(1000))), Err(Fault::Large));
    }

    #[test]
    fn responses() {
        let check = |text: &str, expected: Option<(u16, &str)>| {
            let mut head = ResponseHead::default();
            let parsed = head.parse(text.as_bytes(), BOUNDS);
            let shown = || (head.status, std::str::from_utf8(head.reason.of(text.as_bytes())).unwrap());
            assert_eq!(parsed.ok().filter(|&whole| whole).map(|_| shown()), expected, "{text:?}");
        };
        check("HTTP/1.1 200 OK\r\n\r\n", Some((200, "OK")));
        check("HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n", Some((404, "Not Found")));
        check("HTTP/1.1 204 \r\n\r\n", Some((204, "")));
        check("HTTP/1.1 204\r\n\r\n", Some((204, "")));
        check("HTTP/1.1 2O4 x\r\n\r\n", None);
        check("HTTP/1.1 099 x\r\n\r\n", None);
        check("HTTP/1.1 2000\r\n\r\n", None);
        check("HTTP/2 200 OK\r\n\r\n", None);
        check("220 smtp ready\r\n\r\n", None);
        check("HTTP/1.1 200 O\x07K\r\n\r\n", None);
    }
}
