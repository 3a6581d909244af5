//! Another `lethe` takes over the listeners: no request fails, nothing that was written is lost, and whatever goes wrong
//! leaves the one serving that can.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use crate::{
    custodian::gone,
    echo,
    lethe::{Lethe, Place, alive, kill_9},
    secure::SecureVisitor,
    visitor::Visitor,
};

/// After so long without the awaited event, a test has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Upgrades under load.
const UPGRADES: usize = 3;
/// A download: so large that the gateway does not wait for all of it.
const DOWNLOAD_BYTES: usize = 1 << 20;
/// Visitors of each kind.
const VISITORS: usize = 2;

/// Notes things down in the state, holds downloads until a FIFO is written to, and echoes as a WebSocket's server would.
const APP: &str = "\
import http.client, http.server, os, socket
from echo import Echo

STATE = os.environ['LETHE_STATE'].removeprefix('unix://')

def state(method, path, body=None):
    connection = http.client.HTTPConnection('state')
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(STATE)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return 200 if response.status < 300 else response.status

class Handler(Echo, http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def say(self, status, text):
        self.send_response(status)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path.startswith('/note/'):
            self.say(state('GET', '/v1/tables/notes/' + self.path.split('/')[2]), '')
        elif self.path == '/echo':
            self.echo()
        elif self.path.startswith('/held/'):
            self.send_response(200)
            self.send_header('Content-Length', '1048576')
            self.end_headers()
            self.wfile.write(b'b' * 524288)
            open(self.path.split('/')[2]).read()
            self.wfile.write(b'e' * 524288)
        else:
            self.say(200, os.environ['LETHE_INSTANCE'])

    def do_POST(self):
        note = self.rfile.read(int(self.headers['Content-Length'])).decode()
        self.say(state('PUT', '/v1/tables/notes/' + note, b'here'), note)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// What is under way has all the time that it needs.
const SERVICE: &str = "[services.web]\ncommand = \"python3 app.py\"\ninstances = 2\ndrain = \"10m\"\n\
[limits]\ndrain-timeout = \"10m\"\n";

/// A folder with the app and a `lethe.toml`.
struct Project {
    place: Place,
}

impl Project {
    fn new() -> anyhow::Result<Self> {
        let project = Self { place: Place::new()? };
        fs::write(project.path("app.py"), APP)?;
        fs::write(project.path(echo::FILE), echo::MODULE)?;
        project.configure(SERVICE)?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn configure(&self, toml: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.path("lethe.toml"), toml)?)
    }

    async fn up(&self) -> anyhow::Result<Lethe> {
        let lethe = self.place.up(&[self.path("lethe.toml").to_str().context("UTF-8")?]).await?;
        lethe.ready(2).await?;
        Ok(lethe)
    }

    fn fifo(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        Ok(path)
    }

    fn script(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// `lethe upgrade` with more arguments.
    async fn upgrade(&self, more: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.place.command(&["upgrade", "--state-dir"]);
        command.arg(self.place.state()).args(more);
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// An upgrade that comes about; gives the process that has taken over, killed when dropped.
    async fn upgraded(&self, lethe: &Lethe) -> anyhow::Result<Process> {
        let before = lethe.client.status().await?.node.pid;
        let output = self.upgrade(&["--json"]).await?;
        ensure!(output.status.success(), "{output:?}\n{}", lethe.output.text());
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(said["before"] == before, "{said}");
        let process = Process(u32::try_from(said["pid"].as_u64().context("a pid")?)?);
        let now = lethe.client.status().await?.node.pid;
        ensure!(now == process.0 && now != before, "`lethe ps` asks {now}, after {said}");
        Ok(process)
    }

    /// An upgrade that does not come about, and why.
    async fn refused(&self, lethe: &Lethe, more: &[&str]) -> anyhow::Result<String> {
        let before = lethe.client.status().await?;
        let output = self.upgrade(more).await?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.code() == Some(1), "{more:?}: {text}");
        ensure!(
            text.contains(&format!("nothing was changed; lethe (pid {}) goes on", before.node.pid)),
            "{text}"
        );
        goes_on(lethe, &before).await?;
        Ok(text)
    }
}

/// A process that is no child of this one; killed when dropped.
struct Process(u32);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_9(self.0);
    }
}

/// All is as it was, and is served.
async fn goes_on(lethe: &Lethe, before: &lethe_admin::api::Status) -> anyhow::Result<()> {
    let now = lethe.client.status().await?;
    let workers = |status: &lethe_admin::api::Status| -> Vec<_> {
        status.workers.iter().map(|worker| (worker.instance.clone(), worker.pid)).collect()
    };
    ensure!(now.node == before.node && workers(&now) == workers(before), "{now:?}\nand before: {before:?}");
    ensure!(Visitor::new(lethe.listen).get("/").await?.status == 200, "it serves");
    Ok(())
}

/// A connection on which this path was asked for, and the answer's first line.
async fn ask(lethe: &Lethe, path: &str, more: &str) -> anyhow::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(lethe.listen).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n{more}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok((stream, String::from_utf8(head)?.lines().next().unwrap_or_default().into()))
}

/// A download that has begun and will not end before `fifo` is written to.
async fn held(lethe: &Lethe, fifo: &Path) -> anyhow::Result<TcpStream> {
    let name = fifo.file_name().and_then(|name| name.to_str()).context("a name")?;
    let (mut stream, status) = ask(lethe, &format!("/held/{name}"), "").await?;
    ensure!(status.contains("200"), "{status}");
    let mut begin = vec![0; DOWNLOAD_BYTES / 2];
    stream.read_exact(&mut begin).await?;
    ensure!(begin.iter().all(|byte| *byte == b'b'), "it begins");
    Ok(stream)
}

/// Lets a download go on, and reads what is left of it.
async fn rest(mut download: TcpStream, fifo: &Path) -> anyhow::Result<Vec<u8>> {
    tokio::fs::write(fifo, "").await?;
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).await?;
    Ok(rest)
}

async fn echo(tunnel: &mut TcpStream, byte: u8) -> anyhow::Result<()> {
    tunnel.write_u8(byte).await?;
    let back = tunnel.read_u8().await?;
    ensure!(back == byte, "{back} instead of {byte}");
    Ok(())
}

/// Visits until `ended`; each answer must be good. Gives what it has noted down.
async fn visit(
    lethe: std::net::SocketAddr,
    number: usize,
    ended: watch::Receiver<bool>,
) -> anyhow::Result<Vec<String>> {
    let (mut visitor, mut notes) = (Visitor::new(lethe), Vec::new());
    for count in 0.. {
        if *ended.borrow() {
            break;
        }
        if number % 2 == 1 {
            // As somebody else: on a connection of its own.
            visitor = Visitor::new(lethe);
        }
        let note = format!("{number}-{count}");
        // A POST is not sent again by the gateway: what is lost is seen.
        let page = visitor.send(Method::POST, "/", &[], Bytes::from(note.clone())).await;
        let page = page.with_context(|| format!("note {note}"))?;
        ensure!(page.status == 200, "note {note}: {page:?}");
        notes.push(note.clone());
        let page = visitor.get("/").await.with_context(|| format!("after note {note}"))?;
        ensure!(page.status == 200, "after note {note}: {page:?}");
    }
    Ok(notes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_under_load_no_request_fails() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    lethe.client.scale("web", 3).await?;
    let (end, ended) = watch::channel(false);
    let visitors: Vec<_> =
        (0..2 * VISITORS).map(|number| tokio::spawn(visit(lethe.listen, number, ended.clone()))).collect();
    let mut workers: Vec<u32> = Vec::new();
    let mut serving = None;
    for number in 0..UPGRADES {
        workers.extend(lethe.workers().await?.into_iter().filter_map(|worker| worker.pid));
        let fifo = project.fifo(&format!("fifo-{number}"))?;
        let download = held(&lethe, &fifo).await?;
        let (mut tunnel, status) =
            ask(&lethe, "/echo", "connection: upgrade\r\nupgrade: websocket\r\n").await?;
        ensure!(status.contains("101"), "{status}");
        echo(&mut tunnel, b'a').await?;
        let new = project.upgraded(&lethe).await?;
        // They are with the old one still.
        echo(&mut tunnel, b'b').await?;
        drop(tunnel);
        let rest = rest(download, &fifo).await?;
        ensure!(rest.len() == DOWNLOAD_BYTES / 2 && rest.iter().all(|byte| *byte == b'e'), "{}", rest.len());
        let status = lethe.ready(3).await?;
        ensure!(status.services[0].wanted == 3, "as it was scaled: {status:?}");
        if let Some(Process(old)) = serving.replace(new) {
            gone(old).await?;
        }
    }
    end.send_replace(true);
    let mut notes = Vec::new();
    for visitor in visitors {
        notes.extend(visitor.await??);
    }
    println!("{} notes were made during {UPGRADES} upgrades, and no request failed", notes.len());
    ensure!(notes.len() > 10 * UPGRADES, "there was load");
    let mut reader = Visitor::new(lethe.listen);
    for note in notes {
        ensure!(reader.get(&format!("/note/{note}")).await?.status == 200, "note {note} is there");
    }
    for worker in workers {
        gone(worker).await?;
    }
    ensure!(alive(lethe.pid()), "the first process waits for the last one");
    // And passes on what it is told.
    lethe.signal(Signal::HUP)?;
    lethe
        .until("it is reloaded", async || {
            lethe.output.text().contains("reloaded: nothing has changed").then_some(())
        })
        .await?;
    let workers = lethe.workers().await?;
    lethe.down().await?;
    for worker in workers {
        ensure!(!worker.pid.is_some_and(alive), "{worker:?} is left");
    }
    Ok(())
}

/// Posts until `ended`, on one connection for as long as that may be used, or on another one each time; each answer must be
/// good. Gives how many there were, and how many connections.
async fn post(
    lethe: std::net::SocketAddr,
    stays: bool,
    ended: watch::Receiver<bool>,
) -> anyhow::Result<(usize, usize)> {
    let (mut visitor, mut count) = (SecureVisitor::new(lethe)?, 0);
    while !*ended.borrow() {
        // A POST is not sent again by the gateway either.
        let status = visitor.post(format!("secure-{stays}-{count}")).await;
        let status = status.with_context(|| format!("post {count}, stays: {stays}"))?;
        ensure!(status == 200, "post {count}: {status}");
        count += 1;
        if !stays {
            visitor.forget();
        }
    }
    Ok((count, visitor.connections))
}

/// The same for those who come over TLS and speak HTTP/2, as browsers do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_by_tls_and_http2_no_request_fails() -> anyhow::Result<()> {
    const UPGRADES: usize = 2;
    let project = Project::new()?;
    let file = project.path("lethe.toml");
    let lethe = project.place.up(&["--tls-self-signed", file.to_str().context("UTF-8")?]).await?;
    lethe.ready(2).await?;
    let (end, ended) = watch::channel(false);
    let visitors =
        [true, false, true, false].map(|stays| tokio::spawn(post(lethe.listen, stays, ended.clone())));
    let mut serving = None;
    for _ in 0..UPGRADES {
        let new = project.upgraded(&lethe).await?;
        lethe.ready(2).await?;
        // When the one before is gone, everybody has come over.
        if let Some(Process(old)) = serving.replace(new) {
            gone(old).await?;
        }
    }
    end.send_replace(true);
    for visitor in visitors {
        let (posts, connections) = visitor.await??;
        println!("{posts} posts on {connections} connections during {UPGRADES} upgrades, and none failed");
        ensure!(posts > UPGRADES && connections > UPGRADES - 1, "there was load, and it came over");
    }
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_take_over_changes_nothing() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    let text = project.refused(&lethe, &["--binary", "/bin/false"]).await?;
    ensure!(text.contains("false ended (exit status 1)"), "{text}");
    let said = project.script("says", "echo the library is missing >&2; exit 3")?;
    let text = project.refused(&lethe, &["--binary", said.to_str().context("UTF-8")?]).await?;
    ensure!(text.contains("exit status 3") && text.contains("the library is missing"), "{text}");
    let hangs = project.script("hangs", "echo pid $$; exec sleep 1000")?;
    let text =
        project.refused(&lethe, &["--timeout", "1", "--binary", hangs.to_str().context("UTF-8")?]).await?;
    ensure!(text.contains("was not ready within 1 s, and was killed"), "{text}");
    // It may not have come to say so.
    if let Some(hung) = text.split("pid ").find_map(|rest| rest.split_whitespace().next()?.parse().ok()) {
        gone(hung).await?;
    }
    let app = project.path("app.py");
    let text = project.refused(&lethe, &["--binary", app.to_str().context("UTF-8")?]).await?;
    ensure!(text.contains("it is not executable"), "{text}");
    // A lethe that is right, with a file that is wrong, that has moved, and whose workers do not start.
    for (toml, expected) in [
        (SERVICE.replace("instances", "instancs"), "lethe.toml:3:1"),
        (format!("admin = \"off\"\n{SERVICE}"), "`admin` has changed"),
        (
            format!("[state]\nurl = \"redis://:hidden@127.0.0.1:1\"\nblobs = \"embedded\"\n{SERVICE}"),
            "`[state]` has changed (sessions embedded, ",
        ),
        (
            SERVICE.replace("python3 app.py", "sh -c 'echo the disk is missing; exit 7'"),
            "the disk is missing",
        ),
    ] {
        project.configure(&toml)?;
        let text = project.refused(&lethe, &[]).await?;
        ensure!(text.contains("the new lethe did not start") && text.contains(expected), "{toml}\n{text}");
        ensure!(!text.contains("hidden"), "a password is shown: {text}");
    }
    project.configure(SERVICE)?;
    let _new = project.upgraded(&lethe).await?;
    lethe.down().await
}

/// A new one that says its process id, and whose worker says its own into a FIFO and never gets ready.
struct Slow {
    fifo: PathBuf,
    script: PathBuf,
}

impl Slow {
    fn new(project: &Project) -> anyhow::Result<Self> {
        let fifo = project.fifo("fifo")?;
        project.configure(
            "[services.web]\ncommand = \"sh -c 'echo $$ > fifo; exec sleep 1000'\"\ninstances = 1\n",
        )?;
        let says = format!("echo pid $$; exec {} \"$@\"", env!("CARGO_BIN_EXE_lethe"));
        Ok(Self { fifo, script: project.script("says-pid", &says)? })
    }

    fn binary(&self) -> anyhow::Result<[&str; 2]> {
        Ok(["--binary", self.script.to_str().context("UTF-8")?])
    }

    /// The process ids of the new one and of its worker, once both run.
    async fn begun(&self, lethe: &Lethe) -> anyhow::Result<(u32, u32)> {
        let find = async || {
            let text = lethe.output.text();
            let (_, rest) = text.split_once("it says: pid ")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let new: u32 = lethe.until("the new one runs", find).await?;
        let worker = tokio::time::timeout(PATIENCE, tokio::fs::read_to_string(&self.fifo)).await??;
        let worker: u32 = worker.trim().parse()?;
        ensure!(alive(new) && alive(worker), "both run");
        Ok((new, worker))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_as_it_starts() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    let before = lethe.client.status().await?;
    let slow = Slow::new(&project)?;
    let binary = slow.binary()?;
    let kill = async {
        let (new, worker) = slow.begun(&lethe).await?;
        let text = project.upgrade(&binary).await?;
        ensure!(String::from_utf8(text.stderr)?.contains("another upgrade is under way"), "one at a time");
        kill_9(new)?;
        anyhow::Ok(worker)
    };
    let (text, worker) = tokio::join!(project.upgrade(&binary), kill);
    let (text, worker) = (String::from_utf8(text?.stderr)?, worker?);
    ensure!(text.contains("killed by signal 9"), "{text}");
    gone(worker).await?;
    goes_on(&lethe, &before).await?;
    project.configure(SERVICE)?;
    let _new = project.upgraded(&lethe).await?;
    lethe.down().await
}

/// Who is to take over from one that is killed meanwhile, serves nobody: it ends, and its workers do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_one_is_killed_as_the_new_one_starts() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    let slow = Slow::new(&project)?;
    let binary = slow.binary()?;
    let kill = async {
        let (new, worker) = slow.begun(&lethe).await?;
        kill_9(lethe.pid())?;
        gone(new).await?;
        gone(worker).await
    };
    let (output, killed) = tokio::join!(project.upgrade(&binary), kill);
    killed?;
    ensure!(!output?.status.success(), "nothing has taken over");
    drop(lethe);
    project.configure(SERVICE)?;
    let again = project.up().await?;
    again.down().await
}

/// What a test that fails leaves running, nobody knows the number of any more; it ends with its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_taken_over_ends_with_its_place() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    ensure!(project.upgrade(&[]).await?.status.success());
    let new = lethe.client.status().await?.node.pid;
    let workers = lethe.ready(2).await?.workers;
    drop(lethe);
    ensure!(alive(new), "it serves, whoever started it");
    drop(project);
    gone(new).await?;
    for worker in workers.into_iter().filter_map(|worker| worker.pid) {
        gone(worker).await?;
    }
    Ok(())
}

/// Whichever is killed once the new one is in charge, its own workers go with it, and only they.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_it_has_taken_over() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    let old_workers = lethe.workers().await?;
    let fifo = project.fifo("fifo")?;
    // With this open, the old one stays to the end of its time.
    let _download = held(&lethe, &fifo).await?;
    let new = project.upgraded(&lethe).await?;
    let status = lethe.client.status().await?;
    ensure!(alive(lethe.pid()), "it finishes its requests");
    kill_9(lethe.pid())?;
    for worker in old_workers.into_iter().filter_map(|worker| worker.pid) {
        gone(worker).await?;
    }
    goes_on(&lethe, &status).await?;
    // And it can be upgraded as the first one was; then there is none but the newest.
    let newest = project.upgraded(&lethe).await?;
    gone(status.workers[0].pid.context("a pid")?).await?;
    let workers = lethe.workers().await?;
    kill_9(newest.0)?;
    gone(newest.0).await?;
    for worker in workers.into_iter().filter_map(|worker| worker.pid) {
        gone(worker).await?;
    }
    gone(new.0).await?;
    ensure!(TcpStream::connect(lethe.listen).await.is_err(), "nobody is left");
    let again = project.up().await?;
    again.down().await
}

/// The process that was started ends as the one ends that serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_end_is_that_of_the_first() -> anyhow::Result<()> {
    let project = Project::new()?;
    let lethe = project.up().await?;
    let first = project.upgraded(&lethe).await?;
    let second = project.upgraded(&lethe).await?;
    gone(first.0).await?;
    let workers = lethe.workers().await?;
    kill_9(second.0)?;
    let status = lethe.ended().await?;
    ensure!(status.code() == Some(128 + 9), "{status}");
    for worker in workers.into_iter().filter_map(|worker| worker.pid) {
        gone(worker).await?;
    }
    Ok(())
}

/// Under systemd the first process ends, and systemd knows the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_supervises_is_told() -> anyhow::Result<()> {
    let project = Project::new()?;
    let socket = project.path("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let hear = || {
        let mut read = [0; 128];
        let count = manager.recv(&mut read)?;
        anyhow::Ok(String::from_utf8_lossy(&read[..count]).into_owned())
    };
    let file = project.path("lethe.toml");
    let socket = socket.to_str().context("UTF-8")?;
    let lethe =
        project.place.up_with(&[file.to_str().context("UTF-8")?], &[("NOTIFY_SOCKET", socket)]).await?;
    ensure!(hear()? == "READY=1", "it is told of the start");
    lethe.ready(2).await?;
    let new = project.upgraded(&lethe).await?;
    let told = hear()?;
    ensure!(told == format!("MAINPID={}", new.0), "{told}");
    gone(lethe.pid()).await?;
    ensure!(Visitor::new(lethe.listen).get("/").await?.status == 200, "the new one serves");
    ensure!(project.place.tell(&["down"])?.status.success(), "it is asked to stop");
    let told = hear()?;
    ensure!(told == "STOPPING=1", "{told}");
    let status = lethe.ended().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// A Ctrl-C comes to the one that serves and to the one that waits for it, and is one Ctrl-C all the same. A terminal that
/// is closed ends both.
#[test]
fn in_a_terminal() -> anyhow::Result<()> {
    const TERMINAL: &str = "\
import os, pty, signal, subprocess, sys

signal.alarm(120)
end, binary, state, up = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(binary, [binary, 'up', '--state-dir', state, *up])
seen = b''
def until(text, count):
    global seen
    while seen.count(text) < count:
        seen += os.read(terminal, 4096)
until(b'serving http', 1)
subprocess.run([binary, 'upgrade', '--state-dir', state], check=True)
until(b'serving http', 2)
if end == 'ctrl-c':
    os.write(terminal, b'\\x03')
    try:
        until(b'never', 1)
    except OSError:
        print(seen.decode())
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    for end in ["ctrl-c", "close"] {
        let project = Project::new()?;
        let output = std::process::Command::new("python3")
            .args(["-c", TERMINAL, end, env!("CARGO_BIN_EXE_lethe")])
            .args([
                &project.place.state(),
                Path::new("--no-table"),
                Path::new("--listen"),
                Path::new("127.0.0.1:0"),
            ])
            .arg(project.path("lethe.toml"))
            .env("XDG_RUNTIME_DIR", project.place.path())
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{end}: {}: {}", output.status, String::from_utf8_lossy(&text));
    }
    Ok(())
}
