//! A real `lethe` process for a test, in a runtime folder and state folder of its own, on free ports.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use lethe_admin::{
    api::{Status, Worker},
    client::Client,
    runtime,
};
use lethe_model::roster::WorkerState;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

use crate::custodian;

/// After so long without the awaited event, a test has failed; the first run builds the shop meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How long nothing is looked at that may have changed without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Folders that outlive one `lethe`, so that another can go on with them. Dropped, whatever still runs there is killed.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix(&custodian::prefix()?).tempdir()? })
    }

    /// The folder, for files of the test.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// `lethe` with these arguments, in this place.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lethe"));
        command.args(arguments).env(custodian::VARIABLE, self.path()).stdin(Stdio::null());
        command
    }

    /// Runs `lethe` with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        Ok(self.command(arguments).output()?)
    }

    /// Runs a verb on the `lethe` of this place to its end. Others may be running on the machine, so it is named.
    pub fn tell(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        Ok(self.command(arguments).arg("--state-dir").arg(self.state()).output()?)
    }

    /// Runs `lethe up` on free ports with `arguments`, and waits until it listens.
    pub async fn up(&self, arguments: &[&str]) -> anyhow::Result<Lethe> {
        self.up_with(arguments, &[]).await
    }

    /// The same with more environment variables.
    pub async fn up_with(&self, arguments: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Lethe> {
        let state = self.state();
        let state = state.to_str().context("the folder's name is UTF-8")?;
        let mut command = self.command(&["up", "--listen", "127.0.0.1:0", "--state-dir", state]);
        command.args(arguments).envs(env.iter().copied());
        self.start(command).await
    }

    /// Runs this `lethe up`, and waits until it listens.
    pub async fn start(&self, mut command: Command) -> anyhow::Result<Lethe> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let output = Output::default();
        output.collect(child.stdout.take());
        output.collect(child.stderr.take());
        let (client, listen) = (Client::new(""), ([0, 0, 0, 0], 0).into());
        let mut lethe = Lethe { child, output, client, listen, folder: self.path().to_owned() };
        let base = self.path().join("lethe");
        let pid = lethe.pid();
        let running = lethe
            .until("lethe listens", async || {
                runtime::running_in(&base).into_iter().find(|running| running.node.pid == pid)
            })
            .await?;
        lethe.client = Client::new(running.control);
        lethe.listen = running.node.listen;
        Ok(lethe)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that has failed may have left something; that of one that has not is an error of `Lethe::down`.
        custodian::end_all(self.path());
    }
}

/// A running `lethe`; killed when dropped.
pub struct Lethe {
    child: Child,
    folder: PathBuf,
    pub output: Output,
    pub client: Client,
    pub listen: SocketAddr,
}

impl Lethe {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `look` finds something; it looks again at each line that `lethe` prints, and now and then without one:
    /// not all that can be seen is told.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
        let mut lines = self.output.lines.subscribe();
        let wait = async {
            loop {
                lines.borrow_and_update();
                if let Some(found) = look().await {
                    return Some(found);
                }
                let closed = *self.output.closed.borrow() == 2;
                if closed || timeout(LOOK_AGAIN, lines.changed()).await.is_ok_and(|told| told.is_err()) {
                    return look().await;
                }
            }
        };
        match timeout(PATIENCE, wait).await {
            Ok(Some(found)) => Ok(found),
            _ => bail!("waited in vain until {what}; lethe printed:\n{}", self.output.text()),
        }
    }

    /// Waits until `count` workers are ready, and none is starting or draining.
    pub async fn ready(&self, count: usize) -> anyhow::Result<Status> {
        self.until(&format!("{count} workers are ready"), async || {
            let status = self.client.status().await.ok()?;
            let ready = status.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count();
            (ready == count && status.workers.len() == count).then_some(status)
        })
        .await
    }

    pub async fn workers(&self) -> anyhow::Result<Vec<Worker>> {
        Ok(self.client.status().await?.workers)
    }

    /// Sends a signal to `lethe` itself.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(pid(self.pid())?, signal)?)
    }

    /// Waits until `lethe` has ended.
    pub async fn ended(mut self) -> anyhow::Result<ExitStatus> {
        let mut closed = self.output.closed.subscribe();
        timeout(PATIENCE, closed.wait_for(|closed| *closed == 2)).await??;
        Ok(self.child.wait()?)
    }

    /// Ends it as Ctrl-C does; it must end well, and leave nothing running of what was started in its place.
    pub async fn down(self) -> anyhow::Result<()> {
        self.signal(Signal::INT)?;
        let (output, folder) = (self.output.clone(), self.folder.clone());
        let status = self.ended().await?;
        if !status.success() {
            bail!("lethe ended with {status}; it printed:\n{}", output.text());
        }
        // Its guard sees its end, and ends.
        for left in custodian::started_in(&folder) {
            let gone = custodian::gone(left.pid).await;
            gone.with_context(|| {
                format!("lethe has ended and left {left:?}; it printed:\n{}", output.text())
            })?;
        }
        Ok(())
    }
}

impl Drop for Lethe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `lethe` has printed.
#[derive(Clone, Default)]
pub struct Output {
    lines: watch::Sender<Vec<String>>,
    /// How many of the two pipes have ended.
    closed: watch::Sender<usize>,
}

impl Output {
    fn collect(&self, pipe: Option<impl Read + Send + 'static>) {
        let (Some(pipe), output) = (pipe, self.clone()) else { return };
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                output.lines.send_modify(|lines| lines.push(line));
            }
            output.closed.send_modify(|closed| *closed += 1);
            output.lines.send_modify(|_| {});
        });
    }

    pub fn text(&self) -> String {
        self.lines.borrow().join("\n")
    }
}

/// A process id as the system calls want it.
pub fn pid(number: u32) -> anyhow::Result<Pid> {
    Pid::from_raw(number.cast_signed()).context("a process id is not 0")
}

/// Kills a process with -9; one that has ended meanwhile is as good.
pub fn kill_9(number: u32) -> anyhow::Result<()> {
    match kill_process(pid(number)?, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the process exists and has not ended.
pub fn alive(number: u32) -> bool {
    // A zombie is not alive, nor one that is being reaped: the state stands after the command's name, proc_pid_stat(5).
    std::fs::read_to_string(format!("/proc/{number}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}
