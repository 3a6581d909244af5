//! A real Redis for a test, on a port and in a folder of its own.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

/// Times that another port is tried when one was taken meanwhile.
const PORTS_TRIED_MAX: usize = 10;

/// A running redis-server, which writes all that it acknowledges; killed when dropped, and when the test is.
pub struct RedisServer {
    pub port: u16,
    shell: Child,
    /// Its end is the shell's sign to kill the server.
    alive: Option<ChildStdin>,
    _folder: TempDir,
}

impl RedisServer {
    pub fn start() -> anyhow::Result<Self> {
        for _ in 0..PORTS_TRIED_MAX {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            if let Some(server) = Self::start_at(port)? {
                return Ok(server);
            }
        }
        bail!("redis-server does not start; install it: apt-get install redis-server")
    }

    /// `None` when the port was taken meanwhile.
    fn start_at(port: u16) -> anyhow::Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("lethe-e2e-redis-").tempdir()?;
        let script = "redis-server \"$@\" & read -r _; kill -9 $! 2>/dev/null; wait";
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh", "--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let alive = shell.stdin.take();
        let mut output = BufReader::new(shell.stdout.take().context("its output")?);
        let server = Self { port, shell, alive, _folder: folder };
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            if output.read_line(&mut line)? == 0 || line.contains("Failed listening") {
                return Ok(None);
            }
        }
        // What it says further must not fill the pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Ok(Some(server))
    }

    /// How many keys it has.
    pub fn keys(&self) -> anyhow::Result<u64> {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string(), "dbsize"]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.alive.take());
        // It has ended, or there is nobody to wait for.
        let _ = self.shell.wait();
    }
}
