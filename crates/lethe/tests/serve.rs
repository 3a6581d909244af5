//! `lethe::serve` as a process of its own: where it listens, and what it still answers when it is asked to leave.

#![allow(clippy::unwrap_used)]

use std::{
    env,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use axum::{Router, routing::get};

/// So long may anything take before a test gives up; nothing here is meant to come near it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Set in the process that serves: where `/slow` reports that it runs, and waits to be let go.
const CONTROL: &str = "LETHE_TEST_CONTROL";

/// Not a test but the program under test, when the others start this binary again.
#[test]
fn worker_process() {
    let Ok(control) = env::var(CONTROL) else { return };
    let slow = async move || {
        let waited = tokio::task::spawn_blocking(move || {
            let mut control = TcpStream::connect(control).unwrap();
            control.write_all(b"started").unwrap();
            control.shutdown(std::net::Shutdown::Write).unwrap();
            control.read_to_end(&mut Vec::new()).unwrap();
        });
        waited.await.unwrap();
        "done"
    };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/slow", get(slow))
        .route("/panic", get(|| async { panic!("on purpose") as &'static str }));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let served = runtime.block_on(lethe::serve(app));
    // A request that was cut off must not keep the process either.
    runtime.shutdown_background();
    served.unwrap();
    std::process::exit(0);
}

struct Worker {
    process: Child,
    address: SocketAddr,
    control: TcpListener,
}

impl Worker {
    /// Starts a worker with `PORT` set to a free port, and waits until it listens.
    fn start() -> Self {
        // A port that was free a moment ago may be taken by now; then the worker ends and another is tried.
        for _ in 0..20 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let control = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut command = Command::new(env::current_exe().unwrap());
            let mut process = configure(&mut command, &control)
                .args(["worker_process", "--exact", "--nocapture"])
                .env("PORT", address.port().to_string())
                .spawn()
                .unwrap();
            let begin = Instant::now();
            while begin.elapsed() < PATIENCE && process.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return Self { process, address, control };
                }
                std::thread::yield_now();
            }
        }
        panic!("no worker came up");
    }

    /// Starts a worker with a listening socket as file descriptor 3, as `sd_listen_fds(3)` has it.
    fn start_with(socket: TcpListener) -> Self {
        let address = socket.local_addr().unwrap();
        let control = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec 3<&0 </dev/null; exec \"$@\"";
        let mut command = Command::new("sh");
        let process = configure(&mut command, &control)
            .args(["-c", script, "sh"])
            .arg(env::current_exe().unwrap())
            .args(["worker_process", "--exact", "--nocapture"])
            .env("PORT", "1")
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .spawn()
            .unwrap();
        Self { process, address, control }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        stream
    }

    /// Waits until a request for `/slow` is being answered. It is let go when what is returned is dropped.
    fn slow_started(&self) -> TcpStream {
        let (mut control, _) = self.control.accept().unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        control.read_to_string(&mut text).unwrap();
        assert_eq!(text, "started");
        control
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Waits until nobody listens at the address any more.
    fn wait_until_refused(&self) {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match TcpStream::connect(self.address) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                _ => std::thread::yield_now(),
            }
        }
        panic!("it still listens");
    }

    fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the worker does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configure<'a>(command: &'a mut Command, control: &TcpListener) -> &'a mut Command {
    for name in ["LISTEN_FDS", "LISTEN_PID", "PORT"] {
        command.env_remove(name);
    }
    command
        .env(CONTROL, control.local_addr().unwrap().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// What comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// One response with a `content-length`, on a connection that stays open.
fn response(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    let whole = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(body.len() == length.parse::<usize>().unwrap())
    };
    while whole(&text) != Some(true) {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    text
}

#[test]
fn a_request_under_way_is_answered_and_new_connections_are_refused() {
    let mut worker = Worker::start();
    let slow = worker.ask("/slow");
    let held = worker.slow_started();
    worker.terminate();
    worker.wait_until_refused();
    assert!(worker.process.try_wait().unwrap().is_none(), "it waits for the request");
    drop(held);
    let answer = rest(slow);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
    assert!(worker.wait().success());
}

#[test]
fn an_idle_connection_does_not_keep_it() {
    let mut worker = Worker::start();
    let mut idle = worker.ask("/");
    assert!(response(&mut idle).ends_with("hello"));
    let unused = worker.connect();
    worker.signal(rustix::process::Signal::INT);
    assert_eq!(rest(idle), "");
    assert_eq!(rest(unused), "");
    assert!(worker.wait().success());
}

#[test]
fn a_request_that_came_before_the_signal_is_answered() {
    let mut worker = Worker::start();
    let mut kept = worker.ask("/");
    response(&mut kept);
    // The worker sees the requests and the signal at the same moment.
    worker.signal(rustix::process::Signal::STOP);
    let new = worker.ask("/");
    write!(kept, "GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    worker.terminate();
    worker.signal(rustix::process::Signal::CONT);
    for stream in [new, kept] {
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer:?}");
    }
    assert!(worker.wait().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut worker = Worker::start();
    let slow = worker.ask("/slow");
    let _held = worker.slow_started();
    worker.terminate();
    worker.wait_until_refused();
    worker.terminate();
    worker.wait();
    let mut slow = slow;
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(answer.is_empty(), "it was cut off");
}

#[test]
fn a_handler_that_panics_is_answered_with_500_and_the_worker_lives_on() {
    let worker = Worker::start();
    let mut stream = worker.ask("/panic");
    let answer = response(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(!answer.contains("on purpose"), "{answer}");
    write!(stream, "GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert!(response(&mut stream).ends_with("hello"), "the connection can be used again");
}

#[test]
fn an_inherited_socket_is_served_and_left_to_others() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut worker = Worker::start_with(socket.try_clone().unwrap());
    let slow = worker.ask("/slow");
    let held = worker.slow_started();
    worker.terminate();
    drop(held);
    assert!(rest(slow).ends_with("done"));
    assert!(worker.wait().success());
    // The socket listens still, and its queue goes to whoever has it.
    let client = TcpStream::connect(worker.address).unwrap();
    let (_, peer) = socket.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}
