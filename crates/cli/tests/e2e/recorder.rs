//! A real `lethe record`.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// One that is recording. Killed when dropped; the service that it has started goes with it.
pub struct Recorder {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Where a browser is to ask.
    pub address: SocketAddr,
}

impl Recorder {
    /// Starts it with these arguments, in this folder, and waits until it records.
    pub fn start(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lethe"))
            .args(["record", "--start-timeout", "300"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.with_context(|| format!("it does not record: {line}"))?.parse()?;
        Ok(Self { child, out, address })
    }

    /// Asks it to end, and gives what it said since it began.
    pub fn end(self, signal: Signal) -> anyhow::Result<(ExitStatus, String)> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("it has a number")?;
        kill_process(pid, signal)?;
        self.ended()
    }

    /// Waits until it has ended, and gives what it said since it began.
    pub fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let mut said = String::new();
        self.out.read_to_string(&mut said)?;
        Ok((self.child.wait()?, said))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
