//! A value that a schema allows: its example, default or constant where it has one, else a small one by type, format and limits.

use serde_json::{Map, Value, json};

use crate::{body::Json, openapi::reference::References, template::Template};

/// No value is nested deeper, so that a schema that is part of itself comes to an end.
const DEPTH_MAX: usize = 16;

/// No body has more values.
const VALUES_MAX: usize = 10_000;

/// No text is made longer than this, and no list has more items, whatever a schema asks for.
const LENGTH_MAX: u64 = 4096;
const ITEMS_MAX: u64 = 16;

/// A text that may be no longer than this has no identity in it.
const IDENTITY_ROOM: u64 = 40;

/// Makes values of one request.
pub(super) struct Sampler<'d> {
    pub(super) references: References<'d>,
    /// Names of properties, as [`plain_name`] has them, whose values are known, as `itemid`.
    pub(super) known: &'d [(String, Template)],
    values: usize,
}

/// A name without what only its writing adds: `item_id` and `itemId` are the same.
pub(super) fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

impl<'d> Sampler<'d> {
    pub(super) fn new(references: References<'d>, known: &'d [(String, Template)]) -> Self {
        Self { references, known, values: 0 }
    }

    /// What a media type or a parameter says to send: its example, else one made of its schema.
    ///
    /// # Errors
    /// Why none can be made.
    pub(super) fn of_holder(&mut self, holder: &'d Value) -> Result<Json, String> {
        if let Some(example) = holder.get("example") {
            return Ok(Json::Plain(example.clone()));
        }
        let first = holder.get("examples").and_then(Value::as_object).and_then(|all| all.values().next());
        if let Some(example) = first {
            let example = self.references.follow(example)?;
            if let Some(value) = example.get("value") {
                return Ok(Json::Plain(value.clone()));
            }
        }
        match holder.get("schema") {
            Some(schema) => self.of_schema(schema, 0),
            None => Err("there is neither a schema nor an example".into()),
        }
    }

    /// A value that `schema` allows.
    ///
    /// # Errors
    /// Why none can be made.
    pub(super) fn of_schema(&mut self, schema: &'d Value, depth: usize) -> Result<Json, String> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err(format!(
                "its schema is nested more than {DEPTH_MAX} deep or has more than {VALUES_MAX} values"
            ));
        }
        let schema = self.references.follow(schema)?;
        if let Some(value) = said(schema) {
            return Ok(Json::Plain(value.clone()));
        }
        if schema.get("allOf").is_some() {
            let mut parts = Vec::new();
            self.flatten(schema, 0, &mut parts)?;
            return self.of_parts(&parts, depth);
        }
        for several in ["oneOf", "anyOf"] {
            if let Some(choices) = schema.get(several).and_then(Value::as_array) {
                let mut why = format!("its `{several}` is empty");
                for choice in choices {
                    match self.of_schema(choice, depth + 1) {
                        // A choice that says nothing of types stands beside what the schema itself says.
                        Ok(_) if schema.get("properties").is_some() => {
                            return self.of_parts(&[schema, self.references.follow(choice)?], depth);
                        }
                        Ok(value) => return Ok(value),
                        Err(error) => why = error,
                    }
                }
                return Err(why);
            }
        }
        self.of_parts(&[schema], depth)
    }

    /// All that an `allOf` is put together of.
    fn flatten(&self, schema: &'d Value, depth: usize, parts: &mut Vec<&'d Value>) -> Result<(), String> {
        if depth > DEPTH_MAX || parts.len() > VALUES_MAX {
            return Err("its `allOf` is part of itself".into());
        }
        let schema = self.references.follow(schema)?;
        parts.push(schema);
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.flatten(part, depth + 1, parts)?;
        }
        Ok(())
    }

    /// A value that all of `parts` allow, each of which is no reference.
    fn of_parts(&mut self, parts: &[&'d Value], depth: usize) -> Result<Json, String> {
        if let Some(value) = parts.iter().find_map(|part| said(part)) {
            return Ok(Json::Plain(value.clone()));
        }
        let key = |key: &str| parts.iter().find_map(|part| part.get(key));
        let kind = parts.iter().find_map(|part| kind(part));
        match kind.unwrap_or("string") {
            "object" => self.object(parts, depth),
            "array" => self.array(key("items"), key("minItems").and_then(Value::as_u64).unwrap_or(0), depth),
            "integer" => number(&key, true),
            "number" => number(&key, false),
            "boolean" => Ok(Json::Plain(true.into())),
            "null" => Ok(Json::Plain(Value::Null)),
            "string" => text(&key),
            other => Err(format!("`{other}` is no type of a schema")),
        }
    }

    fn object(&mut self, parts: &[&'d Value], depth: usize) -> Result<Json, String> {
        let required: Vec<&str> = parts
            .iter()
            .filter_map(|part| part.get("required")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut fields: Vec<(String, Json)> = Vec::new();
        let properties = parts.iter().filter_map(|part| part.get("properties")?.as_object()).flatten();
        for (name, schema) in properties {
            let is_required = required.contains(&name.as_str());
            // Where nothing is said to be required, all is sent: hardly a service takes an empty object.
            if (!is_required && !required.is_empty()) || fields.iter().any(|(known, _)| known == name) {
                continue;
            }
            let is_read_only = self.references.follow(schema)?.get("readOnly") == Some(&Value::Bool(true));
            if is_read_only {
                continue;
            }
            match self.property(name, schema, depth + 1) {
                Ok(value) => fields.push((name.clone(), value)),
                Err(_) if !is_required => {}
                Err(why) => return Err(format!("`{name}`: {why}")),
            }
        }
        Ok(Json::Object(fields))
    }

    fn property(&mut self, name: &str, schema: &'d Value, depth: usize) -> Result<Json, String> {
        let name = plain_name(name);
        match self.known.iter().rev().find(|(known, _)| *known == name) {
            Some((_, value)) => Ok(Json::Text(value.clone())),
            None => self.of_schema(schema, depth),
        }
    }

    fn array(&mut self, items: Option<&'d Value>, least: u64, depth: usize) -> Result<Json, String> {
        if least > ITEMS_MAX {
            return Err(format!("it asks for {least} items or more; at most {ITEMS_MAX} are made"));
        }
        let Some(items) = items else { return Ok(Json::Array(Vec::new())) };
        let made: Result<Vec<Json>, String> =
            (0..least.max(1)).map(|_| self.of_schema(items, depth + 1)).collect();
        match made {
            Err(_) if least == 0 => Ok(Json::Array(Vec::new())),
            made => Ok(Json::Array(made?)),
        }
    }
}

/// What a schema itself says to send. Examples of OpenAPI 3.1 are a list.
fn said(schema: &Value) -> Option<&Value> {
    let first = |key: &str| schema.get(key)?.as_array()?.first();
    schema
        .get("example")
        .or_else(|| first("examples"))
        .or_else(|| schema.get("default").filter(|value| !value.is_null()))
        .or_else(|| schema.get("const"))
        .or_else(|| first("enum"))
}

/// The type, as said or as its keys tell.
fn kind(schema: &Value) -> Option<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => return Some(kind),
        Some(Value::Array(kinds)) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            let first = kinds.next();
            return if first == Some("null") { kinds.next().or(first) } else { first };
        }
        _ => {}
    }
    ["properties", "items", "format", "minimum", "maximum"]
        .into_iter()
        .find(|key| schema.get(key).is_some())
        .map(|key| match key {
            "properties" => "object",
            "items" => "array",
            "format" => "string",
            _ => "number",
        })
}

fn text<'v>(key: &impl Fn(&str) -> Option<&'v Value>) -> Result<Json, String> {
    let format = key("format").and_then(Value::as_str).unwrap_or_default();
    let fixed = |text: &str| Ok(Json::Plain(text.into()));
    match format {
        "date-time" => return fixed("2026-01-31T12:00:00Z"),
        "date" => return fixed("2026-01-31"),
        "time" => return fixed("12:00:00Z"),
        "duration" => return fixed("PT1H"),
        "uuid" => return fixed("7b2f4f0e-6c1d-4d0a-9a3e-5f8c2b1d0e4a"),
        "ipv4" => return fixed("192.0.2.1"),
        "ipv6" => return fixed("2001:db8::1"),
        "hostname" => return fixed("host.example"),
        "byte" => return fixed("bGV0aGU="),
        "email" => return template("ada-{{identity}}@shop.example"),
        "uri" | "url" | "iri" => return template("http://shop.example/{{identity}}"),
        _ => {}
    }
    if let Some(pattern) = key("pattern").and_then(Value::as_str) {
        return Err(format!("no text is made for the pattern {pattern:?}: give an example"));
    }
    let length = |name: &str| key(name).and_then(Value::as_u64);
    let least = length("minLength").unwrap_or(0);
    let most = length("maxLength").unwrap_or(u64::MAX);
    if least > LENGTH_MAX || least > most {
        return Err(format!("a text of {least} characters or more is not made: give an example"));
    }
    let padding = usize::try_from(least).unwrap_or_default();
    if most < IDENTITY_ROOM.max(least + "text-".len() as u64) {
        let length = padding.max(usize::try_from(most.min(4)).unwrap_or_default());
        return Ok(Json::Plain("x".repeat(length).into()));
    }
    let mut made = Template::parse("text-{{identity}}")?;
    made.push_text(&"x".repeat(padding.saturating_sub("text-".len())));
    Ok(Json::Text(made))
}

fn template(text: &str) -> Result<Json, String> {
    Template::parse(text).map(Json::Text)
}

/// A number within its limits. `exclusiveMinimum` is a flag in OpenAPI 3.0, and a limit in 3.1.
#[expect(clippy::cast_possible_truncation, reason = "limits of integers beyond 2^53 are not met exactly")]
fn number<'v>(key: &impl Fn(&str) -> Option<&'v Value>, whole: bool) -> Result<Json, String> {
    let limit = |inclusive: &str, exclusive: &str, towards: f64| {
        let inclusive = key(inclusive).and_then(Value::as_f64);
        match key(exclusive) {
            Some(Value::Bool(true)) => inclusive.map(|limit| limit + towards),
            Some(Value::Number(limit)) => limit.as_f64().map(|limit| limit + towards),
            _ => inclusive,
        }
    };
    let unit = if whole { 1.0 } else { 0.001 };
    let least = limit("minimum", "exclusiveMinimum", unit);
    let most = limit("maximum", "exclusiveMaximum", -unit);
    let mut made = least.unwrap_or(1.0).max(least.unwrap_or(f64::MIN));
    if least.is_none() && most.is_some_and(|most| most < made) {
        made = most.unwrap_or(made);
    }
    // One is a quantity that hardly a service refuses; nothing may be.
    if least.is_some_and(|least| least < 1.0) && most.is_none_or(|most| most >= 1.0) {
        made = 1.0;
    }
    if let Some(step) = key("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0) {
        made = (made / step).ceil() * step;
    }
    if whole {
        made = made.ceil();
    }
    if most.is_some_and(|most| made > most) || least.is_some_and(|least| made < least) {
        return Err("no number is within its limits: give an example".into());
    }
    Ok(Json::Plain(if whole || made.fract() == 0.0 { json!(made as i64) } else { json!(made) }))
}

/// `value` as text for a path, a query or a form; `None` if it is no single value.
pub(super) fn as_text(value: &Json) -> Option<Template> {
    match value {
        Json::Plain(Value::Array(items)) => {
            items.first().and_then(|item| as_text(&Json::Plain(item.clone())))
        }
        Json::Array(items) => items.first().and_then(as_text),
        Json::Plain(Value::Object(_)) | Json::Object(_) => None,
        Json::Plain(value) => Some(Template::literal(crate::template::text(value))),
        Json::Text(text) => Some(text.clone()),
    }
}

/// The fields of an object, each a value.
pub(super) fn fields(value: Json) -> Result<Vec<(String, Json)>, String> {
    match value {
        Json::Object(fields) => Ok(fields),
        Json::Plain(Value::Object(fields)) => {
            let fields: Map<String, Value> = fields;
            Ok(fields.into_iter().map(|(name, value)| (name, Json::Plain(value))).collect())
        }
        _ => Err("a form is sent of an object, and its schema is of something else".into()),
    }
}
