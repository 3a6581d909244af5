//! Runs a service's `build` command before its first worker, line by line to whoever watches.

use std::{
    collections::VecDeque,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use lethe_admin::stop::{Stop, Wish};
use lethe_model::service::ServiceName;
use lethe_supervisor::descriptors;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    process::{Child, Command},
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::config;

/// Last lines of a failed build that its error repeats.
const TAIL_LINES: usize = 30;
/// Lines read ahead of whoever watches.
const LINES_AHEAD: usize = 64;
/// A longer line is cut into several.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// How long lines are read after the command has ended: what it has left running may keep its output open for ever. All else
/// has been written by then, and only a machine with too much to do takes seconds to read it.
const LAST_LINES_WAIT: Duration = Duration::from_secs(5);
/// How long a build that is to stop may take to remove what it has half made, before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command could not be started.
    #[error("{service}: the build command `{command}` cannot be started")]
    Start {
        /// The service.
        service: ServiceName,
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("{service}: the build failed ({status}); its command: {command}\n{tail}")]
    Failed {
        /// The service.
        service: ServiceName,
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        tail: String,
    },
    /// It took longer than it may.
    #[error(
        "{service}: the build was not done after {after:?} and was ended; `build-timeout` in lethe.toml allows more; its command: {command}\n{tail}"
    )]
    Slow {
        /// The service.
        service: ServiceName,
        /// The command.
        command: String,
        /// What it was allowed.
        after: Duration,
        /// The last lines that it printed.
        tail: String,
    },
    /// `lethe` is to stop.
    #[error("stopped before everything was built")]
    Stopped,
}

impl Error {
    /// The same, with the lines that it repeats as `shown` gives them.
    pub(crate) fn shown(mut self, shown: impl FnOnce(&str) -> String) -> Self {
        if let Self::Failed { tail, .. } | Self::Slow { tail, .. } = &mut self {
            *tail = shown(tail);
        }
        self
    }
}

/// Runs the build and gives each line it prints to `watch`, until it ends or `stop` is turned: then its
/// processes are asked to end, and killed when they do not or when `stop` is turned further. Dropping the future kills
/// them.
pub async fn run(
    service: &ServiceName,
    order: &config::Build,
    stop: &Stop,
    mut watch: impl FnMut(&str),
) -> Result<(), Error> {
    let shown = &order.shown();
    let start = |source| Error::Start { service: service.clone(), command: shown.clone(), source };
    let mut build = Build::start(order).map_err(start)?;
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let keep = |line: String| {
        watch(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    };
    let status = tokio::select! {
        status = build.end(keep) => Some(status.map_err(start)?),
        () = stop.asked(Wish::Drain) => {
            build.stop(stop).await;
            return Err(Error::Stopped);
        }
        () = sleep(order.timeout) => None,
    };
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let (service, command, tail) = (service.clone(), shown.clone(), Vec::from(tail).join("\n"));
    Err(match status {
        Some(status) => Error::Failed { service, command, status, tail },
        None => {
            build.stop(stop).await;
            Error::Slow { service, command, after: order.timeout, tail }
        }
    })
}

/// A build that runs. Dropped before its end, all its processes are killed.
struct Build {
    child: Child,
    /// The process group of the child; `None` once the child is reaped, when the number may become another's.
    group: Option<Pid>,
    lines: mpsc::Receiver<String>,
}

impl Build {
    fn start(order: &config::Build) -> io::Result<Self> {
        let (program, arguments) = order.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&order.directory).kill_on_drop(true);
        for name in &order.withheld {
            command.env_remove(name);
        }
        // One pipe for both, so that what it says stays in the order in which it was said.
        let (output, stdout) = io::pipe()?;
        let stderr = stdout.try_clone()?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // SAFETY: runs between fork and exec, and makes async-signal-safe system calls only.
        unsafe { command.pre_exec(enter) };
        let output = pipe::Receiver::from_owned_fd(output.into())?;
        let child = command.spawn()?;
        // It has ends of the pipe of its own, which would keep it open.
        drop(command);
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        tokio::spawn(read_lines(output, sender));
        Ok(Self { child, group, lines })
    }

    /// Gives each line to `keep`; returns when the command has ended.
    async fn end(&mut self, mut keep: impl FnMut(String)) -> io::Result<ExitStatus> {
        let status = loop {
            tokio::select! {
                biased;
                Some(line) = self.lines.recv() => keep(line),
                status = self.child.wait() => break status?,
            }
        };
        self.group = None;
        let rest = async {
            while let Some(line) = self.lines.recv().await {
                keep(line);
            }
        };
        let _ = timeout(LAST_LINES_WAIT, rest).await;
        Ok(status)
    }

    /// Ends all its processes. They are gone when their output is at its end.
    async fn stop(&mut self, stop: &Stop) {
        self.signal(Signal::TERM);
        let gone = async { while self.lines.recv().await.is_some() {} };
        tokio::select! {
            _ = timeout(STOP_WAIT, gone) => {}
            () = stop.asked(Wish::Now) => {}
        }
    }

    fn signal(&self, signal: Signal) {
        let _ = self.group.map(|group| kill_process_group(group, signal));
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Leaves the terminal, so that Ctrl-C reaches `lethe` alone, which ends the build in order, and so that a question for a
/// password fails at once: nobody would see it. If `lethe` is killed, the command is told.
pub(crate) fn enter() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    descriptors::restore()?;
    Ok(())
}

async fn read_lines(pipe: pipe::Receiver, sender: mpsc::Sender<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if sender.send(text).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(script: &str, timeout: Duration) -> config::Build {
        let command = ["sh", "-c", script].map(String::from).to_vec();
        // What every test has in its environment.
        let withheld = ["CARGO_PKG_NAME".to_owned()].into();
        config::Build { command, directory: "/".into(), text: script.into(), timeout, withheld }
    }

    async fn build_until(
        script: &str,
        stop: &Stop,
        mut watch: impl FnMut(&str),
    ) -> (Result<(), Error>, Vec<String>) {
        let service = ServiceName::new("web").unwrap();
        let order = order(script, crate::config::BUILD_TIMEOUT_DEFAULT);
        let mut lines = Vec::new();
        let keep = |line: &str| {
            watch(line);
            lines.push(line.to_owned());
        };
        let result = run(&service, &order, stop, keep).await;
        (result, lines)
    }

    async fn build(script: &str) -> (Result<(), Error>, Vec<String>) {
        build_until(script, &Stop::new(), |_| {}).await
    }

    fn lives(pid: &str) -> bool {
        // A zombie has no command line any more.
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    #[tokio::test]
    async fn shows_its_lines() {
        let (result, lines) = build("echo one; echo two; echo $CARGO_PKG_NAME").await;
        assert!(result.is_ok());
        assert_eq!(lines, ["one", "two", ""], "what is withheld is not there");
    }

    #[test]
    fn people_are_shown_the_program_alone() {
        for (text, shown) in [
            ("make", "make"),
            ("cargo build --release", "cargo …"),
            ("TOKEN=s3cret A='x y' ./build.sh", "./build.sh …"),
            ("(TOKEN=s3cret; make)", "…"),
            ("curl -u me:s3cret https://h | sh", "curl …"),
            ("https://me:s3cret@h", "…"),
            ("echo 'unclosed s3cret", "…"),
            ("", "…"),
        ] {
            assert_eq!(order(text, Duration::ZERO).shown(), shown, "{text}");
        }
    }

    #[tokio::test]
    async fn failure_repeats_the_last_lines() {
        let (result, lines) = build("seq 100; echo wrong >&2; echo why; TOKEN=s3cret exit 3").await;
        let error = result.unwrap_err().to_string();
        assert_eq!(lines[98..], ["99", "100", "wrong", "why"], "in the order in which it was said");
        assert!(!error.contains("s3cret"), "{error}");
        assert!(error.contains("exit status: 3") && error.contains("wrong"), "{error}");
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended_with_all_it_has_started() {
        let service = ServiceName::new("web").unwrap();
        let script = "sleep 600 & echo $!; wait";
        let order = order(script, Duration::from_millis(300));
        let mut child = String::new();
        let error = run(&service, &order, &Stop::new(), |line| child = line.into()).await.unwrap_err();
        assert!(
            matches!(error, Error::Slow { .. }) && error.to_string().contains("build-timeout"),
            "{error}"
        );
        while lives(&child) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_it_leaves_running_is_not_waited_for() {
        let (result, lines) = build("sleep 600 & echo $!; echo built").await;
        assert!(result.is_ok());
        assert_eq!(lines[1], "built");
        assert!(lives(&lines[0]), "a daemon that a build has started is its own affair");
        let daemon = Pid::from_raw(lines[0].parse().unwrap()).unwrap();
        rustix::process::kill_process(daemon, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let (result, lines) = build("head -c 100000 /dev/zero | tr '\\0' x").await;
        assert!(result.is_ok());
        assert_eq!(lines.concat().len(), 100_000);
        assert!(lines.iter().all(|line| line.len() as u64 <= LINE_BYTES_MAX));
    }

    #[tokio::test]
    async fn stopped_it_may_clean_up_and_nothing_of_it_is_left() {
        let stop = Stop::new();
        let script =
            "(trap 'echo cleaned >&2; exit' TERM; echo ready; while :; do sleep 0.01; done) & sleep 600";
        let folder = tempfile::tempdir().unwrap();
        let cleaned = folder.path().join("cleaned");
        let script = script.replace(">&2", &format!("> {}", cleaned.display()));
        let turned = stop.clone();
        let watch = move |_: &str| turned.ask(Wish::Drain);
        let (result, _) = build_until(&script, &stop, watch).await;
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
        assert_eq!(std::fs::read_to_string(cleaned).unwrap(), "cleaned\n");
    }

    #[tokio::test]
    async fn stopped_twice_it_is_killed() {
        let stop = Stop::new();
        let turned = stop.clone();
        let mut stubborn = String::new();
        let watch = |line: &str| {
            stubborn = line.into();
            turned.ask(Wish::Now);
        };
        let script = "trap '' TERM; sleep 600 & echo $!; wait; wait; wait";
        let (result, _) = build_until(script, &stop, watch).await;
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
        while lives(&stubborn) {
            tokio::task::yield_now().await;
        }
    }
}
