//! A HAR file (HTTP Archive 1.2), as far as a replay needs it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::sockets::{Heard, Talk};

#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub(super) log: Log,
}

#[derive(Debug, Deserialize)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) request: Request,
    pub(super) response: Response,
    /// What Chromium and Playwright say that it was for, such as `document` or `xhr`.
    #[serde(rename = "_resourceType", default)]
    pub(super) kind: Option<String>,
    #[serde(rename = "_webSocketMessages", default)]
    pub(super) messages: Option<serde_json::Value>,
    #[serde(rename = "startedDateTime", default)]
    pub(super) started: Option<serde_json::Value>,
    /// The same in seconds since 1970, where that matters.
    #[serde(skip)]
    pub(super) at: f64,
    /// What it is of a connection that stays open.
    #[serde(skip)]
    pub(super) talk: Option<Talk>,
    /// What came over one because of it.
    #[serde(skip)]
    pub(super) heard: Option<Heard>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) url: String,
    #[serde(default)]
    pub(super) headers: Vec<Field>,
    #[serde(rename = "postData", default)]
    pub(super) body: Option<PostData>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PostData {
    #[serde(rename = "mimeType", default)]
    pub(super) content_type: String,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) params: Vec<Param>,
    #[serde(default)]
    pub(super) encoding: Option<String>,
    /// Whether files have their content in it, which browsers leave out.
    #[serde(skip)]
    pub(super) has_files: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Param {
    pub(super) name: String,
    #[serde(default)]
    pub(super) value: Option<String>,
    #[serde(rename = "fileName", default)]
    pub(super) file_name: Option<String>,
    #[serde(rename = "contentType", default)]
    pub(super) content_type: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Response {
    /// 0 or less if there was none.
    pub(super) status: i32,
    #[serde(default)]
    pub(super) headers: Vec<Field>,
    #[serde(default)]
    pub(super) content: Content,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Content {
    #[serde(rename = "mimeType", default)]
    pub(super) content_type: String,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) encoding: Option<String>,
    /// Whether there was more than was kept.
    #[serde(skip)]
    pub(super) is_cut: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: String,
}

impl Content {
    /// The body as text; `None` if it was not kept, or is no text.
    pub(super) fn text(&self) -> Option<String> {
        text(self.text.as_deref()?, self.encoding.as_deref())
    }

    /// The type without parameters, in lower case.
    pub(super) fn kind(&self) -> String {
        self.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

impl PostData {
    /// The body as text; `None` if it was not kept, or is no text.
    pub(super) fn text(&self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    /// The body; `None` if it was not kept.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let text = self.text.as_deref()?;
        match self.encoding.as_deref() {
            Some("base64") => STANDARD.decode(text).ok(),
            _ => Some(text.as_bytes().to_owned()),
        }
    }
}

fn text(text: &str, encoding: Option<&str>) -> Option<String> {
    match encoding {
        Some("base64") => String::from_utf8(STANDARD.decode(text).ok()?).ok(),
        _ => Some(text.to_owned()),
    }
}

/// The value of the first field of that name, in whatever case.
pub(super) fn field<'f>(fields: &'f [Field], name: &str) -> Option<&'f str> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.as_str())
}
