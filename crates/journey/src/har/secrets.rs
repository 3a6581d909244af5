//! What a person typed or carried that is nobody else's business: passwords and tokens. Who reads a journey's file, and who commits it, does
//! not think of them.

use std::collections::HashSet;

use http::header;

use super::{
    person::{self, Person},
    recording::Entry,
    sockets,
};
use crate::{
    address,
    body::{Body, Content, Json},
    html::{self, Token},
    journey::{Journey, Step},
    template::{self, Template},
};

/// The shortest password that is looked for in text, in bytes: a shorter one may be part of any word.
const SOUGHT_BYTES_MIN: usize = 4;

/// Stands for a variable in a text: a character that Unicode leaves to private use (section 23.5).
const STAND_IN: &str = "\u{e000}";

/// A password that was sent.
struct Password {
    value: String,
    /// The steps that sent it, from 1, and whether the service took it.
    steps: Vec<(usize, bool)>,
}

/// Hides what need not be in the file, and puts what must be there in sight.
pub(super) fn hide(entries: &[Entry], person: &Person, journey: &mut Journey) {
    let mut taken: HashSet<String> = [template::IDENTITY, template::ORIGIN].map(String::from).into();
    taken.extend(journey.variables.iter().map(|(name, _)| name.clone()));
    let captures = journey.steps.iter().flat_map(|step| &step.captures);
    taken.extend(captures.map(|capture| capture.variable.clone()));
    passwords(entries, person, journey, &mut taken);
    authorization(journey, &mut taken);
    mention(journey);
}

/// Each password becomes a variable: a made-up one where the journey signs up with it or was refused with it, else the typed one.
fn passwords(entries: &[Entry], person: &Person, journey: &mut Journey, taken: &mut HashSet<String>) {
    let typed = password_fields(entries);
    let is_password = |name: &str| {
        let word = word(name);
        typed.contains(word)
            || ["passw", "passphrase", "pwd"].iter().any(|part| word.to_ascii_lowercase().contains(part))
    };
    let mut found: Vec<Password> = Vec::new();
    for (entry, number) in entries.iter().zip(1..) {
        let is_taken = entry.response.status < 400;
        let fields = person::fields(entry).into_iter().chain(sockets::said(entry));
        for (_, value) in fields.filter(|(name, value)| is_password(name) && !value.is_empty()) {
            match found.iter_mut().find(|password| password.value == value) {
                Some(password) => password.steps.push((number, is_taken)),
                None => found.push(Password { value, steps: vec![(number, is_taken)] }),
            }
        }
    }
    let names: Vec<(bool, String)> = found
        .iter()
        .map(|password| {
            let is_refused = password.steps.iter().all(|(_, is_taken)| !is_taken);
            let name = template::unused(if is_refused { "wrong-password" } else { "password" }, taken);
            taken.insert(name.clone());
            (is_refused, name)
        })
        .collect();
    // One may begin with another.
    let mut longest_first: Vec<usize> = (0..found.len()).collect();
    longest_first.sort_by_key(|nth| std::cmp::Reverse(found[*nth].value.len()));
    let mut used = vec![false; found.len()];
    for nth in longest_first {
        let (value, (_, name)) = (&found[nth].value, &names[nth]);
        for step in &mut journey.steps {
            for text in texts(step) {
                used[nth] |= value.len() >= SOUGHT_BYTES_MIN && text.replace(value, name);
            }
            for_fields(&mut step.body, &mut |field, template| {
                if is_password(field) && template.as_literal() == Some(value) {
                    *template = Template::variable(name);
                    used[nth] = true;
                }
            });
        }
    }
    for (nth, (password, (is_refused, name))) in found.iter().zip(names).enumerate() {
        let (is_used, is_new) =
            (used[nth], person.step > 0 && password.steps.iter().any(|(number, _)| *number == person.step));
        if let Some(number) = left(journey, password) {
            journey.notes.push(format!(
                "the password of step {number} is in this file as it was typed: it cannot be told from the text that it is in"
            ));
        }
        if !is_used {
            continue;
        }
        let step = password.steps.first().map_or(0, |(number, _)| *number);
        if is_new || is_refused {
            journey.notes.push(format!("the password of step {step} is made up, and not what was typed"));
            journey.variables.push((name, Template::literal(like(&password.value, nth))));
        } else {
            let variable = env_name(&name);
            journey.notes.push(format!(
                "the password of step {step} is in this file, as it was typed; {name} = {{ env = \"{variable}\" }} takes it from the environment"
            ));
            journey.variables.push((name, Template::literal(&password.value)));
        }
    }
}

/// What a step sends as it is: text such as JSON under another name, and what is said over a channel.
fn texts(step: &mut Step) -> impl Iterator<Item = &mut Template> {
    let sent = match &mut step.body {
        Body::Raw { content: Content::Text(text), .. } => Some(text),
        _ => None,
    };
    sent.into_iter().chain(step.act.texts_mut())
}

/// The step that still sends a password as part of a text: it is too short to be looked for in there, or stands there in JSON, where a
/// variable would not be quoted as it must be.
fn left(journey: &mut Journey, password: &Password) -> Option<usize> {
    let Password { value, steps } = password;
    let quoted = serde_json::Value::from(value.as_str()).to_string();
    let quoted = quoted.trim_matches('"');
    journey.steps.iter_mut().filter(|step| steps.iter().any(|(number, _)| *number == step.number)).find_map(
        |step| {
            let number = step.number;
            texts(step).any(|text| text.contains(value) || text.contains(quoted)).then_some(number)
        },
    )
}

/// The fields into which pages have passwords typed.
pub(super) fn password_fields(entries: &[Entry]) -> HashSet<String> {
    let mut names = HashSet::new();
    for entry in entries.iter().filter(|entry| entry.response.content.kind() == "text/html") {
        for token in html::tokens(&entry.response.content.text().unwrap_or_default()) {
            let Token::Open(tag) = token else { continue };
            let is_password = tag.get("type").is_some_and(|kind| kind.eq_ignore_ascii_case("password"));
            names.extend(tag.get("name").filter(|_| is_password).map(String::from));
        }
    }
    names
}

/// What a field is called, without where it stands.
fn word(name: &str) -> &str {
    name.rsplit(['/', '.']).next().unwrap_or_default()
}

fn env_name(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// Another text of the same length and kinds of characters, which rules for passwords take for the same.
fn like(password: &str, nth: usize) -> String {
    const LETTERS: &[u8] = b"quietriverstonebymoon";
    const DIGITS: &[u8] = b"4927316850";
    let of = |from: &[u8], at: usize| char::from(from[(at + 7 * nth) % from.len()]);
    password
        .chars()
        .enumerate()
        .map(|(at, char)| match char {
            char if char.is_numeric() => of(DIGITS, at),
            char if char.is_uppercase() => of(LETTERS, at).to_ascii_uppercase(),
            char if char.is_alphabetic() => of(LETTERS, at),
            char => char,
        })
        .collect()
}

/// Of `Authorization`, what was typed stays, in sight; a token from before the recording does not, as cookies from before it do not.
fn authorization(journey: &mut Journey, taken: &mut HashSet<String>) {
    let mut typed: Vec<(String, String)> = Vec::new();
    let mut carried: Vec<String> = Vec::new();
    for step in &mut journey.steps {
        let number = step.number;
        step.headers.retain_mut(|(name, value)| {
            let Some(text) = value.as_literal().filter(|_| *name == header::AUTHORIZATION).map(String::from)
            else {
                return true;
            };
            if !text.to_ascii_lowercase().starts_with("basic ") {
                carried.push(number.to_string());
                return false;
            }
            let known = typed.iter().find(|(_, known)| *known == text).map(|(name, _)| name.clone());
            let variable = known.unwrap_or_else(|| {
                let name = template::unused("authorization", taken);
                taken.insert(name.clone());
                typed.push((name.clone(), text));
                name
            });
            *value = Template::variable(variable);
            true
        });
    }
    for (name, text) in typed {
        journey.notes.push(format!(
            "a name with its password is in this file, as {name}; {name} = {{ env = \"{}\" }} takes it from the environment",
            env_name(&name)
        ));
        journey.variables.push((name, Template::literal(text)));
    }
    if !carried.is_empty() {
        journey.notes.push(format!(
            "an Authorization from before the recording is not in this file (step {}); begin the recording by signing in",
            carried.join(", ")
        ));
    }
}

/// Names what may be a secret and is there as it was sent.
fn mention(journey: &mut Journey) {
    let mut names: Vec<String> = Vec::new();
    for step in &mut journey.steps {
        let number = step.number;
        let mut note = |name: &str, value: &Template| {
            if is_secret(word(name)) && value.as_literal().is_some_and(|value| !value.is_empty()) {
                names.push(format!("{} (step {number})", word(name)));
            }
        };
        step.headers.iter().for_each(|(name, value)| note(name.as_str(), value));
        let path = step.path.as_literal().unwrap_or_default();
        for (name, value) in address::decode_form(path.split_once('?').map_or("", |(_, query)| query)) {
            note(&name, &Template::literal(value));
        }
        for_fields(&mut step.body, &mut |name, value| note(name, value));
        for text in step.act.texts() {
            let leaves = sockets::leaves(&text.text_with(STAND_IN));
            for (name, value) in leaves.into_iter().filter(|(_, value)| !value.contains(STAND_IN)) {
                note(&name, &Template::literal(value));
            }
        }
    }
    names.dedup();
    if !names.is_empty() {
        journey
            .notes
            .push(format!("as it was sent, so see whether it may be in a file: {}", names.join(", ")));
    }
}

/// Whether what is called so is usually nobody else's business.
pub(super) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 16] = [
        "passw",
        "pwd",
        "token",
        "secret",
        "apikey",
        "csrf",
        "xsrf",
        "session",
        "otp",
        "cvc",
        "cvv",
        "cardnumber",
        "iban",
        "ssn",
        "jwt",
        "auth",
    ];
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect();
    WORDS.iter().any(|word| plain.contains(word))
}

/// Calls `with` for each field of a form or of JSON that is a text.
fn for_fields(body: &mut Body, with: &mut dyn FnMut(&str, &mut Template)) {
    match body {
        Body::Form(fields) => fields.iter_mut().for_each(|(name, value)| with(name, value)),
        Body::Multipart(parts) => {
            for part in parts {
                if let (Content::Text(text), None) = (&mut part.content, &part.file_name) {
                    with(&part.name, text);
                }
            }
        }
        Body::Json(json) => for_json("", json, with),
        Body::None | Body::Raw { .. } => {}
    }
}

fn for_json(name: &str, json: &mut Json, with: &mut dyn FnMut(&str, &mut Template)) {
    match json {
        Json::Text(text) => with(name, text),
        Json::Array(items) => items.iter_mut().for_each(|item| for_json(name, item, with)),
        Json::Object(fields) => fields.iter_mut().for_each(|(name, json)| for_json(name, json, with)),
        Json::Plain(_) => {}
    }
}
