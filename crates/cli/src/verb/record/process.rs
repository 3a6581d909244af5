//! The service that is recorded, on this machine as it is: one process with a port, in a group of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// Between two looks whether it listens.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The process, and those that it has started. They are killed when this is dropped.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    address: SocketAddr,
}

impl Process {
    /// Starts it, and waits until it listens. What it prints goes to standard error.
    pub(super) async fn start(
        command: &[String],
        directory: &Path,
        env: Vec<(String, String)>,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("there is no program")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let printed = io::stderr().as_fd().try_clone_to_owned()?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(directory)
            .envs(env)
            .env("PORT", port.to_string())
            .env("LETHE_INSTANCE", "recorded-1")
            .stdin(Stdio::null())
            .stdout(printed)
            .process_group(0)
            .kill_on_drop(true);
        // SAFETY: between fork and exec, only a system call is made. The thread that starts it lives as long as this process.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let mut process = Self { child, group, address };
        process.listens(limit).await?;
        Ok(process)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has ended, and says how. Cancellation safe.
    pub(super) async fn ended(&mut self) -> String {
        let ended = self.child.wait().await;
        self.kill();
        match ended {
            Ok(status) => told(status),
            Err(error) => error.to_string(),
        }
    }

    /// Ends it, and all that it has started.
    pub(super) async fn end(mut self) {
        self.signal(Signal::TERM);
        let _ = timeout(super::service::END_MAX, self.child.wait()).await;
    }

    /// Waits until it does. `localhost` is either of two addresses.
    async fn listens(&mut self, limit: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        let port = self.address.port();
        loop {
            for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                self.address = SocketAddr::from((ip, port));
                if TcpStream::connect(self.address).await.is_ok() {
                    return Ok(());
                }
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the service did not start: {}", told(status));
            }
            if Instant::now() > end {
                bail!(
                    "the service does not listen at 127.0.0.1:$PORT after {} s; start it yourself, and pass --url",
                    limit.as_secs()
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Kills what is left of the group, once: its number may be somebody else's later.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        // Whoever has ended already needs none.
        let _ = self.group.map(|group| kill_process_group(group, signal));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn told(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signal) => format!("it was ended by {}", crate::signal::name(signal)),
        None => format!("it ended with status {}", status.code().unwrap_or_default()),
    }
}
