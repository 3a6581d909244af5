//! Workers as processes of their own: one leaves what it was asked for most to the next, which has it before it listens.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
};

use axum::{Router, extract, routing::get};

use super::{socket::Daemon, *};

/// Set in the process that serves.
const IS_WORKER: &str = "LETHE_TEST_CACHE_WORKER";

/// Not a test but the program under test, when the other one starts this binary again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_process() {
    if env::var_os(IS_WORKER).is_none() {
        return;
    }
    let answer = async |extract::State(state): extract::State<State>| {
        let cache = state.cache::<u32>("numbers").fresh(60 * MINUTE);
        let value = cache.get_or("k", async || Ok::<_, Failed>(7)).await?;
        let Counts { near, found, computed, .. } = cache.counts();
        Ok::<_, Error>(format!("{value} near {near} found {found} computed {computed}"))
    };
    let state = State::from_env().unwrap();
    lethe::serve(Router::new().route("/", get(answer)).with_state(state)).await.unwrap();
    std::process::exit(0);
}

struct Worker {
    process: Child,
    address: SocketAddr,
}

impl Worker {
    /// One that listens.
    fn start(daemon: &Daemon) -> Self {
        // A port that was free a moment ago may be taken by now; then the worker ends and another is tried.
        loop {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut process = Command::new(env::current_exe().unwrap())
                .args(["processes::worker_process", "--exact", "--nocapture"])
                .env(IS_WORKER, "1")
                .env("LETHE_STATE", daemon.url())
                .env("PORT", address.port().to_string())
                .spawn()
                .unwrap();
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return Self { process, address };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn ask(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    /// Asks it to leave, and waits until it has.
    fn leave(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Also when no other worker is left meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_has_what_the_last_one_was_asked_for() {
    let daemon = Daemon::start();
    let attempt = move || {
        let old = Worker::start(&daemon);
        for _ in 0..100 {
            assert!(old.ask().starts_with("7 "));
        }
        old.leave();
        let new = Worker::start(&daemon);
        let first = new.ask();
        new.leave();
        first
    };
    tokio::task::spawn_blocking(move || {
        // On a busy machine a worker may begin without having got so far.
        while attempt() != "7 near 1 found 0 computed 0" {}
    })
    .await
    .unwrap();
}
