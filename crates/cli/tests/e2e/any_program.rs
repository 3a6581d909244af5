//! `lethe up` on programs that know nothing of it, with no file at all or with a Procfile.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, ensure};

use crate::{lethe::Place, visitor::Visitor};

/// Until all workers have answered, at most.
const REQUESTS_MAX: usize = 1000;

const APP: &str = "\
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ' '.join([os.environ['LETHE_INSTANCE'], self.path]).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// All workers answer in turn, so that none of them can be anything special.
async fn check(place: &Place, arguments: &[&str], service: &str) -> anyhow::Result<()> {
    let lethe = place.up(arguments).await?;
    lethe.ready(2).await?;
    let mut visitor = Visitor::new(lethe.listen);
    let mut answered = BTreeSet::<String>::new();
    // One that is ready may be news to the gateway for some requests more.
    for _ in 0..REQUESTS_MAX {
        let page = visitor.get("/some/path?x=1").await?;
        ensure!(page.status == 200, "{page:?}");
        let (instance, path) = page.text().split_once(' ').context("two words")?;
        ensure!(path == "/some/path?x=1", "the path arrives as it was sent: {path}");
        answered.insert(instance.to_owned());
        if answered.len() == 2 {
            break;
        }
    }
    ensure!(answered == [format!("{service}-1"), format!("{service}-2")].into(), "{answered:?}");
    lethe.down().await?;
    // The state folder lies in the user's project, and what it holds is not for a repository.
    ensure!(fs::read_to_string(place.state().join(".gitignore"))? == "*\n", "git would take it up");
    Ok(())
}

#[tokio::test]
async fn a_command() -> anyhow::Result<()> {
    let place = Place::new()?;
    let app = place.path().join("app.py");
    fs::write(&app, APP)?;
    check(&place, &["--", "python3", app.to_str().context("UTF-8")?], "app").await
}

#[tokio::test]
async fn a_procfile() -> anyhow::Result<()> {
    let place = Place::new()?;
    let folder = place.path().join("blog");
    fs::create_dir(&folder)?;
    fs::write(folder.join("app.py"), APP)?;
    fs::write(folder.join("Procfile"), "web: python3 app.py --port $PORT\nclock: python3 clock.py\n")?;
    check(&place, &[folder.to_str().context("UTF-8")?], "web").await
}

/// A program that is not in the folder but fetched from its repository, at the tag that was released.
#[tokio::test]
async fn a_source() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path().join("app.py"), APP)?;
    let script = "git init -q code && mkdir code/web && mv app.py code/web && cd code && git add . && \
                  git -c user.name=a -c user.email=a@b commit -qm released && git tag v1 && \
                  git rm -q web/app.py && git -c user.name=a -c user.email=a@b commit -qm broken";
    let made = Command::new("sh").current_dir(place.path()).args(["-c", script]).status()?;
    ensure!(made.success(), "the repository could not be made");
    let toml = format!(
        "[services.app]\nsource = \"file://{}/code#v1\"\ndirectory = \"web\"\ncommand = \"python3 app.py\"\n",
        place.path().display()
    );
    let file = place.path().join("lethe.toml");
    fs::write(&file, toml)?;
    check(&place, &[file.to_str().context("UTF-8")?], "app").await
}

/// The guestbook's own tests, in Python: they run it with `lethe up` and kill its workers.
#[test]
fn the_guestbook() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook");
    let output = Command::new("python3")
        .args(["-m", "unittest"])
        .current_dir(folder)
        .env("LETHE_BIN", env!("CARGO_BIN_EXE_lethe"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    println!("{}{text}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "the guestbook's tests failed");
    ensure!(text.contains("\nOK") && !text.contains("skipped"), "not all tests ran");
    Ok(())
}

/// `--tls-self-signed`, as a client sees it that trusts the certificate it is shown: a handshake for the name it was made
/// for, by either protocol, and a request by HTTP/1.1.
#[tokio::test]
async fn tls_with_a_made_certificate() -> anyhow::Result<()> {
    const CLIENT: &str = "\
import http.client, socket, ssl, sys

port = int(sys.argv[1])
shown = ssl.get_server_certificate(('127.0.0.1', port))
trusting = ssl.create_default_context(cadata=shown)
for offered, agreed in [(['h2', 'http/1.1'], 'h2'), (['http/1.1'], 'http/1.1')]:
    trusting.set_alpn_protocols(offered)
    with trusting.wrap_socket(socket.create_connection(('127.0.0.1', port)), server_hostname='localhost') as one:
        assert one.selected_alpn_protocol() == agreed, one.selected_alpn_protocol()
        assert one.version() == 'TLSv1.3', one.version()
asked = http.client.HTTPSConnection('localhost', port, context=trusting)
asked.request('GET', '/some/path')
print(asked.getresponse().read().decode())
";
    let place = Place::new()?;
    let app = place.path().join("app.py");
    fs::write(&app, APP)?;
    let arguments = ["--tls-self-signed", "--", "python3", app.to_str().context("UTF-8")?];
    let lethe = place.up(&arguments).await?;
    lethe.ready(2).await?;
    let port = lethe.listen.port().to_string();
    let client = tokio::process::Command::new("python3").args(["-c", CLIENT, &port]).output().await?;
    let said = String::from_utf8_lossy(&client.stdout);
    ensure!(said.starts_with("app-") && said.trim_end().ends_with("/some/path"), "{client:?}");
    lethe.down().await
}
