//! JSON written by hand, straight into a buffer: the access log writes a line for each request, and building a tree
//! first would cost more than all the rest of it. What is written is ASCII on one line, whatever bytes go in.

use std::time::Duration;

/// An object being written; its end is written when it is dropped.
pub(crate) struct Object<'a> {
    text: &'a mut Vec<u8>,
    is_empty: bool,
}

/// An array being written; its end is written when it is dropped.
pub(crate) struct Array<'a> {
    text: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(text: &'a mut Vec<u8>) -> Self {
        text.push(b'{');
        Self { text, is_empty: true }
    }

    /// A string. Bytes that are not printable ASCII become `%XX`, as they should have come in a URI (RFC 3986,
    /// section 2.1), so that nothing in it can end the line, hide text on a terminal or be no UTF-8.
    pub(crate) fn text(&mut self, key: &'static str, value: impl AsRef<[u8]>) {
        self.key(key);
        string(self.text, value.as_ref());
    }

    /// A string that `write` appends, which is known to need no care.
    pub(crate) fn plain(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.text.push(b'"');
        write(self.text);
        self.text.push(b'"');
    }

    /// A number.
    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        digits(self.text, value, 1);
    }

    /// Milliseconds, to the microsecond.
    pub(crate) fn ms(&mut self, key: &'static str, value: Duration) {
        self.key(key);
        ms(self.text, value);
    }

    pub(crate) fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.text.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// An object inside.
    #[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "only spans need it"))]
    pub(crate) fn object(&mut self, key: &'static str) -> Object<'_> {
        self.key(key);
        Object::begin(self.text)
    }

    /// An array inside.
    pub(crate) fn array(&mut self, key: &'static str) -> Array<'_> {
        self.key(key);
        self.text.push(b'[');
        Array { text: self.text, is_empty: true }
    }

    /// Keys are plain words.
    fn key(&mut self, key: &'static str) {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(b',');
        }
        self.text.push(b'"');
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.text.push(b'}');
    }
}

impl Array<'_> {
    /// One more object in it.
    pub(crate) fn object(&mut self) -> Object<'_> {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(b',');
        }
        Object::begin(self.text)
    }
}

impl Drop for Array<'_> {
    fn drop(&mut self) {
        self.text.push(b']');
    }
}

fn string(text: &mut Vec<u8>, value: &[u8]) {
    text.push(b'"');
    for &byte in value {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => text.push(byte),
            _ => {
                let hex = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
                text.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
            }
        }
    }
    text.push(b'"');
}

/// A duration in milliseconds with three decimals, as `Server-Timing` has it too.
pub(crate) fn ms(text: &mut Vec<u8>, value: Duration) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    digits(text, micros / 1000, 1);
    text.push(b'.');
    digits(text, micros % 1000, 3);
}

/// A number with at least so many digits.
pub(crate) fn digits(text: &mut Vec<u8>, mut number: u64, digits_min: usize) {
    /// 2^64 has twenty.
    const DIGITS_MAX: usize = 20;
    let mut place = [b'0'; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    while number > 0 {
        at -= 1;
        place[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text.extend_from_slice(&place[at.min(DIGITS_MAX - digits_min)..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Object<'_>)) -> String {
        let mut text = Vec::new();
        write(&mut Object::begin(&mut text));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn shapes() {
        assert_eq!(written(|_| {}), "{}");
        let nested = written(|object| {
            object.number("n", 0);
            object.number("max", u64::MAX);
            object.plain("plain", |text| digits(text, 7, 2));
            object.flag("yes", true);
            object.object("inner").text("a", "b");
            let mut array = object.array("list");
            array.object().flag("no", false);
            array.object();
        });
        let wanted = r#"{"n":0,"max":18446744073709551615,"plain":"07","yes":true,"inner":{"a":"b"},"list":[{"no":false},{}]}"#;
        assert_eq!(nested, wanted);
    }

    #[test]
    fn milliseconds() {
        for (micros, wanted) in
            [(0, "0.000"), (7, "0.007"), (999, "0.999"), (1_000, "1.000"), (61_000_042, "61000.042")]
        {
            let mut text = Vec::new();
            ms(&mut text, Duration::from_micros(micros));
            assert_eq!(text, wanted.as_bytes());
        }
    }

    #[test]
    fn odd_bytes() {
        for (bytes, wanted) in [
            (&b"/plain?a=b"[..], r#"{"s":"/plain?a=b"}"#),
            (b"a\"b\\c", r#"{"s":"a\"b\\c"}"#),
            (b"\r\n{\"status\":200}", r#"{"s":"%0D%0A{\"status\":200}"}"#),
            (b"\x00\x1b[31m\x7f", r#"{"s":"%00%1B[31m%7F"}"#),
            ("é\u{202e}".as_bytes(), r#"{"s":"%C3%A9%E2%80%AE"}"#),
            (b"\xff", r#"{"s":"%FF"}"#),
        ] {
            assert_eq!(written(|object| object.text("s", bytes)), wanted);
        }
    }
}
