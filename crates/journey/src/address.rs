//! Addresses as browsers read them: what a link or a `Location` leads to (RFC 3986, section 5), and the encodings of paths and forms.

/// Percent-encodes all but the unreserved characters (RFC 3986, section 2.3).
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            push_encoded(&mut encoded, byte);
        }
        encoded
    })
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(DIGITS[usize::from(byte >> 4)].into());
    text.push(DIGITS[usize::from(byte & 15)].into());
}

/// The text of a percent-encoded one; what is no encoding stays as it is.
pub fn decode(text: &str) -> String {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits fit a byte.
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// `application/x-www-form-urlencoded` (URL Standard, section 5.2).
pub fn encode_form<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut encoded = String::new();
    for (name, value) in pairs {
        if !encoded.is_empty() {
            encoded.push('&');
        }
        for (text, end) in [(name, "="), (value, "")] {
            for byte in text.bytes() {
                match byte {
                    b' ' => encoded.push('+'),
                    b'*' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
                    byte if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
                    byte => push_encoded(&mut encoded, byte),
                }
            }
            encoded.push_str(end);
        }
    }
    encoded
}

/// Reads what [`encode_form`] writes.
pub fn decode_form(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| decode(&text.replace('+', " "));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (plain(name), plain(value))
    };
    text.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// What `reference` leads to from the page at `base`, a path with its query: such a path again, if it is on `host` or says no host.
/// `None` if it is elsewhere, or no page at all, such as `mailto:`.
pub fn resolve(base: &str, reference: &str, host: &str) -> Option<String> {
    let reference = reference.trim().split('#').next().unwrap_or_default();
    let lower = reference.to_ascii_lowercase();
    let after_scheme = ["http:", "https:"].iter().find(|scheme| lower.starts_with(**scheme));
    let rest = match after_scheme {
        Some(scheme) => &reference[scheme.len()..],
        None if has_scheme(reference) => return None,
        None => reference,
    };
    let (base_path, base_query) =
        base.split_once('?').map_or((base, None), |(path, query)| (path, Some(query)));
    let joined = if let Some(rest) = rest.strip_prefix("//") {
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if !authority.eq_ignore_ascii_case(host) {
            return None;
        }
        if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
    } else if rest.is_empty() {
        base_query.map_or_else(|| base_path.to_owned(), |query| format!("{base_path}?{query}"))
    } else if rest.starts_with('?') {
        format!("{base_path}{rest}")
    } else if rest.starts_with('/') {
        rest.to_owned()
    } else {
        let folder = base_path.rfind('/').map_or("/", |at| &base_path[..=at]);
        format!("{folder}{rest}")
    };
    let (path, query) =
        joined.split_once('?').map_or((joined.as_str(), None), |(path, query)| (path, Some(query)));
    let path = without_dots(path);
    let whole = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    Some(fit(&whole))
}

/// Whether it begins with a scheme (RFC 3986, section 3.1).
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Takes `.` and `..` out (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        match *segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Encodes what may not stand in a request's target (RFC 9112, section 3.2), as browsers do with what people write there.
pub fn fit(target: &str) -> String {
    target.bytes().fold(String::with_capacity(target.len()), |mut fit, byte| {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            fit.push(byte.into());
        } else {
            push_encoded(&mut fit, byte);
        }
        fit
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn where_a_link_leads() {
        for (base, reference, expected) in [
            ("/a/b?c", "d", Some("/a/d")),
            ("/a/b?c", "./d/", Some("/a/d/")),
            ("/a/b?c", "../d", Some("/d")),
            ("/a/b", "../../../d", Some("/d")),
            ("/a/b/", "..", Some("/a/")),
            ("/a/b?c", "", Some("/a/b?c")),
            ("/a/b?c", "#x", Some("/a/b?c")),
            ("/a/b?c", "?d", Some("/a/b?d")),
            ("/a/b", "/d?e#f", Some("/d?e")),
            ("/a", "//SHOP:80/d", Some("/d")),
            ("/a", "http://shop:80", Some("/")),
            ("/a", "HTTPS://shop:80?q", Some("/?q")),
            ("/a", "http://other/d", None),
            ("/a", "mailto:a@b", None),
            ("/a", "javascript:void(0)", None),
            ("/a", "/search?q=a b|ä", Some("/search?q=a%20b%7C%C3%A4")),
            ("/a", "b:c", None),
            ("/a", "/b:c", Some("/b:c")),
        ] {
            assert_eq!(resolve(base, reference, "shop:80").as_deref(), expected, "{reference} from {base}");
        }
    }

    #[test]
    fn what_is_no_encoding_stays() {
        for (text, expected) in [("%41%zz%4", "A%zz%4"), ("%", "%"), ("a+b", "a+b")] {
            assert_eq!(decode(text), expected);
        }
        assert_eq!(encode_form([("a b", "c&d"), ("é", "")]), "a+b=c%26d&%C3%A9=");
    }

    proptest! {
        #[test]
        fn encodings_are_undone(text: String, other: String) {
            prop_assert_eq!(decode(&encode(&text)), &*text);
            prop_assume!(!text.is_empty());
            let pairs = decode_form(&encode_form([(&*text, &*other)]));
            prop_assert_eq!(pairs, vec![(text, other)]);
        }

        #[test]
        fn a_link_leads_to_a_target_that_can_be_asked_for(base: String, reference: String) {
            if let Some(target) = resolve(&format!("/{base}"), &reference, "shop") {
                prop_assert!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()), "{}", target);
            }
        }
    }
}
