//! Where the records of one core's requests end up: in its counts, in the access log, and in exported spans. It also
//! keeps the memory of finished records for those to come.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use crate::{
    access_log,
    balance::Dice,
    batch::Tray,
    clock::Clock,
    record::{Detail, Outcome, Record},
    shard::Shard,
    trace::Context,
};

/// Details of finished records that are kept for the next ones.
const SPARE_MAX: usize = 64;

/// One core's observer.
pub(crate) struct Observer {
    pub(crate) shard: Arc<Shard>,
    clock: Clock,
    log: RefCell<Option<Tray>>,
    #[cfg(feature = "otel")]
    spans: RefCell<Option<crate::otel::Spans>>,
    /// Somebody reads about single requests.
    is_detailed: Cell<bool>,
    #[allow(clippy::vec_box, reason = "details are large, and go from hand to hand boxed")]
    spare: RefCell<Vec<Box<Detail>>>,
}

impl Observer {
    /// One that only counts.
    pub(crate) fn new(shard: Arc<Shard>) -> Rc<Self> {
        Rc::new(Self {
            shard,
            clock: Clock::new(),
            log: RefCell::default(),
            #[cfg(feature = "otel")]
            spans: RefCell::default(),
            is_detailed: Cell::new(false),
            spare: RefCell::default(),
        })
    }

    /// Begins, ends or changes the access log. What was not handed over yet goes where it was meant to go.
    pub(crate) fn set_log(&self, log: Option<Tray>) {
        self.log.replace(log);
        self.look();
    }

    /// Begins or ends the export of spans.
    #[cfg(feature = "otel")]
    pub(crate) fn set_spans(&self, spans: Option<crate::otel::Spans>) {
        self.spans.replace(spans);
        self.look();
    }

    fn look(&self) {
        #[cfg(feature = "otel")]
        let has_spans = self.spans.borrow().is_some();
        #[cfg(not(feature = "otel"))]
        let has_spans = false;
        self.is_detailed.set(has_spans || self.log.borrow().is_some());
    }

    /// Hands over what was written since the last call. To be called at least ten times a second while there are
    /// requests, and once more after the last.
    pub(crate) fn tick(&self) {
        self.clock.renew();
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.hand_over();
        }
        #[cfg(feature = "otel")]
        if let Some(spans) = &mut *self.spans.borrow_mut() {
            spans.hand_over();
        }
    }

    /// The place of a request in its trace: the one that its only `traceparent` gives if it is valid, else a new one.
    /// When spans are exported, the gateway's own span becomes the parent of what workers do.
    pub(crate) fn trace(&self, sent: Option<&[u8]>, dice: &Dice) -> Context {
        let context = sent.and_then(Context::parse).unwrap_or_else(|| Context::make(dice));
        #[cfg(feature = "otel")]
        if let Some(spans) = &*self.spans.borrow() {
            return spans.enter(context, dice);
        }
        context
    }

    /// Room for what is noted of a request, if anybody wants to read it.
    pub(crate) fn detail(&self) -> Option<Box<Detail>> {
        self.is_detailed.get().then(|| self.spare.borrow_mut().pop().unwrap_or_default())
    }

    /// A request is over.
    pub(crate) fn finish(&self, record: &Record, detail: Option<Box<Detail>>) {
        let shard = &self.shard;
        match record.outcome() {
            // Those were counted when they were answered.
            Outcome::Shed(_) | Outcome::Unknown(_) => {}
            Outcome::Answered | Outcome::Upgraded | Outcome::Replayed | Outcome::Refused(_) => {}
            Outcome::Cut => shard.cut.add(1),
            Outcome::ClientGone => shard.client_gone.add(1),
        }
        let (bytes_in, bytes_out) = record.bytes();
        let route = record.target().map_or(&shard.unrouted, |target| &target.stats);
        route.bytes_in.add(bytes_in);
        route.bytes_out.add(bytes_out);
        if let Some(detail) = detail {
            self.tell(record, detail);
        }
    }

    fn tell(&self, record: &Record, mut detail: Box<Detail>) {
        let now = Instant::now();
        let started = self.clock.unix(record.started);
        if let Some(log) = &mut *self.log.borrow_mut()
            && !log.add(1, |text| access_log::line(text, record, &detail, started, now))
        {
            self.shard.log_dropped.add(1);
        }
        #[cfg(feature = "otel")]
        if let Some(spans) = &mut *self.spans.borrow_mut() {
            self.shard.spans_dropped.add(spans.add(record, &detail, started, now));
        }
        detail.clear();
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(detail);
        }
    }
}
