//! Cookies, kept as browsers keep them (RFC 6265, section 5, with the prefixes of draft-ietf-httpbis-rfc6265bis-22). The service is
//! taken for a trustworthy one, as browsers take `localhost`: cookies that are `Secure` are kept and sent without TLS too.

use std::time::{Duration, SystemTime};

/// The most cookies that are kept; beyond it the oldest goes, as in browsers.
pub const COOKIES_MAX: usize = 180;

/// A cookie whose name and value have more bytes than this is not taken (section 5.6 of the draft).
pub const COOKIE_BYTES_MAX: usize = 4096;

/// A cookie is kept for 400 days at most (section 5.5 of the draft).
const LIFETIME_MAX: Duration = Duration::from_hours(24 * 400);

/// The cookies of one user at one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jar {
    /// The oldest first.
    cookies: Vec<Cookie>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The path at and below which it is sent.
    pub path: String,
    /// The domain at and below which it is sent; `None` if only to the host that set it.
    pub domain: Option<String>,
    /// When it goes; `None` when the session of the browser ends.
    pub expires: Option<SystemTime>,
}

impl Jar {
    /// Takes what a `Set-Cookie` says, of a response to a request for `path` at `host` (with or without port), or leaves it as the
    /// rules demand.
    pub fn take(&mut self, field: &str, path: &str, host: &str, now: SystemTime) {
        let Some(cookie) = parse(field, path, name_of(host), now) else { return };
        let same = |known: &Cookie| {
            known.name == cookie.name && known.path == cookie.path && known.domain == cookie.domain
        };
        let gone = cookie.expires.is_some_and(|expires| expires <= now);
        let known = self.cookies.iter().position(same);
        match (known, gone) {
            (Some(at), true) => drop(self.cookies.remove(at)),
            // It keeps its age (section 5.7, step 21), by which cookies are ordered.
            (Some(at), false) => self.cookies[at] = cookie,
            (None, true) => {}
            (None, false) => {
                if self.cookies.len() >= COOKIES_MAX {
                    self.cookies.remove(0);
                }
                self.cookies.push(cookie);
            }
        }
    }

    /// The `Cookie` field of a request for `path`, which may have a query, at `host`; `None` without cookies.
    pub fn field(&self, path: &str, host: &str, now: SystemTime) -> Option<String> {
        let path = path.split('?').next().unwrap_or_default();
        let is_sent = |cookie: &&Cookie| {
            let is_alive = cookie.expires.is_none_or(|expires| expires > now);
            let is_home = cookie.domain.as_deref().is_none_or(|domain| is_within(name_of(host), domain));
            is_alive && is_home && is_at_or_below(path, &cookie.path)
        };
        let mut sent: Vec<&Cookie> = self.cookies.iter().filter(is_sent).collect();
        // The more exact paths first (section 5.8.3); sorting keeps the order of age.
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = sent.iter().map(|cookie| pair(cookie)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The value of the youngest cookie called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.cookies.iter().rev().find(|cookie| cookie.name == name).map(|cookie| cookie.value.as_str())
    }

    /// All of them, the oldest first.
    pub fn cookies(&self) -> &[Cookie] {
        &self.cookies
    }

    /// Forgets them all, as a browser whose user says so.
    pub fn clear(&mut self) {
        self.cookies.clear();
    }
}

fn pair(cookie: &Cookie) -> String {
    if cookie.name.is_empty() { cookie.value.clone() } else { format!("{}={}", cookie.name, cookie.value) }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons within brackets are of an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn parse(field: &str, request_path: &str, host: &str, now: SystemTime) -> Option<Cookie> {
    if field.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return None;
    }
    let mut parts = field.split(';');
    let first = parts.next().unwrap_or_default();
    let (name, value) = first.split_once('=').unwrap_or(("", first));
    let (name, value) = (name.trim(), value.trim());
    if name.len() + value.len() > COOKIE_BYTES_MAX || (name.is_empty() && value.is_empty()) {
        return None;
    }
    let (mut path, mut domain, mut expires, mut age, mut is_secure) = (None, None, None, None, false);
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => path = value.starts_with('/').then(|| value.to_owned()),
            "domain" => {
                domain =
                    Some(value.trim_start_matches('.').to_ascii_lowercase()).filter(|text| !text.is_empty())
            }
            "expires" => expires = httpdate::parse_http_date(value).ok().or(expires),
            "max-age" => age = seconds(value).or(age),
            "secure" => is_secure = true,
            _ => {}
        }
    }
    // A host that is the domain itself gets a cookie for what is below it too; any other domain must be above the host.
    if domain.as_deref().is_some_and(|domain| !is_within(host, domain)) {
        return None;
    }
    let is_host_only = domain.is_none() && path.as_deref() == Some("/");
    let lower = name.to_ascii_lowercase();
    if (lower.starts_with("__secure-") && !is_secure)
        || (lower.starts_with("__host-") && !(is_secure && is_host_only))
    {
        return None;
    }
    let latest = now + LIFETIME_MAX;
    let expires = match age {
        Some(0) => Some(now),
        Some(seconds) => Some(now.checked_add(Duration::from_secs(seconds)).unwrap_or(latest).min(latest)),
        None => expires.map(|expires: SystemTime| expires.min(latest)),
    };
    let path = path.unwrap_or_else(|| default_path(request_path));
    Some(Cookie { name: name.into(), value: value.into(), path, domain, expires })
}

/// A `Max-Age`; below zero is as zero, and what is no number is none (section 5.6.2).
fn seconds(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| if digits.len() < text.len() { 0 } else { digits.parse().unwrap_or(u64::MAX) })
}

/// Section 5.1.4.
fn default_path(request_path: &str) -> String {
    let path = request_path.split('?').next().unwrap_or_default();
    match path.rfind('/') {
        None | Some(0) => "/".into(),
        Some(at) => path[..at].into(),
    }
}

/// Section 5.1.4.
fn is_at_or_below(path: &str, cookie_path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/'))
}

/// Section 5.1.3.
fn is_within(host: &str, domain: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let is_address = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
    host == domain || (!is_address && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn jar(fields: &[&str]) -> Jar {
        let mut jar = Jar::default();
        for field in fields {
            jar.take(field, "/shop/cart?x", "shop.example:80", NOW);
        }
        jar
    }

    #[test]
    fn what_is_sent_back() {
        for (fields, path, expected) in [
            (&["a=1", "b=2; Path=/"][..], "/shop/x", Some("a=1; b=2")),
            (&["b=2; Path=/", "a=1"], "/shop", Some("a=1; b=2")),
            (&["a=1"], "/shopping", None),
            (&["a=1; Path=/s/"], "/s", None),
            (&["a=1; Path=x"], "/shop", Some("a=1")),
            (&["a=1", "a=2"], "/shop/cart", Some("a=2")),
            (&["a=1", "a=; Max-Age=0"], "/shop/cart", None),
            (&["a=1", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/shop/cart", None),
            (&["a=1; Max-Age=x"], "/shop/cart", Some("a=1")),
            (&["a=1; Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/shop/cart", Some("a=1")),
            (&["a=1; Max-Age=-5"], "/shop/cart", None),
            (&["a=1; Domain=.shop.example"], "/shop/cart", Some("a=1")),
            (&["a=1; Domain=example"], "/shop/cart", Some("a=1")),
            (&["a=1; Domain=other.example"], "/shop/cart", None),
            (&["a=1; Domain=op.example"], "/shop/cart", None),
            (&["__Host-a=1; Path=/; Secure; HttpOnly"], "/shop/cart", Some("__Host-a=1")),
            (&["__Host-a=1; Secure"], "/shop/cart", None),
            (&["__host-a=1; Path=/"], "/shop/cart", None),
            (&["__Secure-a=1"], "/shop/cart", None),
            (&["bare"], "/shop/cart", Some("bare")),
            (&["a=\"b=c\" "], "/shop/cart", Some("a=\"b=c\"")),
            (&["a=1\u{1}"], "/shop/cart", None),
            (&["", "=", ";"], "/shop/cart", None),
        ] {
            let sent = jar(fields).field(path, "shop.example", NOW);
            assert_eq!(sent.as_deref(), expected, "{fields:?} at {path}");
        }
    }

    #[test]
    fn they_go_with_time_and_number() {
        let aged = jar(&["a=1; Max-Age=5", "b=2; Max-Age=99999999999999999999"]);
        let at = |seconds| aged.field("/shop", "shop.example", NOW + Duration::from_secs(seconds));
        assert_eq!(at(4).unwrap(), "a=1; b=2");
        assert_eq!(at(5).unwrap(), "b=2");
        assert_eq!(at(401 * 86_400), None);
        let many: Vec<String> = (0..=COOKIES_MAX).map(|number| format!("c{number}=1")).collect();
        let many = jar(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((many.cookies().len(), many.get("c0"), many.get("c1")), (COOKIES_MAX, None, Some("1")));
        assert_eq!(jar(&[&format!("a={}", "x".repeat(COOKIE_BYTES_MAX))]), Jar::default());
    }

    #[test]
    fn hosts_with_and_without_ports() {
        for (host, name) in
            [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("1.2.3.4:5", "1.2.3.4")]
        {
            assert_eq!(name_of(host), name);
        }
        assert!(!is_within("1.2.3.4", "3.4") && is_within("1.2.3.4", "1.2.3.4"));
    }
}
