//! Whether a request may pass, asked before a worker is looked for: of whoever keeps count, which is not the gateway. A
//! route without limits asks nobody.

use std::pin::Pin;

use crate::config::limit::Limit;

/// Keeps count for all routes.
pub trait Allowance: Send + Sync + 'static {
    /// What judges requests of a route with these limits. It is asked for by each core, by its number, and for each route
    /// that has limits, again whenever the configuration changes; all that it returns is used on that core alone.
    fn judge(&self, core: usize, limits: &[Limit]) -> Box<dyn Judge>;
}

/// Judges requests of one route on one core.
pub trait Judge {
    /// Whether a request with this head may pass. The answer may take as long as its giver says; a client that leaves drops
    /// the future, and what was counted by then may stay so. It must not hold up the thread.
    fn judge(&self, head: Head<'_>) -> Judging;
}

/// A judgement to come.
pub type Judging = Pin<Box<dyn Future<Output = Judgement>>>;

/// Whether a request may pass.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// It may. Its answer gets these fields.
    Passed(Fields),
    /// It may, since it could not be counted.
    Uncounted,
    /// It came too early.
    Refused(Refusal),
    /// It may not, since it could not be counted.
    Away,
}

/// Fields of an answer, with lower-case names.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The answer to a request that came too early: 429 (RFC 6585, section 4).
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What is added to the fields that every answer of the gateway has; `Retry-After` is one of these.
    pub fields: Fields,
    /// The problem document (RFC 9457), to which the request's id is added.
    pub problem: serde_json::Map<String, serde_json::Value>,
}

/// The head of a request as a worker would get it: what the client claims about itself is not in it, and `x-forwarded-for`
/// begins with its address, as far as the gateway believes it.
#[derive(Clone, Copy)]
pub struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    /// Of the text of a head, as HTTP/1.1 has it.
    pub fn of(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// The values of the fields of that lower-case name, in their order.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.0.split(|&byte| byte == b'\n').skip(1);
        fields.filter_map(move |line| {
            let (start, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name.as_bytes()))?;
            Some(value.trim_ascii())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let text =
            b"GET /x-key: HTTP/1.1\r\nhost: h\r\nX-Key: one\r\nx-key-2: no\r\nx-key:two \r\nx: y\r\n\r\n";
        let values = |name| Head::of(text).values(name).map(String::from_utf8_lossy).collect::<Vec<_>>();
        assert_eq!(values("x-key"), ["one", "two"]);
        assert_eq!(values("x"), ["y"]);
        assert_eq!(values("host"), ["h"]);
        assert_eq!(values("get /x-key"), [""; 0]);
        assert_eq!(values("cookie"), [""; 0]);
        assert_eq!(values(""), [""; 0]);
    }
}
