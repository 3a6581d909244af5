//! The thread that writes the access log. A disk that is full or slow stops this thread alone: lines wait in a
//! bounded channel, and what does not fit is dropped and counted by the cores.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    access_log::Error,
    batch::{self, Batch, Tray},
    config::AccessLog,
    shard::Count,
};

/// From one attempt to write to a log that cannot be written to the next.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// The same, for one that says that it cannot take anything just now.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// Dropped lines are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long, at the end, lines that wait may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The writer of one gateway. Dropping it does not stop its thread; [`Writer::close`] does.
pub(crate) struct Writer {
    sender: SyncSender<Batch>,
    thread: Thread,
    orders: Arc<Mutex<Orders>>,
    ended: watch::Receiver<()>,
    lost: Arc<Count>,
}

/// What the thread is told to do, beside writing.
#[derive(Default)]
struct Orders {
    /// Go on in this file.
    file: Option<Target>,
    /// Write what is there and end.
    close: bool,
}

/// What is written to, and its name for people.
struct Target {
    file: File,
    name: String,
}

impl Writer {
    /// Opens the log and starts its thread; `None` if there is to be none.
    pub(crate) fn start(log: &AccessLog) -> Result<Option<Self>, Error> {
        let Some(target) = open(log)? else { return Ok(None) };
        let (sender, inbox) = batch::channel();
        let (ending, ended) = watch::channel(());
        let (orders, lost) = (Arc::<Mutex<Orders>>::default(), Arc::<Count>::default());
        let mut scribe = Scribe {
            inbox,
            orders: Arc::clone(&orders),
            target,
            pending: Pending::default(),
            trouble: None,
            lost: Arc::clone(&lost),
            dropped: 0,
            reported: None,
        };
        let run = move || {
            // Dropped at the end, which is how `close` knows.
            let _ending = ending;
            scribe.run();
        };
        let thread = thread::Builder::new().name("access-log".into()).spawn(run).map_err(Error::Start)?;
        Ok(Some(Self { sender, thread: thread.thread().clone(), orders, ended, lost }))
    }

    /// What one core writes into.
    pub(crate) fn tray(&self) -> Tray {
        Tray::new(self.sender.clone(), self.thread.clone())
    }

    /// Opens the log anew, be it the same one that was moved away or another. Lines that wait go to the new one. If it
    /// cannot be opened, the old one is written on. `Off` changes nothing here: cores write no more lines.
    pub(crate) fn reopen(&self, log: &AccessLog) -> Result<(), Error> {
        if let Some(target) = open(log)? {
            self.order(|orders| orders.file = Some(target));
        }
        Ok(())
    }

    /// Lines that the thread itself gave up, beside those that the cores counted.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Writes what waits and ends the thread, or leaves it behind if that takes more than two seconds. The cores must have
    /// handed over all they have. A second call waits for the same end. Cancellation safe.
    pub(crate) async fn close(&self) {
        self.order(|orders| orders.close = true);
        let mut ended = self.ended.clone();
        let ended = async { while ended.changed().await.is_ok() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!("the access log takes no more; lines that waited for it are lost");
        }
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        self.thread.unpark();
    }
}

fn open(log: &AccessLog) -> Result<Option<Target>, Error> {
    match log {
        AccessLog::Off => Ok(None),
        AccessLog::Stdout => {
            let file = io::stdout().as_fd().try_clone_to_owned().map_err(Error::Start)?.into();
            Ok(Some(Target { file, name: "the standard output".into() }))
        }
        AccessLog::File(path) => match open_file(path) {
            Ok(file) => Ok(Some(Target { file, name: path.display().to_string() })),
            Err(source) => Err(Error::Open { path: path.clone(), source }),
        },
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // To open a pipe for writing alone would wait until somebody reads it.
    let is_pipe = path.metadata().is_ok_and(|data| data.file_type().is_fifo());
    OpenOptions::new().read(is_pipe).append(true).create(true).open(path)
}

/// What the thread has in hand.
struct Scribe {
    inbox: Receiver<Batch>,
    orders: Arc<Mutex<Orders>>,
    target: Target,
    pending: Pending,
    /// The log cannot be written, which was said; try again then.
    trouble: Option<Instant>,
    lost: Arc<Count>,
    /// Lines that cores dropped, not reported yet.
    dropped: u64,
    reported: Option<Instant>,
}

/// A batch of which some may be written already.
#[derive(Default)]
struct Pending {
    text: Box<[u8]>,
    written: usize,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        &self.text[self.written..]
    }

    /// Leaves out the rest of a line that was begun. Returns whether there was one.
    fn skip_torn(&mut self) -> bool {
        let is_torn = self.written > 0 && self.text[self.written - 1] != b'\n';
        if is_torn {
            let end =
                self.rest().iter().position(|&byte| byte == b'\n').map_or(self.rest().len(), |at| at + 1);
            self.written += end;
        }
        is_torn
    }

    fn lines(&self) -> u64 {
        self.rest().iter().filter(|&&byte| byte == b'\n').count() as u64
    }
}

impl Scribe {
    fn run(&mut self) {
        loop {
            let closing = self.obey();
            if self.pending.rest().is_empty() && !self.next() {
                self.report(closing);
                if closing {
                    return;
                }
                match self.dropped {
                    0 => thread::park(),
                    _ => thread::park_timeout(REPORT_EVERY),
                }
                continue;
            }
            if let Some(again) = self.trouble
                && !closing
                && Instant::now() < again
            {
                thread::park_timeout(again.saturating_duration_since(Instant::now()));
                continue;
            }
            match self.write() {
                Ok(()) => self.report(false),
                Err(error) if closing && error.kind() != ErrorKind::WouldBlock => return self.give_up(),
                Err(error) => self.bear(&error),
            }
        }
    }

    /// Takes new orders. Returns whether it is to end.
    fn obey(&mut self) -> bool {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = orders.file.take() {
            self.target = target;
            self.trouble = None;
            if self.pending.skip_torn() {
                self.lost.add(1);
            }
        }
        orders.close
    }

    /// Takes the next batch, if there is one.
    fn next(&mut self) -> bool {
        let Ok(batch) = self.inbox.try_recv() else { return false };
        self.dropped += batch.dropped;
        self.pending = Pending { text: batch.text, written: 0 };
        true
    }

    fn write(&mut self) -> io::Result<()> {
        match (&self.target.file).write(self.pending.rest()) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => self.pending.written += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if self.trouble.take().is_some() {
            tracing::info!(log = self.target.name, "the access log is written again");
        }
        Ok(())
    }

    /// Bears with a log that cannot be written now; says so the first time. What waits is kept.
    fn bear(&mut self, error: &io::Error) {
        if error.kind() == ErrorKind::WouldBlock {
            return thread::park_timeout(FULL_PAUSE);
        }
        if self.trouble.is_none() {
            tracing::error!(
                log = self.target.name, %error,
                "the access log cannot be written; lines wait for it as far as there is room, then they are dropped"
            );
        }
        self.trouble = Some(Instant::now() + RETRY_EVERY);
    }

    /// The end has come, and the log cannot be written.
    fn give_up(&mut self) {
        let mut lines = self.pending.lines();
        for batch in self.inbox.try_iter() {
            lines += batch.items;
            self.dropped += batch.dropped;
        }
        self.lost.add(lines);
        let lines = lines + self.dropped;
        tracing::warn!(log = self.target.name, lines, "lines of the access log are lost");
    }

    /// Says how many lines were dropped, now and then.
    fn report(&mut self, now: bool) {
        let is_due = now || self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if self.dropped > 0 && is_due {
            tracing::warn!(
                log = self.target.name,
                lines = self.dropped,
                "dropped lines of the access log, which cannot be written as fast as requests come"
            );
            self.dropped = 0;
            self.reported = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead, BufReader},
        path::PathBuf,
    };

    use super::*;

    fn start(path: impl Into<PathBuf>) -> Writer {
        Writer::start(&AccessLog::File(path.into())).unwrap().unwrap()
    }

    fn close(writer: &Writer) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(writer.close());
    }

    /// Adds the line of this number. Returns whether it was not dropped.
    fn add(tray: &mut Tray, number: usize) -> bool {
        tray.add(1, |text| writeln!(text, "line {number:>100}").unwrap())
    }

    fn numbers(text: &str) -> Vec<usize> {
        text.lines().map(|line| line.strip_prefix("line ").unwrap().trim().parse().unwrap()).collect()
    }

    #[test]
    fn all_lines_of_all_cores_are_written_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::write(&path, "line 0\n").unwrap();
        let writer = start(&path);
        let cores = [1..1001, 1001..2001].map(|range| {
            let mut tray = writer.tray();
            thread::spawn(move || range.for_each(|number| assert!(add(&mut tray, number))))
        });
        cores.into_iter().for_each(|core| core.join().unwrap());
        close(&writer);
        let mut found = numbers(&fs::read_to_string(&path).unwrap());
        assert_eq!(found[0], 0, "what was there stays");
        found.sort_unstable();
        assert_eq!(found, (0..2001).collect::<Vec<_>>());
        close(&writer);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let writer = start(&path);
        let mut tray = writer.tray();
        assert!(add(&mut tray, 1));
        tray.hand_over();
        while fs::metadata(&path).unwrap().len() == 0 {
            thread::yield_now();
        }
        fs::rename(&path, &old).unwrap();
        writer.reopen(&AccessLog::File(path.clone())).unwrap();
        assert!(add(&mut tray, 2));
        // Neither a bad nor no file changes what is written on.
        let missing = AccessLog::File(folder.path().join("missing/access.log"));
        let error = writer.reopen(&missing).unwrap_err().to_string();
        assert!(error.contains("missing/access.log") && error.contains("folder"), "{error}");
        writer.reopen(&AccessLog::Off).unwrap();
        drop(tray);
        close(&writer);
        let read = |path| numbers(&fs::read_to_string(path).unwrap());
        assert_eq!((read(&old), read(&path)), (vec![1], vec![2]));
    }

    #[test]
    fn a_pipe_that_nobody_reads_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let writer = start(&path);
        let mut tray = writer.tray();
        let (mut kept, mut dropped) = (Vec::new(), 0);
        let mut number = 0;
        // The pipe, the batch in hand and the channel fill up, and from then on all is dropped.
        while dropped < 10_000 {
            number += 1;
            if add(&mut tray, number) { kept.push(number) } else { dropped += 1 }
        }
        // Somebody reads again: what was kept comes whole and in order, and is followed by what comes now.
        let pipe = BufReader::new(File::open(&path).unwrap());
        let mut found = pipe.lines().map(|line| numbers(&line.unwrap())[0]);
        // A tray and a half may still wait for the next tick.
        let first = kept.len() - 1000;
        assert_eq!(found.by_ref().take(first).collect::<Vec<_>>(), kept[..first]);
        while !add(&mut tray, number + 1) {
            thread::yield_now();
        }
        kept.push(number + 1);
        drop(tray);
        assert_eq!(found.take(kept.len() - first).collect::<Vec<_>>(), kept[first..]);
        assert_eq!(writer.lost(), 0, "what the cores have dropped they count themselves");
        close(&writer);
    }

    #[test]
    fn lines_survive_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let writer = start("/dev/full");
        let mut tray = writer.tray();
        let mut kept = Vec::new();
        for number in 0..100_000 {
            if add(&mut tray, number) {
                kept.push(number);
            }
        }
        assert!((10_000..100_000).contains(&kept.len()), "as much as there is room for: {}", kept.len());
        writer.reopen(&AccessLog::File(path.clone())).unwrap();
        while fs::metadata(&path).map_or(0, |data| data.len()) == 0 {
            thread::yield_now();
        }
        while !add(&mut tray, 100_000) {
            thread::yield_now();
        }
        kept.push(100_000);
        // The tray waits for room, as it would at the next tick.
        let bytes = kept.len() as u64 * "line \n".len() as u64 + kept.len() as u64 * 100;
        while fs::metadata(&path).unwrap().len() < bytes {
            tray.hand_over();
            thread::yield_now();
        }
        assert_eq!(numbers(&fs::read_to_string(&path).unwrap()), kept);
        close(&writer);
    }

    /// Keeps what is said of the log.
    struct Ear(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Ear {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = event.metadata().level().to_string();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                text += &format!(" {field}={value:?}");
            });
            self.0.lock().unwrap().push(text);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn trouble_is_said_once_and_its_end_too() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: PathBuf| open(&AccessLog::File(path)).unwrap().unwrap();
        let (_sender, inbox) = batch::channel();
        let mut scribe = Scribe {
            inbox,
            orders: Arc::default(),
            target: open("/dev/full".into()),
            pending: Pending { text: (*b"line\n").into(), written: 0 },
            trouble: None,
            lost: Arc::default(),
            dropped: 0,
            reported: None,
        };
        let heard = Arc::<Mutex<Vec<String>>>::default();
        tracing::subscriber::with_default(Ear(Arc::clone(&heard)), || {
            for _ in 0..3 {
                let error = scribe.write().unwrap_err();
                scribe.bear(&error);
            }
            scribe.target = open(folder.path().join("access.log"));
            scribe.write().unwrap();
            scribe.dropped = 7;
            scribe.report(false);
            scribe.dropped = 8;
            scribe.report(false);
        });
        assert!(scribe.pending.rest().is_empty());
        let heard = heard.lock().unwrap();
        let about = |index: usize, words: &[&str]| words.iter().all(|word| heard[index].contains(word));
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert!(about(0, &["ERROR", "/dev/full", "No space left"]), "{heard:?}");
        assert!(about(1, &["INFO", "again"]) && about(2, &["WARN", "lines=7"]), "{heard:?}");
    }

    #[test]
    fn at_the_end_what_cannot_be_written_is_counted() {
        let writer = start("/dev/full");
        let mut tray = writer.tray();
        assert!((0..10).all(|number| add(&mut tray, number)));
        tray.hand_over();
        close(&writer);
        assert_eq!(writer.lost(), 10);
    }

    #[test]
    fn the_rest_of_a_torn_line_is_left_out() {
        for (text, written, wanted, is_torn) in [
            ("one\ntwo\n", 0, "one\ntwo\n", false),
            ("one\ntwo\n", 4, "two\n", false),
            ("one\ntwo\n", 2, "two\n", true),
            ("one\ntwo\n", 7, "", true),
            ("one\ntwo\n", 8, "", false),
        ] {
            let mut pending = Pending { text: text.as_bytes().into(), written };
            assert_eq!(pending.skip_torn(), is_torn, "{text} {written}");
            assert_eq!(pending.rest(), wanted.as_bytes());
        }
    }
}
