//! Who the recording signs up. A second run could not sign up under the same name, so that names get the run's identity.

use serde_json::Value;

use super::recording::Entry;
use crate::{
    address,
    har::{request, secrets, sources},
    template::{IDENTITY, Template},
};

/// A word of these in the path, beside a password in what is sent, makes a request a signing up.
const SIGN_UP: [&str; 8] =
    ["register", "registration", "signup", "sign-up", "sign_up", "join", "users", "accounts"];

/// Fields that name who signs up.
const NAMES: [&str; 10] =
    ["user", "username", "user_name", "login", "email", "e-mail", "mail", "name", "handle", "nickname"];

/// The names under which the recording signs up.
#[derive(Clone, Debug, Default)]
pub(super) struct Person {
    /// Variable and recorded value of each.
    pub(super) names: Vec<(String, String)>,
    /// The step in which it does, from 1; 0 if it does not.
    pub(super) step: usize,
    /// If it does not: the step that sends a name as it was typed, and the name.
    typed: Option<(usize, String)>,
}

impl Person {
    pub(super) fn find(entries: &[Entry]) -> Self {
        let typed = secrets::password_fields(entries);
        for (at, entry) in entries.iter().enumerate() {
            let path = super::split(&entry.request.url).map_or("", |(_, path)| path).to_ascii_lowercase();
            let words: Vec<&str> = path.split(['/', '?', '.']).collect();
            if entry.request.method != "POST" || !SIGN_UP.iter().any(|word| words.contains(word)) {
                continue;
            }
            let fields = fields(entry);
            let is_password =
                |name: &str| name.to_ascii_lowercase().contains("passw") || typed.contains(name);
            if !fields.iter().any(|(name, _)| is_password(name)) {
                continue;
            }
            let mut names: Vec<(String, String)> = Vec::new();
            for (name, value) in fields {
                let word = word(&name);
                let is_new = !value.is_empty() && names.iter().all(|(_, known)| *known != value);
                if NAMES.contains(&word.as_str()) && is_new {
                    names.push((sources::name(&word), value));
                }
            }
            return Self { names, step: at + 1, typed: None };
        }
        let typed = entries.iter().zip(1..).find_map(|(entry, step)| {
            let mut fields = if entry.request.method == "POST" { fields(entry) } else { Vec::new() };
            fields.retain(|(name, value)| NAMES.contains(&word(name).as_str()) && !value.is_empty());
            Some((step, fields.into_iter().next()?.1))
        });
        Self { typed, ..Self::default() }
    }

    /// What is to be said of it.
    pub(super) fn note(&self) -> Option<String> {
        if let Some((step, name)) = &self.typed {
            return Some(format!(
                "step {step} sends {name} as it was typed, so all runs are one person; where anybody may come, put `{{{{identity}}}}` \
                 behind it, and each is another"
            ));
        }
        let names: Vec<&str> = self.names.iter().map(|(_, value)| value.as_str()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "step {} signs up; in each run, {} gets the identity of the run",
                self.step,
                names.join(" and ")
            )
        })
    }
}

/// The last part of a field's name, in lower case.
fn word(name: &str) -> String {
    let last = name.rsplit(['/', '[', '.']).next().unwrap_or_default();
    last.trim_end_matches(']').to_ascii_lowercase()
}

/// The recorded name with the identity of the run: behind it, or before the `@` of an address.
pub(super) fn with_identity(value: &str) -> Template {
    let (before, after) = value.find('@').map_or((value, ""), |at| value.split_at(at));
    let mut template = Template::literal(before);
    template.push_variable(IDENTITY);
    template.push_text(after);
    template
}

/// What a form or an object of JSON sends: names, or pointers into the JSON, and values.
pub(super) fn fields(entry: &Entry) -> Vec<(String, String)> {
    let Some(body) = &entry.request.body else { return Vec::new() };
    let text = body.text().unwrap_or_default();
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => sources::leaves(&value),
        Err(_) if text.is_empty() || body.content_type.starts_with("multipart/") => {
            request::typed_parts(body).collect()
        }
        Err(_) => address::decode_form(&text),
    }
}
