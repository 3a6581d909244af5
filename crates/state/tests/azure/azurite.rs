//! A server of the npm package `azurite`, which Azure's own makers test with; one for all cases, each with a folder of its own.

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

use object_store::{
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{HttpRequest, HttpRequestBody},
};

/// The container that there is.
pub const CONTAINER: &str = "shelf";
/// Whose it is.
pub const ACCOUNT: &str = "shop";
/// With this key: `geheim`.
pub const KEY: &str = "Z2VoZWlt";

/// It says its port, and ends with its input.
const SCRIPT: &str = r#"
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
process.argv.push("azurite", "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--silent", "--disableTelemetry");
require(process.env.AZURITE);
"#;

/// A running server. The end of its input is its sign to end; the kernel closes that when the test is killed, too.
pub struct Azurite {
    pub port: u16,
    _process: Child,
    _alive: ChildStdin,
}

impl Azurite {
    fn start() -> Self {
        let main = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../.ci/.azurite/node_modules/azurite/dist/src/blob/main.js"
        );
        assert!(Path::new(main).exists(), "there is no Azurite; install it: .ci/azurite");
        let mut process = Command::new("node")
            .args(["-e", SCRIPT])
            .env("AZURITE", main)
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node does not start; install it: apt-get install nodejs");
        let alive = process.stdin.take().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "Azurite ended before it listened");
            if let Some((_, port)) = line.trim().split_once("successfully listens on http://127.0.0.1:") {
                break port.parse().unwrap();
            }
        };
        // Whoever writes into a closed pipe ends.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let azurite = Self { port, _process: process, _alive: alive };
        let made = azurite.say("PUT", &format!("{CONTAINER}?restype=container"), &[]);
        assert!(made.starts_with("HTTP/1.1 201"), "{made}");
        azurite
    }

    /// A request by the key, without a body; what is answered.
    pub fn say(&self, method: &str, path: &str, fields: &[(&'static str, &str)]) -> String {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = format!("http://127.0.0.1:{}/{ACCOUNT}/{path}", self.port).parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).unwrap();
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n",
            request.uri().path_and_query().unwrap(),
            self.port
        );
        for (name, value) in request.headers() {
            head += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(socket, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A folder of the container that nothing else uses.
    pub fn folder(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("case-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The server that cases share.
pub fn shared() -> &'static Azurite {
    static SHARED: OnceLock<Azurite> = OnceLock::new();
    SHARED.get_or_init(Azurite::start)
}

/// The URL of a folder by a way to the server.
pub fn url(port: u16, folder: &str, options: &str) -> String {
    format!(
        "azure://{ACCOUNT}:{KEY}@{CONTAINER}/{folder}?endpoint=http://127.0.0.1:{port}/{ACCOUNT}{options}"
    )
}

/// The URL of a folder that nothing else uses.
pub fn new_folder(options: &str) -> String {
    let azurite = shared();
    url(azurite.port, &azurite.folder(), options)
}
