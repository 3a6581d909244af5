//! What steps are called: a page by its title, and a form by the button that sends it.

use std::collections::{HashMap, HashSet};

use super::{
    person::{self, Person},
    recording::Entry,
    split,
};
use crate::{
    address,
    body::Body,
    html::{self, Token},
    journey::Step,
};

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 60;

/// How many pages before a request are looked at for the form that it was sent by.
const PAGES_MAX: usize = 20;

/// Gives names to those of `steps` that pages have a word for.
pub(super) fn give(entries: &[Entry], person: &Person, host: &str, steps: &mut [Step]) {
    let titles: Vec<Option<String>> = entries.iter().map(title).collect();
    // What several pages are called tells none of them apart.
    let mut paths: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (title, entry) in titles.iter().zip(entries) {
        if let Some(title) = title {
            paths.entry(title).or_default().insert(path(entry));
        }
    }
    for (at, step) in steps.iter_mut().enumerate() {
        let title =
            titles[at].as_deref().filter(|title| paths.get(title).is_some_and(|paths| paths.len() == 1));
        let is_sent = matches!(step.body, Body::Form(_) | Body::Multipart(_));
        let name = if is_sent { button(&entries[..at], &entries[at], host) } else { title.map(String::from) };
        // The name of who was there when it was recorded is of that day.
        let is_general = |name: &String| !person.names.iter().any(|(_, typed)| name.contains(typed.as_str()));
        step.name = name.filter(is_general);
    }
}

fn path(entry: &Entry) -> &str {
    split(&entry.request.url).map_or("", |(_, path)| path.split('?').next().unwrap_or_default())
}

/// What a page is called.
fn title(entry: &Entry) -> Option<String> {
    if entry.response.status != 200 || entry.response.content.kind() != "text/html" {
        return None;
    }
    let text = entry.response.content.text()?;
    let mut is_title = false;
    for token in html::tokens(&text) {
        match token {
            Token::Open(tag) => is_title = tag.name == "title",
            Token::Text(text) if is_title => return short(&text),
            Token::Text(_) | Token::Close(_) => {}
        }
    }
    None
}

/// The words on the button by which the last page with such a form sends it.
fn button(before: &[Entry], entry: &Entry, host: &str) -> Option<String> {
    let target = path(entry);
    let fields = person::fields(entry);
    before.iter().rev().take(PAGES_MAX).find_map(|page| {
        let text = page.response.content.text().filter(|_| page.response.content.kind() == "text/html")?;
        let at = split(&page.request.url).map_or("/", |(_, path)| path);
        let buttons = buttons(&text, at, target, host);
        // Of several, the one whose own field was sent.
        let is_pressed = |button: &&Button| {
            fields.iter().any(|(name, value)| (name, value) == (&button.name, &button.value))
        };
        let pressed = buttons.iter().find(is_pressed);
        let pressed = pressed.or_else(|| buttons.iter().find(|button| button.name.is_empty()));
        let pressed = pressed.or_else(|| buttons.first())?;
        short(&pressed.words)
    })
}

/// What sends a form.
struct Button {
    name: String,
    value: String,
    words: String,
}

/// The buttons of the forms of a page that lead to `target`.
fn buttons(page: &str, at: &str, target: &str, host: &str) -> Vec<Button> {
    let (mut buttons, mut is_here, mut is_open) = (Vec::<Button>::new(), false, false);
    for token in html::tokens(page) {
        match token {
            Token::Open(tag) if tag.name == "form" => {
                let action = address::resolve(at, tag.get("action").unwrap_or_default(), host);
                is_here = action.is_some_and(|action| action.split('?').next() == Some(target));
            }
            Token::Close(name) if name == "form" => (is_here, is_open) = (false, false),
            Token::Open(tag) if is_here => {
                let kind = tag.get("type").unwrap_or(if tag.name == "button" { "submit" } else { "" });
                let is_button = kind == "submit" && ["button", "input"].contains(&tag.name.as_str());
                if is_button {
                    let get = |name| tag.get(name).unwrap_or_default().to_owned();
                    let words = if tag.name == "input" { get("value") } else { String::new() };
                    buttons.push(Button { name: get("name"), value: get("value"), words });
                }
                is_open = is_open || (is_button && tag.name == "button");
            }
            Token::Close(name) if name == "button" => is_open = false,
            Token::Text(text) if is_open => {
                if let Some(button) = buttons.last_mut() {
                    button.words.push_str(&text);
                }
            }
            Token::Open(_) | Token::Text(_) | Token::Close(_) => {}
        }
    }
    buttons
}

/// On one line, if that is not too long.
fn short(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let name = words.join(" ");
    (!name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && !name.chars().any(char::is_control))
        .then_some(name)
}
