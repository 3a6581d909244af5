//! A place in a response, by which a difference is named and masked.

use std::fmt;

use super::Difference;

/// A place in a response.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The status. Never masked.
    Status,
    /// The redirect of this number, from 0, the one that was not followed last: its status and the shape of where it leads, in which
    /// what looks like an id is `*`. Never masked.
    Redirect(usize),
    /// A header field, by its name in lower case.
    Header(String),
    /// A cookie that is set, by its name: its value. Its other attributes are at [`Place::CookieRules`].
    Cookie(String),
    /// The attributes of a cookie that is set.
    CookieRules(String),
    /// A leaf of JSON, by its pointer (RFC 6901).
    Json(String),
    /// Text of a page, or of a plain text, by where it stands, such as `html/body/p[2]`.
    Text(String),
    /// A word of such a text, from 0.
    Word(String, usize),
    /// An attribute of an element, by where it stands, such as `html/body/a[1]@href`.
    Attribute(String),
    /// A body that is neither text nor JSON, or was cut.
    Body,
}

impl Place {
    /// Whether a difference there may be one that says nothing.
    pub fn is_maskable(&self) -> bool {
        !matches!(self, Self::Status | Self::Redirect(_))
    }

    /// Whether it is of a cookie that is set.
    pub fn is_cookie(&self) -> bool {
        matches!(self, Self::Cookie(_) | Self::CookieRules(_))
    }

    /// What it is a part of.
    pub(super) fn whole(&self) -> Option<Self> {
        match self {
            Self::Word(text, _) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }

    /// Appends how the two pieces at this place differ: texts of equally many words word by word.
    pub(super) fn differences(&self, first: Option<&str>, second: Option<&str>, all: &mut Vec<Difference>) {
        let words = |text: &'_ str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if let (Self::Text(text), Some(first), Some(second)) = (self, first, second) {
            let (first, second) = (words(first), words(second));
            if first.len() == second.len() {
                let pairs =
                    first.iter().zip(&second).enumerate().filter(|(_, (first, second))| first != second);
                all.extend(pairs.map(|(at, (first, second))| {
                    Difference::new(Self::Word(text.clone(), at), Some(first), Some(second))
                }));
                return;
            }
        }
        all.push(Difference::new(self.clone(), first, second));
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Redirect(_) => f.write_str("redirect"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::CookieRules(name) => write!(f, "attributes of cookie {name}"),
            Self::Json(pointer) if pointer.is_empty() => f.write_str("JSON"),
            Self::Json(pointer) => write!(f, "JSON {pointer}"),
            Self::Text(path) => write!(f, "text {path}"),
            Self::Word(path, at) => write!(f, "text {path}, word {}", at + 1),
            Self::Attribute(path) => write!(f, "attribute {path}"),
            Self::Body => f.write_str("body"),
        }
    }
}
