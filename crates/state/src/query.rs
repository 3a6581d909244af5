//! The options of an engine's URL: what stands behind its `?`. What is wrong with them is named; what they say never is.

use std::{collections::BTreeMap, time::Duration};

/// The options of a URL that were not taken yet.
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `name=value&…`, where each name is one of these. The error follows the URL's name: `has the option …`.
    pub(crate) fn parse(query: &str, known: &[&str]) -> Result<Self, String> {
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                // It may be the end of a password with a `?` in it.
                let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                let found = if is_name { format!("the option `{name}`") } else { "an unknown option".into() };
                return Err(format!("has {found}; these are known: {}", known.join(", ")));
            }
            let value = decoded(value).ok_or_else(|| format!("has a broken percent-encoding in `{name}`"))?;
            if options.insert(name.to_owned(), value).is_some() {
                return Err(format!("has the option `{name}` twice"));
            }
        }
        Ok(Self(options))
    }

    /// What an option says, once.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// An option that is on when it has no value.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(format!("has a `{name}` option that is neither `true` nor `false`")),
        }
    }

    /// A time in milliseconds.
    pub(crate) fn time(&mut self, name: &str, default: Duration) -> Result<Duration, String> {
        match self.take(name).map(|text| text.parse::<u32>()) {
            None => Ok(default),
            Some(Ok(ms)) if ms > 0 => Ok(Duration::from_millis(u64::from(ms))),
            Some(_) => Err(format!("has a `{name}` that is not a number of milliseconds from 1 on")),
        }
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` when it is none.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((plain, encoded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let digits = encoded.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = encoded.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}
