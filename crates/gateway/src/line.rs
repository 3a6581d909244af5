//! Those who wait for a worker of one service, on all cores: timely requests before batch ones, each class in the
//! order of arrival. Who leaves a worker when nobody waits reads one number; who waits takes a lock, and then has a
//! place that nobody who came later can take: a slot that becomes free is entered in the name of the first one, on
//! whatever core it is, before it is woken.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Poll, Waker},
    time::Instant,
};

use lethe_model::gate::Gate;

use crate::{concurrency::Limit, config::Class, pace::Pace};

/// The classes, in the order in which they are served.
pub(crate) const CLASSES: [Class; 2] = [Class::Timely, Class::Batch];

/// The line of one service.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// How many wait and were not called: timely ones in the lower half, batch ones in the upper.
    uncalled: AtomicU64,
    book: Mutex<Book>,
    /// Those that were turned away, by class.
    shed: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Book {
    /// By class, then by number.
    tickets: [BTreeMap<u64, Ticket>; 2],
    issued: u64,
    pace: Pace,
}

/// One who waits. Waiting → Called → Waiting (News, Unstarted) | Awake (Slot) → Waiting (the slot was of no use).
#[derive(Debug)]
struct Ticket {
    core: usize,
    state: State,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Called(Call),
    Awake,
}

/// What one who waits is called for.
#[derive(Debug)]
pub(crate) enum Call {
    /// This gate was entered for it, and is to be left by it.
    Slot(Arc<Gate>),
    /// There may be a worker that was not there before.
    News,
    /// There is no worker, and none starts.
    Unstarted,
    /// Its place was given to a request that goes before it.
    Evicted,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// When it may be worth another try.
    pub(crate) retry_after_s: u32,
}

/// A place in the line, left when dropped; what it was called for and did not use goes to the next.
pub(crate) struct Place<'a> {
    line: &'a Line,
    limit: &'a Limit,
    class: Class,
    number: u64,
    core: usize,
}

impl Line {
    /// Whether a request of `class` has nobody before it.
    pub(crate) fn is_clear(&self, class: Class) -> bool {
        let uncalled = self.uncalled.load(Relaxed);
        match class {
            Class::Timely => uncalled as u32 == 0,
            Class::Batch => uncalled == 0,
        }
    }

    /// Takes a place for a request of `core` that can wait until `deadline`, among at most `max`. When the line is
    /// full, a timely request takes the place of the youngest batch one. A request that cannot be called before its
    /// deadline, as slots become free now, is refused at once.
    pub(crate) fn join<'a>(
        &'a self,
        limit: &'a Limit,
        core: usize,
        class: Class,
        max: usize,
        now: Instant,
        deadline: Instant,
    ) -> Result<Place<'a>, Refused> {
        let mut book = self.book();
        let waiting = book.tickets.iter().map(BTreeMap::len).sum();
        let ahead = if class == Class::Timely { book.tickets[0].len() } else { waiting };
        let is_hopeless = book.pace.wait(ahead + 1, now).is_some_and(|wait| now + wait > deadline);
        let evicted = if waiting < max {
            None
        } else {
            Some(book.youngest_batch().filter(|_| class == Class::Timely && !is_hopeless))
        };
        if is_hopeless || evicted == Some(None) {
            return Err(Refused { retry_after_s: book.pace.retry_after_s(waiting, now) });
        }
        let evicted = evicted.flatten().and_then(|number| book.tickets[1].remove(&number));
        if evicted.is_some() {
            self.count(Class::Batch, false);
        }
        book.issued += 1;
        let number = book.issued;
        book.of(class).insert(number, Ticket { core, state: State::Waiting, waker: None });
        self.count(class, true);
        drop(book);
        wake(evicted.and_then(|ticket| ticket.waker));
        Ok(Place { line: self, limit, class, number, core })
    }

    /// A request has left `gate`: enters it again for the first one that waits.
    pub(crate) fn left(&self, gate: &Arc<Gate>, limit: &Limit) {
        if self.uncalled.load(SeqCst) != 0 {
            self.offer(gate, limit, None, Instant::now());
        }
    }

    /// Enters `gate` for the first one that waits, other than `except`.
    fn offer(&self, gate: &Arc<Gate>, limit: &Limit, except: Option<u64>, now: Instant) {
        let mut book = self.book();
        for class in CLASSES {
            let waiting = |(number, ticket): &(&u64, &mut Ticket)| {
                matches!(ticket.state, State::Waiting) && Some(**number) != except
            };
            let Some((_, ticket)) = book.of(class).iter_mut().find(waiting) else { continue };
            // What timely ones may not enter, batch ones may not either.
            if gate.admit(limit.of(class)).is_err() {
                return;
            }
            ticket.state = State::Called(Call::Slot(Arc::clone(gate)));
            let waker = ticket.waker.take();
            book.pace.note(now);
            self.count(class, false);
            drop(book);
            return wake(waker);
        }
    }

    /// Something has changed that may help those who wait: calls the first one, of `core` if only that one has seen it.
    /// Whoever finds a worker by that [passes it on](Self::pass_on).
    pub(crate) fn news(&self, core: Option<usize>) {
        if self.uncalled.load(SeqCst) == 0 {
            return;
        }
        let mut book = self.book();
        for class in CLASSES {
            if !self.is_clear(Class::Timely) && class == Class::Batch {
                return;
            }
            let waiting = |ticket: &&mut Ticket| {
                core.is_none_or(|core| core == ticket.core) && matches!(ticket.state, State::Waiting)
            };
            let Some(ticket) = book.of(class).values_mut().find(waiting) else { continue };
            ticket.state = State::Called(Call::News);
            let waker = ticket.waker.take();
            self.count(class, false);
            drop(book);
            return wake(waker);
        }
    }

    /// Somebody of `core` found a worker by looking, and there may be more: the first one of all is to look, and the
    /// first one of that core, in case the other cannot see it yet.
    pub(crate) fn pass_on(&self, core: usize) {
        self.news(None);
        self.news(Some(core));
    }

    /// No worker starts: calls all who wait, so that they need not wait for one.
    pub(crate) fn call_off(&self) {
        if self.uncalled.load(SeqCst) == 0 {
            return;
        }
        let mut wakers = Vec::new();
        let mut book = self.book();
        for class in CLASSES {
            for ticket in book.of(class).values_mut() {
                if matches!(ticket.state, State::Waiting) {
                    ticket.state = State::Called(Call::Unstarted);
                    wakers.push(ticket.waker.take());
                    self.count(class, false);
                }
            }
        }
        drop(book);
        wakers.into_iter().for_each(wake);
    }

    /// Counts a request of `class` as turned away, and says when it may be worth another try.
    pub(crate) fn shed(&self, class: Class, now: Instant) -> Refused {
        self.shed[class as usize].fetch_add(1, Relaxed);
        let book = self.book();
        let waiting = book.tickets.iter().map(BTreeMap::len).sum();
        Refused { retry_after_s: book.pace.retry_after_s(waiting, now) }
    }

    /// How many wait, by class.
    pub(crate) fn lengths(&self) -> [u64; 2] {
        let book = self.book();
        [book.tickets[0].len() as u64, book.tickets[1].len() as u64]
    }

    /// How many were turned away, by class.
    pub(crate) fn shed_so_far(&self) -> [u64; 2] {
        [self.shed[0].load(Relaxed), self.shed[1].load(Relaxed)]
    }

    fn count(&self, class: Class, one_more: bool) {
        let one = match class {
            Class::Timely => 1,
            Class::Batch => 1 << 32,
        };
        if one_more {
            self.uncalled.fetch_add(one, SeqCst)
        } else {
            self.uncalled.fetch_sub(one, SeqCst)
        };
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn of(&mut self, class: Class) -> &mut BTreeMap<u64, Ticket> {
        &mut self.tickets[class as usize]
    }

    fn youngest_batch(&self) -> Option<u64> {
        let mut batch = self.tickets[Class::Batch as usize].iter().rev();
        batch.find(|(_, ticket)| matches!(ticket.state, State::Waiting)).map(|(&number, _)| number)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Place<'_> {
    /// Waits for a call. Cancellation safe: a call that was not returned stays.
    pub(crate) fn called(&self) -> impl Future<Output = Call> + '_ {
        std::future::poll_fn(|cx| {
            let mut book = self.line.book();
            let Some(ticket) = book.of(self.class).get_mut(&self.number) else {
                return Poll::Ready(Call::Evicted);
            };
            match std::mem::replace(&mut ticket.state, State::Waiting) {
                State::Called(call @ (Call::News | Call::Unstarted)) => {
                    self.line.count(self.class, true);
                    Poll::Ready(call)
                }
                State::Called(call) => {
                    ticket.state = State::Awake;
                    Poll::Ready(call)
                }
                state => {
                    ticket.state = state;
                    ticket.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    /// Whether nobody else is to be called first.
    pub(crate) fn is_next(&self) -> bool {
        let mut book = self.line.book();
        if self.class == Class::Batch && !self.line.is_clear(Class::Timely) {
            return false;
        }
        let mut before = book.of(self.class).range(..self.number);
        !before.any(|(_, ticket)| matches!(ticket.state, State::Waiting))
    }

    /// The slot that it was called for is of no use to it: it waits on, and the next one gets the slot.
    pub(crate) fn decline(&self, gate: &Arc<Gate>, now: Instant) {
        if let Some(ticket) = self.line.book().of(self.class).get_mut(&self.number) {
            ticket.state = State::Waiting;
            self.line.count(self.class, true);
        }
        gate.leave();
        self.line.offer(gate, self.limit, Some(self.number), now);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut book = self.line.book();
        let ticket = book.of(self.class).remove(&self.number);
        if book.tickets.iter().all(BTreeMap::is_empty) {
            book.pace.pause();
        }
        if matches!(ticket, Some(Ticket { state: State::Waiting, .. })) {
            self.line.count(self.class, false);
        }
        drop(book);
        match ticket.map(|ticket| ticket.state) {
            Some(State::Called(Call::Slot(gate))) => {
                gate.leave();
                self.line.left(&gate, self.limit);
            }
            Some(State::Called(Call::News)) => self.line.pass_on(self.core),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::Future,
        pin::pin,
        sync::atomic::AtomicUsize,
        task::{Context, Wake},
        time::Duration,
    };

    use super::*;
    use crate::config::Concurrency;

    const MAX: usize = 8;

    struct Setting {
        line: Line,
        limit: Limit,
        gate: Arc<Gate>,
        now: Cell<Instant>,
    }

    impl Setting {
        /// A line for a worker with so many slots, all of them taken.
        fn new(slots: u32) -> Self {
            let now = Instant::now();
            let limit = Limit::new(Concurrency::Limited(slots), now);
            let gate = Gate::new();
            (0..slots).for_each(|_| gate.admit(None).unwrap());
            Self { line: Line::default(), limit, gate, now: Cell::new(now) }
        }

        fn join(&self, core: usize, class: Class) -> Result<Place<'_>, Refused> {
            let now = self.now.get();
            self.line.join(&self.limit, core, class, MAX, now, now + Duration::from_secs(10))
        }

        fn leave(&self) {
            self.gate.leave();
            self.line.left(&self.gate, &self.limit);
        }
    }

    fn call(place: &Place<'_>) -> Option<Call> {
        match pin!(place.called()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(call) => Some(call),
            Poll::Pending => None,
        }
    }

    fn has_slot(place: &Place<'_>) -> bool {
        matches!(call(place), Some(Call::Slot(_)))
    }

    #[test]
    fn timely_before_batch_and_each_in_order() {
        let setting = Setting::new(1);
        let batch = setting.join(0, Class::Batch).unwrap();
        let first = setting.join(1, Class::Timely).unwrap();
        let second = setting.join(0, Class::Timely).unwrap();
        assert!(first.is_next() && !second.is_next() && !batch.is_next());
        assert!(!setting.line.is_clear(Class::Timely));
        assert_eq!(setting.line.lengths(), [2, 1]);
        for place in [first, second, batch] {
            setting.leave();
            assert!(has_slot(&place), "the first one has it, whatever its core");
            assert_eq!(setting.gate.in_flight(), 1, "nobody can take it meanwhile");
            drop(place);
        }
        assert!(setting.line.is_clear(Class::Batch));
        setting.leave();
        assert_eq!(setting.gate.in_flight(), 0);
    }

    #[test]
    fn one_slot_calls_one() {
        let setting = Setting::new(2);
        let places: Vec<Place<'_>> = (0..3).map(|_| setting.join(0, Class::Timely).unwrap()).collect();
        setting.leave();
        assert_eq!(places.iter().filter(|place| has_slot(place)).count(), 1);
        setting.leave();
        assert_eq!(places.iter().filter(|place| has_slot(place)).count(), 1);
    }

    #[test]
    fn batch_leaves_a_fifth() {
        let setting = Setting::new(5);
        let batch = setting.join(0, Class::Batch).unwrap();
        setting.leave();
        assert!(call(&batch).is_none(), "four inside are as many as batch may fill");
        setting.leave();
        assert!(has_slot(&batch));
    }

    #[test]
    fn who_goes_passes_on_what_it_was_called_for() {
        let setting = Setting::new(1);
        let (first, second) =
            (setting.join(0, Class::Timely).unwrap(), setting.join(1, Class::Timely).unwrap());
        setting.leave();
        drop(first);
        assert!(has_slot(&second));
        let (third, fourth) =
            (setting.join(0, Class::Timely).unwrap(), setting.join(0, Class::Timely).unwrap());
        setting.line.news(Some(0));
        assert!(call(&fourth).is_none());
        drop(third);
        assert!(matches!(call(&fourth), Some(Call::News)));
        drop(fourth);
        drop(second);
        assert!(setting.line.is_clear(Class::Batch));
    }

    #[test]
    fn a_slot_of_no_use_goes_to_the_next() {
        let setting = Setting::new(1);
        let (first, second) =
            (setting.join(0, Class::Timely).unwrap(), setting.join(0, Class::Timely).unwrap());
        setting.leave();
        let Some(Call::Slot(gate)) = call(&first) else { panic!("not called") };
        first.decline(&gate, setting.now.get());
        assert!(call(&first).is_none() && has_slot(&second));
        drop(second);
        // With nobody else it stays free.
        setting.leave();
        let Some(Call::Slot(gate)) = call(&first) else { panic!("not called") };
        first.decline(&gate, setting.now.get());
        assert!(call(&first).is_none());
        assert_eq!(setting.gate.in_flight(), 0);
        drop(first);
        assert!(setting.line.is_clear(Class::Batch));
    }

    #[test]
    fn news_are_for_the_core_that_has_them() {
        let setting = Setting::new(1);
        let other = setting.join(1, Class::Timely).unwrap();
        let (first, second) =
            (setting.join(0, Class::Timely).unwrap(), setting.join(0, Class::Timely).unwrap());
        setting.line.news(Some(0));
        assert!(call(&other).is_none() && call(&second).is_none());
        assert!(matches!(call(&first), Some(Call::News)));
        // It found nothing, and waits where it was.
        setting.leave();
        drop(other);
        assert!(has_slot(&first));
        drop(first);
        let other = setting.join(1, Class::Timely).unwrap();
        let third = setting.join(0, Class::Timely).unwrap();
        setting.line.pass_on(0);
        assert!(matches!(call(&second), Some(Call::News)), "the first of all is the first of its core");
        assert!(matches!(call(&third), Some(Call::News)) && call(&other).is_none());
    }

    #[test]
    fn all_are_called_off() {
        let setting = Setting::new(1);
        let places =
            [setting.join(0, Class::Timely), setting.join(1, Class::Batch), setting.join(1, Class::Timely)];
        let [first, batch, last] = places.map(Result::unwrap);
        setting.line.call_off();
        assert!([&first, &batch].iter().all(|place| matches!(call(place), Some(Call::Unstarted))));
        drop(last);
        assert_eq!(setting.line.lengths(), [1, 1]);
        setting.leave();
        assert!(has_slot(&first), "who waits on all the same has its place");
        drop((first, batch));
        assert!(setting.line.is_clear(Class::Batch));
        setting.line.call_off();
        assert!(setting.line.is_clear(Class::Batch));
    }

    #[test]
    fn a_full_line_sheds_batch_first() {
        let setting = Setting::new(1);
        let mut places: Vec<Place<'_>> =
            (0..MAX - 2).map(|_| setting.join(0, Class::Timely).unwrap()).collect();
        let (old, young) = (setting.join(0, Class::Batch).unwrap(), setting.join(0, Class::Batch).unwrap());
        assert_eq!(setting.join(0, Class::Batch).err(), Some(Refused { retry_after_s: 1 }));
        places.push(setting.join(0, Class::Timely).unwrap());
        assert!(matches!(call(&young), Some(Call::Evicted)) && call(&old).is_none());
        places.push(setting.join(0, Class::Timely).unwrap());
        assert!(matches!(call(&old), Some(Call::Evicted)));
        assert!(setting.join(0, Class::Timely).is_err());
        drop((old, young));
        assert_eq!(setting.line.lengths(), [MAX as u64, 0]);
        drop(places);
        assert!(setting.line.is_clear(Class::Batch));
    }

    #[test]
    fn who_cannot_be_served_in_time_is_refused_at_once() {
        let setting = Setting::new(1);
        let begin = setting.now.get();
        let at = |s: u64| begin + Duration::from_secs(s);
        let _keeps_the_line = setting.join(9, Class::Batch).unwrap();
        // A slot each two seconds.
        for turn in 0..20 {
            setting.now.set(at(2 * turn));
            let place = setting.join(0, Class::Timely).unwrap();
            setting.gate.leave();
            setting.line.offer(&setting.gate, &setting.limit, None, setting.now.get());
            assert!(has_slot(&place));
        }
        let _waiting: Vec<Place<'_>> = (0..4).map(|_| setting.join(0, Class::Timely).unwrap()).collect();
        setting.join(0, Class::Timely).map(drop).expect("ten seconds for five");
        let join = |class, timeout_s| {
            let now = setting.now.get();
            let deadline = now + Duration::from_secs(timeout_s);
            setting.line.join(&setting.limit, 0, class, MAX, now, deadline).map(drop)
        };
        assert_eq!(join(Class::Timely, 9), Err(Refused { retry_after_s: 10 }), "five are in the line");
        assert_eq!(join(Class::Batch, 11), Err(Refused { retry_after_s: 10 }), "all five go before it");
        assert_eq!(join(Class::Batch, 13), Ok(()));
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_call_wakes() {
        let setting = Setting::new(1);
        let place = setting.join(0, Class::Timely).unwrap();
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut called = pin!(place.called());
        assert!(called.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        setting.leave();
        assert_eq!(wakes.0.load(SeqCst), 1);
        assert!(called.poll(&mut Context::from_waker(&waker)).is_ready());
    }

    /// Threads that contend for two slots, each waiting in the line when there is none: nobody waits for ever, and
    /// never are more than two inside.
    #[test]
    fn no_wake_up_is_lost_among_threads() {
        const THREADS: usize = 4;
        let Setting { line, limit, gate, now } = Setting::new(2);
        (0..2).for_each(|_| gate.leave());
        let (line, limit, gate, now) = (&line, &limit, &gate, now.get());
        let enter = &|core: usize| {
            if line.is_clear(Class::Timely) && gate.admit(limit.each()).is_ok() {
                return;
            }
            let deadline = now + Duration::from_secs(3600);
            let place = line.join(limit, core, Class::Timely, MAX, now, deadline).unwrap();
            if place.is_next() && gate.admit(limit.each()).is_ok() {
                return;
            }
            let slot =
                tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(place.called());
            assert!(matches!(slot, Call::Slot(_)));
        };
        std::thread::scope(|scope| {
            for core in 0..THREADS {
                scope.spawn(move || {
                    for _ in 0..500 {
                        enter(core);
                        assert!((1..=2).contains(&gate.in_flight()));
                        gate.leave();
                        line.left(gate, limit);
                    }
                });
            }
        });
        assert_eq!(gate.in_flight(), 0);
        assert_eq!(line.lengths(), [0, 0]);
    }
}
