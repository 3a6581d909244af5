//! Steps out of operations, and which of their responses' values later ones need.

use http::{HeaderName, Method, header};
use serde_json::Value;

use crate::{
    address,
    body::{Body, Content, Json, Part},
    capture::{Capture, Source},
    journey::{Journey, Step},
    openapi::{
        operation::Operation,
        reference::References,
        sample::{self, Sampler, plain_name},
    },
    template::{self, IDENTITY, ORIGIN, Template},
};

/// What tokens are called in responses.
const TOKENS: [&str; 6] = ["access_token", "accessToken", "id_token", "idToken", "token", "jwt"];

/// What a scheme of security says to send, so that what it protects can be played without a sign-in.
const VALUE_KEY: &str = "x-lethe-value";

/// Puts a journey together.
pub(super) struct Maker<'d> {
    pub(super) journey: Journey,
    references: References<'d>,
    /// Values of parameters of paths, by the path up to them, as `/items/{}`.
    bound: Vec<(String, Template)>,
    /// Values of parameters by operation and name, as links give them.
    linked: Vec<(&'d Value, String, Template)>,
    /// Values by the plain name of properties that take them, as `itemid`.
    known: Vec<(String, Template)>,
    /// The token of a sign-in.
    token: Option<Template>,
    /// Whether a step has been made that needs no security, and may have set a cookie.
    has_open_change: bool,
}

impl<'d> Maker<'d> {
    pub(super) fn new(references: References<'d>, name: &str) -> Self {
        let journey = Journey {
            name: name.to_owned(),
            host: None,
            variables: Vec::new(),
            steps: Vec::new(),
            notes: Vec::new(),
        };
        Self {
            journey,
            references,
            bound: Vec::new(),
            linked: Vec::new(),
            known: Vec::new(),
            token: None,
            has_open_change: false,
        }
    }

    /// Whether it gives a token that other operations need.
    pub(super) fn is_sign_in(&self, operation: &Operation<'d>) -> bool {
        operation.method == Method::POST
            && self.security(operation).is_empty()
            && self.names_of_schemes() > 0
            && self.leaf(operation, &TOKENS).is_some()
    }

    fn names_of_schemes(&self) -> usize {
        let schemes = self.references.root.pointer("/components/securitySchemes").and_then(Value::as_object);
        schemes.map_or(0, serde_json::Map::len)
    }

    /// Whether each parameter of its path has a value.
    pub(super) fn is_ready(&self, operation: &Operation<'d>) -> bool {
        places(operation.path).iter().all(|place| self.value(operation, place).is_some())
    }

    /// Why it is not ready.
    pub(super) fn missing(&self, operation: &Operation<'d>) -> String {
        let missing = places(operation.path).into_iter().find(|place| self.value(operation, place).is_none());
        let name = missing.map_or_else(String::new, |place| place.name.to_owned());
        format!(
            "no response of an earlier step is said to have its `{name}`; describe one, by a link or a property, or give an example of it"
        )
    }

    fn value(&self, operation: &Operation<'d>, place: &Place<'_>) -> Option<Template> {
        let is_linked = |(object, name, _): &&(&Value, String, Template)| {
            std::ptr::eq(*object, operation.object) && name == place.name
        };
        if let Some((.., value)) = self.linked.iter().rev().find(is_linked) {
            return Some(value.clone());
        }
        if let Some((_, value)) = self.bound.iter().rev().find(|(key, _)| *key == place.key) {
            return Some(value.clone());
        }
        let plain = plain_name(place.name);
        if let Some((_, value)) = self.known.iter().rev().find(|(name, _)| *name == plain) {
            return Some(value.clone());
        }
        self.said(operation, place)
    }

    /// What the document itself says that stands there: an example, or one of a few values.
    fn said(&self, operation: &Operation<'d>, place: &Place<'_>) -> Option<Template> {
        let parameter = operation
            .parameters
            .iter()
            .find(|it| it.get("name").and_then(Value::as_str) == Some(place.name))?;
        let says = |of: &Value| {
            ["example", "examples", "default", "const", "enum"].iter().any(|key| of.get(key).is_some())
        };
        let schema = parameter.get("schema").and_then(|schema| self.references.follow(schema).ok());
        if !says(parameter) && !schema.is_some_and(says) {
            return None;
        }
        sample::as_text(&Sampler::new(self.references, &[]).of_holder(parameter).ok()?)
    }

    /// Makes a step of it, whose parameters are there.
    ///
    /// # Errors
    /// Why it cannot be played.
    pub(super) fn add(&mut self, operation: &Operation<'d>) -> Result<(), String> {
        let number = self.journey.steps.len() + 1;
        let mut step = Step::new(number, operation.method.clone(), self.path(operation)?);
        self.parameters(operation, &mut step)?;
        self.authorize(operation, &mut step)?;
        step.body = self.body(operation)?;
        if [Method::POST, Method::PUT].contains(&operation.method) {
            self.bind(operation, &mut step);
        }
        self.has_open_change |= operation.method == Method::POST && self.security(operation).is_empty();
        self.journey.steps.push(step);
        Ok(())
    }

    fn path(&self, operation: &Operation<'d>) -> Result<Template, String> {
        let mut path = Template::literal(operation.base.clone());
        let mut from = 0;
        for place in places(operation.path) {
            path.push_text(&operation.path[from..place.from]);
            let value = self.value(operation, &place).ok_or("a parameter of its path has no value")?;
            path.push(&encoded(&value));
            from = place.to;
        }
        path.push_text(&operation.path[from..]);
        Ok(path)
    }

    /// The parameters that cannot be left out.
    fn parameters(&self, operation: &Operation<'d>, step: &mut Step) -> Result<(), String> {
        let mut mark = if operation.path.contains('?') { "&" } else { "?" };
        for parameter in &operation.parameters {
            let text = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or_default();
            let (name, place) = (text("name"), text("in"));
            if place == "path" || parameter.get("required") != Some(&Value::Bool(true)) {
                continue;
            }
            let why = |why: String| format!("its {place} parameter `{name}`: {why}");
            // A parameter of a `content` is written as that.
            let content = parameter.get("content").and_then(Value::as_object);
            let holder = content.and_then(|content| content.values().next()).unwrap_or(parameter);
            let plain = plain_name(name);
            let known = self.known.iter().rev().find(|(known, _)| *known == plain);
            let value = match known {
                Some((_, value)) => value.clone(),
                None => {
                    let made = Sampler::new(self.references, &self.known).of_holder(holder).map_err(why)?;
                    sample::as_text(&made)
                        .ok_or_else(|| why("is an object, which is not sent in one".into()))?
                }
            };
            match place {
                "query" => {
                    step.path.push_text(&format!("{mark}{}=", address::encode(name)));
                    step.path.push(&encoded(&value));
                    mark = "&";
                }
                "header" => {
                    let header = HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| why("this is no name of a header field".into()))?;
                    // Those that OpenAPI says elsewhere.
                    if ![header::ACCEPT, header::CONTENT_TYPE, header::AUTHORIZATION].contains(&header) {
                        step.headers.push((header, value));
                    }
                }
                _ => return Err(why("cookies come from responses alone".into())),
            }
        }
        Ok(())
    }

    /// The schemes of one way to be let in; empty if none is needed.
    fn security(&self, operation: &Operation<'d>) -> Vec<&'d str> {
        let security = operation.object.get("security").or_else(|| self.references.root.get("security"));
        let ways: Vec<_> =
            security.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object).collect();
        if ways.iter().any(|way| way.is_empty()) {
            return Vec::new();
        }
        ways.first().map(|way| way.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    fn authorize(&mut self, operation: &Operation<'d>, step: &mut Step) -> Result<(), String> {
        for name in self.security(operation) {
            let scheme = self.references.root.pointer("/components/securitySchemes");
            let scheme = scheme.and_then(|schemes| schemes.get(name));
            let scheme =
                scheme.ok_or_else(|| format!("the security scheme `{name}` is not in the document"))?;
            let scheme = self.references.follow(scheme)?;
            self.prove_identity(name, scheme, step)?;
        }
        Ok(())
    }

    fn prove_identity(&mut self, scheme_name: &str, scheme: &Value, step: &mut Step) -> Result<(), String> {
        let text = |key: &str| scheme.get(key).and_then(Value::as_str).unwrap_or_default();
        let (kind, place, name) = (text("type"), text("in"), text("name"));
        let said = scheme.get(VALUE_KEY).and_then(Value::as_str).map(Template::parse).transpose()?;
        let is_unknown = |name: &str| ![IDENTITY, ORIGIN].contains(&name);
        if said.as_ref().is_some_and(|said| said.names().any(is_unknown)) {
            return Err(format!(
                "`{VALUE_KEY}` of `{scheme_name}` may use `{IDENTITY}` and `{ORIGIN}` alone"
            ));
        }
        let bearer = |token: &Template| {
            let mut value = Template::literal("Bearer ");
            value.push(token);
            value
        };
        let is_bearer = kind == "oauth2"
            || kind == "openIdConnect"
            || (kind == "http" && text("scheme").eq_ignore_ascii_case("bearer"));
        if kind == "apiKey" && place == "cookie" {
            if let Some(said) = said {
                let mut value = Template::literal(format!("{name}="));
                value.push(&said);
                step.headers.push((header::COOKIE, value));
            } else if !self.has_open_change {
                return Err(self.ask(scheme_name, "the cookie of a sign-in"));
            }
            return Ok(());
        }
        let value = match (said, &self.token) {
            // The whole field, as `Basic …`, for what is no plain token.
            (Some(said), _) if kind == "apiKey" || !is_bearer => said,
            (Some(said), _) => bearer(&said),
            (None, Some(token)) if is_bearer => bearer(token),
            (None, Some(token)) if kind == "apiKey" => token.clone(),
            _ => return Err(self.ask(scheme_name, "a token or key")),
        };
        match (kind, place) {
            ("apiKey", "query") => {
                let mark = if step.path.to_string().contains('?') { '&' } else { '?' };
                step.path.push_text(&format!("{mark}{}=", address::encode(name)));
                step.path.push(&encoded(&value));
            }
            ("apiKey", _) => {
                let header = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("`{name}` is no name of a header field"))?;
                step.headers.push((header, value));
            }
            _ => step.headers.push((header::AUTHORIZATION, value)),
        }
        Ok(())
    }

    fn ask(&self, scheme: &str, what: &str) -> String {
        format!(
            "the security scheme `{scheme}` asks for {what}, which no earlier step gives; write it as `{VALUE_KEY}` into the scheme"
        )
    }

    fn body(&self, operation: &Operation<'d>) -> Result<Body, String> {
        let Some(body) = operation.object.get("requestBody") else { return Ok(Body::None) };
        let body = self.references.follow(body)?;
        let made = self.content(body);
        let is_required = body.get("required") == Some(&Value::Bool(true));
        if is_required {
            made.map_err(|why| format!("its body: {why}"))
        } else {
            Ok(made.unwrap_or_default())
        }
    }

    fn content(&self, body: &'d Value) -> Result<Body, String> {
        let kinds = body.get("content").and_then(Value::as_object).ok_or("it has no `content`")?;
        let mut why = "it has no type".to_owned();
        let order = |kind: &str| match kind.split(';').next().unwrap_or_default().trim() {
            "application/json" | "*/*" => 0,
            "application/x-www-form-urlencoded" => 1,
            "multipart/form-data" => 2,
            kind if kind.ends_with("json") => 3,
            _ => 4,
        };
        let mut kinds: Vec<_> = kinds.iter().collect();
        kinds.sort_by_key(|(kind, _)| order(kind));
        for (kind, media) in kinds {
            let made = Sampler::new(self.references, &self.known)
                .of_holder(media)
                .and_then(|value| body_of(kind, order(kind), value));
            match made {
                Ok(body) => return Ok(body),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Notes what its response gives, and what it sent that names the thing that it made.
    fn bind(&mut self, operation: &Operation<'d>, step: &mut Step) {
        let is_open = self.names_of_schemes() > 0 && self.security(operation).is_empty();
        if self.token.is_none()
            && is_open
            && let Some(source) = self.leaf(operation, &TOKENS)
        {
            self.token = Some(self.capture("bearer", source, step));
        }
        self.bind_links(operation, step);
        let collection = operation.path.trim_end_matches('/');
        if operation.method != Method::POST || operation.is_of_item() {
            return;
        }
        let Some(name) = self.name_of_item(collection) else { return };
        let key = format!("{}/{{}}", normal(collection));
        let last = collection.rsplit('/').next().unwrap_or_default();
        let singular = last.strip_suffix('s').unwrap_or(last);
        let of_parts =
            [name, "id", "_id", "uuid", "key", "slug", &format!("{singular}Id"), &format!("{singular}_id")];
        let value = match self.leaf(operation, &of_parts).or_else(|| self.location(operation)) {
            Some(source) => Some(self.capture(&variable_name(name, singular), source, step)),
            None => sent(&step.body, name),
        };
        let Some(value) = value else { return };
        self.known.push((plain_name(&format!("{singular}id")), value.clone()));
        // What is called otherwise, as `name`, is another thing elsewhere.
        if plain_name(name) != "id" && plain_name(name).ends_with("id") {
            self.known.push((plain_name(name), value.clone()));
        }
        self.bound.push((key, value));
    }

    /// What the parameter is called that follows `collection` in another path.
    fn name_of_item(&self, collection: &str) -> Option<&'d str> {
        let collection = format!("{}/{{}}", normal(collection));
        let paths = self.references.root.get("paths")?.as_object()?;
        paths
            .keys()
            .flat_map(|path| places(path))
            .find(|place| place.key == collection)
            .map(|place| place.name)
    }

    /// The address of what was made, where the response is said to have it.
    fn location(&self, operation: &Operation<'d>) -> Option<Source> {
        let has = |response: &&Value| {
            let headers = response.get("headers").and_then(Value::as_object);
            headers.is_some_and(|headers| headers.keys().any(|name| name.eq_ignore_ascii_case("location")))
        };
        operation.successes(self.references).iter().any(has).then_some(Source::Header(header::LOCATION))
    }

    fn capture(&mut self, name: &str, source: Source, step: &mut Step) -> Template {
        let is_taken = |name: &str| {
            [IDENTITY, ORIGIN].contains(&name)
                || self
                    .journey
                    .steps
                    .iter()
                    .chain([&*step])
                    .flat_map(|step| &step.captures)
                    .any(|capture| capture.variable == name)
        };
        let mut free = name.to_owned();
        let mut next = 2_usize;
        while is_taken(&free) {
            free = format!("{name}-{next}");
            next += 1;
        }
        let mut capture = Capture::new(free.clone(), source);
        // The last part of the address is the id.
        if capture.source == Source::Header(header::LOCATION) {
            let path = step.path.to_string();
            let last = path.split('?').next().unwrap_or_default().trim_end_matches('/').rsplit('/').next();
            capture.after = Some(format!("{}/", last.unwrap_or_default()));
        }
        step.captures.push(capture);
        Template::variable(free)
    }

    fn bind_links(&mut self, operation: &Operation<'d>, step: &mut Step) {
        for response in operation.successes(self.references) {
            for link in
                response.get("links").and_then(Value::as_object).into_iter().flat_map(|links| links.values())
            {
                let Ok(link) = self.references.follow(link) else { continue };
                let Some(target) = self.target(link) else { continue };
                for (name, expression) in
                    link.get("parameters").and_then(Value::as_object).into_iter().flatten()
                {
                    let name = name.strip_prefix("path.").unwrap_or(name);
                    let Some(expression) = expression.as_str() else { continue };
                    let source = match expression.strip_prefix("$response.") {
                        Some(of) if of.starts_with("body#") => Source::Json(of["body#".len()..].to_owned()),
                        Some(of) => match of.strip_prefix("header.").map(|name| name.parse::<HeaderName>()) {
                            Some(Ok(name)) => Source::Header(name),
                            _ => continue,
                        },
                        None => continue,
                    };
                    let known = step.captures.iter().find(|capture| capture.source == source);
                    let value = match known {
                        Some(capture) => Template::variable(capture.variable.clone()),
                        None => self.capture(&variable_name(name, "linked"), source, step),
                    };
                    self.linked.push((target, name.to_owned(), value));
                }
            }
        }
    }

    fn target(&self, link: &'d Value) -> Option<&'d Value> {
        if let Some(reference) = link.get("operationRef").and_then(Value::as_str) {
            return self.references.root.pointer(&address::decode(reference.strip_prefix('#')?));
        }
        let id = link.get("operationId")?;
        let paths = self.references.root.get("paths")?.as_object()?;
        let operations = paths.values().filter_map(Value::as_object).flat_map(|item| item.values());
        operations.into_iter().find(|operation| operation.get("operationId") == Some(id))
    }

    /// Where a value of one of these names stands in the JSON of a response, at its top or one below, the first name first.
    fn leaf(&self, operation: &Operation<'d>, names: &[&str]) -> Option<Source> {
        let mut leaves: Vec<(String, String)> = Vec::new();
        for response in operation.successes(self.references) {
            let contents = response.get("content").and_then(Value::as_object);
            for (kind, media) in contents.into_iter().flatten() {
                if kind.contains("json") || kind == "*/*" {
                    self.leaves(media, &mut leaves);
                }
            }
        }
        let found = names
            .iter()
            .find_map(|name| leaves.iter().find(|(_, leaf)| plain_name(leaf) == plain_name(name)));
        found.map(|(pointer, _)| Source::Json(pointer.clone()))
    }

    fn leaves(&self, media: &'d Value, leaves: &mut Vec<(String, String)>) {
        if let Some(schema) = media.get("schema") {
            self.leaves_of_schema(schema, "", 0, leaves);
        } else if let Some(example) = media.get("example").and_then(Value::as_object) {
            leaves.extend(example.keys().map(|name| (format!("/{}", escaped(name)), name.clone())));
        }
    }

    fn leaves_of_schema(
        &self,
        schema: &'d Value,
        at: &str,
        depth: usize,
        leaves: &mut Vec<(String, String)>,
    ) {
        const DEPTH_MAX: usize = 8;
        const LEAVES_MAX: usize = 1000;
        if depth > DEPTH_MAX || leaves.len() > LEAVES_MAX {
            return;
        }
        let Ok(schema) = self.references.follow(schema) else { return };
        for part in ["allOf", "oneOf", "anyOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten()
        {
            self.leaves_of_schema(part, at, depth + 1, leaves);
        }
        let properties: Vec<_> =
            schema.get("properties").and_then(Value::as_object).into_iter().flatten().collect();
        leaves
            .extend(properties.iter().map(|(name, _)| (format!("{at}/{}", escaped(name)), (*name).clone())));
        if at.is_empty() {
            for (name, inner) in properties {
                self.leaves_of_schema(inner, &format!("/{}", escaped(name)), depth + 1, leaves);
            }
        }
    }
}

/// A parameter in a path: from its brace to after the closing one.
struct Place<'p> {
    name: &'p str,
    from: usize,
    to: usize,
    /// The path up to it, without the names of parameters.
    key: String,
}

fn places(path: &str) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(open) = path[at..].find('{') {
        let from = at + open;
        let Some(close) = path[from..].find('}') else { break };
        let to = from + close + 1;
        places.push(Place { name: &path[from + 1..to - 1], from, to, key: normal(&path[..to]) });
        at = to;
    }
    places
}

/// A path without the names of its parameters.
fn normal(path: &str) -> String {
    let mut normal = String::new();
    let mut is_inside = false;
    for c in path.chars() {
        is_inside &= c != '}';
        if !is_inside {
            normal.push(c);
        }
        is_inside |= c == '{';
    }
    normal
}

/// A part of a pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn variable_name(name: &str, of: &str) -> String {
    let whole = if plain_name(name) == "id" { format!("{of}_id") } else { name.to_owned() };
    let made: String =
        whole.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect();
    if template::is_name(&made) { made } else { "id".into() }
}

/// A text for a path: its fixed parts percent-encoded, as the player does with variables.
fn encoded(value: &Template) -> Template {
    value.as_literal().map_or_else(|| value.clone(), |text| Template::literal(address::encode(text)))
}

/// What a body says for a property.
fn sent(body: &Body, name: &str) -> Option<Template> {
    match body {
        Body::Json(Json::Object(fields)) => {
            fields.iter().find(|(field, _)| field == name).and_then(|(_, value)| sample::as_text(value))
        }
        Body::Json(Json::Plain(value)) => sample::as_text(&Json::Plain(value.get(name)?.clone())),
        Body::Form(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone()),
        _ => None,
    }
}

fn body_of(kind: &str, order: usize, value: Json) -> Result<Body, String> {
    let text_of = |name: &str, value: &Json| {
        sample::as_text(value).ok_or_else(|| format!("`{name}` is an object, which no form has"))
    };
    match order {
        0 => Ok(Body::Json(value)),
        1 => {
            let fields = sample::fields(value)?.into_iter();
            let fields = fields.map(|(name, value)| text_of(&name, &value).map(|value| (name, value)));
            Ok(Body::Form(fields.collect::<Result<_, String>>()?))
        }
        2 => {
            let fields = sample::fields(value)?.into_iter();
            let parts = fields.map(|(name, value)| {
                let content = Content::Text(text_of(&name, &value)?);
                Ok(Part { name, file_name: None, content_type: None, content })
            });
            Ok(Body::Multipart(parts.collect::<Result<_, String>>()?))
        }
        _ if kind.starts_with("text/") || kind == "application/octet-stream" => {
            let content = Content::Text(text_of("the text", &value)?);
            Ok(Body::Raw { content_type: Some(kind.to_owned()), content })
        }
        _ => match value {
            // A text is what is sent; JSON of another name is sent where there are no variables in it.
            Json::Plain(Value::String(text)) => Ok(Body::Raw {
                content_type: Some(kind.to_owned()),
                content: Content::Text(Template::literal(text)),
            }),
            Json::Plain(value) if order == 3 => Ok(Body::Raw {
                content_type: Some(kind.to_owned()),
                content: Content::Text(Template::literal(value.to_string())),
            }),
            _ => Err(format!("{kind} is sent from an example only, and there is none")),
        },
    }
}
