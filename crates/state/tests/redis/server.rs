//! Real Redis servers: each has a port of its own, and ends with the test, however that ends. Tests of other crates use them, too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test uses what it needs of it")]

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Names another server that speaks Redis' protocol, such as Valkey's, for all tests.
const PROGRAM: &str = "LETHE_TEST_REDIS";
/// What a server says when it can be used.
const READY: &str = "Ready to accept connections";
/// Times that another port is tried when one was taken meanwhile.
const PORTS_TRIED_MAX: usize = 10;

/// A running redis-server or redis-sentinel.
pub struct Server {
    pub port: u16,
    shell: Child,
    /// Its end is the shell's sign to kill the server; the kernel closes it when the test is killed, too.
    alive: ChildStdin,
}

impl Server {
    /// One that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// One that writes all that it acknowledges to a folder.
    pub fn start_durable(folder: &Path, port: u16) -> Self {
        let args = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
        Self::run(&["--port"], port, &args, folder, false, READY)
            .expect("redis-server did not start again on its port")
    }

    /// One that writes all that it acknowledges to a folder of its own.
    pub fn start_synced() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with these arguments, on a free port and in a folder of its own.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_ready(args, READY)
    }

    /// The same for one that says otherwise that it is ready.
    pub fn start_ready(args: &[&str], ready: &str) -> Self {
        Self::try_ports(&["--port"], args, ready)
    }

    /// One that speaks TLS alone.
    pub fn start_with_tls(args: &[&str]) -> Self {
        Self::try_ports(&["--port", "0", "--tls-port"], args, READY)
    }

    fn try_ports(port_args: &[&str], args: &[&str], ready: &str) -> Self {
        let try_port = |_| {
            let folder = tempfile::tempdir().unwrap().keep();
            Self::run(port_args, free_port(), args, &folder, true, ready)
        };
        (0..PORTS_TRIED_MAX)
            .find_map(try_port)
            .expect("redis-server does not start; install it: apt-get install redis-server")
    }

    /// Starts one under a shell that outlives this process for as long as it takes to kill the server and to remove its
    /// folder. The first argument may be the path of a configuration.
    fn run(
        port_args: &[&str],
        port: u16,
        args: &[&str],
        folder: &Path,
        is_removed: bool,
        ready: &str,
    ) -> Option<Self> {
        let has_config = args.first().is_some_and(|first| first.starts_with('/'));
        let (config, args) = args.split_at(usize::from(has_config));
        let script = "\"$PROGRAM\" \"$@\" & read -r _; kill -9 $! 2>/dev/null; wait
            [ -z \"$REMOVED\" ] || rm -rf \"$REMOVED\"";
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(config)
            .args(port_args)
            .args([&port.to_string(), "--bind", "127.0.0.1", "--dir", folder.to_str().unwrap()])
            .args(args)
            .env("PROGRAM", env::var_os(PROGRAM).unwrap_or("redis-server".into()))
            .env("REMOVED", if is_removed { folder.as_os_str() } else { OsStr::new("") })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let alive = shell.stdin.take().unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        let server = Self { port, shell, alive };
        let mut line = String::new();
        while !line.contains(ready) {
            line.clear();
            if output.read_line(&mut line).unwrap() == 0 || line.contains("Failed listening") {
                return None;
            }
        }
        // What it says further must not fill the pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Some(server)
    }

    /// A command, as redis-cli sends it; what it answers.
    pub fn command(&self, args: &[&str]) -> String {
        let output =
            Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills it with SIGKILL.
    pub fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has gone already if this fails.
        let _ = self.alive.write_all(b"\n");
        let _ = self.shell.wait();
    }
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
