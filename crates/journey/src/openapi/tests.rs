use serde_json::json;

use super::*;
use crate::{body::Body, capture::Source};

fn parsed(document: &Value) -> Journey {
    read(document.to_string().as_bytes(), "api.json", "api").unwrap()
}

fn titles(journey: &Journey) -> Vec<String> {
    journey.steps.iter().map(crate::journey::Step::title).collect()
}

fn refused(text: &str) -> String {
    read(text.as_bytes(), "api.json", "api").unwrap_err().to_string()
}

const ITEMS: &str = r##"
openapi: 3.1.0
servers: [{ url: "https://shop.example/v1/" }]
paths:
  /items/{id}:
    parameters: [{ name: id, in: path, required: true, schema: { type: integer } }]
    delete: { responses: { "204": { description: gone } } }
    get: { responses: { "200": { description: one } } }
    put:
      requestBody: { required: true, content: { application/json: { schema: { $ref: "#/components/schemas/Item" } } } }
      responses: { "200": { description: changed } }
  /items:
    get:
      parameters:
        - { name: page, in: query, required: true, schema: { type: integer, minimum: 0 } }
        - { name: X-Tenant, in: header, required: true, schema: { type: string, enum: [blue, red] } }
        - { name: sort, in: query, schema: { type: string } }
      responses: { "200": { description: all } }
    post:
      requestBody: { required: true, content: { application/json: { schema: { $ref: "#/components/schemas/Item" } } } }
      responses:
        "201": { description: made, content: { application/json: { schema: { $ref: "#/components/schemas/Item" } } } }
components:
  schemas:
    Item:
      type: object
      required: [id, name, count]
      properties:
        id: { type: integer, readOnly: true }
        name: { type: string, minLength: 20 }
        count: { type: [integer, "null"], minimum: 3, multipleOf: 5 }
        note: { type: string }
"##;

#[test]
fn what_makes_things_is_first_and_what_deletes_them_last() {
    let journey = read(ITEMS.as_bytes(), "api.yaml", "api").unwrap();
    let expected = [
        "POST /v1/items",
        "GET /v1/items/{{item_id}}",
        "PUT /v1/items/{{item_id}}",
        "GET /v1/items?page=1",
        "DELETE /v1/items/{{item_id}}",
    ];
    assert_eq!(titles(&journey), expected);
    assert_eq!(journey.notes, [] as [String; 0]);
    let create = &journey.steps[0];
    assert_eq!(create.captures[0].source, Source::Json("/id".into()));
    let mut variables = crate::template::Variables::default();
    variables.set("identity", "k7");
    let sent: Value = serde_json::from_slice(&create.body.render(&variables).unwrap().bytes).unwrap();
    assert_eq!(sent, json!({ "name": "text-k7xxxxxxxxxxxxxxx", "count": 5 }));
    let tenant = &journey.steps[3].headers[0];
    assert_eq!((tenant.0.as_str(), tenant.1.as_literal()), ("x-tenant", Some("blue")));
}

#[test]
fn ids_flow_by_links_and_by_what_was_sent_and_by_location() {
    let parameter = |name: &str| json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]);
    let journey = parsed(&json!({ "openapi": "3.0.3", "paths": {
        "/start": { "post": { "responses": { "202": { "links": {
            "poll": { "operationId": "poll", "parameters": { "job": "$response.body#/task/key" } } } } } } },
        "/jobs/{job}": { "get": { "operationId": "poll", "parameters": parameter("job") } },
        "/users": { "post": { "responses": { "201": {} }, "requestBody": { "content": { "application/x-www-form-urlencoded": {
            "schema": { "properties": { "name": { "type": "string" } } } } } } } },
        "/users/{name}": { "get": { "parameters": parameter("name") } },
        "/notes": { "post": { "responses": { "303": { "headers": { "Location": {} } } } } },
        "/notes/{note}/lines": { "get": { "parameters": parameter("note") } },
    }}));
    let titles = titles(&journey);
    for expected in ["GET /jobs/{{job}}", "GET /users/text-{{identity}}", "GET /notes/{{note}}/lines"] {
        assert!(titles.iter().any(|title| title == expected), "{expected}: {titles:?} {:?}", journey.notes);
    }
    let captures: Vec<_> = journey.steps.iter().flat_map(|step| &step.captures).collect();
    assert!(captures.iter().any(|capture| capture.source == Source::Json("/task/key".into())));
    assert!(captures.iter().any(|capture| capture.after.as_deref() == Some("notes/")));
}

#[test]
fn a_sign_in_gives_the_token_that_others_need() {
    let schemes = json!({ "securitySchemes": { "token": { "type": "http", "scheme": "bearer" }, "basic": { "type": "http", "scheme": "basic" } } });
    let answer = json!({ "200": { "content": { "application/json": { "schema": { "properties": { "access_token": {} } } } } } });
    let mut document = json!({ "openapi": "3.0.0", "components": schemes, "security": [{ "token": [] }], "paths": {
        "/account": { "get": {} }, "/old": { "get": { "security": [{ "basic": [] }] } },
        "/sign-in": { "post": { "security": [], "responses": answer } } } });
    let journey = parsed(&document);
    assert_eq!(titles(&journey), ["POST /sign-in", "GET /account"]);
    assert_eq!(journey.steps[1].headers[0].1.to_string(), "Bearer {{bearer}}");
    assert!(
        journey.notes[0].starts_with("GET /old: not played: the security scheme `basic`"),
        "{:?}",
        journey.notes
    );
    document["paths"].as_object_mut().unwrap().remove("/sign-in");
    assert!(refused(&document.to_string()).contains("x-lethe-value"));
    document["components"]["securitySchemes"]["token"]["x-lethe-value"] = json!("abc");
    assert_eq!(parsed(&document).steps[0].headers[0].1.to_string(), "Bearer abc");
}

#[test]
fn what_cannot_be_played_is_noted() {
    let body = |schema: Value| json!({ "requestBody": { "required": true, "content": { "application/json": { "schema": schema } } } });
    let journey = parsed(&json!({ "openapi": "3.1.0", "webhooks": {}, "paths": {
        "/": { "get": {}, "options": {} },
        "/plates": { "post": body(json!({ "type": "string", "pattern": "^[A-Z]{3}$" })) },
        "/tree": { "post": body(json!({ "$ref": "#/components/schemas/Tree" })) },
        "/loop": { "post": body(json!({ "$ref": "#/components/schemas/Loop" })) },
        "/all": { "post": body(json!({ "$ref": "#/components/schemas/All" })) },
        "/far": { "post": body(json!({ "$ref": "other.yaml#/Item" })) },
        "/things/{id}": { "get": { "parameters": [{ "name": "id", "in": "path", "schema": { "type": "integer" } }] } },
        "no path": { "get": {} },
    }, "components": { "schemas": {
        "Tree": { "type": "object", "required": ["child"], "properties": { "child": { "$ref": "#/components/schemas/Tree" } } },
        "Loop": { "$ref": "#/components/schemas/Loop" },
        "All": { "allOf": [{ "$ref": "#/components/schemas/All" }] },
    }}}));
    assert_eq!(titles(&journey), ["GET /"]);
    let notes = journey.notes.join("\n");
    for expected in [
        "OPTIONS /: not played",
        "POST /plates: not played",
        "POST /tree: not played",
        "POST /loop: not played",
        "POST /all: not played",
        "POST /far: not played",
        "GET /things/{id}: not played",
        "no path: not played",
        "webhooks",
    ] {
        assert!(notes.contains(expected), "{expected} in {notes}");
    }
    assert_eq!(journey.notes.len(), 9, "{notes}");
}

#[test]
fn a_body_that_may_be_left_out_and_a_wide_schema() {
    let wide: serde_json::Map<String, Value> =
        (0..50).map(|n| (format!("p{n}"), json!({ "$ref": "#/components/schemas/Wide" }))).collect();
    let journey = parsed(
        &json!({ "openapi": "3.0.0", "paths": { "/": { "post": { "requestBody": { "content": {
        "application/json": { "schema": { "allOf": [{ "$ref": "#/components/schemas/Wide" }] } } } } } } },
        "components": { "schemas": { "Wide": { "type": "object", "required": ["p1"], "properties": wide } } } }),
    );
    assert_eq!(journey.steps[0].body, Body::None);
}

#[test]
fn refused_with_what_to_do() {
    for (text, expected) in [
        ("", "empty"),
        ("{\"openapi\": \"3.0.0\", \"paths\": {", "ends in the middle"),
        ("{\"openapi\": 3.0,}", "api.json:1:"),
        ("openapi: [3", "not valid YAML"),
        ("swagger: '2.0'", "convert it"),
        ("openapi: 4.0.0", "3.0 and 3.1"),
        ("{\"log\": {}}", ".har"),
        ("{\"name\": 1}", "no OpenAPI document"),
        ("[1, 2]", "no OpenAPI document"),
        ("openapi: 3.0.0", "no operation"),
        ("openapi: 3.0.0\npaths: { /a: 7 }", "no operation"),
    ] {
        assert!(refused(text).contains(expected), "{text}: {}", refused(text));
    }
    assert!(is_meant(Path::new("api"), b"# ours\nopenapi: 3.0.0"));
    assert!(!is_meant(Path::new("a.toml"), b"[[steps]]\nget = '/'"));
}
