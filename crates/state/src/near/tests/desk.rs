//! An engine of numbers, each of which only grows, whose answers and whose feed a test holds back as it likes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Millis,
    clock::ManualClock,
    error::Error,
    feed::{Feed, Notice},
    near::{Bounds, Copied, Copies},
};

pub(super) const START: Millis = 1_700_000_000_000;

/// What is read: a number, and how long it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: u64,
    pub(super) ends_at: Option<Millis>,
    pub(super) due_at: Option<Millis>,
    pub(super) bytes: usize,
}

impl Copied for Number {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn ends_at(&self) -> Option<Millis> {
        self.ends_at
    }

    fn due_at(&self) -> Option<Millis> {
        self.due_at
    }
}

/// The engine, and a worker with near copies of it.
pub(super) struct Desk {
    pub(super) copies: Arc<Copies<Number>>,
    pub(super) clock: ManualClock,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    numbers: HashMap<String, Number>,
    reads: u64,
    /// What answers every read, if it fails.
    failure: Option<fn() -> Error>,
    /// Readings that are held back, oldest first.
    held: Vec<oneshot::Sender<()>>,
    holds: bool,
    follows: u64,
    /// What following says, if it fails.
    deaf: Option<fn() -> Error>,
    feed: Option<mpsc::Sender<Result<Notice, Error>>>,
}

impl Desk {
    /// A desk with copies that are not followed yet.
    pub(super) fn new(bounds: Bounds) -> Self {
        let books = Arc::<Mutex<Books>>::default();
        let clock = ManualClock::new(START);
        let followed = Arc::clone(&books);
        let follow = move || {
            let feed = followed.lock().unwrap().follow();
            async move { feed }.boxed()
        };
        let copies = Arc::new(Copies::with_clock(bounds, Arc::new(clock.clone()), follow));
        Self { copies, clock, books }
    }

    /// One whose copies are followed.
    pub(super) async fn followed(bounds: Bounds) -> Self {
        let desk = Self::new(bounds);
        desk.copies.followed().await.unwrap();
        desk
    }

    /// Reads as a request of the worker does. What the engine says is what it knows when it is asked, however late the answer comes.
    pub(super) fn load(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Number, Error>> + Send + 'static + use<> {
        let (copies, books, name) = (Arc::clone(&self.copies), Arc::clone(&self.books), name.to_owned());
        async move { copies.load(&name, || read(books, name.clone())).await }
    }

    /// The same, past the copies.
    pub(super) fn load_through(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Number, Error>> + Send + 'static + use<> {
        let (copies, books, name) = (Arc::clone(&self.copies), Arc::clone(&self.books), name.to_owned());
        async move { copies.load_through(&name, || read(books, name.clone())).await }
    }

    /// Another worker writes; nobody is told yet. Returns what is there now.
    pub(super) fn write(&self, name: &str) -> u64 {
        let mut books = self.books.lock().unwrap();
        let number = books.numbers.entry(name.into()).or_insert(number(0));
        number.value += 1;
        number.value
    }

    /// Sets what is to be read.
    pub(super) fn set(&self, name: &str, number: Number) {
        self.books.lock().unwrap().numbers.insert(name.into(), number);
    }

    pub(super) fn value(&self, name: &str) -> u64 {
        self.books.lock().unwrap().numbers.get(name).map_or(0, |number| number.value)
    }

    /// Has the feed tell that something has changed, and waits until it was heard.
    pub(super) async fn tell(&self, name: &str) {
        let heard = self.copies.counts().changes + 1;
        self.say(Ok(Notice::Changed(name.into()))).await;
        until(|| self.copies.counts().changes == heard).await;
    }

    /// Has the feed fail, and waits until that was heard.
    pub(super) async fn break_feed(&self) {
        self.say(Err(Error::Unavailable("cut".into()))).await;
        until(|| !self.copies.counts().is_followed).await;
    }

    pub(super) async fn say(&self, notice: Result<Notice, Error>) {
        self.feed().send(notice).await.expect("somebody who follows");
    }

    /// The latest feed, which is closed when nobody reads it any more.
    pub(super) fn feed(&self) -> mpsc::Sender<Result<Notice, Error>> {
        self.books.lock().unwrap().feed.clone().expect("a feed")
    }

    /// What all reads fail with from now on.
    pub(super) fn fail(&self, failure: Option<fn() -> Error>) {
        self.books.lock().unwrap().failure = failure;
    }

    /// What following fails with from now on.
    pub(super) fn deafen(&self, deaf: Option<fn() -> Error>) {
        self.books.lock().unwrap().deaf = deaf;
    }

    /// Whether answers are held back from now on.
    pub(super) fn hold(&self, holds: bool) {
        self.books.lock().unwrap().holds = holds;
    }

    /// Lets the oldest answer go that is held back and still wanted; false when there is none.
    pub(super) fn release(&self) -> bool {
        let mut books = self.books.lock().unwrap();
        while !books.held.is_empty() {
            if books.held.remove(0).send(()).is_ok() {
                return true;
            }
        }
        false
    }

    /// How often the engine was asked.
    pub(super) fn reads(&self) -> u64 {
        self.books.lock().unwrap().reads
    }

    /// How often it was asked to be followed.
    pub(super) fn follows(&self) -> u64 {
        self.books.lock().unwrap().follows
    }
}

impl Books {
    fn follow(&mut self) -> Result<Feed, Error> {
        self.follows += 1;
        if let Some(deaf) = self.deaf {
            return Err(deaf());
        }
        let (feed, notices) = mpsc::channel(16);
        self.feed = Some(feed);
        let notices = stream::unfold(notices, async |mut notices| Some((notices.recv().await?, notices)));
        Ok(Feed::new(notices.boxed()))
    }
}

async fn read(books: Arc<Mutex<Books>>, name: String) -> Result<Number, Error> {
    let (answer, held) = {
        let mut books = books.lock().unwrap();
        books.reads += 1;
        let answer = match books.failure {
            Some(failure) => Err(failure()),
            None => Ok(books.numbers.get(&name).copied().unwrap_or(number(0))),
        };
        let held = books.holds.then(|| {
            let (sender, held) = oneshot::channel();
            books.held.push(sender);
            held
        });
        (answer, held)
    };
    if let Some(held) = held {
        held.await.expect("the desk");
    }
    answer
}

pub(super) fn number(value: u64) -> Number {
    Number { value, ends_at: None, due_at: None, bytes: 8 }
}

/// Lets the other tasks run until something holds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never holds");
}

/// Lets the other tasks run until none of them has anything to do.
pub(super) async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}
