//! What a user does with channels: opens them, says something over them, waits for what arrives, and, when the worker at their other end was
//! killed, connects again, as clients do.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::{
    Error, Player,
    exchange::Answer,
    live::{self, LiveConnection, Silence},
};
use crate::{
    channel::{Act, Arrival, Opening, Protocol, Saying},
    destination::Destination,
    expectation::Unmet,
    journey::Step,
    template::{Missing, Template},
};

/// The channels of a user, by their names.
pub(super) type Channels = BTreeMap<String, Channel>;

#[derive(Debug)]
pub(super) struct Channel {
    destination: Destination,
    opened_at: Instant,
    /// `None` once what was at its other end is known to be gone.
    live: Option<LiveConnection>,
    /// Whether it is not the connection that its step had opened.
    is_another: bool,
}

impl Player {
    /// Tells the user that what was behind `destination` is gone, and with it all connections that stayed open there. The next step that
    /// needs one of these channels connects again first, wherever that step is sent.
    pub fn lose(&mut self, destination: &Destination) {
        for channel in self.channels.values_mut().filter(|channel| channel.destination.is(destination)) {
            channel.live = None;
        }
    }

    /// Opens at `destination`, once more, the channel at which something is to arrive because of step `number`, as another tab of the same
    /// user would.
    ///
    /// # Errors
    /// When it is refused, or the step expects nothing of a channel.
    pub async fn listen(&mut self, number: usize, destination: &Destination) -> Result<(), Error> {
        let journey = Arc::clone(&self.journey);
        let arrival = journey.step(number).and_then(|step| step.arrives.as_ref());
        match arrival {
            Some(arrival) => self.reopen(&arrival.on, number, destination).await,
            None => Err(Error::NoStep { number, steps: journey.steps.len() }),
        }
    }

    /// Says at the channel at which something is to arrive because of step `number` what was said there before by steps of their own, and
    /// waits for what is to arrive there because of them; whether it does is left open.
    ///
    /// # Errors
    /// When it cannot be said.
    pub async fn say_again(&mut self, number: usize) -> Result<(), Error> {
        let journey = Arc::clone(&self.journey);
        let Some(arrival) = journey.step(number).and_then(|step| step.arrives.as_ref()) else {
            return Ok(());
        };
        for (step, saying) in journey.said(&arrival.on, number) {
            self.say(step, saying).await?;
            let live = self.channels.get(&arrival.on).and_then(|channel| channel.live.as_ref());
            let own = step.arrives.as_ref().filter(|own| own.on == arrival.on);
            if let Some((live, own)) = live.zip(own) {
                let text = own.text.fill(&self.variables).map_err(missing(step))?;
                drop(live.arrival(&text, live::until(own.within)).await);
            }
        }
        Ok(())
    }

    /// What is to arrive because of step `number`, with the values of its variables.
    ///
    /// # Errors
    /// When one has no value, or the step expects nothing of a channel.
    pub fn awaited(&self, number: usize) -> Result<String, Error> {
        let no_step = Error::NoStep { number, steps: self.journey.steps.len() };
        let arrival = self.journey.step(number).and_then(|step| step.arrives.as_ref()).ok_or(no_step)?;
        let missing = |Missing(variable)| Error::Variable { step: number, variable };
        arrival.text.fill(&self.variables).map_err(missing)
    }

    /// Whether a message with `text` in it has come to the channel at which something is to arrive because of step `number`, or comes until
    /// then; `None` if more came than is kept, so that it may have been among them.
    pub async fn hears(&self, number: usize, text: &str, until: Instant) -> Option<bool> {
        let Some(live) = self.awaiting(number) else { return Some(false) };
        match live.arrival(text, until).await {
            Ok(_) => Some(true),
            Err(Silence::Flooded) => None,
            Err(_) => Some(false),
        }
    }

    /// Forgets what has come by now to the channel at which something is to arrive because of step `number`: that step did not cause it.
    pub fn forget_heard(&self, number: usize) {
        if let Some(live) = self.awaiting(number) {
            live.forget();
        }
    }

    fn awaiting(&self, number: usize) -> Option<&LiveConnection> {
        let arrival = self.journey.step(number)?.arrives.as_ref()?;
        self.channels.get(&arrival.on)?.live.as_ref()
    }

    /// Connects again what a step needs and has lost.
    pub(super) async fn reconnect(&mut self, step: &Step, destination: &Destination) -> Result<(), Error> {
        let said_on = match &step.act {
            Act::Say(saying) => Some(&saying.on),
            Act::Request => None,
            Act::Open(_) => return Ok(()),
        };
        let names = said_on.into_iter().chain(step.arrives.as_ref().map(|arrival| &arrival.on));
        for name in names {
            if self.channels.get(name).is_some_and(|channel| channel.live.is_none()) {
                self.reopen(name, step.number, destination).await?;
            }
        }
        Ok(())
    }

    async fn reopen(&mut self, name: &str, number: usize, destination: &Destination) -> Result<(), Error> {
        let journey = Arc::clone(&self.journey);
        let (step, opening) =
            journey.opening(name, number).ok_or(Error::NoStep { number, steps: journey.steps.len() })?;
        let (answer, mut unmet) = self.open(step, opening, destination).await?;
        unmet.extend(self.take_over(step, &answer)?);
        if let Some(unmet) = unmet.first() {
            let (channel, why) = (name.to_owned(), unmet.to_string());
            return Err(Error::NotConnectedAgain { step: step.number, channel, why });
        }
        if let Some(channel) = self.channels.get_mut(name) {
            channel.is_another = true;
        }
        Ok(())
    }

    /// Waits until a channel, at which something is to arrive because of a step, is open for as long as it must be.
    pub(super) async fn settle(&self, step: &Step) {
        let arrival = step.arrives.as_ref().filter(|_| !matches!(step.act, Act::Open(_)));
        if let Some(channel) = arrival.and_then(|arrival| self.channels.get(&arrival.on)) {
            tokio::time::sleep_until(channel.opened_at + self.settings.limits.open_min).await;
        }
    }

    /// Opens a channel, says what is said there each time, and waits for what is expected then, which is the body of the answer.
    pub(super) async fn open(
        &mut self,
        step: &Step,
        opening: &Opening,
        destination: &Destination,
    ) -> Result<(Answer, Vec<Unmet>), Error> {
        self.channels.remove(&opening.name);
        let limits = self.settings.limits;
        let mut filled = self.fill(step)?;
        live::ask(opening.protocol, &self.host, &mut filled.headers);
        let request = self.request(step, &filled)?;
        let opened = LiveConnection::open(request, opening.protocol, destination, &limits);
        let late = |_| Error::Late { destination: destination.name().into(), limit: limits.step_time_max };
        let opened = tokio::time::timeout(limits.step_time_max, opened).await.map_err(late)??;
        let (mut answer, live) = opened;
        self.keep_cookies(&answer.headers, &filled.target);
        let Some(live) = live else {
            let unmet = not_opened(step, opening.protocol, &answer);
            return Ok((answer, unmet.into_iter().collect()));
        };
        self.tell(&live, step, &opening.name, &opening.says).await?;
        let mut unmet = Vec::new();
        if let Some(arrival) = &step.arrives {
            let text = arrival.text.fill(&self.variables).map_err(missing(step))?;
            match live.arrival(&text, live::until(arrival.within)).await {
                Ok(message) => answer.body = message.into(),
                Err(silence) => unmet.push(not_arrived(arrival, text, silence)),
            }
        }
        let (destination, live, opened_at) = (destination.clone(), Some(live), Instant::now());
        let channel = Channel { destination, opened_at, live, is_another: false };
        self.channels.insert(opening.name.clone(), channel);
        Ok((answer, unmet))
    }

    /// Says something over a channel that is open.
    pub(super) async fn say(&self, step: &Step, saying: &Saying) -> Result<Answer, Error> {
        let live = self.channels.get(&saying.on).and_then(|channel| channel.live.as_ref());
        let live = live.ok_or_else(|| ended(step, &saying.on, "is not open".into()))?;
        self.tell(live, step, &saying.on, &saying.texts).await?;
        // There is no answer but what may arrive.
        let (status, headers) = (StatusCode::SWITCHING_PROTOCOLS, HeaderMap::new());
        Ok(Answer { status, headers, body: bytes::Bytes::new(), is_cut: true })
    }

    /// Says all of it over a connection, within the time of a step.
    async fn tell(
        &self,
        live: &LiveConnection,
        step: &Step,
        on: &str,
        texts: &[Template],
    ) -> Result<(), Error> {
        let limit = self.settings.limits.step_time_max;
        let all = async {
            for text in texts {
                let text = text.fill(&self.variables).map_err(missing(step))?;
                live.say(&text).await.map_err(|why| ended(step, on, why))?;
            }
            Ok(())
        };
        let unread = format!("did not read what was said before within {} ms", limit.as_millis());
        tokio::time::timeout(limit, all).await.unwrap_or_else(|_| Err(ended(step, on, unread)))
    }

    /// Waits for what is to arrive because of a step that was sent to `destination`; gives what was not as expected.
    ///
    /// Nothing is expected of a channel at another worker than what was sent, which only fan-out would reach, nor of one that was
    /// connected again: what the service did for the former connection may still be under way for this one.
    pub(super) async fn await_arrival(
        &self,
        step: &Step,
        destination: &Destination,
    ) -> Result<Option<Unmet>, Error> {
        let Some(arrival) = &step.arrives else { return Ok(None) };
        let sent_to = match &step.act {
            Act::Say(saying) => self.channels.get(&saying.on).map(|channel| &channel.destination),
            Act::Request => Some(destination),
            Act::Open(_) => None,
        };
        let channel = self.channels.get(&arrival.on).filter(|channel| {
            !channel.is_another && sent_to.is_some_and(|sent_to| channel.destination.is(sent_to))
        });
        let Some(live) = channel.and_then(|channel| channel.live.as_ref()) else { return Ok(None) };
        let text = arrival.text.fill(&self.variables).map_err(missing(step))?;
        let arrived = live.arrival(&text, live::until(arrival.within)).await;
        Ok(arrived.err().map(|silence| not_arrived(arrival, text, silence)))
    }
}

fn missing(step: &Step) -> impl Fn(Missing) -> Error {
    let step = step.number;
    move |Missing(variable)| Error::Variable { step, variable }
}

fn ended(step: &Step, channel: &str, why: String) -> Error {
    Error::Ended { step: step.number, channel: channel.to_owned(), why }
}

fn not_arrived(arrival: &Arrival, text: String, silence: Silence) -> Unmet {
    let (on, within) = (arrival.on.clone(), arrival.within);
    match silence {
        Silence::Late => Unmet::Arrives { on, text, within, ended: None },
        Silence::Ended(why) => Unmet::Arrives { on, text, within, ended: Some(why) },
        Silence::Flooded => Unmet::Flooded { on, text },
    }
}

/// What is wrong with an answer that opens nothing, unless that is what the step expects, or the status says it.
fn not_opened(step: &Step, protocol: Protocol, answer: &Answer) -> Option<Unmet> {
    let found = answer.status.as_u16();
    let is_expected = !step.expect.statuses.is_empty() || found >= 400;
    let is_told = !is_expected;
    let content_type = || answer.headers.get(header::CONTENT_TYPE);
    is_told.then(|| match protocol {
        Protocol::EventStream if found == 200 => Unmet::Header {
            name: header::CONTENT_TYPE,
            expected: "text/event-stream".into(),
            found: content_type().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        },
        Protocol::EventStream => Unmet::Status { expected: vec![200..=200], found },
        Protocol::WebSocket if found == 101 => Unmet::Header {
            name: header::SEC_WEBSOCKET_ACCEPT,
            expected: "the answer to its key".into(),
            found: None,
        },
        Protocol::WebSocket => Unmet::Status { expected: vec![101..=101], found },
    })
}
