//! Runs the programs that fetch: without a terminal, so that none can ask a question that nobody sees, in a process group
//! that is killed when it is given up, and with bounds on its time and on what it may say.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::build;

/// How long a whole fetch may take.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(900);
/// How long a look at a branch or a header may take.
pub(super) const LOOK_TIME_MAX: Duration = Duration::from_secs(30);
/// Most bytes that are kept of what a program prints.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of an error's text that are repeated.
const SAID_BYTES_MAX: u64 = 8 << 10;

/// Why a program did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// It cannot be started.
    Missing(io::Error),
    /// It ended with this, and said that; not yet without what is secret.
    Ended(ExitStatus, String),
    /// It took longer than this.
    Slow(Duration),
}

/// A program that runs; killed with all that it has started when this is dropped.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    /// Starts it; `input` is what it reads.
    pub(super) fn start(mut command: Command, input: bool) -> io::Result<Self> {
        command.stdin(if input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // SAFETY: runs between fork and exec, and makes async-signal-safe system calls only.
        unsafe { command.pre_exec(build::enter) };
        let child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Self { child, group })
    }

    /// Writes `input`, gives what it prints to `take`, and waits for its end.
    pub(super) async fn end<T: Future>(
        mut self,
        input: &[u8],
        take: impl FnOnce(ChildStdout) -> T,
    ) -> Result<T::Output, Failure> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(Failure::Missing(io::ErrorKind::BrokenPipe.into()));
        };
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that ends early says why by its status.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), taken, said) = tokio::join!(write, take(stdout), read_some(stderr, SAID_BYTES_MAX));
        let status = self.child.wait().await.map_err(Failure::Missing)?;
        self.group = None;
        match status.success() {
            true => Ok(taken),
            false => Err(Failure::Ended(status, String::from_utf8_lossy(&said).trim().to_owned())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// Runs it to its end; what it printed. Cancellation ends it.
pub(super) async fn run(command: Command, time_max: Duration) -> Result<Vec<u8>, Failure> {
    run_with(command, None, time_max).await
}

/// The same for one that reads `input`.
pub(super) async fn run_with(
    command: Command,
    input: Option<&[u8]>,
    time_max: Duration,
) -> Result<Vec<u8>, Failure> {
    let running = Running::start(command, input.is_some()).map_err(Failure::Missing)?;
    let end = running.end(input.unwrap_or_default(), |stdout| read_some(stdout, OUTPUT_BYTES_MAX));
    timeout(time_max, end).await.unwrap_or(Err(Failure::Slow(time_max)))
}

/// Reads to the end and keeps so many bytes.
async fn read_some(mut pipe: impl AsyncRead + Unpin, bytes_max: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = (&mut pipe).take(bytes_max).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    kept
}
