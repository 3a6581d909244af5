//! Follows the table of revocations: reads what is there, hears what comes, and begins again when the feed fails.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use lethe_state::{
    Revision,
    error::Error as StateError,
    feed::Notice,
    revocations::{TABLE, is_of_session},
    tables::{Page, Scan, Tables},
};
use tokio::time::{Instant, sleep, timeout};

use super::Inner;

/// How long to wait before the table is followed again; twice as long after each failure, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such wait.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long to wait when the table has more rows than are kept, or the engine tells no changes at all.
const PAUSE_LONG: Duration = Duration::from_secs(60);
/// How long one call of the engine may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A feed that lived for so long was a good one: the next try comes soon.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// Why a feed was given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the engine failed")]
    State(#[from] StateError),
    #[error("the engine did not answer in time")]
    Late,
    #[error("there are more than {} revocations", super::ROWS_MAX)]
    Full,
    #[error("nobody wants to know any more")]
    Unwanted,
}

/// Follows until nobody wants to know any more.
pub(super) async fn follow(inner: Weak<Inner>) {
    let (mut pause, mut is_said) = (PAUSE_MIN, false);
    loop {
        let began = Instant::now();
        let Some(tables) = inner.upgrade().map(|inner| Arc::clone(&inner.tables)) else { return };
        let lost = listen(&inner, &*tables).await;
        let Some(strong) = inner.upgrade() else { return };
        let followed = strong.read().follows();
        strong.write(super::Book::close);
        drop(strong);
        if followed || began.elapsed() > GOOD_LIFE {
            (pause, is_said) = (PAUSE_MIN, false);
        }
        let is_hopeless = matches!(lost, Lost::Full | Lost::State(StateError::Unsupported { .. }));
        if !is_said {
            let error = crate::problem::chain(&lost);
            tracing::warn!(
                error,
                "revocations are not heard of: what is signed is checked in the state tier each time"
            );
            is_said = true;
        }
        sleep(if is_hopeless { PAUSE_LONG } else { pause }).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// A row that was told of and is to be read, and how much had been heard by then.
type Told = (Arc<str>, u64);

/// What is read of a row.
type Found = (Told, Option<Revision>);

/// Listens to one feed until it is lost.
async fn listen(inner: &Weak<Inner>, tables: &dyn Tables) -> Lost {
    let mut feed = match in_time(tables.follow(TABLE)).await {
        Ok(feed) => feed,
        Err(lost) => return lost,
    };
    // While the rows are read, the feed must be heard, or it would overflow.
    let mut page: Option<BoxFuture<'_, Result<Page, Lost>>> = Some(read_page(tables, None));
    let mut wanted: VecDeque<Told> = VecDeque::new();
    let mut row: Option<BoxFuture<'_, Result<Found, Lost>>> = None;
    loop {
        if row.is_none() {
            row = wanted.pop_front().map(|told| read_row(tables, told));
        }
        let step = tokio::select! {
            // What is told counts before what was read.
            biased;
            notice = feed.next() => match notice {
                Ok(notice) => hear(inner, notice, &mut wanted),
                Err(error) => Err(Lost::State(error)),
            },
            found = next(&mut page) => match found.and_then(|page| note(inner, page)) {
                Ok(after) => {
                    page = after.map(|after| read_page(tables, Some(after)));
                    Ok(())
                }
                Err(lost) => Err(lost),
            },
            found = next(&mut row) => {
                row = None;
                found.and_then(|((key, told), revision)| with(inner, |book| book.learn(&key, told, revision)))
            }
        };
        if let Err(lost) = step {
            return lost;
        }
    }
}

/// Notes what was told.
fn hear(inner: &Weak<Inner>, notice: Notice, wanted: &mut VecDeque<Told>) -> Result<(), Lost> {
    match notice {
        Notice::Beat => with(inner, super::Book::beat),
        Notice::Changed(key) => {
            let told = with(inner, |book| book.tell(&key))?.map_err(|_| Lost::Full)?;
            // Of a session there is no more to know than that there is a row.
            if !is_of_session(&key) {
                wanted.push_back((key, told));
            }
            if wanted.len() > super::ROWS_MAX { Err(Lost::Full) } else { Ok(()) }
        }
    }
}

/// Notes a page; says where the next one begins. After the last one, the book can be relied on.
fn note(inner: &Weak<Inner>, page: Page) -> Result<Option<String>, Lost> {
    with(inner, |book| {
        for row in &page.rows {
            book.find(&row.key, row.revision).map_err(|_| Lost::Full)?;
        }
        if page.next.is_none() {
            book.open();
        }
        Ok(page.next)
    })?
}

fn with<T>(inner: &Weak<Inner>, change: impl FnOnce(&mut super::Book) -> T) -> Result<T, Lost> {
    inner.upgrade().map(|inner| inner.write(change)).ok_or(Lost::Unwanted)
}

/// The output of a future, if there is one; else it waits for ever.
async fn next<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

fn read_page(tables: &dyn Tables, after: Option<String>) -> BoxFuture<'_, Result<Page, Lost>> {
    Box::pin(async move {
        let scan = Scan { after, ..Scan::default() };
        in_time(tables.scan(TABLE, &scan)).await
    })
}

fn read_row(tables: &dyn Tables, (key, told): Told) -> BoxFuture<'_, Result<Found, Lost>> {
    Box::pin(async move {
        let row = in_time(tables.get(TABLE, &key)).await?;
        Ok(((key, told), row.map(|row| row.revision)))
    })
}

async fn in_time<T>(call: impl Future<Output = Result<T, StateError>>) -> Result<T, Lost> {
    Ok(timeout(CALL_TIMEOUT, call).await.map_err(|_| Lost::Late)??)
}
