//! What the supervisor's tests run: a worker with many habits, the guard, and a small `lethe` that is killed.
//! The first argument names the habit; most serve HTTP on `$PORT` when they are done with it.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::{
        fd::FromRawFd,
        unix::{fs::FileExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lethe_model::{roster::Protocol, service::ServiceName};
use lethe_supervisor::{
    resources::Resources,
    service::{Listener, Spec},
    supervisor::{Config, Supervisor, guard},
};

/// The name that it was started by.
fn own_name() -> PathBuf {
    env::args_os().next().unwrap().into()
}

/// A guard that only writes down what it is told, beside the link by which it was started.
fn scribe() {
    let mut book = fs::File::create(own_name().with_extension("book")).unwrap();
    io::copy(&mut io::stdin(), &mut book).unwrap();
}

fn main() {
    let mut arguments = env::args().skip(1);
    let habit = arguments.next().unwrap();
    let argument = arguments.next().unwrap_or_default();
    match habit.as_str() {
        "guard" if own_name().ends_with("scribe") => scribe(),
        "guard" => exit(guard()),
        "lethe" => lethe(),
        "serve" => serve(own_listener(), || true),
        "release" => {
            println!("release {}", env::var("LETHE_RELEASE").unwrap());
            serve(own_listener(), || true);
        }
        "inherited" => inherited(),
        "socket" => socket(),
        "exit" => fail(argument.parse().unwrap()),
        "fail-if" if Path::new(&argument).exists() => fail(3),
        "fail-if" => serve(own_listener(), || true),
        "ready-if" => serve(own_listener(), move || Path::new(&argument).exists()),
        "note" => note(Path::new(&argument)),
        "hold" => hold(Path::new(&argument)),
        "deaf" => thread::sleep(Duration::MAX),
        "tree" => tree(),
        "descriptors" => descriptors(),
        "daemon" => daemon(),
        "hungry" => hungry(argument.into()),
        "busy" => busy(),
        "polite" => polite(),
        "stubborn" => stubborn(),
        "flood" => flood(Path::new(&argument)),
        "long" => long(argument.parse().unwrap()),
        other => panic!("no habit {other}"),
    }
}

fn own_listener() -> TcpListener {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    TcpListener::bind(("127.0.0.1", port)).unwrap()
}

fn serve(listener: TcpListener, is_well: impl Fn() -> bool) {
    answer(listener.incoming(), is_well);
}

/// Answers each connection once, after `look` has seen the path that it asks for: 200 if that says so, else 503.
fn answer_paths(mut look: impl FnMut(&str) -> bool) {
    for stream in own_listener().incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut lines = BufReader::new(&mut stream).lines();
        let Some(Ok(line)) = lines.next() else { continue };
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let status = if look(line.split(' ').nth(1).unwrap()) { "200 OK" } else { "503 Service Unavailable" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
}

/// Writes down what it is asked for, and answers all well but `/fail`.
fn note(file: &Path) {
    let mut file = fs::File::create(file).unwrap();
    answer_paths(|path| {
        writeln!(file, "{path}").unwrap();
        path != "/fail"
    });
}

/// Answers nothing before there is a file.
fn hold(flag: &Path) {
    answer_paths(|path| {
        println!("holds {path}");
        while !flag.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        true
    });
}

/// Answers each connection once: 200 if it is well, else 503.
fn answer<S: Read + Write>(connections: impl Iterator<Item = io::Result<S>>, is_well: impl Fn() -> bool) {
    for stream in connections {
        let Ok(mut stream) = stream else { continue };
        let mut lines = BufReader::new(&mut stream).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let status = if is_well() { "200 OK" } else { "503 Service Unavailable" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
}

fn inherited() {
    assert_eq!(env::var("LISTEN_FDS").unwrap(), "1");
    assert_eq!(env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    // SAFETY: the contract says that descriptor 3 is a listening socket, and nothing else here uses it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    println!("serves {}", listener.local_addr().unwrap().port());
    descriptors_but(listener);
}

/// Serves the unix socket of the contract, and no port.
fn socket() {
    assert_eq!(env::var_os("PORT"), None);
    let listener = UnixListener::bind(env::var_os("SOCKET").unwrap()).unwrap();
    answer(listener.incoming(), || true);
}

fn fail(status: i32) {
    for number in 1..=12 {
        eprintln!("reason {number}");
    }
    exit(status);
}

/// Starts a child in the same process group, as npm starts node, and one below it.
fn tree() {
    let mut shell = Command::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]).spawn().unwrap();
    println!("{}", shell.id());
    thread::spawn(move || shell.wait());
    serve(own_listener(), || true);
}

/// Starts a child that leaves for a session of its own.
fn daemon() {
    let mut child =
        Command::new("setsid").args(["-f", "sh", "-c", "echo $$; exec sleep 1000"]).spawn().unwrap();
    child.wait().unwrap();
    serve(own_listener(), || true);
}

/// Takes all memory that it can get, as soon as a file is there.
fn hungry(flag: PathBuf) {
    thread::spawn(move || {
        while !flag.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut eaten = Vec::new();
        loop {
            eaten.push(vec![1_u8; 1 << 20]);
        }
    });
    serve(own_listener(), || true);
}

/// Takes all CPU that it can get.
fn busy() {
    thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    serve(own_listener(), || true);
}

fn descriptors() {
    descriptors_but(own_listener());
}

fn descriptors_but(listener: TcpListener) {
    // Reading the directory takes one descriptor itself, which is gone afterwards.
    let mut open: Vec<u32> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    open.retain(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    open.sort_unstable();
    println!("open: {open:?}");
    serve(listener, || true);
}

static TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_terminate(_: i32) {
    TERMINATED.store(true, Ordering::SeqCst);
}

fn catch_terminate() {
    let handler = on_terminate as extern "C" fn(i32);
    // SAFETY: the handler stores to an atomic, which is async-signal-safe.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// Notes when it got SIGTERM, and exits well.
fn polite() {
    catch_terminate();
    thread::spawn(|| serve(own_listener(), || true));
    // A handler may set a flag, and hardly more.
    while !TERMINATED.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_micros(200));
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    println!("terminated at {}", i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec));
    exit(0);
}

/// Does not exit on SIGTERM.
fn stubborn() {
    catch_terminate();
    serve(own_listener(), || true);
}

/// Lines that are surely kept all.
const LINES_MAX: u64 = 4000;

/// Prints numbered lines as fast as it can, and counts those that were written in a file of its name.
fn flood(count: &Path) {
    thread::spawn(|| serve(own_listener(), || true));
    let count = count.join(env::var("LETHE_INSTANCE").unwrap());
    let count = fs::OpenOptions::new().write(true).create(true).truncate(false).open(count).unwrap();
    let mut output = std::io::stdout().lock();
    for number in 0..LINES_MAX {
        // One write for each line, since a line end flushes.
        output.write_all(format!("line {number}\n").as_bytes()).unwrap();
        count.write_all_at(&(number + 1).to_le_bytes(), 0).unwrap();
    }
    thread::sleep(Duration::MAX);
}

fn long(bytes: usize) {
    println!("{}", "x".repeat(bytes));
    print!("without an end");
    std::io::stdout().flush().unwrap();
    serve(own_listener(), || true);
}

/// Something that gives each worker a cgroup, where that was asked for.
fn resources() -> Resources {
    let cpu_request_milli = env::var_os("LETHE_TEST_CELLS").map(|_| 100);
    Resources { cpu_request_milli, ..Resources::default() }
}

/// Plays `lethe`: keeps a tree of processes, tells their ids, and waits to be killed.
fn lethe() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let own: PathBuf = env::current_exe().unwrap();
        let spec = Spec {
            name: ServiceName::new("tree").unwrap(),
            command: vec![own.to_str().unwrap().into(), "tree".into()],
            instances: 2,
            ready: None,
            warm_up: Vec::new(),
            listener: Listener::Port,
            protocol: Protocol::Http1,
            drain: Duration::from_secs(5),
            env: [].into(),
            release: 0,
            withheld: [].into(),
            directory: "/".into(),
            resources: resources(),
        };
        let config = Config {
            services: vec![spec],
            sockets: "/nowhere".into(),
            state_urls: None,
            homes: None,
            guard: own,
        };
        let supervisor = Supervisor::start(config).await.unwrap();
        let mut lines = supervisor.follow();
        // Two workers tell two descendants each.
        let mut ids: Vec<String> = Vec::new();
        while ids.len() < 4 {
            let line = lines.recv().await.unwrap();
            ids.extend(line.text.parse::<u32>().ok().map(|id| id.to_string()));
        }
        ids.extend(supervisor.workers().iter().filter_map(|worker| Some(worker.pid?.to_string())));
        println!("{}", ids.join(" "));
        std::future::pending::<()>().await;
    });
}
