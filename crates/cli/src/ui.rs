//! What `lethe up` shows. One thread prints everything, fed by a bounded queue, so that a slow or stopped terminal
//! slows nobody who serves requests. Modes: a live table above scrolling lines, plain lines, JSON lines.

mod canvas;
pub mod frame;
pub mod row;
mod show;
mod terminal;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::stream::BoxStream;
use lethe_admin::api;
use lethe_model::service::ServiceName;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tracing::Level;

use crate::{ansi, events::Event, paint::Paint};

/// Messages that wait to be printed. Events beyond are dropped and counted; build output waits.
const MESSAGES_MAX: usize = 1024;

/// How long the end waits for a reader who does not read.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// How what is shown looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A live table above scrolling lines.
    Table(Paint),
    /// `shop-1 │ text`, events on standard error.
    Plain(Paint),
    /// One JSON object a line.
    Json,
}

impl Mode {
    /// The table when standard output is a terminal that this process is in the foreground of, else plain lines.
    pub fn detect() -> Self {
        let paint = Paint::for_stdout();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let table = io::stdout().is_terminal() && !dumb && terminal::is_foreground();
        if table { Self::Table(paint) } else { Self::Plain(paint) }
    }

    /// The same without a table.
    pub fn without_table(self) -> Self {
        if let Self::Table(paint) = self { Self::Plain(paint) } else { self }
    }
}

/// What is shown once everything has started.
pub struct Source {
    /// All there is to see, now. Called a few times a second on the thread that prints.
    pub status: Box<dyn Fn() -> api::Status + Send>,
    /// What workers print.
    pub lines: BoxStream<'static, api::Line>,
}

/// The thread that prints. Ends, with the terminal as it was, when this is finished or dropped.
pub struct Ui {
    printer: Printer,
    thread: Option<thread::JoinHandle<()>>,
    /// Closed when the thread has ended.
    ended: std_mpsc::Receiver<()>,
}

enum Message {
    Event(Event),
    Build {
        service: ServiceName,
        text: String,
    },
    Attach(Source),
    /// Answered when the terminal is free.
    Leave(oneshot::Sender<()>),
    End,
}

impl Ui {
    /// Starts to print.
    pub fn start(mode: Mode) -> io::Result<Self> {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let printer = Printer { sender, lost: Arc::default() };
        let lost = Arc::clone(&printer.lost);
        let (end, ended) = std_mpsc::sync_channel::<()>(0);
        let thread = thread::Builder::new().name("ui".into()).spawn(move || {
            show::run(mode, messages, &lost);
            drop(end);
        })?;
        Ok(Self { printer, thread: Some(thread), ended })
    }

    /// What others print with.
    pub fn printer(&self) -> Printer {
        self.printer.clone()
    }

    /// Shows workers and their lines from now on; in [`Mode::Table`] the table appears.
    pub fn attach(&self, source: Source) {
        self.printer.send(Message::Attach(source));
    }

    /// Prints what waits, leaves the terminal as it was, and ends. A reader who stopped reading, as a terminal after
    /// Ctrl-S, is not waited for longer than a few seconds.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // With the queue full of what nobody reads, the end is not waited for either.
        if self.printer.send_within(FINISH_MAX, Message::End) {
            let _ = self.ended.recv_timeout(FINISH_MAX);
        }
        if thread.is_finished() {
            // If it panicked, that was shown, and the terminal is as it was.
            let _ = thread.join();
        }
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.end();
    }
}

/// Prints from anywhere in the process. Cheap to clone.
#[derive(Clone)]
pub struct Printer {
    sender: mpsc::Sender<Message>,
    lost: Arc<AtomicU64>,
}

impl Printer {
    /// Prints something a person should know.
    pub fn say(&self, text: impl Into<String>) {
        self.event(Event::new(Level::INFO, text));
    }

    /// Prints an event. Never waits: when too many wait to be printed it is counted instead.
    pub fn event(&self, event: Event) {
        match self.sender.try_send(Message::Event(event)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
            Err(TrySendError::Closed(message)) => after_the_end(&message),
        }
    }

    /// Prints a line of a build; waits while too many wait to be printed.
    pub fn build(&self, service: &ServiceName, text: impl Into<String>) {
        self.send(Message::Build { service: service.clone(), text: text.into() });
    }

    /// Leaves the terminal to another process: if there is a table it stays as it is now, and nothing more is shown.
    /// Cancellation safe. A reader who stopped reading is not waited for longer than a few seconds.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.sender.send(Message::Leave(done)).await.is_ok() {
            let _ = tokio::time::timeout(FINISH_MAX, left).await;
        }
    }

    fn send(&self, message: Message) {
        self.send_within(Duration::MAX, message);
    }

    /// Whether the message found its place in time. May be called within a runtime, where tokio's own blocking send
    /// must not be.
    fn send_within(&self, patience: Duration, mut message: Message) -> bool {
        let began = Instant::now();
        loop {
            message = match self.sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(message)) => message,
            };
            if began.elapsed() > patience {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The thread has ended: whoever still has something to say says it plainly.
#[allow(clippy::print_stderr, reason = "there is no other place left")]
fn after_the_end(message: &Message) {
    if let Message::Event(event) = message {
        eprintln!("lethe │ {}", ansi::for_stderr(&event.line()));
    }
}
