//! A server of the Python package `moto`, one for all cases. Each request is decided by itself: the server of the package alone has
//! its threads look and write at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The bucket that there is.
pub const BUCKET: &str = "shelf";

/// It says its port, and ends with its input.
const SCRIPT: &str = r#"
import logging, os, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").disabled = True
app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
def one_at_a_time(environ, start_response):
    with lock:
        return app(environ, start_response)
server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A running server. The end of its input is its sign to end; the kernel closes that when the test is killed, too.
pub struct Moto {
    pub port: u16,
    _process: Child,
    _alive: ChildStdin,
}

impl Moto {
    fn start() -> Self {
        // Where `.ci/moto` puts it when the system's Python has none.
        let own = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/.venv/bin/python3"));
        let python = if own.exists() { own } else { Path::new("python3") };
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 does not start; install it: apt-get install python3");
        let alive = process.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line
            .trim()
            .parse()
            .expect("moto does not start; install it: .ci/moto, or pip install 'moto[server]'");
        let moto = Self { port, _process: process, _alive: alive };
        let made = moto.say(&format!("PUT /{BUCKET} HTTP/1.1\r\nContent-Length: 0\r\n"));
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        moto
    }

    /// A request without a signature; what is answered.
    pub fn say(&self, head: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(socket, "{head}Host: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.port).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The URL of a folder of the bucket that nothing else uses.
    pub fn url(&self, options: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (case, port) = (COUNT.fetch_add(1, Ordering::Relaxed), self.port);
        format!("s3://key:secret@{BUCKET}/case-{case}?endpoint=http://127.0.0.1:{port}{options}")
    }
}

/// The server that cases share.
pub fn shared() -> &'static Moto {
    static SHARED: OnceLock<Moto> = OnceLock::new();
    SHARED.get_or_init(Moto::start)
}
