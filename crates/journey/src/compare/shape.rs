//! What of a text is the same in each run by nature: identities and times are replaced by a name, and an address by its shape.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::address;

/// How far from now a number of seconds or milliseconds is still taken for a time.
const NEAR_NOW: Duration = Duration::from_hours(24);

/// What stands for a time.
pub(super) const TIME: &str = "(time)";

/// `text` without the identity of its run, and `(time)` where the whole of it is one: a date of HTTP, one of RFC 3339, or a number of
/// seconds, milliseconds or microseconds since 1970 that is near now.
pub(super) fn plain(text: &str, identity: &str, now: SystemTime) -> String {
    if is_time(text.trim(), now) {
        return TIME.into();
    }
    if identity.is_empty() { text.to_owned() } else { text.replace(identity, "(identity)") }
}

fn is_time(text: &str, now: SystemTime) -> bool {
    is_timestamp(text) || httpdate::parse_http_date(text).is_ok() || is_near(text, now)
}

/// RFC 3339, also with a blank in place of the `T`, and without a zone, as databases print it.
fn is_timestamp(text: &str) -> bool {
    let shape: String = text.chars().take(19).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let zone = text.get(19..).unwrap_or_default();
    matches!(shape.as_str(), "0000-00-00T00:00:00" | "0000-00-00 00:00:00" | "0000-00-00t00:00:00")
        && zone.len() <= 16
        && zone.bytes().all(|byte| byte.is_ascii_digit() || b".+-:Zz UTC".contains(&byte))
}

fn is_near(text: &str, now: SystemTime) -> bool {
    let whole = text.split('.').next().unwrap_or_default();
    let is_number = !whole.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let (true, Ok(number), Ok(now)) = (is_number, whole.parse::<u64>(), now.duration_since(UNIX_EPOCH))
    else {
        return false;
    };
    let time = match whole.len() {
        10 => Duration::from_secs(number),
        13 => Duration::from_millis(number),
        16 => Duration::from_micros(number),
        _ => return false,
    };
    now.abs_diff(time) < NEAR_NOW
}

/// Where a redirect leads, with `*` for each segment and value that looks like an id: `/orders/*?token=*`.
pub(super) fn address(location: &str) -> String {
    // A fragment is the browser's own: it asks for the same page (RFC 3986, section 3.5).
    let location = location.split_once('#').map_or(location, |(location, _)| location);
    let (path, query) =
        location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
    let segment =
        |segment: &str| if is_id(&address::decode(segment)) { "*".into() } else { segment.to_owned() };
    let path: Vec<String> = path.split('/').map(segment).collect();
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => format!("{name}={}", segment(value)),
        None => pair.to_owned(),
    };
    match query {
        Some(query) => {
            format!("{}?{}", path.join("/"), query.split('&').map(pair).collect::<Vec<_>>().join("&"))
        }
        None => path.join("/"),
    }
}

/// Whether a text looks drawn or counted rather than written: a number, or long with digits among its letters.
fn is_id(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_token = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~=+/:".contains(&byte));
    let is_number = digits > 0 && digits == text.len();
    let has_cases =
        text.bytes().any(|b| b.is_ascii_uppercase()) && text.bytes().any(|b| b.is_ascii_lowercase());
    is_number || (is_token && text.len() >= 8 && digits >= 2) || (is_token && text.len() >= 16 && has_cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_addresses() {
        for (location, shape) in [
            ("/orders/17", "/orders/*"),
            ("/orders/8f3a-77bc?notice=placed&t=123", "/orders/*?notice=placed&t=*"),
            ("/sign-in?next=/checkout", "/sign-in?next=/checkout"),
            ("/products/night-ink", "/products/night-ink"),
            ("http://shop/a/0b5e4d2c/b", "http://shop/a/*/b"),
            ("/s/aGVsbG8gd29ybGQhIQ", "/s/*"),
            ("/v1/items", "/v1/items"),
            ("/book?page=2#fe5dfb46438bd1e9", "/book?page=*"),
            ("/", "/"),
        ] {
            assert_eq!(address(location), shape);
        }
    }

    #[test]
    fn times_and_identities() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (text, expected) in [
            ("1800000123", "(time)"),
            ("1800000123.25", "(time)"),
            ("1800000123456", "(time)"),
            ("1700000000", "1700000000"),
            ("2027-01-15T08:00:00Z", "(time)"),
            ("2027-01-15 08:00:00.123456+02:00", "(time)"),
            ("2027-01-15T08:00:00 and more", "2027-01-15T08:00:00 and more"),
            ("Fri, 15 Jan 2027 08:00:00 GMT", "(time)"),
            ("ada-r1x2y3's cart", "ada-(identity)'s cart"),
        ] {
            assert_eq!(plain(text, "r1x2y3", now), expected);
        }
        assert_eq!(plain("a", "", now), "a");
    }
}
