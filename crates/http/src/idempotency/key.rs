//! The key of a request, and what the request is that it belongs to.

use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use lethe_state::idempotency::Fingerprint;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The key of a request that is done once, as a handler can take it. Extraction fails with 400 when there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    sent: String,
    unique: String,
}

impl Key {
    /// The key, as this user sent it.
    pub(super) fn new(sent: String, identity: Option<String>) -> Self {
        let mut hash = Sha256::new();
        for part in [identity.as_deref().unwrap_or_default(), &sent] {
            update(&mut hash, part.as_bytes());
        }
        let unique = Fingerprint(hash.finalize().into()).to_string();
        Self { sent, unique }
    }

    /// As the client sent it.
    pub fn as_str(&self) -> &str {
        &self.sent
    }

    /// 64 hexadecimal digits that are of this user and this key alone: a good key for the row that a handler writes
    /// together with its effect, so that it cannot be made twice even if a worker dies right after it.
    pub fn unique(&self) -> &str {
        &self.unique
    }
}

/// Reads the key of a request. It is a string of structured fields (RFC 9651, section 3.3.3), in quotes; most clients leave
/// the quotes out, which is taken too.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let (Some(line), further) = (lines.next(), lines.next()) else { return Ok(None) };
    let text = line.to_str().ok().filter(|_| further.is_none()).ok_or_else(malformed)?;
    let key = parse(text.trim()).ok_or_else(malformed)?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(malformed());
    }
    Ok(Some(key))
}

fn parse(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        return text.bytes().all(is_plain).then(|| text.to_owned());
    };
    let mut key = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            visible @ ' '..='~' => key.push(visible),
            _ => return None,
        }
    }
    // Parameters may follow, of which none is known.
    let rest = characters.as_str().trim_start();
    (rest.is_empty() || rest.starts_with(';')).then_some(key)
}

fn malformed() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "idempotency-key-malformed",
        "The Idempotency-Key is not one",
        format!(
            "Idempotency-Key must be one key of 1 to {KEY_BYTES_MAX} visible ASCII characters, such as \
             \"8e03978e-40d5-43dd-bc93-6894a57f9324\"."
        ),
    )
}

/// A request without a key, where one is needed.
pub(super) fn missing() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "idempotency-key-missing",
        "The Idempotency-Key is missing",
        "This needs the field Idempotency-Key, with a key that is new for each request and the same when that is sent again, \
         such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\".",
    )
}

/// What makes a request the same as another one: a hash of all that counts of it, its whole body included.
pub fn fingerprint(parts: &Parts, body: &[u8]) -> Fingerprint {
    let mut hash = Sha256::new();
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let content_type = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), content_type, body] {
        update(&mut hash, part);
    }
    Fingerprint(hash.finalize().into())
}

/// Adds a part so that no two lists of parts look the same.
fn update(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: Result<Option<&str>, ()>) {
        let lines =
            lines.iter().map(|line| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        assert_eq!(read(&headers).map_err(|_| ()), expected.map(|key| key.map(str::to_owned)), "{headers:?}");
    }

    #[test]
    fn keys_are_strings_with_or_without_quotes() {
        check(&[], Ok(None));
        check(&["\"8e03978e-40d5\""], Ok(Some("8e03978e-40d5")));
        check(&["8e03978e-40d5"], Ok(Some("8e03978e-40d5")));
        check(&["\"a \\\"b\\\" \\\\ c\""], Ok(Some("a \"b\" \\ c")));
        check(&["\"a\"; v=1"], Ok(Some("a")));
        check(&["a/b:c+d="], Ok(Some("a/b:c+d=")));
        check(&[&"k".repeat(255)], Ok(Some(&"k".repeat(255))));
        let long = "k".repeat(256);
        for bad in [
            "", "\"\"", "\"a", "a\"", "\"a\\b\"", "\"a\" b", "a b", "a,b", "a;b", "é", "\"é\"", "\"\t\"",
            &long,
        ] {
            check(&[bad], Err(()));
        }
        check(&["a", "a"], Err(()));
    }

    #[test]
    fn keys_of_different_users_are_different() {
        let unique = |identity: Option<&str>, key: &str| {
            Key::new(key.into(), identity.map(str::to_owned)).unique().to_owned()
        };
        assert_eq!(unique(Some("a"), "k"), unique(Some("a"), "k"));
        assert_ne!(unique(Some("a"), "k"), unique(Some("b"), "k"));
        assert_ne!(unique(Some("a"), "bk"), unique(Some("ab"), "k"));
        assert_ne!(unique(None, "k"), unique(Some("a"), "k"));
    }

    #[test]
    fn requests_are_told_apart_by_all_that_counts() {
        let of = |method: &str, target: &str, media: &str, body: &str| {
            let request = http::Request::builder().method(method).uri(target).header("content-type", media);
            fingerprint(&request.body(()).unwrap().into_parts().0, body.as_bytes())
        };
        let first = of("POST", "/a?b=c", "text/plain", "body");
        assert_eq!(first, of("POST", "/a?b=c", "text/plain", "body"));
        for other in [
            of("PATCH", "/a?b=c", "text/plain", "body"),
            of("POST", "/a?b=d", "text/plain", "body"),
            of("POST", "/a", "text/plain", "body"),
            of("POST", "/a?b=c", "text/html", "body"),
            of("POST", "/a?b=c", "text/plain", "body2"),
            of("POST", "/a?b=c", "text/plainb", "ody"),
        ] {
            assert_ne!(first, other);
        }
    }
}
