//! The session cookie: how its name is found in a request and how it is set and cleared in a response, by the
//! letter of RFC 6265.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use lethe_state::feed::SILENCE_MAX;

/// What makes browsers refuse a cookie unless it is `Secure`, has `Path=/` and no `Domain` (RFC 6265bis, section 4.1.3.2).
const HOST_PREFIX: &str = "__Host-";

/// How the session cookie is called, and whether it travels over TLS alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Without the prefix that secure ones have.
    name: &'static str,
    suffix: &'static str,
    secure: bool,
}

/// Follows the cookie's name in that of another one, by which a browser says, for a moment, that its session has just been changed.
const WRITTEN_SUFFIX: &str = "-written";
/// How long a browser says that its session was changed. Browsers count in whole seconds, some of them from the last one on.
const WRITTEN_MAX_AGE_S: u64 = 4;
// By then every worker has been told, or knows that it was not, even if two feeds on the way fell silent one after the other.
const _: () = assert!(Duration::from_secs(WRITTEN_MAX_AGE_S - 1).as_millis() > 2 * SILENCE_MAX.as_millis());

impl SessionCookie {
    /// `__Host-session`: by its prefix, a sibling domain cannot plant one.
    pub const SECURE: Self = Self { name: "session", suffix: "", secure: true };
    /// `session`, also over plain HTTP. Whoever is on the way can read and replace it.
    pub const INSECURE: Self = Self { name: "session", suffix: "", secure: false };

    /// The same under another name: letters, digits, `-` and `_`. Two services on one host need two names, on other ports
    /// too, since cookies know no ports (RFC 6265, section 8.5).
    ///
    /// # Panics
    /// When the name is empty or has other characters.
    pub fn named(self, name: &'static str) -> Self {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(
            !name.is_empty() && name.bytes().all(allowed),
            "the cookie's name {name:?} is not made of letters, digits, `-` and `_`"
        );
        Self { name, ..self }
    }

    /// The same for plain HTTP.
    pub fn insecure(self) -> Self {
        Self { secure: false, ..self }
    }

    /// The cookie beside it, for the session's pass.
    pub(crate) fn of_pass(self) -> Self {
        Self { suffix: "-pass", ..self }
    }

    /// The name that browsers see.
    pub fn full_name(&self) -> String {
        format!("{}{}{}", self.prefix(), self.name, self.suffix)
    }

    fn prefix(&self) -> &'static str {
        if self.secure { HOST_PREFIX } else { "" }
    }

    /// The values of the cookie in the order they were sent, best match first (RFC 6265, section 5.4). There is
    /// more than one when cookies of the same name were set for several paths or domains. A value that is not
    /// visible ASCII is passed over; that a name occurs twice is no error.
    pub fn values<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        let (prefix, name, suffix) = (self.prefix(), self.name, self.suffix);
        values(headers, move |key| {
            key.strip_prefix(prefix).and_then(|key| key.strip_suffix(suffix)) == Some(name)
        })
    }

    /// Whether the browser says that its session has just been changed. Anybody may say so: it costs a read.
    pub fn has_written(&self, headers: &HeaderMap) -> bool {
        let (prefix, name) = (self.prefix(), self.name);
        let is_meant = |key: &str| {
            let name = key.strip_prefix(prefix).and_then(|key| key.strip_prefix(name));
            name == Some(WRITTEN_SUFFIX)
        };
        values(headers, is_meant).next().is_some()
    }

    /// The `Set-Cookie` line that has the browser say that its session has just been changed, for as long as a worker may
    /// still have a copy from before. It is no secret. `None` when the name is not made of cookie octets.
    pub fn say_written(&self) -> Option<HeaderValue> {
        let (name, attributes) = (self.full_name(), self.attributes());
        let line = format!("{name}{WRITTEN_SUFFIX}=1{attributes}; Max-Age={WRITTEN_MAX_AGE_S}");
        HeaderValue::try_from(line).ok()
    }

    /// The `Set-Cookie` line that stores `value`, for `max_age_s` seconds or, with `None`, until the browser ends
    /// its own session. `None` when the value is not made of cookie octets (RFC 6265, section 4.1.1).
    pub fn set(&self, value: &str, max_age_s: Option<u64>) -> Option<HeaderValue> {
        if !value.bytes().all(is_cookie_octet) {
            return None;
        }
        let age = max_age_s.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        let mut line =
            HeaderValue::try_from(format!("{}={value}{}{age}", self.full_name(), self.attributes())).ok()?;
        line.set_sensitive(true);
        Some(line)
    }

    /// The `Set-Cookie` line that makes the browser forget the cookie. The attributes are those it was set with,
    /// else the browser takes it for another cookie.
    pub fn clear(&self) -> HeaderValue {
        let line = format!("{}={}; Max-Age=0", self.full_name(), self.attributes());
        // A name has none but the characters that a field may have.
        HeaderValue::try_from(line).unwrap_or(HeaderValue::from_static("session=; Max-Age=0"))
    }

    fn attributes(&self) -> &'static str {
        match self.secure {
            true => "; Path=/; Secure; HttpOnly; SameSite=Lax",
            false => "; Path=/; HttpOnly; SameSite=Lax",
        }
    }
}

/// The values of the cookies whose names are meant, in the order they were sent.
pub(crate) fn values(headers: &HeaderMap, is_meant: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(key, _)| is_meant(key.trim_matches([' ', '\t'])))
        .map(|(_, value)| value.trim_matches([' ', '\t']))
}

/// RFC 6265, section 4.1.1: visible ASCII without the double quote, comma, semicolon and backslash.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        assert_eq!(SessionCookie::SECURE.values(&headers).collect::<Vec<_>>(), expected, "{lines:?}");
    }

    #[test]
    fn the_value_is_found_among_other_cookies() {
        check(&[], &[]);
        check(&["__Host-session=a"], &["a"]);
        check(&["a=b; __Host-session=x=y; c=d"], &["x=y"]);
        check(&["a=b;__Host-session=x;c"], &["x"]);
        check(&["__Host-session"], &[]);
        check(&["__Host-session="], &[""]);
        check(&["session=a; __host-session=b; x__Host-session=c; __Host-session2=d"], &[]);
        check(&["a=__Host-session=b"], &[]);
        check(&["a=1", "__Host-session=2"], &["2"]);
        check(&["__Host-session=1; __Host-session=2"], &["1", "2"]);
        check(&["a=\u{e9}", "__Host-session=2"], &["2"]);
    }

    #[test]
    fn lines_are_exact() {
        let set = |cookie: SessionCookie, age| cookie.set("abc_-", age).unwrap();
        assert_eq!(
            set(SessionCookie::SECURE, None),
            "__Host-session=abc_-; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
        assert_eq!(
            set(SessionCookie::SECURE, Some(60)),
            "__Host-session=abc_-; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60"
        );
        assert_eq!(set(SessionCookie::INSECURE, None), "session=abc_-; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(
            SessionCookie::SECURE.clear(),
            "__Host-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        assert_eq!(SessionCookie::INSECURE.clear(), "session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }

    #[test]
    fn a_name_of_its_own_keeps_the_prefix() {
        let cookie = SessionCookie::SECURE.named("till");
        assert_eq!(cookie.set("a", None).unwrap(), "__Host-till=a; Path=/; Secure; HttpOnly; SameSite=Lax");
        assert_eq!(cookie.insecure().set("a", None).unwrap(), "till=a; Path=/; HttpOnly; SameSite=Lax");
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("till=1; __Host-session=2; __Host-till=3"));
        assert_eq!(cookie.values(&headers).collect::<Vec<_>>(), ["3"]);
        assert_eq!(cookie.insecure().values(&headers).collect::<Vec<_>>(), ["1"]);
        let pass = cookie.of_pass();
        assert_eq!(
            pass.set("a", Some(60)).unwrap(),
            "__Host-till-pass=a; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60"
        );
        headers.append(header::COOKIE, HeaderValue::from_static("__Host-till-pass=4"));
        assert_eq!(pass.values(&headers).collect::<Vec<_>>(), ["4"]);
        assert_eq!(cookie.values(&headers).collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    #[should_panic(expected = "is not made of letters")]
    fn a_name_cannot_smuggle_attributes() {
        SessionCookie::SECURE.named("a=b; Domain=evil.example");
    }

    #[test]
    fn that_it_was_written_is_said_under_a_name_of_its_own() {
        let shop = SessionCookie::INSECURE.named("shop");
        let lines = [
            "__Host-session-written=1; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=4",
            "shop-written=1; Path=/; HttpOnly; SameSite=Lax; Max-Age=4",
        ];
        for (cookie, line) in [SessionCookie::SECURE, shop].into_iter().zip(lines) {
            assert_eq!(cookie.say_written().unwrap(), line);
            let said =
                [(line.split(';').next().unwrap(), true), ("__Host-session=a; shop=b", false), ("", false)];
            for (sent, expected) in said {
                let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(sent).unwrap())]);
                assert_eq!(cookie.has_written(&headers), expected, "{sent}");
                assert_eq!(cookie.values(&headers).count(), usize::from(sent.contains("=b")), "{sent}");
            }
        }
    }

    #[test]
    fn a_value_cannot_smuggle_attributes() {
        for value in ["a; Domain=evil.example", "a\r\nSet-Cookie: b=c", "a b", "\u{e9}", "\"a\"", "a,b"] {
            assert_eq!(SessionCookie::SECURE.set(value, None), None, "{value:?}");
        }
    }
}
