//! The loop of the thread that prints: messages, workers' lines and ticks in, text out.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use lethe_admin::api;
use lethe_supervisor::logs;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::Level;

use super::{
    Message, Mode, Source,
    canvas::Canvas,
    frame::{Line, compose},
    row::Prefix,
    terminal,
};
use crate::{ansi, events::Event, paint::Paint};

/// Lines kept to be shown again when the terminal's size changes; more than the rows of any.
const LINES_MAX: usize = 500;

/// Between two looks at the workers.
const REFRESH: Duration = Duration::from_millis(250);

/// Between two frames at least, however many lines come.
const FRAME_GAP: Duration = Duration::from_millis(40);

/// Lines of workers printed at the end, of those that were not printed yet.
const LAST_LINES_MAX: usize = 10_000;

/// Prints until [`Message::End`], on this thread.
pub(super) fn run(mode: Mode, messages: Receiver<Message>, lost: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(Show::new(mode).run(messages, lost)),
        Err(error) => tracing::error!(%error, "nothing can be shown"),
    }
    terminal::give_back();
}

struct Show {
    mode: Mode,
    prefix: Prefix,
    /// Set when standard output has no reader any more; then nothing is printed.
    broken: bool,
    lines: VecDeque<Line>,
    canvas: Canvas,
    status: Option<Box<dyn Fn() -> api::Status + Send>>,
    last_status: Option<api::Status>,
}

impl Show {
    fn new(mode: Mode) -> Self {
        Self {
            mode,
            prefix: Prefix::default(),
            broken: false,
            lines: VecDeque::new(),
            canvas: Canvas::default(),
            status: None,
            last_status: None,
        }
    }

    async fn run(mut self, mut messages: Receiver<Message>, lost: &AtomicU64) {
        let mut coming: BoxStream<'static, api::Line> = futures_util::stream::pending().boxed();
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut suspend = signals(SignalKind::from_raw(libc::SIGTSTP), self.mode);
        let mut frame_due: Option<Instant> = None;
        loop {
            let due = frame_due.unwrap_or_else(|| Instant::now() + REFRESH);
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(Message::Event(event)) => self.event(&event),
                    Some(Message::Build { service, text }) => self.build(service.as_str(), &text),
                    Some(Message::Attach(source)) => coming = self.attach(source),
                    Some(Message::Leave(done)) => {
                        self.leave();
                        let _ = done.send(());
                    }
                    Some(Message::End) | None => break,
                },
                () = sleep_until(due), if frame_due.is_some() => {
                    self.draw();
                    frame_due = None;
                    continue;
                }
                _ = ticks.tick(), if self.table_is_on() => self.look(),
                () = received(&mut suspend) => self.suspend(),
                line = coming.next() => match line {
                    Some(line) => self.line(&line),
                    None => coming = futures_util::stream::pending().boxed(),
                },
            }
            self.say_lost(lost);
            if self.table_is_on() {
                frame_due.get_or_insert(Instant::now() + FRAME_GAP);
            }
        }
        for _ in 0..LAST_LINES_MAX {
            let Some(Some(line)) = coming.next().now_or_never() else { break };
            self.line(&line);
        }
        self.look();
        self.draw();
    }

    fn table_is_on(&self) -> bool {
        self.status.is_some()
    }

    fn attach(&mut self, source: Source) -> BoxStream<'static, api::Line> {
        if let Mode::Table(paint) = self.mode {
            match terminal::take() {
                Ok(()) => self.status = Some(source.status),
                Err(_) => self.mode = Mode::Plain(paint),
            }
        }
        source.lines
    }

    fn look(&mut self) {
        if let Some(status) = &self.status {
            self.last_status = Some(status());
        }
    }

    fn draw(&mut self) {
        let (Some(status), Mode::Table(paint)) = (&self.last_status, self.mode) else { return };
        let size = terminal::size();
        let rows = compose(status, self.lines.iter(), size, SystemTime::now(), paint);
        let text = self.canvas.update(size, rows);
        let written = terminal::write(&text);
        self.note(written);
    }

    /// Ctrl-Z: the shell gets its terminal back, until `fg`.
    fn suspend(&mut self) {
        terminal::give_back();
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        // Here again after SIGCONT. With `bg` the terminal is not ours any more.
        if self.table_is_on() && (!terminal::is_foreground() || terminal::take().is_err()) {
            self.plain();
        }
        self.canvas.forget();
    }

    /// Lines between those of another process's table would tear it.
    fn leave(&mut self) {
        if self.table_is_on() {
            self.look();
            self.draw();
            terminal::give_back();
            self.plain();
            self.broken = true;
        }
    }

    fn plain(&mut self) {
        if let Mode::Table(paint) = self.mode {
            self.mode = Mode::Plain(paint);
            self.status = None;
            self.last_status = None;
        }
    }

    fn line(&mut self, line: &api::Line) {
        match self.mode {
            Mode::Json => match serde_json::to_string(line) {
                Ok(json) => self.print(&json),
                Err(error) => tracing::error!(%error, "a line could not be shown"),
            },
            Mode::Table(paint) | Mode::Plain(paint) => {
                self.text(line.instance.as_str(), line.source, &line.text, paint);
            }
        }
    }

    fn build(&mut self, service: &str, text: &str) {
        match self.mode {
            Mode::Json => {
                let at = lethe_admin::timestamp::Timestamp::from(SystemTime::now());
                let object =
                    serde_json::json!({ "at": at, "service": service, "source": "build", "text": text });
                self.print(&object.to_string());
            }
            Mode::Table(paint) | Mode::Plain(paint) => self.text(service, logs::Source::Stdout, text, paint),
        }
    }

    fn event(&mut self, event: &Event) {
        match self.mode {
            Mode::Json => self.print(&event.json().to_string()),
            Mode::Plain(paint) if event.level < Level::INFO => {
                let prefix = self.prefix.of("lethe", logs::Source::Lethe, paint);
                // Standard error may be closed; there is no other place to say so.
                let text = prefixed(&prefix, &ansi::for_stderr(&event.line()));
                let _ = writeln!(io::stderr(), "{text}");
            }
            Mode::Table(paint) | Mode::Plain(paint) => {
                self.text("lethe", logs::Source::Lethe, &event.line(), paint);
            }
        }
    }

    fn say_lost(&mut self, lost: &AtomicU64) {
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            self.event(&Event::new(Level::WARN, format!("{count} events came too fast to be shown")));
        }
    }

    fn text(&mut self, name: &str, source: logs::Source, text: &str, paint: Paint) {
        let prefix = self.prefix.of(name, source, paint);
        // A file or a pipe gets what was printed, byte for byte; a terminal what cannot harm it.
        let raw = matches!(self.mode, Mode::Plain(_)) && !paint.on && !is_terminal();
        let text = if raw { text.to_owned() } else { ansi::clean(text, paint.on) };
        if !self.table_is_on() {
            self.print(&prefixed(&prefix, &text));
        }
        if matches!(self.mode, Mode::Table(_)) {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back(Line { prefix, indent: self.prefix.columns(), text });
        }
    }

    fn print(&mut self, line: &str) {
        if !self.broken {
            let written = terminal::write(&format!("{line}\n"));
            self.note(written);
        }
    }

    /// A reader who has gone is no reason to stop serving.
    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.broken = true;
            self.plain();
            let _ = writeln!(io::stderr(), "lethe │ nothing more is shown: {error}");
        }
    }
}

/// Each line of it after the prefix: what a worker printed last, say, is of the same event.
fn prefixed(prefix: &str, text: &str) -> String {
    format!("{prefix}{}", text.replace('\n', &format!("\n{prefix}")))
}

fn is_terminal() -> bool {
    use std::io::IsTerminal;
    io::stdout().is_terminal()
}

/// The signal, where a table makes it necessary to know it; otherwise it keeps its usual effect.
fn signals(kind: SignalKind, mode: Mode) -> Option<Signal> {
    matches!(mode, Mode::Table(_)).then(|| signal(kind).ok()).flatten()
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
