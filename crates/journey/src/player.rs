//! One user who goes through a journey, step by step, with the cookies and variables that a browser would have by then. Each step may be
//! sent somewhere else, as when a balancer gives it to another worker.

mod event_stream;
mod exchange;
mod live;
mod pool;
mod talk;
mod websocket;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;

use crate::{
    address,
    body::Rendered,
    capture::Capture,
    channel::Act,
    destination::Destination,
    expectation::Unmet,
    jar::Jar,
    journey::{Journey, Step},
    observed::{Hop, Observed},
    player::{
        exchange::{Answer, Connection},
        pool::Shelf,
        talk::Channels,
    },
    template::{IDENTITY, Missing, ORIGIN, Variables},
};

pub use pool::Pool;

/// Between two tries of a step that is played until it is as expected.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The host that is asked for where neither the settings nor the journey name one.
pub const HOST_DEFAULT: &str = "localhost";

/// What a step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body that are kept.
    pub body_bytes_max: usize,
    /// A request with its response, and with all redirects that are followed.
    pub step_time_max: Duration,
    /// Redirects that are followed in one step.
    pub redirects_max: usize,
    /// How long a stream of events is listened to.
    pub stream_time_max: Duration,
    /// How long a connection is kept without use. Servers close idle ones after 2 s and more, and a request on one that is being
    /// closed would be lost.
    pub kept_max: Duration,
    /// How long a channel is open before something is sent that is to arrive there: a service may take note of who listens only after it
    /// has answered.
    pub open_min: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            step_time_max: Duration::from_secs(30),
            redirects_max: 10,
            stream_time_max: Duration::from_secs(1),
            kept_max: Duration::from_secs(1),
            open_min: Duration::ZERO,
        }
    }
}

/// How a journey is played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is different in each run: letters and digits, which names in the journey have in them. Six or more of them, so that they
    /// are not in a response by chance.
    pub identity: String,
    /// What is sent as `Host`, with its port; `None` for the journey's own, or [`HOST_DEFAULT`].
    pub host: Option<String>,
    /// Whether the user waits before steps as the journey says.
    pub pauses: bool,
    /// What a step may take.
    pub limits: Limits,
}

/// Why a step has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The journey has no such step.
    #[error("there is no step {number}: the journey has {steps}")]
    NoStep {
        /// What was asked for.
        number: usize,
        /// How many there are.
        steps: usize,
    },
    /// A variable that the step uses has no value, since an earlier step has not given it one.
    #[error("step {step} needs the variable {variable}, which no step has given a value")]
    Variable {
        /// The step.
        step: usize,
        /// The variable.
        variable: String,
    },
    /// With the values of its variables, the step is no request.
    #[error("step {step} makes no request: {why}")]
    Request {
        /// The step.
        step: usize,
        /// Why.
        why: String,
    },
    /// No connection.
    #[error("cannot connect to {destination}")]
    Connect {
        /// To what.
        destination: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the connection to {destination} broke {}", match .status { Some(status) => format!("in the middle of a response with status {}", status.as_u16()), None => "before there was a response".into() })]
    Lost {
        /// To what.
        destination: String,
        /// The status, if that had come.
        status: Option<StatusCode>,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// A channel that the step needs has ended, or was never open.
    #[error("step {step} cannot be said: {channel} {why}")]
    Ended {
        /// The step.
        step: usize,
        /// The channel.
        channel: String,
        /// Why.
        why: String,
    },
    /// A channel that was lost could not be opened again.
    #[error("{channel}, which step {step} had opened, cannot be opened again: {why}")]
    NotConnectedAgain {
        /// The step that had opened it.
        step: usize,
        /// The channel.
        channel: String,
        /// Why.
        why: String,
    },
    /// The response was not there in time.
    #[error("no whole response from {destination} within {} ms", .limit.as_millis())]
    Late {
        /// From what.
        destination: String,
        /// The time that it had.
        limit: Duration,
    },
}

/// One user who goes through a journey.
#[derive(Debug)]
pub struct Player {
    journey: Arc<Journey>,
    settings: Settings,
    host: String,
    jar: Jar,
    variables: Variables,
    connection: Shelf,
    channels: Channels,
}

/// A request whose variables have their values.
struct Filled {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Rendered,
}

impl Player {
    /// A user who has done nothing yet.
    ///
    /// # Errors
    /// [`Error::Variable`] if one of the journey's variables uses one that has no value; [`crate::document::read`] makes no such journey.
    pub fn new(journey: Arc<Journey>, settings: Settings) -> Result<Self, Error> {
        let host =
            settings.host.clone().or_else(|| journey.host.clone()).unwrap_or_else(|| HOST_DEFAULT.into());
        let mut variables = Variables::default();
        variables.set(IDENTITY, settings.identity.as_str());
        variables.set(ORIGIN, format!("http://{host}"));
        for (name, value) in &journey.variables {
            let value =
                value.fill(&variables).map_err(|Missing(variable)| Error::Variable { step: 1, variable })?;
            variables.set(name, value);
        }
        Ok(Self {
            journey,
            settings,
            host,
            jar: Jar::default(),
            variables,
            connection: Shelf::default(),
            channels: Channels::new(),
        })
    }

    /// The user takes connections from `pool`, and leaves theirs there at the end; for users so many that connections of their own would
    /// use up the ports.
    pub fn with_pool(mut self, pool: Pool) -> Self {
        self.connection = Shelf::of(pool);
        self
    }

    /// The same user at the same point, over connections of its own: what one does from here on, the other does not know.
    pub fn fork(&self) -> Self {
        Self {
            journey: Arc::clone(&self.journey),
            settings: self.settings.clone(),
            host: self.host.clone(),
            jar: self.jar.clone(),
            variables: self.variables.clone(),
            connection: Shelf::default(),
            channels: Channels::new(),
        }
    }

    /// What is played.
    pub fn journey(&self) -> &Arc<Journey> {
        &self.journey
    }

    /// The cookies by now.
    pub fn jar(&self) -> &Jar {
        &self.jar
    }

    /// The variables by now.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Closes the connection that is kept between steps. A kept one is only ever used for the destination that it was opened to, and
    /// within a second; call this when what is behind the same destination has been replaced.
    pub fn hang_up(&mut self) {
        self.connection.clear();
    }

    /// Plays step `number`, from 1, at `destination`, and takes over its cookies and variables. A response of any status is `Ok`; what
    /// was not as expected is in [`Observed::unmet`]. Variables are taken also from such a response, as far as it has them.
    ///
    /// Cancelled, it closes the connection; what the service has done by then is done, and its answer is not known.
    ///
    /// # Errors
    /// When there is no whole response.
    pub async fn step(&mut self, number: usize, destination: &Destination) -> Result<Observed, Error> {
        let journey = Arc::clone(&self.journey);
        let steps = journey.steps.len();
        let step = journey.step(number).ok_or(Error::NoStep { number, steps })?;
        if self.settings.pauses && !step.pause.is_zero() {
            tokio::time::sleep(step.pause).await;
        }
        let Some(within) = step.within else { return self.once(step, destination, true).await };
        let end = Instant::now() + within;
        loop {
            let observed = self.once(step, destination, true).await?;
            if observed.is_met() || Instant::now() + TRY_AGAIN > end {
                return Ok(observed);
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Plays step `number` once, and does not wait for what is to arrive because of it.
    ///
    /// # Errors
    /// When there is no whole response.
    pub async fn trigger(&mut self, number: usize, destination: &Destination) -> Result<Observed, Error> {
        let journey = Arc::clone(&self.journey);
        let steps = journey.steps.len();
        let step = journey.step(number).ok_or(Error::NoStep { number, steps })?;
        self.once(step, destination, false).await
    }

    /// Plays all steps at `destination`, until one has no response.
    ///
    /// # Errors
    /// When a step has no whole response; those before it are lost.
    pub async fn play(&mut self, destination: &Destination) -> Result<Vec<Observed>, Error> {
        let mut all = Vec::with_capacity(self.journey.steps.len());
        for number in 1..=self.journey.steps.len() {
            all.push(self.step(number, destination).await?);
        }
        Ok(all)
    }

    /// Plays a step that is none of the journey's, once.
    ///
    /// # Errors
    /// When there is no whole response.
    pub(crate) async fn improvise(
        &mut self,
        step: &Step,
        destination: &Destination,
    ) -> Result<Observed, Error> {
        self.once(step, destination, true).await
    }

    /// Takes a variable out of a response that the player has had.
    pub(crate) fn take(&mut self, capture: &Capture, observed: &Observed) {
        let taken = capture.take(&observed.headers, &observed.body, &self.jar);
        if let Some(value) = taken.or_else(|| capture.fallback.clone()) {
            self.variables.set(&capture.variable, value);
        }
    }

    /// What is sent as `Host`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    async fn once(&mut self, step: &Step, destination: &Destination, waits: bool) -> Result<Observed, Error> {
        self.reconnect(step, destination).await?;
        if waits {
            self.settle(step).await;
        }
        let began = Instant::now();
        let (mut unmet, mut redirects) = (Vec::new(), Vec::new());
        let answer = match &step.act {
            Act::Request => {
                let limit = self.settings.limits.step_time_max;
                let exchange = self.exchange(step, destination);
                let late = |_| Error::Late { destination: destination.name().into(), limit };
                let (answer, hops) = tokio::time::timeout(limit, exchange).await.map_err(late)??;
                redirects = hops;
                answer
            }
            Act::Open(opening) => {
                let (answer, not_opened) = self.open(step, opening, destination).await?;
                unmet = not_opened;
                answer
            }
            Act::Say(saying) => self.say(step, saying).await?,
        };
        let took = began.elapsed();
        unmet.extend(self.take_over(step, &answer)?);
        if waits && unmet.is_empty() {
            unmet.extend(self.await_arrival(step, destination).await?);
        }
        let Answer { status, headers, body, is_cut } = answer;
        let identity = self.settings.identity.clone();
        Ok(Observed { step: step.number, status, headers, body, is_cut, redirects, took, unmet, identity })
    }

    /// Sends the request and follows its redirects; gives the last response.
    async fn exchange(
        &mut self,
        step: &Step,
        destination: &Destination,
    ) -> Result<(Answer, Vec<Hop>), Error> {
        let mut filled = self.fill(step)?;
        let mut hops = Vec::new();
        loop {
            let request = self.request(step, &filled)?;
            let answer = self.send(request, destination).await?;
            self.keep_cookies(&answer.headers, &filled.target);
            let next = (step.follow && hops.len() < self.settings.limits.redirects_max)
                .then(|| redirect(&answer, &filled, &self.host))
                .flatten();
            let Some((location, next)) = next else { return Ok((answer, hops)) };
            hops.push(Hop { status: answer.status, location });
            filled = next;
        }
    }

    fn fill(&self, step: &Step) -> Result<Filled, Error> {
        let missing = |Missing(variable)| Error::Variable { step: step.number, variable };
        let wrong = |why: String| Error::Request { step: step.number, why };
        let target = step.path.fill_path(&self.variables).map_err(missing)?;
        let target = address::resolve("/", &target, &self.host)
            .ok_or_else(|| wrong(format!("{target} is at another host than {}", self.host)))?;
        let body = step.body.render(&self.variables).map_err(missing)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &step.headers {
            let value = value.fill(&self.variables).map_err(missing)?;
            let value = HeaderValue::from_str(&value).map_err(|_| {
                wrong(format!(
                    "the value of the header field {name} has a line end or a control character in it"
                ))
            })?;
            headers.append(name, value);
        }
        Ok(Filled { method: step.method.clone(), target, headers, body })
    }

    fn request(&self, step: &Step, filled: &Filled) -> Result<Request<Full<Bytes>>, Error> {
        let wrong = |why: http::Error| Error::Request { step: step.number, why: why.to_string() };
        let mut request = Request::builder()
            .method(filled.method.clone())
            .uri(&*filled.target)
            .body(Full::new(filled.body.bytes.clone()))
            .map_err(wrong)?;
        let headers = request.headers_mut();
        *headers = filled.headers.clone();
        let mut default = |name, value: &str| -> Result<(), Error> {
            if !headers.contains_key(&name) {
                headers.insert(name, HeaderValue::from_str(value).map_err(|error| wrong(error.into()))?);
            }
            Ok(())
        };
        default(header::HOST, &self.host)?;
        default(header::ACCEPT, "*/*")?;
        default(header::USER_AGENT, "lethe")?;
        if let Some(content_type) = &filled.body.content_type {
            default(header::CONTENT_TYPE, content_type)?;
        }
        if let Some(cookies) = self.jar.field(&filled.target, &self.host, SystemTime::now()) {
            default(header::COOKIE, &cookies)?;
        }
        Ok(request)
    }

    /// Sends it over the kept connection, or a new one.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        destination: &Destination,
    ) -> Result<Answer, Error> {
        let kept = self.connection.take(destination);
        let mut request = request;
        if let Some(kept) = kept {
            match kept.send(request, &self.settings.limits).await {
                Ok((answer, connection)) => {
                    self.connection.keep(connection);
                    return Ok(answer);
                }
                // The service had closed it, and nothing of the request was sent.
                Err(exchange::Failed { unsent: Some(again), .. }) => request = *again,
                Err(failed) => return Err(failed.error(destination)),
            }
        }
        let connection = Connection::open(destination, self.settings.limits.kept_max).await?;
        let sent = connection.send(request, &self.settings.limits).await;
        let (answer, connection) = sent.map_err(|failed| failed.error(destination))?;
        self.connection.keep(connection);
        Ok(answer)
    }

    fn keep_cookies(&mut self, headers: &HeaderMap, target: &str) {
        let now = SystemTime::now();
        for field in headers.get_all(header::SET_COOKIE) {
            self.jar.take(&String::from_utf8_lossy(field.as_bytes()), target, &self.host, now);
        }
    }

    /// Takes the variables out of a response, and says what was not as expected.
    fn take_over(&mut self, step: &Step, answer: &Answer) -> Result<Vec<Unmet>, Error> {
        let mut not_found = Vec::new();
        for capture in &step.captures {
            let taken =
                capture.take(&answer.headers, &answer.body, &self.jar).or_else(|| capture.fallback.clone());
            match taken {
                Some(value) => self.variables.set(&capture.variable, value),
                None => not_found
                    .push(Unmet::Capture { variable: capture.variable.clone(), place: capture.place() }),
            }
        }
        let check = step.expect.check(answer.status, &answer.headers, &answer.body, &self.variables);
        let mut unmet = check.map_err(|Missing(variable)| Error::Variable { step: step.number, variable })?;
        unmet.extend(not_found);
        Ok(unmet)
    }
}

/// The request that a redirect leads to, if it is one within this host (RFC 9110, section 15.4).
fn redirect(answer: &Answer, filled: &Filled, host: &str) -> Option<(String, Filled)> {
    let keeps_method = match answer.status.as_u16() {
        301 | 302 => filled.method != Method::POST,
        303 => filled.method == Method::HEAD,
        307 | 308 => true,
        _ => return None,
    };
    let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
    let target = address::resolve(&filled.target, location, host)?;
    let mut headers = filled.headers.clone();
    let (method, body) = if keeps_method {
        (filled.method.clone(), filled.body.clone())
    } else {
        headers.remove(header::CONTENT_TYPE);
        (Method::GET, Rendered::default())
    };
    Some((location.into(), Filled { method, target, headers, body }))
}
