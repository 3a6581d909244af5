//! What it costs a service to be watched: sends the same requests, one after the other, to a worker that is kept apart and watched as said,
//! and prints the CPU time of each in µs, of all processes of its world and of what carries its connections. `bench/prove/run.py` compares.
//!
//!     observed MODE REQUESTS FOLDER PATH... -- COMMAND...

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lethe_prover::{hidden, scratch::Scratch, service::Service, worker::Worker, world::Level, yard::Yard};

/// How long a service may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);

/// Threads of this process that carry what a worker asks for beside.
const OF_THE_RELAY: [&str; 2] = ["relay", "carrier"];

/// Requests before it is measured.
const WARM_UP: usize = 500;

/// What is measured: a worker in a world, or the program as it is.
enum Subject {
    /// With the yard, whose folder it is in.
    World(Box<Worker>, #[expect(dead_code, reason = "it is only to be there")] Box<Yard>),
    Machine(Child, u16),
}

impl Subject {
    fn connect(&self) -> std::io::Result<TcpStream> {
        match self {
            Self::World(worker, _) => worker.door()(),
            Self::Machine(_, port) => TcpStream::connect(("127.0.0.1", *port)),
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Self::Machine(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() -> ExitCode {
    if let Some(done) = hidden::run() {
        return done;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let split = words
        .iter()
        .position(|word| word == "--")
        .ok_or("observed MODE REQUESTS FOLDER PATH... -- COMMAND...")?;
    let [mode, requests, folder, paths @ ..] = &words[..split] else {
        return Err("too few arguments".into());
    };
    let (requests, command) = (requests.parse()?, words[split + 1..].to_vec());
    let beside = beside()?;
    let env = vec![("BESIDE".to_owned(), format!("http://127.0.0.1:{beside}/"))];
    let subject = start(mode, folder.into(), command, env)?;
    for path in paths {
        let mut stream = BufReader::new(subject.connect()?);
        for _ in 0..WARM_UP {
            ask(&mut stream, path)?;
        }
        let before = cpu_ns()?;
        for _ in 0..requests {
            ask(&mut stream, path)?;
        }
        println!("{path} {:.3}", (cpu_ns()?.saturating_sub(before)) as f64 / requests as f64 / 1000.0);
    }
    Ok(())
}

fn start(
    mode: &str,
    directory: PathBuf,
    command: Vec<String>,
    env: Vec<(String, String)>,
) -> Result<Subject, Box<dyn Error>> {
    if mode == "machine" {
        return on_the_machine(&directory, &command, env);
    }
    let scratch = Arc::new(Scratch::new(&std::env::temp_dir(), &std::env::current_exe()?)?);
    let name = "bench".to_owned();
    let service =
        Service { name, command, directory, env, sockets: Vec::new(), ready: None, start_max: START_MAX };
    let level = if mode.starts_with("user-") { Level::UserOverlay } else { Level::Overlay };
    let mut yard = Yard::open(scratch, service, level, false)?;
    let (mut entropy, mut clock) = (None, None);
    match mode.strip_prefix("user-").unwrap_or(mode) {
        "watched" => {}
        "apart" => yard = yard.without_watching(),
        "entropy" => (yard, entropy) = (yard.without_watching(), Some(1)),
        "clock" => (yard, clock) = (yard.without_watching(), Some(3600)),
        other => return Err(format!("no such mode: {other}").into()),
    }
    let mut start = yard.next("bench-1".into(), entropy)?;
    start.clock = clock;
    let worker = Worker::start(&yard, &start, Arc::new(yard.disk()?))?;
    Ok(Subject::World(Box::new(worker), Box::new(yard)))
}

fn on_the_machine(
    directory: &PathBuf,
    command: &[String],
    env: Vec<(String, String)>,
) -> Result<Subject, Box<dyn Error>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .envs(env)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .spawn()?;
    let subject = Subject::Machine(child, port);
    let began = Instant::now();
    while subject.connect().is_err() {
        if began.elapsed() > START_MAX {
            return Err("it does not listen".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(subject)
}

/// Something beside, in this process.
fn beside() -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut stream, mut line) = (stream, String::new());
    while reader.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        line.clear();
    }
    Ok(())
}

/// A GET on a kept connection; the answer must say its length or come in chunks.
fn ask(stream: &mut BufReader<TcpStream>, path: &str) -> Result<(), Box<dyn Error>> {
    // In one piece, which no algorithm of Nagle's holds back.
    stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let (mut line, mut length) = (String::new(), None);
    stream.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(format!("{path}: {line}").into());
    }
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        match header.strip_prefix("content-length:") {
            Some(value) => length = Some(value.trim().parse()?),
            None if header.is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length.ok_or("no length")?];
    Ok(stream.read_exact(&mut body)?)
}

/// CPU time of all descendants of this process, and of its threads that carry connections, in ns (`/proc/PID/schedstat`).
fn cpu_ns() -> std::io::Result<u64> {
    let mut of_whom = vec!["self".to_owned()];
    let (mut total, mut at) = (0, 0);
    while let Some(process) = of_whom.get(at).cloned() {
        // Threads may end meanwhile.
        for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten().map(|task| task.path()) {
            let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
            of_whom.extend(read("children").split_whitespace().map(ToOwned::to_owned));
            if at > 0 || OF_THE_RELAY.contains(&read("comm").trim()) {
                total += read("schedstat")
                    .split(' ')
                    .next()
                    .and_then(|ns| ns.parse::<u64>().ok())
                    .unwrap_or_default();
            }
        }
        at += 1;
    }
    Ok(total)
}
