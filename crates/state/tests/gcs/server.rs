//! `fake-gcs-server`, with what it lacks of Cloud Storage before it; one for all cases, each with a folder of its own. It is asked
//! in the name of a service account whose key is made for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;

/// The bucket that there is.
pub const BUCKET: &str = "shelf";
/// Who may use it.
const EMAIL: &str = "shop@project.iam.gserviceaccount.com";

/// A running server. The end of its input is its sign to end; the kernel closes that when the test is killed, too.
pub struct Server {
    pub port: u16,
    /// Where the server behind is, which heeds fewer conditions.
    pub bare: u16,
    folder: TempDir,
    _process: Child,
    _alive: ChildStdin,
}

impl Server {
    fn start() -> Self {
        let ci = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci"));
        let program = ci.join(".fake-gcs-server/fake-gcs-server");
        assert!(program.exists(), "there is no fake-gcs-server; install it: .ci/fake-gcs-server");
        let folder = tempfile::tempdir().unwrap();
        write_credentials(folder.path(), "shop.json", EMAIL);
        write_credentials(folder.path(), "other.json", "other@project.iam.gserviceaccount.com");
        let mut process = Command::new("python3")
            .args(["-c", include_str!("front.py")])
            .arg(program)
            .args([BUCKET, EMAIL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 does not start; install it: apt-get install python3");
        let alive = process.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (port, bare) = line.trim().split_once(' ').expect("the server does not start");
        let (port, bare) = (port.parse().unwrap(), bare.parse().unwrap());
        Self { port, bare, folder, _process: process, _alive: alive }
    }

    /// A file of credentials: `shop` may use the bucket, `other` may not.
    pub fn credentials(&self, who: &str) -> PathBuf {
        self.folder.path().join(format!("{who}.json"))
    }

    /// A folder of the bucket that nothing else uses.
    pub fn folder(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("case-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// What the server behind answers to a GET.
    pub fn ask(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.bare)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.bare)
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Writes the file of a service account with a key of its own.
fn write_credentials(folder: &Path, name: &str, email: &str) {
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl does not start; install it: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().replace('\n', "\\n");
    let text = format!(
        r#"{{"type": "service_account", "client_email": "{email}", "private_key_id": "1", "private_key": "{key}"}}"#
    );
    std::fs::write(folder.join(name), text).unwrap();
}

/// The server that cases share.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

/// The URL of a folder by a way to the server.
pub fn url(port: u16, folder: &str, options: &str) -> String {
    let credentials = shared().credentials("shop");
    format!(
        "gs://{BUCKET}/{folder}?endpoint=http://127.0.0.1:{port}&credentials={}{options}",
        credentials.display()
    )
}

/// The URL of a folder that nothing else uses.
pub fn new_folder(options: &str) -> String {
    let server = shared();
    url(server.port, &server.folder(), options)
}
