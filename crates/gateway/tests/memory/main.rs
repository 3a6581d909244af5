//! What the gateway takes of memory: for connections on which nothing happens, and for bodies of any size. A process of its
//! own, one test at a time, since the kernel counts by process.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "the figures are what is wanted")]

#[path = "../gateway/lab.rs"]
#[allow(dead_code, reason = "not every test needs all of it")]
mod lab;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use lethe_gateway::config::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab::{Lab, Peer, run_within};

/// Far more than a connection should take, since debug builds and the allocator have their part in it.
const IDLE_BYTES_MAX: usize = 16 << 10;
/// The same for a WebSocket, which is two connections.
const TUNNEL_BYTES_MAX: usize = 32 << 10;
/// And for HTTP/2, whose buffers stay while there is nothing in them.
const HTTP2_BYTES_MAX: usize = 64 << 10;
/// Far more than bodies on their way should take, and far less than they are.
const STREAMING_BYTES_MAX: usize = 64 << 20;
const GIBIBYTE: usize = 1 << 30;

/// Only a test that has failed takes so long.
const HANGS: Duration = Duration::from_secs(600);

static ALONE: Mutex<()> = Mutex::new(());

fn alone(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    run_within(HANGS, test);
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// So many connections as this process may have both ends of, and a quarter more.
fn connections() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    ((files - 400) * 2 / 5).min(10_000)
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// A request and its answer on one of many connections.
fn ask(mut stream: &TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nuser-agent: idle\r\n\r\n").unwrap();
    let mut answer = [0; 1024];
    let mut got = 0;
    while !answer[..got].ends_with(b"idle!") {
        let count = stream.read(&mut answer[got..]).unwrap();
        assert!(count > 0);
        got += count;
    }
}

/// On a busy machine it takes a while to ask on each of many connections.
fn patient(config: &mut Config) {
    config.limits.head_timeout = HANGS;
    config.limits.idle_timeout = HANGS;
}

#[test]
fn idle_connections_are_cheap() {
    alone(async {
        let mut lab = Lab::with(1, patient).await;
        let listener = lab.workers[0].take_listener();
        tokio::spawn(async move {
            loop {
                let mut peer = Peer::new(listener.accept().await.unwrap().0);
                tokio::spawn(async move {
                    while peer.try_request().await.is_some() {
                        peer.answer("idle!").await;
                    }
                });
            }
        });
        let (address, count) = (lab.address, connections());
        // What the first ones need once.
        let warm: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
        blocking_on(warm, ask).await;
        lab.until(|snapshot| snapshot.connections == 0).await;
        let before = memory("VmRSS");
        let cost = || memory("VmRSS").saturating_sub(before) / count;
        let open = tokio::task::spawn_blocking(move || (0..count).map(|_| connect(address)).collect());
        let open: Vec<TcpStream> = open.await.unwrap();
        lab.until(|snapshot| snapshot.connections == count as u64).await;
        let silent = cost();
        let open = blocking_on(open, ask).await;
        assert_eq!(lab.gateway.snapshot().connections, count as u64);
        let kept = cost();
        println!("{count} connections: {silent} bytes each before their first request, {kept} after it");
        assert!(kept.max(silent) < IDLE_BYTES_MAX, "{silent} and {kept} bytes each");
        // On top of them, since what is freed would be used again and not be counted.
        let before = memory("VmRSS");
        let more = count / 4;
        let new = blocking_on((0..more).map(|_| connect(address)).collect(), greet).await;
        assert_eq!(lab.gateway.snapshot().connections, (count + more) as u64);
        let http2 = memory("VmRSS").saturating_sub(before) / more;
        println!("{more} connections of HTTP/2: {http2} bytes each");
        assert!(http2 < HTTP2_BYTES_MAX, "{http2} bytes each");
        drop((open, new));
    });
}

/// WebSockets through which large messages went both ways, and on which nothing happens then.
#[test]
fn idle_tunnels_are_cheap() {
    const TUNNELS: usize = 400;
    const MESSAGE_BYTES: usize = 256 << 10;
    alone(async {
        let lab = Lab::with(1, patient).await;
        let (message, mut space) = (vec![b'm'; MESSAGE_BYTES], vec![0; MESSAGE_BYTES]);
        let mut open = Vec::new();
        let mut before = 0;
        for number in 0..2 * TUNNELS {
            // What the first ones need once.
            if number == TUNNELS {
                before = memory("VmRSS");
            }
            let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n\r\n";
            let mut client = lab.send(format!("GET / HTTP/1.1\r\nhost: h\r\n{upgrade}")).await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}")).await;
            assert_eq!(client.response().await.status(), 101);
            let (mut client, mut worker) = (client.stream, worker.stream);
            let (sent, got) = tokio::join!(client.write_all(&message), worker.read_exact(&mut space));
            assert_eq!((sent.unwrap(), got.unwrap()), ((), MESSAGE_BYTES));
            let (sent, got) = tokio::join!(worker.write_all(&message), client.read_exact(&mut space));
            assert_eq!((sent.unwrap(), got.unwrap()), ((), MESSAGE_BYTES));
            open.push((client, worker));
        }
        let cost = memory("VmRSS").saturating_sub(before) / TUNNELS;
        println!("{TUNNELS} tunnels: {cost} bytes each");
        assert!(cost < TUNNEL_BYTES_MAX, "{cost} bytes each");
    });
}

/// Speaks HTTP/2 as far as the settings, and waits for those of the gateway.
fn greet(mut stream: &TcpStream) {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut kind = [0; 4];
    stream.read_exact(&mut kind).unwrap();
    assert_eq!(kind[3], 4, "a frame of SETTINGS");
}

async fn blocking_on(streams: Vec<TcpStream>, each: fn(&TcpStream)) -> Vec<TcpStream> {
    let work = tokio::task::spawn_blocking(move || {
        streams.iter().for_each(each);
        streams
    });
    work.await.unwrap()
}

/// Passes a gibibyte through, to the end, and throws it away there.
fn pour(mut into: impl Write + Send, mut from: impl Read, bytes: usize) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let piece = vec![b'x'; 256 << 10];
            for _ in 0..bytes / piece.len() {
                into.write_all(&piece).unwrap();
            }
        });
        let mut piece = vec![0; 256 << 10];
        let mut left = bytes;
        while left > 0 {
            let count = from.read(&mut piece).unwrap();
            assert!(count > 0, "{left} bytes are missing");
            left -= count;
        }
    });
}

fn blocking(peer: Peer) -> TcpStream {
    let stream = peer.stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn a_gibibyte_passes_each_way_in_little_memory() {
    passes_each_way(GIBIBYTE);
}

/// The same of ten times as much, which takes a while: `cargo test --release -p lethe-gateway --test memory -- --ignored
/// --nocapture`.
#[test]
#[ignore = "takes a minute or more"]
fn ten_gibibytes_pass_each_way_in_little_memory() {
    passes_each_way(10 * GIBIBYTE);
}

fn passes_each_way(bytes: usize) {
    alone(async move {
        let lab = Lab::new(1).await;
        // The highest mark of the tests before is forgotten (proc(5)).
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmRSS");
        let client = lab.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {bytes}\r\n\r\n")).await;
        let mut worker = lab.workers[0].accept().await;
        worker.head().await;
        // Up, and then down, on the same two connections.
        let (up, mut down) = (blocking(client), blocking(worker));
        let both = tokio::task::spawn_blocking(move || {
            pour(&up, &down, bytes);
            down.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes()).unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                (&up).read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            pour(&down, &up, bytes);
        });
        both.await.unwrap();
        let grown = memory("VmHWM").saturating_sub(before);
        println!("{} GiB each way: {} KiB", bytes >> 30, grown >> 10);
        assert!(grown < STREAMING_BYTES_MAX, "grew by {grown} bytes");
    });
}
