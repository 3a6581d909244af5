//! What is sent with a request: nothing, a form, JSON, parts with files, or bytes as they are.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    address,
    template::{Missing, Template, Variables},
};

/// What is sent with a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    /// Nothing.
    #[default]
    None,
    /// Bytes as they are, with their `Content-Type`.
    Raw {
        /// The type, unless a header field of the step says it.
        content_type: Option<String>,
        /// The bytes.
        content: Content,
    },
    /// `application/x-www-form-urlencoded`, in this order.
    Form(Vec<(String, Template)>),
    /// `application/json`.
    Json(Json),
    /// `multipart/form-data` (RFC 7578), as forms with files are sent.
    Multipart(Vec<Part>),
}

/// Text with variables, or bytes without.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text.
    Text(Template),
    /// Bytes.
    Bytes(Bytes),
}

/// A part of `multipart/form-data`.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The field's name.
    pub name: String,
    /// The file's name, if it is a file.
    pub file_name: Option<Template>,
    /// Its type, if it says one.
    pub content_type: Option<String>,
    /// What is in it.
    pub content: Content,
}

/// JSON whose strings may have variables in them. A string that is one variable and nothing else becomes that variable's value,
/// with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// A value without variables.
    Plain(Value),
    /// A string with them.
    Text(Template),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// A body that is ready to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Body {
    /// The texts with variables in it.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Self::None => Vec::new(),
            Self::Raw { content, .. } => content.template().into_iter().collect(),
            Self::Form(fields) => fields.iter().map(|(_, value)| value).collect(),
            Self::Json(json) => json.templates(),
            Self::Multipart(parts) => {
                parts.iter().flat_map(|part| part.file_name.iter().chain(part.content.template())).collect()
            }
        }
    }

    /// The bytes, with the values of variables in their places.
    ///
    /// # Errors
    /// The first variable that has no value.
    pub fn render(&self, variables: &Variables) -> Result<Rendered, Missing> {
        let (content_type, bytes) = match self {
            Self::None => return Ok(Rendered::default()),
            Self::Raw { content_type, content } => (content_type.clone(), content.fill(variables)?),
            Self::Form(fields) => {
                let filled = fields.iter().map(|(name, value)| Ok((name.as_str(), value.fill(variables)?)));
                let filled = filled.collect::<Result<Vec<_>, Missing>>()?;
                let encoded =
                    address::encode_form(filled.iter().map(|(name, value)| (*name, value.as_str())));
                (Some("application/x-www-form-urlencoded".into()), encoded.into())
            }
            Self::Json(json) => (Some("application/json".into()), json.fill(variables)?.to_string().into()),
            Self::Multipart(parts) => multipart(parts, variables)?,
        };
        Ok(Rendered { content_type, bytes })
    }
}

impl Content {
    fn template(&self) -> Option<&Template> {
        match self {
            Self::Text(template) => Some(template),
            Self::Bytes(_) => None,
        }
    }

    fn fill(&self, variables: &Variables) -> Result<Bytes, Missing> {
        match self {
            Self::Text(template) => Ok(template.fill(variables)?.into()),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

impl Json {
    /// Takes the variables out of the strings of `value`.
    ///
    /// # Errors
    /// What is wrong with one, in a sentence.
    pub fn parse(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(&text)?),
            Value::Array(values) => {
                Self::Array(values.into_iter().map(Self::parse).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let field = |(name, value)| Ok((name, Self::parse(value)?));
                Self::Object(fields.into_iter().map(field).collect::<Result<_, String>>()?)
            }
            value => Self::Plain(value),
        })
    }

    /// The value, with those of variables in their places.
    ///
    /// # Errors
    /// The first variable that has no value.
    pub fn fill(&self, variables: &Variables) -> Result<Value, Missing> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => match template.sole_variable() {
                Some(name) => variables.get(name).cloned().ok_or_else(|| Missing(name.into()))?,
                None => Value::String(template.fill(variables)?),
            },
            Self::Array(items) => {
                Value::Array(items.iter().map(|item| item.fill(variables)).collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let field = |(name, value): &(String, Self)| Ok((name.clone(), value.fill(variables)?));
                Value::Object(fields.iter().map(field).collect::<Result<Map<_, _>, Missing>>()?)
            }
        })
    }

    /// The strings in it.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Text(template) => vec![template],
            Self::Array(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, value)| value.templates()).collect(),
        }
    }
}

fn multipart(parts: &[Part], variables: &Variables) -> Result<(Option<String>, Bytes), Missing> {
    let filled = parts.iter().map(|part| part.content.fill(variables)).collect::<Result<Vec<_>, _>>()?;
    let boundary = boundary(&filled);
    let mut body = Vec::new();
    for (part, content) in parts.iter().zip(&filled) {
        body.extend_from_slice(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"", quoted(&part.name))
                .as_bytes(),
        );
        if let Some(name) = &part.file_name {
            body.extend_from_slice(format!("; filename=\"{}\"", quoted(&name.fill(variables)?)).as_bytes());
        }
        if let Some(content_type) = &part.content_type {
            body.extend_from_slice(format!("\r\nContent-Type: {content_type}").as_bytes());
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((Some(format!("multipart/form-data; boundary={boundary}")), body.into()))
}

/// As browsers write names there (HTML Standard, section 4.10.21.8).
fn quoted(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

/// The first of a fixed row that no part has in it, so that the same parts have the same bytes in each run.
fn boundary(contents: &[Bytes]) -> String {
    let has = |content: &Bytes, boundary: &str| {
        content.windows(boundary.len()).any(|window| window == boundary.as_bytes())
    };
    (0_u64..)
        .map(|number| format!("lethe-part-{number:016x}"))
        .find(|boundary| !contents.iter().any(|content| has(content, boundary)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    #[test]
    fn a_variable_in_json_keeps_its_type() {
        let mut variables = Variables::default();
        variables.set("id", 7);
        variables.set("tags", json!(["a"]));
        let body = json!({ "id": "{{id}}", "text": "no. {{id}}", "list": ["{{tags}}", 1, null] });
        let filled = Json::parse(body).unwrap().fill(&variables).unwrap();
        assert_eq!(filled, json!({ "id": 7, "text": "no. 7", "list": [["a"], 1, null] }));
    }

    #[test]
    fn parts_are_framed_by_what_is_in_none_of_them() {
        let part = |name: &str, content: &str| Part {
            name: name.into(),
            file_name: (name == "photo").then(|| template("a\"b.png")),
            content_type: (name == "photo").then(|| "image/png".into()),
            content: Content::Text(template(content)),
        };
        let body = Body::Multipart(vec![part("title", "x"), part("photo", "lethe-part-0000000000000000")]);
        let rendered = body.render(&Variables::default()).unwrap();
        assert_eq!(
            rendered.content_type.unwrap(),
            "multipart/form-data; boundary=lethe-part-0000000000000001"
        );
        assert_eq!(
            String::from_utf8(rendered.bytes.to_vec()).unwrap(),
            "--lethe-part-0000000000000001\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nx\r\n\
             --lethe-part-0000000000000001\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"a%22b.png\"\r\n\
             Content-Type: image/png\r\n\r\nlethe-part-0000000000000000\r\n--lethe-part-0000000000000001--\r\n"
        );
    }
}
