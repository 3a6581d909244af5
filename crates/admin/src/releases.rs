//! Releases of services: their nouns as JSON, the handle that the composition root gives, and the control API's routes.
//!
//! `POST /v1/services/{service}/deploy` with [`Deploy`] → [`Begun`]; `…/rollback` with [`Rollback`] → [`Begun`];
//! `GET …/rollout` → [`Event`]s of the last rollout, one JSON object a line, until it ends; `GET …/history` → [`Release`]s.

use std::{convert::Infallible, fs, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path as Segment, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::header;
use lethe_model::service::ServiceName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{api::Problem, control::parse, handles::Handles, problem::Error, timestamp::Timestamp};

/// The longest message of a release, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1000;
/// The longest source that may be asked for, in bytes.
pub const SOURCE_BYTES_MAX: usize = 4096;
/// Steps of one rollout that are kept: the first ones, and in any case the end.
pub const STEPS_MAX: usize = 10_000;
/// What is kept of what a fetch and a build print in one rollout, in bytes; the rest is in the log.
pub const LINES_BYTES_MAX: usize = 1 << 20;
/// What is read of the file that gives users their names.
const PASSWD: &str = "/etc/passwd";

/// Who has given a command, as the kernel knows him (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// His user id.
    pub uid: u32,
    /// His name, if the system has one.
    pub name: Option<String>,
}

impl Operator {
    /// The user with this id. Reads `/etc/passwd` (passwd(5)).
    pub fn of(uid: u32) -> Self {
        let users = fs::read_to_string(PASSWD).unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
        });
        Self { uid, name }
    }
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "user {}", self.uid),
        }
    }
}

/// What a rollout came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// `lethe up`: it ran from the start.
    Up,
    /// `lethe deploy`.
    Deploy,
    /// A changed configuration.
    Reload,
    /// `lethe rollback`.
    Rollback,
    /// What was new in a source that is followed.
    Auto,
}

impl Cause {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Deploy => "deploy",
            Self::Reload => "reload",
            Self::Rollback => "rollback",
            Self::Auto => "auto",
        }
    }
}

/// What became of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Not known yet.
    UnderWay,
    /// It took over.
    Promoted,
    /// It went back to what ran before.
    RolledBack,
    /// It was not fetched or not built, so that no worker was touched.
    Failed,
    /// `lethe` ended meanwhile.
    Interrupted,
}

impl Outcome {
    /// Its name, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under way",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One rollout of a service, past or under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Which release it was of; one that was gone back to keeps its number.
    pub release: u64,
    /// Which release ran before.
    pub from: Option<u64>,
    /// When it began.
    pub at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who wanted it; `null` for a signal, and for what `lethe` did by itself.
    pub by: Option<Operator>,
    /// What it came from.
    pub cause: Cause,
    /// What was said about it.
    pub message: Option<String>,
    /// Where its program came from, without credentials.
    pub source: Option<String>,
    /// Where `lethe.toml` said at that time that it comes from, without credentials.
    pub configured: Option<String>,
    /// What the source calls the version: a commit, the SHA-256 of an archive, the digest of a folder, a blob's entity tag.
    pub revision: Option<String>,
    /// Tells its command, environment and the like from others, without telling what they are.
    pub digest: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it did not take over.
    pub reason: Option<String>,
}

/// `POST /v1/services/{service}/deploy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// Another source than that of `lethe.toml`, or `#` and another branch, tag or commit of that one.
    #[serde(default)]
    pub source: Option<String>,
    /// What is new, for people.
    #[serde(default)]
    pub message: Option<String>,
}

/// `POST /v1/services/{service}/rollback`. Without a number, a rollout that is under way is called off; when there is none,
/// the release comes back that ran before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The release that is to come back.
    #[serde(default)]
    pub to: Option<u64>,
    /// Call off what is under way, and nothing else.
    #[serde(default)]
    pub abort: bool,
    /// Why, for people.
    #[serde(default)]
    pub message: Option<String>,
}

/// The answer to both: it has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The service.
    pub service: ServiceName,
    /// The release that is coming, or that is called off.
    pub release: u64,
    /// The release that runs, if it is known.
    pub from: Option<u64>,
    /// Whether `release` is one that was under way, and goes now.
    #[serde(default)]
    pub is_called_off: bool,
}

/// Something that has happened in a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The release that is coming.
    pub release: u64,
    /// What: `fetching`, `building`, `line`, `started`, `started-old`, `draining`, `draining-new`, `waiting`, `pausing`, `baking`,
    /// `going-back`; and the last one, `promoted`, `rolled-back`, `failed` or `interrupted`.
    pub step: String,
    /// The same for people.
    pub text: String,
    /// Workers that are wanted.
    pub wanted: Option<usize>,
    /// Old workers that were not told to leave.
    pub old: Option<usize>,
    /// New workers that were not told to leave.
    pub new: Option<usize>,
    /// New workers that are ready.
    pub ready: Option<usize>,
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_end(&self) -> bool {
        self.is_good() || ["rolled-back", "failed", "interrupted"].contains(&self.step.as_str())
    }

    /// Whether the release has taken over.
    pub fn is_good(&self) -> bool {
        self.step == "promoted"
    }
}

/// What has happened in a rollout so far, and is still to happen.
pub type Events = watch::Receiver<Vec<Event>>;

/// What the composition root does about releases. What was begun goes on to its end even if the future is dropped.
pub trait Releases: Send + Sync {
    /// Begins to roll out a new release.
    fn deploy(&self, service: String, deploy: Deploy, by: Operator) -> BoxFuture<'_, Result<Begun, Problem>>;

    /// Begins to go back.
    fn rollback(
        &self,
        service: String,
        rollback: Rollback,
        by: Operator,
    ) -> BoxFuture<'_, Result<Begun, Problem>>;

    /// The last rollout of a service since this `lethe` runs.
    fn events(&self, service: &str) -> Result<Events, Problem>;

    /// The rollouts of a service, the oldest first.
    fn history(&self, service: &str) -> Result<Vec<Release>, Problem>;
}

/// The routes.
pub(crate) fn routes() -> Router<Arc<Handles>> {
    Router::new()
        .route("/v1/services/{service}/deploy", post(deploy))
        .route("/v1/services/{service}/rollback", post(rollback))
        .route("/v1/services/{service}/rollout", get(rollout))
        .route("/v1/services/{service}/history", get(history))
}

type Read = Result<Bytes, axum::extract::rejection::BytesRejection>;

fn releases(handles: &Handles) -> Result<&dyn Releases, Error> {
    let absent = || Error::NoRoute("releases".into());
    handles.releases.get().map(|releases| &**releases).ok_or_else(absent)
}

async fn deploy(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
    Extension(by): Extension<Operator>,
    body: Read,
) -> Result<Json<Begun>, Error> {
    let deploy: Deploy = parse(body)?;
    check(&deploy.message, "message", MESSAGE_BYTES_MAX)?;
    check(&deploy.source, "source", SOURCE_BYTES_MAX)?;
    releases(&handles)?.deploy(service, deploy, by).await.map(Json).map_err(Error::Node)
}

async fn rollback(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
    Extension(by): Extension<Operator>,
    body: Read,
) -> Result<Json<Begun>, Error> {
    let rollback: Rollback = parse(body)?;
    check(&rollback.message, "message", MESSAGE_BYTES_MAX)?;
    releases(&handles)?.rollback(service, rollback, by).await.map(Json).map_err(Error::Node)
}

async fn rollout(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
) -> Result<Response, Error> {
    let events = releases(&handles)?.events(&service).map_err(Error::Node)?;
    let lines = stream::unfold((events, 0), async |(mut events, told)| {
        if told == usize::MAX {
            return None;
        }
        let known = events.wait_for(|events| events.len() > told).await;
        let next = known.ok().and_then(|events| events.get(told).cloned())?;
        let mut json = serde_json::to_vec(&next).ok()?;
        json.push(b'\n');
        // Nothing comes after the end.
        let told = if next.is_end() { usize::MAX } else { told + 1 };
        Some((Ok::<_, Infallible>(json), (events, told)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn history(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
) -> Result<Json<Vec<Release>>, Error> {
    releases(&handles)?.history(&service).map(Json).map_err(Error::Node)
}

fn check(text: &Option<String>, what: &str, bytes_max: usize) -> Result<(), Error> {
    match text {
        Some(text) if text.len() > bytes_max => {
            Err(Error::BadRequest(format!("the {what} is too long; at most {bytes_max} bytes")))
        }
        Some(text) if text.chars().any(char::is_control) => Err(Error::BadRequest(format!(
            "the {what} has characters that cannot be shown; write it on one line"
        ))),
        _ => Ok(()),
    }
}
