//! What a service was not given it does not get, by whichever socket it asks, and what the file says anew holds at once for
//! the workers that run.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    lethe::{Lethe, Place},
    visitor::{Page, Visitor},
};

/// Passes requests on to the state: `/SOCKET/METHOD/PATH`, where SOCKET is `own`, or `operator` or a service for another's.
/// `/child/…` asks from a process in a session of its own that a worker's process has started. `/env/NAME` tells a variable.
const APP: &str = "\
import http.client, http.server, os, socket

OWN = os.environ['LETHE_STATE'].removeprefix('unix://')

def path_of(which):
    if which in ('own', 'child'):
        return OWN
    services = os.path.dirname(OWN)
    return services.replace('.services', '.sock') if which == 'operator' else f'{services}/{which}.sock'

def ask(which, method, path):
    connection = http.client.HTTPConnection('state')
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path_of(which))
    connection.request(method, path, b'{}' if method == 'POST' else b'x' if method == 'PUT' else None)
    response = connection.getresponse()
    return response.status, response.read()

def ask_apart(method, path):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        status, body = ask('child', method, path)
        os.write(write, str(status).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(read, 10)), b''

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.removeprefix('/second') if os.environ['LETHE_SERVICE'] == 'api' else self.path
        _, which, rest = path.split('/', 2)
        if which == 'env':
            status, body = 200, os.environ.get(rest, '-').encode()
        else:
            method, path = rest.split('/', 1)
            status, body = (ask_apart if which == 'child' else lambda *it: ask(which, *it))(method, '/' + path)
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// Two services, `web` and `api`, each with one worker.
struct Project {
    place: Place,
    lethe: Lethe,
}

impl Project {
    async fn up(web: &str, api: &str) -> anyhow::Result<Self> {
        let place = Place::new()?;
        fs::write(place.path().join("app.py"), APP)?;
        fs::write(place.path().join("lethe.toml"), file(web, api))?;
        let file = place.path().join("lethe.toml");
        let lethe = place.up(&[file.to_str().context("UTF-8")?]).await?;
        lethe.ready(2).await?;
        Ok(Self { place, lethe })
    }

    fn reload(&self, web: &str, api: &str) -> anyhow::Result<String> {
        fs::write(self.place.path().join("lethe.toml"), file(web, api))?;
        let output = self.place.tell(&["reload"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What a service is answered.
    async fn ask(&self, service: &str, question: &str) -> anyhow::Result<Page> {
        let path = format!("{}{question}", if service == "web" { "" } else { "/second" });
        let mut visitor = Visitor::new(self.lethe.listen);
        visitor.get(&path).await
    }

    async fn status(&self, service: &str, question: &str) -> anyhow::Result<u16> {
        Ok(self.ask(service, question).await?.status.as_u16())
    }
}

fn file(web: &str, api: &str) -> String {
    format!(
        "[services.web]\ncommand = 'python3 app.py'\ninstances = 1\n{web}\n\
         [services.api]\ncommand = 'python3 app.py'\ninstances = 1\n{api}\n\
         [[routes]]\nservice = 'web'\n[[routes]]\npath = '/second'\nservice = 'api'\n"
    )
}

const BOUNDED: &str = "state = { tables = ['notes', 'cart-*'] }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_what_it_was_given() -> anyhow::Result<()> {
    let project = Project::up("", "").await?;
    let status = async |service: &str, question: &str| project.status(service, question).await;
    // Nothing is said, so all is everybody's.
    ensure!(status("web", "/own/PUT/v1/tables/orders/1").await? == 204);
    for socket in ["own", "api", "operator", "child"] {
        let page = project.ask("web", &format!("/{socket}/GET/v1/tables/orders/1")).await?;
        ensure!(page.status == 200, "{socket}: {page:?}");
    }
    let worker = project.ask("web", "/env/LETHE_INSTANCE").await?;

    let said = project.reload(BOUNDED, "")?;
    ensure!(said.contains("service `web`: `state` changed"), "{said}");
    ensure!(project.ask("web", "/env/LETHE_INSTANCE").await?.body == worker.body, "its worker goes on");
    let refused = project.ask("web", "/own/GET/v1/tables/orders/1").await?;
    ensure!(refused.status == 403, "{refused:?}");
    let problem: Value = serde_json::from_slice(&refused.body)?;
    let detail = problem["detail"].as_str().context("a detail")?;
    for part in ["the service `web`", "the table `orders`", "`cart-*`, `notes`", "`tables`", "lethe reload"] {
        ensure!(detail.contains(part), "{detail}");
    }
    ensure!(status("web", "/own/POST/v1/sessions").await? == 403);
    ensure!(status("web", "/own/PUT/v1/blobs/photos/1").await? == 403);
    for given in ["notes/1", "cart-7/1"] {
        ensure!(status("web", &format!("/own/PUT/v1/tables/{given}")).await? == 204, "{given}");
    }
    // By other sockets it has no more, nor have processes of its own that have left its group.
    for socket in ["api", "operator"] {
        let page = project.ask("web", &format!("/{socket}/GET/v1/tables/orders/1")).await?;
        ensure!(page.status == 403 && page.text().contains("LETHE_STATE"), "{socket}: {page:?}");
    }
    ensure!(status("web", "/child/GET/v1/tables/notes/1").await? == 200);
    ensure!(status("web", "/child/GET/v1/tables/orders/1").await? == 403);
    // Others have what they had, and so has whoever runs lethe.
    for socket in ["own", "operator"] {
        ensure!(status("api", &format!("/{socket}/GET/v1/tables/orders/1")).await? == 200, "{socket}");
    }
    let row = project.place.tell(&["state", "tables", "get", "orders", "1"])?;
    ensure!(row.status.success() && row.stdout == b"x", "{row:?}");

    project.reload("state = { tables = ['notes'], buckets = ['photos'], sessions = true }", "")?;
    ensure!(status("web", "/own/POST/v1/sessions").await? == 201);
    ensure!(status("web", "/own/PUT/v1/blobs/photos/1").await? == 201);
    ensure!(status("web", "/own/GET/v1/tables/cart-7/1").await? == 403);
    project.reload("", "")?;
    ensure!(status("web", "/own/GET/v1/tables/cart-7/1").await? == 200, "all is everybody's again");
    project.lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_sessions_of_its_own() -> anyhow::Result<()> {
    let own = "state = { sessions = true }";
    let project = Project::up(own, own).await?;
    let status = async |service: &str, question: &str| project.status(service, question).await;
    let create = async |service: &str| -> anyhow::Result<String> {
        let page = project.ask(service, "/own/POST/v1/sessions").await?;
        let session: Value = serde_json::from_slice(&page.body)?;
        Ok(session["id"].as_str().context("an id")?.to_owned())
    };
    let (web, api) = (create("web").await?, create("api").await?);
    ensure!(web.ends_with("~web") && api.ends_with("~api"), "{web} {api}");
    let of = |id: &str| format!("/own/GET/v1/sessions/{id}");
    ensure!(status("web", &of(&web)).await? == 200 && status("web", &of(&api)).await? == 404);
    ensure!(status("api", &of(&api)).await? == 200 && status("api", &of(&web)).await? == 404);
    ensure!(status("api", "/web/GET/v1/users/ada/sessions").await? == 403, "nor at the other's door");

    // Another name is other sessions, which those who have it share.
    project.reload("state = { sessions = 'both' }", "state = { sessions = 'both' }")?;
    ensure!(status("web", &of(&web)).await? == 404);
    let both = create("web").await?;
    ensure!(both.ends_with("~both") && status("api", &of(&both)).await? == 200);
    // Those in common are of services that were given no part of the state, and may be given.
    project.reload("", "state = { sessions = 'common' }")?;
    let common = create("web").await?;
    ensure!(!common.contains('~') && status("api", &of(&common)).await? == 200);
    ensure!(status("web", &of(&both)).await? == 404);
    project.reload(own, own)?;
    ensure!(status("web", &of(&web)).await? == 200, "the old name has the old sessions");
    project.lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_come_and_go_and_another_lethe() -> anyhow::Result<()> {
    let project = Project::up(BOUNDED, "state = { tables = ['orders'] }").await?;
    let output = project.place.tell(&["upgrade"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(project.status("web", "/own/PUT/v1/tables/notes/1").await? == 204);
    ensure!(project.status("web", "/own/GET/v1/tables/orders/1").await? == 403);
    ensure!(project.status("api", "/own/GET/v1/tables/orders/1").await? == 404);
    ensure!(project.status("api", "/own/GET/v1/tables/notes/1").await? == 403);
    // A service that goes takes its socket with it, and one that comes has one.
    let whole = file(BOUNDED, "");
    let only_web = whole.split("[services.api]").next().context("web")?;
    fs::write(project.place.path().join("lethe.toml"), only_web)?;
    ensure!(project.place.tell(&["reload"])?.status.success());
    ensure!(project.ask("web", "/api/GET/v1/health").await?.status == 502, "nobody is there");
    project.reload(BOUNDED, "state = { tables = ['notes'] }")?;
    ensure!(project.status("api", "/own/GET/v1/tables/notes/1").await? == 200);
    ensure!(project.status("api", "/own/GET/v1/tables/orders/1").await? == 403);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_addresses_of_state_is_kept_from_workers() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path().join("app.py"), APP)?;
    // Nobody takes a lock, so that nobody misses the server.
    let state = "[state]\nlocks = 'redis://:${SECRET_OF_LOCKS}@127.0.0.1:1'\n";
    let api = "env = { SECRET_OF_LOCKS = 'its own' }";
    fs::write(place.path().join("lethe.toml"), format!("{}{state}", file("", api)))?;
    let path = place.path().join("lethe.toml");
    let env = [("SECRET_OF_LOCKS", "hidden"), ("NO_SECRET", "seen")];
    let lethe = place.up_with(&[path.to_str().context("UTF-8")?], &env).await?;
    lethe.ready(2).await?;
    let mut visitor = Visitor::new(lethe.listen);
    for (question, answer) in [
        ("/env/SECRET_OF_LOCKS", "-"),
        ("/env/NO_SECRET", "seen"),
        ("/second/env/SECRET_OF_LOCKS", "its own"),
    ] {
        let page = visitor.get(question).await?;
        ensure!(page.text() == answer, "{question}: {page:?}");
    }
    Ok(())
}
