//! How many workers a service has: set by hand, decided by load, and by what numbers.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path as Segment, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{StatusCode, header};
use lethe_supervisor::supervisor;
use serde_json::Value;

use crate::{
    api::{self, INSTANCES_MAX, Problem},
    handles::Handles,
    problem::Error,
};

/// The longest number that is told, in bytes.
const NUMBER_BYTES_MAX: usize = 256;

/// Sets it. Where load decides, it does so no more until it is told to.
pub(super) async fn set(handles: &Handles, service: &str, scale: api::Scale) -> Result<api::Scaled, Error> {
    let instances = match scale {
        api::Scale { instances: Some(instances), auto: false } => instances,
        api::Scale { instances: None, auto: true } => {
            handles.scaling.pin(service, false).ok_or_else(|| fixed(handles, service))?;
            return Ok(api::Scaled::default());
        }
        _ => return Err(Error::BadRequest("say `instances`, or `auto`: true".into())),
    };
    if instances > INSTANCES_MAX {
        let text = format!("{instances} workers are too many; at most {INSTANCES_MAX}");
        return Err(Error::BadRequest(text));
    }
    // Before the number is set, or load could change it at once.
    let range = handles.scaling.range(service);
    let rests = instances == 0 && range.is_some_and(|range| range.min == 0);
    handles.scaling.pin(service, !rests);
    handles.supervisor.scale(service, instances).await?;
    let notice = range.map(|api::ServiceScale { min, max, .. }| {
        let outside = match (min..=max).contains(&instances) {
            true => String::new(),
            false => format!(", which is outside of {min}..{max}"),
        };
        if rests {
            return format!("{service}: the next request starts one");
        }
        format!("{service}: {instances} stays{outside}, whatever the load; `lethe scale {service}=auto` lets load decide again")
    });
    Ok(api::Scaled { notices: notice.into_iter().collect() })
}

/// `GET /v1/services/{service}/scaling`.
pub(super) async fn look(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
) -> Result<Json<api::Scaling>, Error> {
    handles.scaling.look(&service).map(Json).ok_or_else(|| fixed(&handles, &service))
}

/// `GET /v1/services/{service}/scaling/{number}`.
pub(super) async fn case(
    State(handles): State<Arc<Handles>>,
    Segment((service, number)): Segment<(String, String)>,
) -> Result<Response, Error> {
    let known = handles.scaling.look(&service).ok_or_else(|| fixed(&handles, &service))?;
    let found = number.parse().ok().and_then(|number| handles.scaling.case(&service, number));
    let Some(case) = found else {
        let kept = match (known.decisions.first(), known.decisions.last()) {
            (Some(first), Some(last)) => format!("those from {} to {} are kept", first.number, last.number),
            _ => "none was taken yet".into(),
        };
        return Err(not_found("No such decision", format!("{service} has no decision {number}; {kept}")));
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], case).into_response())
}

/// `PUT /v1/services/{service}/metrics/{metric}`: a number, by itself or as `{"value": …}`.
pub(super) async fn tell(
    State(handles): State<Arc<Handles>>,
    Segment((service, metric)): Segment<(String, String)>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<StatusCode, Error> {
    let body = body.map_err(|error| Error::BadRequest(error.body_text()))?;
    if body.len() > NUMBER_BYTES_MAX {
        return Err(Error::BadRequest(format!("a number has at most {NUMBER_BYTES_MAX} bytes")));
    }
    let number = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(fields)) => match fields.get("value") {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => {
                return Err(Error::BadRequest(
                    "the object has no `value`: send {\"value\": 17}, or 17".into(),
                ));
            }
        },
        Ok(Value::String(text)) => text,
        // What is no JSON may still be a number, such as NaN, or what people mean by one.
        _ => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    match handles.scaling.tell(&service, &metric, &number) {
        Some(told) => told.map(|()| StatusCode::NO_CONTENT).map_err(Error::Node),
        None => Err(fixed(&handles, &service)),
    }
}

/// There is no such service, or its number is fixed.
fn fixed(handles: &Handles, service: &str) -> Error {
    let wanted = handles.supervisor.wanted();
    if !wanted.contains_key(service) {
        let known: Vec<&str> = wanted.keys().map(|name| name.as_str()).collect();
        let (name, known) = (service.into(), known.join(", "));
        return Error::Supervisor(supervisor::Error::NoService { name, known });
    }
    let detail = format!(
        "load does not decide how many workers {service} has; for that, write instances = \"2..8\" for it in lethe.toml, and \
         `lethe reload`"
    );
    Error::Node(Problem { status: 409, title: "Fixed number of workers".into(), detail })
}

fn not_found(title: &str, detail: String) -> Error {
    Error::Node(Problem { status: 404, title: title.into(), detail })
}
