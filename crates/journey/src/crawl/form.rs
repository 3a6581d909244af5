//! A form of a page, and what a user fills it in with.

use http::Method;

use super::FINAL;
use crate::{
    address,
    body::{Body, Content, Part},
    html::{self, Tag, Token},
    journey::Step,
    template::{IDENTITY, Template},
};

/// The most fields of a form.
const FIELDS_MAX: usize = 100;

/// A form of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    method: Method,
    /// Path and query.
    action: String,
    is_multipart: bool,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    value: Fill,
}

/// What a field is filled in with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fill {
    /// What the page has put there.
    Hidden,
    /// What a user would write.
    Written(Template),
    /// A file.
    File,
}

/// What users write everywhere alike, so that who signs up can sign in.
pub(super) fn variables() -> Vec<(String, Template)> {
    let with = |before: &str, after: &str| {
        let mut template = Template::literal(before);
        template.push_variable(IDENTITY);
        template.push_text(after);
        template
    };
    vec![
        ("user".into(), with("lethe", "")),
        ("mail".into(), with("lethe", "@example.org")),
        ("password".into(), with("Lethe-7-", "!")),
        ("text".into(), with("lethe ", "")),
    ]
}

/// The variable for what a page, asked for in step `number`, has in a hidden field.
pub(super) fn variable(name: &str, number: usize) -> String {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
    format!("{name}-{number}")
}

/// The forms of the page at `path`, those that lead to `host`.
pub(super) fn forms(page: &str, path: &str, host: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut open: Option<Form> = None;
    let mut select: Option<(String, Option<String>)> = None;
    for token in html::tokens(page) {
        match (token, &mut open) {
            (Token::Open(tag), _) if tag.name == "form" => open = begin(&tag, path, host),
            (Token::Close(name), _) if name == "form" => forms.extend(open.take()),
            (Token::Open(tag), Some(form)) => match tag.name.as_str() {
                "select" => select = tag.get("name").map(|name| (name.to_owned(), None)),
                "option" => choose(&tag, &mut select),
                "input" | "textarea" | "button" => form.add(&tag),
                _ => {}
            },
            (Token::Close(name), Some(form)) if name == "select" => {
                if let Some((name, Some(value))) = select.take() {
                    form.push(&name, Fill::Written(Template::literal(value)));
                }
            }
            _ => {}
        }
    }
    forms.extend(open);
    forms
}

fn begin(tag: &Tag, path: &str, host: &str) -> Option<Form> {
    let method = match tag.get("method").unwrap_or_default().to_ascii_lowercase().as_str() {
        "post" => Method::POST,
        "dialog" => return None,
        _ => Method::GET,
    };
    let action = address::resolve(path, tag.get("action").unwrap_or_default(), host)?;
    let is_multipart =
        tag.get("enctype").is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"));
    Some(Form { method, action, is_multipart, fields: Vec::new() })
}

/// The first option that has a value, or the one that is chosen.
fn choose(option: &Tag, select: &mut Option<(String, Option<String>)>) {
    let Some((_, chosen)) = select else { return };
    let value = option.get("value").filter(|value| !value.is_empty());
    if let Some(value) = value.filter(|_| chosen.is_none() || option.has("selected")) {
        *chosen = Some(value.to_owned());
    }
}

impl Form {
    /// A radio button or a button of a name that is already there is another choice of the same.
    fn push(&mut self, name: &str, value: Fill) {
        if self.fields.len() < FIELDS_MAX {
            self.fields.push(Field { name: name.to_owned(), value });
        }
    }

    fn add(&mut self, tag: &Tag) {
        let Some(name) = tag.get("name").filter(|name| !name.is_empty() && !tag.has("disabled")) else {
            return;
        };
        let kind = tag
            .get("type")
            .unwrap_or(if tag.name == "button" { "submit" } else { "text" })
            .to_ascii_lowercase();
        let is_there = self.fields.iter().any(|field| field.name == name);
        let value = tag.get("value").unwrap_or_default();
        let fill = match kind.as_str() {
            "hidden" => Fill::Hidden,
            "file" => Fill::File,
            "reset" | "image" => return,
            "submit" | "radio" if is_there => return,
            "button" if tag.name == "button" || tag.name == "input" => return,
            "submit" | "radio" => {
                Fill::Written(Template::literal(if value.is_empty() { "on" } else { value }))
            }
            "checkbox" if tag.has("checked") || tag.has("required") => {
                Fill::Written(Template::literal(if value.is_empty() { "on" } else { value }))
            }
            "checkbox" => return,
            _ if !value.is_empty() => Fill::Written(Template::literal(value)),
            kind => Fill::Written(written(kind, name, tag)),
        };
        self.push(name, fill);
    }

    /// The names of its hidden fields.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|field| field.value == Fill::Hidden).map(|field| field.name.as_str())
    }

    /// By what it is told apart from others: the same form on several pages is one.
    pub(super) fn signature(&self) -> String {
        let mut names: Vec<&str> = self.fields.iter().map(|field| field.name.as_str()).collect();
        names.sort_unstable();
        let folder = self.action.split('?').next().unwrap_or_default();
        // Ids in the address are of what the form is for; one of a kind is enough.
        let shape: Vec<&str> = folder
            .split('/')
            .map(|part| if part.bytes().any(|byte| byte.is_ascii_digit()) { "*" } else { part })
            .collect();
        format!("{} {} {}", self.method, shape.join("/"), names.join(" "))
    }

    /// Whether sending it may change something.
    pub(super) fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// In which order forms are filled in: who signs up can do more, and what ends something comes last.
    pub(super) fn rank(&self) -> u8 {
        let lower = self.action.to_ascii_lowercase();
        let is_sign_up =
            ["register", "signup", "sign-up", "sign_up", "join"].iter().any(|word| lower.contains(word));
        match () {
            () if FINAL.iter().any(|word| lower.contains(word)) => 3,
            () if is_sign_up => 0,
            () => 1 + u8::from(self.method == Method::GET),
        }
    }

    /// The request that sends it, after its page was asked for in step `number`.
    pub(super) fn step(&self, number: usize) -> Step {
        let filled = self.fields.iter().map(|field| {
            let value = match &field.value {
                Fill::Hidden => Template::variable(variable(&field.name, number)),
                Fill::Written(template) => template.clone(),
                // A form that is not sent in parts sends the file's name alone.
                Fill::File => Template::literal("lethe.txt"),
            };
            (field, value)
        });
        if self.method == Method::GET {
            let mut path = Template::literal(self.action.split('?').next().unwrap_or("/"));
            for (at, (field, value)) in filled.enumerate() {
                path.push_text(if at == 0 { "?" } else { "&" });
                path.push_text(&format!("{}=", address::encode(&field.name)));
                path.push(&value);
            }
            return Step::new(0, Method::GET, path);
        }
        let mut step = Step::new(0, self.method.clone(), Template::literal(&*self.action));
        step.body = if self.is_multipart {
            Body::Multipart(filled.map(|(field, value)| part(field, value)).collect())
        } else {
            Body::Form(filled.map(|(field, value)| (field.name.clone(), value)).collect())
        };
        step
    }
}

fn part(field: &Field, value: Template) -> Part {
    let (file_name, content_type, content) = match field.value {
        Fill::File => (Some(value), Some("text/plain".into()), Template::variable("text")),
        _ => (None, None, value),
    };
    Part { name: field.name.clone(), file_name, content_type, content: Content::Text(content) }
}

/// What a user would write into a field of this type and name.
fn written(kind: &str, name: &str, tag: &Tag) -> Template {
    let lower = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let constant = match kind {
        "number" | "range" => tag.get("min").unwrap_or("1"),
        "date" => "2026-01-31",
        "datetime-local" => "2026-01-31T09:05",
        "month" => "2026-01",
        "week" => "2026-W05",
        "time" => "09:05",
        "color" => "#336699",
        "tel" => "+15550100",
        "url" => "https://example.org/",
        _ => "",
    };
    match () {
        () if !constant.is_empty() => Template::literal(constant),
        () if kind == "password" || has(&["passw"]) => Template::variable("password"),
        () if kind == "email" || has(&["mail"]) => Template::variable("mail"),
        () if has(&["user", "login", "nick", "handle"]) || lower == "name" => Template::variable("user"),
        () if has(&["quantity", "qty", "amount", "count", "number", "age"]) => Template::literal("1"),
        () => Template::variable("text"),
    }
}
