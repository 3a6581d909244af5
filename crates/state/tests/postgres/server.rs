//! A real PostgreSQL server, in a folder that goes with it. Tests of other crates use it, too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test uses what it needs of it")]

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A server. It ends, and its folder goes, when its control's standard input is closed: when this is dropped, or the
/// process of the tests ends in any way.
pub struct Server {
    control: Mutex<Control>,
    folder: PathBuf,
}

struct Control {
    child: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The server that the cases share, each with a schema of its own.
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A schema that no other case has.
pub fn fresh_schema() -> String {
    static CASES: AtomicUsize = AtomicUsize::new(0);
    format!("case_{}", CASES.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    /// One that is ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that listens on these addresses too, port 5432, with TLS alone: `server.crt` and `server.key` of a folder that
    /// all may read. Roles need a password there.
    pub fn start_with_tls(addresses: &str, folder: &Path) -> Self {
        Self::start_with(&[addresses.as_ref(), folder.as_os_str()])
    }

    fn start_with(more: &[&OsStr]) -> Self {
        // PostgreSQL refuses to be root; its folder is made by whoever it is.
        let mut command = match ordinary_user() {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user, "--regid", &user_group(&user), "--clear-groups", "bash"]);
                command
            }
            None => Command::new("bash"),
        };
        // The script is an argument, since that user may not see this folder.
        command.arg("-c").arg(include_str!("server.sh")).arg("server.sh").arg(programs()).args(more);
        let mut child = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash (and, for root, setpriv of util-linux)");
        let words = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut folder = String::new();
        answers.read_line(&mut folder).unwrap();
        assert!(!folder.is_empty(), "PostgreSQL did not start; what it said is above");
        let control = Mutex::new(Control { child, words, answers });
        let server = Self { control, folder: folder.trim_end().into() };
        server.say("start");
        server
    }

    /// A URL of this server's, for a schema.
    pub fn url(&self, schema: &str, more: &str) -> String {
        format!("{}&schema={schema}{more}", self.bare_url())
    }

    /// One that knows of no schema.
    pub fn bare_url(&self) -> String {
        format!("postgres://lethe@{}:5432/postgres?min=1", percent_encoded(&self.folder))
    }

    /// What its own client answers to a statement, without names of columns.
    pub fn query(&self, sql: &str) -> String {
        // Beside the others, whatever led to them.
        let folder = fs::canonicalize(programs().join("initdb")).unwrap();
        let mut psql = Command::new(folder.with_file_name("psql"));
        psql.arg("-h").arg(&self.folder).args(["-U", "lethe", "-d", "postgres", "-Atc", sql]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// Has `start`, `stop` or `kill` done.
    pub fn say(&self, word: &str) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(control.words.as_mut().unwrap(), "{word}").unwrap();
        let mut answer = String::new();
        control.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "the server did not {word}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(control.words.take());
        let _ = control.child.wait();
    }
}

/// Whom the server runs as, when we are root.
fn ordinary_user() -> Option<String> {
    let is_root =
        fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"));
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let is_user = |name: &str| users.lines().any(|line| line.split(':').next() == Some(name));
    let user = ["postgres", "nobody"].into_iter().find(|name| is_user(name));
    is_root.then(|| user.expect("a user `postgres` or `nobody`").to_owned())
}

/// The number of a user's group.
fn user_group(user: &str) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.split(':').next() == Some(user)).unwrap();
    line.split(':').nth(3).unwrap().to_owned()
}

/// The folder with PostgreSQL's programs: one of the search path's, or where Debian keeps them, the newest.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut of_debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.map(|entry| entry.unwrap().path().join("bin")).collect())
        .unwrap_or_default();
    let version =
        |folder: &Path| -> Option<u32> { folder.parent()?.file_name().and_then(OsStr::to_str)?.parse().ok() };
    of_debian.sort_by_key(|folder| std::cmp::Reverse(version(folder)));
    folders.extend(of_debian);
    let found = folders.into_iter().find(|folder| folder.join("initdb").is_file());
    found.expect("PostgreSQL's programs; install them with: sudo apt-get install postgresql")
}

fn percent_encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let text = path.to_str().unwrap().bytes();
    text.map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
