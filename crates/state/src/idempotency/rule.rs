//! The rules for idempotency keys and answers, which every engine checks before it does anything.

use std::time::Duration;

use super::{
    ANSWER_BYTES_MAX, ANSWER_FIELDS_MAX, Answer, Beginning, Claim, DISPLACED_MAX, KEY_BYTES_MAX,
    OWNER_BYTES_MAX, SCOPE_BYTES_MAX, TIME_MAX,
};
use crate::{
    error::Error,
    rules::{check_key, check_name, check_size},
};

/// Checks a request that is about to be done.
pub(crate) fn check_beginning(beginning: &Beginning) -> Result<(), Error> {
    check_place(&beginning.scope, &beginning.key)?;
    if beginning.displaces.len() > DISPLACED_MAX {
        return Err(Error::Invalid(format!(
            "{} owners are named as dead, over the limit of {DISPLACED_MAX}",
            beginning.displaces.len()
        )));
    }
    for owner in beginning.displaces.iter().chain([&beginning.owner]) {
        if owner.is_empty() || owner.contains('\0') {
            return Err(Error::Invalid("the name of an owner is empty, or has a NUL character".into()));
        }
        check_size("the name of an owner", owner.len(), OWNER_BYTES_MAX)?;
    }
    check_time("a lease", beginning.lease)?;
    check_time("the time that an answer is kept", beginning.kept)
}

/// Checks what a claim is on.
pub(crate) fn check_claim(claim: &Claim) -> Result<(), Error> {
    check_place(&claim.scope, &claim.key)
}

fn check_place(scope: &str, key: &str) -> Result<(), Error> {
    check_name("scope", scope, SCOPE_BYTES_MAX)?;
    check_key(key, KEY_BYTES_MAX)
}

/// Checks a time that is asked for.
pub(crate) fn check_time(what: &str, time: Duration) -> Result<(), Error> {
    if time < Duration::from_millis(1) || time > TIME_MAX {
        let days = TIME_MAX.as_secs() / (24 * 3600);
        return Err(Error::Invalid(format!("{what} is {time:?}, which is not between 1 ms and {days} days")));
    }
    Ok(())
}

/// Checks an answer: its size, and that it can be given again over HTTP (RFC 9110, section 5).
pub(crate) fn check_answer(answer: &Answer) -> Result<(), Error> {
    if !(200..=999).contains(&answer.status) {
        return Err(Error::Invalid(format!("{} is not the status of a final answer", answer.status)));
    }
    if answer.fields.len() > ANSWER_FIELDS_MAX {
        let text =
            format!("the answer has {} fields, over the limit of {ANSWER_FIELDS_MAX}", answer.fields.len());
        return Err(Error::Invalid(text));
    }
    for (name, value) in &answer.fields {
        if name.is_empty() || !name.bytes().all(is_of_name) {
            return Err(Error::Invalid(format!(
                "`{}` is not a field's name in lower case",
                name.escape_debug()
            )));
        }
        if !value.iter().all(|byte| is_of_value(*byte)) {
            return Err(Error::Invalid(format!(
                "the value of the field `{name}` has characters that none may have"
            )));
        }
    }
    check_size("the answer", answer.size(), ANSWER_BYTES_MAX)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_of_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_can_be_given_over_http() {
        let check = |status, name: &str, value: &'static [u8]| {
            let fields = vec![(name.to_owned(), value.into())];
            check_answer(&Answer { status, fields, body: "body".into() })
        };
        for (name, value) in [("content-type", &b"text/plain"[..]), ("x", b""), ("x-odd_~", b"\t\xff \x80")] {
            assert!(check(200, name, value).is_ok(), "{name}");
        }
        for (name, value) in [
            ("", &b"v"[..]),
            ("Upper", b"v"),
            ("a b", b"v"),
            ("a:", b"v"),
            ("é", b"v"),
            ("a", b"\r\n"),
            ("a", b"\0"),
        ] {
            assert!(matches!(check(200, name, value), Err(Error::Invalid(_))), "{name:?}");
        }
        for status in [0, 100, 199, 1000] {
            assert!(matches!(check(status, "a", b"v"), Err(Error::Invalid(_))), "{status}");
        }
    }
}
