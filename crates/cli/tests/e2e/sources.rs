//! Services whose programs are fetched: a branch is followed, what is bad leaves what is good, and neither `kill -9` nor a
//! network that is away takes a release away.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, ensure};
use lethe_admin::releases::{Cause, Outcome, Release};

use crate::{
    git_server::GitServer,
    lethe::{Lethe, Place, kill_9},
    teller::{self, Told},
    visitor::Visitor,
};

/// What the environment of the service has, and nobody may see.
const KEY: &str = "correct-horse";

/// A repository `app.git` with a service whose pages say what is in its file `version`, and a `lethe.toml`.
struct Project {
    place: Place,
}

impl Project {
    fn new() -> anyhow::Result<Self> {
        let project = Self { place: Place::new()? };
        let program =
            format!("import os\nos.environ['WORD'] = open('version').read().strip()\n{}", teller::PROGRAM);
        fs::write(project.path("app.py"), program)?;
        project.sh(
            "git init -q -b main app.git; cd app.git; git config user.email a@b; git config user.name a",
        )?;
        project.commit("cp ../app.py .; echo 1 >version")?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn sh(&self, script: &str) -> anyhow::Result<()> {
        let status = Command::new("sh").current_dir(self.place.path()).args(["-ec", script]).status()?;
        ensure!(status.success(), "{script}");
        Ok(())
    }

    fn commit(&self, script: &str) -> anyhow::Result<()> {
        self.sh(&format!("cd app.git; {script}; git add -A; git commit -qm change"))
    }

    /// `lethe.toml` with one service that is built by `build`.
    fn write(&self, source: &str, build: &str) -> anyhow::Result<()> {
        self.write_with(source, build, "0s")
    }

    fn write_with(&self, source: &str, build: &str, bake: &str) -> anyhow::Result<()> {
        let text = format!(
            "[services.web]\ncommand = \"python3 app.py\"\nsource = {source}\nbuild = '''{build}'''\ninstances = 2\n\
             env = {{ KEY = \"{KEY}\", KEYS = \"{KEY}-and-more\" }}\nrollout = {{ bake = \"{bake}\" }}\n"
        );
        Ok(fs::write(self.path("lethe.toml"), text)?)
    }

    async fn up(&self, env: &[(&str, &str)]) -> anyhow::Result<Lethe> {
        let file = self.path("lethe.toml");
        self.place.up_with(&[file.to_str().context("UTF-8")?], env).await
    }

    /// How often `build` has written a line into the file `count`.
    fn builds(&self) -> usize {
        fs::read_to_string(self.path("count")).unwrap_or_default().lines().count()
    }

    /// Names of what is in the folder of the releases, without the books.
    fn releases(&self) -> anyhow::Result<Vec<String>> {
        let names = fs::read_dir(self.place.state().join("releases"))?;
        let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<anyhow::Result<_>>()?;
        // Beside them are the books, the histories, and a key.
        let is_of_one = |name: &String| name != "services" && name != "key" && !name.ends_with(".json");
        Ok(names.into_iter().filter(is_of_one).collect())
    }
}

async fn version(lethe: &Lethe) -> anyhow::Result<String> {
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(page.status == 200, "{page:?}");
    Ok(Told::by(&page)?.word.into())
}

/// Waits for the end of the rollout after so many others, and gives it.
async fn ended(lethe: &Lethe, number: usize) -> anyhow::Result<Release> {
    lethe
        .until(&format!("rollout {number} has ended"), async || {
            let history = lethe.client.history("web").await.ok()?;
            history.get(number).filter(|known| known.outcome != Outcome::UnderWay).cloned()
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_is_followed_and_what_is_bad_leaves_what_is_good() -> anyhow::Result<()> {
    let project = Project::new()?;
    let server = GitServer::start(project.place.path())?;
    let source =
        format!("{{ git = \"{}\", ref = \"main\", auto = true, every = \"1s\" }}", server.url("app.git"));
    let count = project.path("count");
    // What a build is given, and says, is nobody's business.
    let build = format!(
        "BUILD_TOKEN=swordfish; echo built >>{}; echo key $KEYS {KEY}-and-more {KEY}; python3 -m py_compile app.py",
        count.display()
    );
    project.write(&source, &build)?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    ensure!(version(&lethe).await? == "1", "what was there first");

    project.commit("echo 2 >version")?;
    let second = ended(&lethe, 1).await?;
    ensure!((second.cause, second.outcome) == (Cause::Auto, Outcome::Promoted), "{second:#?}");
    ensure!(version(&lethe).await? == "2" && project.builds() == 2);
    // It cannot be built.
    project.commit("echo 3 >version; echo '(' >>app.py")?;
    let unbuilt = ended(&lethe, 2).await?;
    ensure!(unbuilt.outcome == Outcome::Failed, "{unbuilt:#?}");
    ensure!(unbuilt.reason.as_ref().is_some_and(|why| why.contains("SyntaxError")), "{unbuilt:#?}");
    ensure!(unbuilt.revision.is_some() && unbuilt.revision != second.revision, "it is named: {unbuilt:#?}");
    ensure!(version(&lethe).await? == "2", "the version that ran goes on");
    // It can be built, and does not start: it goes back by itself.
    project.commit("cp ../app.py .; rm version")?;
    let unstarted = ended(&lethe, 3).await?;
    ensure!(unstarted.outcome == Outcome::RolledBack, "{unstarted:#?}");
    lethe.ready(2).await?;
    ensure!(version(&lethe).await? == "2", "the version that ran goes on");
    project.commit("echo 4 >version")?;
    let fourth = ended(&lethe, 4).await?;
    ensure!(fourth.outcome == Outcome::Promoted && version(&lethe).await? == "4", "{fourth:#?}");
    ensure!(project.builds() == 5, "each was built once");

    // Somebody goes back: nothing is built, and what was left is not deployed again by itself.
    let back = project.place.tell(&["rollback", "web"])?;
    ensure!(back.status.success(), "{back:?}");
    let back = ended(&lethe, 5).await?;
    ensure!((back.release, back.cause) == (second.release, Cause::Rollback), "{back:#?}");
    ensure!(version(&lethe).await? == "2" && project.builds() == 5);
    project.commit("echo 6 >version")?;
    let sixth = ended(&lethe, 6).await?;
    ensure!((sixth.cause, sixth.outcome) == (Cause::Auto, Outcome::Promoted), "{sixth:#?}");
    ensure!(version(&lethe).await? == "6" && project.builds() == 6, "the next one and no other: {sixth:#?}");
    // A build that is kept comes back after a restart too.
    lethe.down().await?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    drop(server);
    let to = fourth.release.to_string();
    let back = project.place.tell(&["rollback", "web", "--to", &to])?;
    ensure!(back.status.success(), "{back:?}");
    ensure!(version(&lethe).await? == "4" && project.builds() == 6, "without network and without a build");

    // Nor when it is typed for one deploy, which cannot be fetched.
    let elsewhere = "git+http://me:typed-secret@127.0.0.1:1/nowhere.git";
    let failed = project.place.tell(&["deploy", "web", "--source", elsewhere])?;
    let said = String::from_utf8([failed.stdout, failed.stderr].concat())?;
    ensure!(failed.status.code() == Some(1) && said.contains("nowhere.git"), "{said}");
    ensure!(!said.contains("typed-secret"), "{said}");
    ensure!(version(&lethe).await? == "4", "the version that ran goes on");

    let state = project.place.state();
    for secret in [GitServer::PASSWORD, KEY, "typed-secret", "and-more", "swordfish"] {
        let text = lethe.output.text();
        ensure!(!text.contains(secret), "{secret}: {text}");
        let found = Command::new("grep").args(["-rlF", secret]).arg(&state).output()?;
        ensure!(found.stdout.is_empty(), "{secret}: {}", String::from_utf8_lossy(&found.stdout));
    }
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_not_deployed_again() -> anyhow::Result<()> {
    let project = Project::new()?;
    let server = GitServer::start(project.place.path())?;
    let source =
        format!("{{ git = \"{}\", ref = \"main\", auto = true, every = \"1s\" }}", server.url("app.git"));
    project.write_with(&source, "true", "1h")?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    project.commit("echo 2 >version")?;
    lethe.until("it is watched", async || (version(&lethe).await.ok()? == "2").then_some(())).await?;
    let asked = || fs::read_to_string(project.path("asked")).unwrap_or_default().lines().count();
    let before = asked();
    lethe.until("it was looked at twice again", async || (asked() > before + 2).then_some(())).await?;
    let history = lethe.client.history("web").await?;
    ensure!(history.len() == 2 && history[1].outcome == Outcome::UnderWay, "{history:#?}");
    // The next one is not held up by that.
    project.commit("echo 3 >version")?;
    lethe.until("the next one", async || (version(&lethe).await.ok()? == "3").then_some(())).await?;
    let second = ended(&lethe, 1).await?;
    ensure!(second.outcome == Outcome::Promoted, "{second:#?}");
    let history = lethe.client.history("web").await?;
    ensure!(history.len() == 3, "{history:#?}");
    lethe.down().await
}

/// A server of one archive, which stops in the middle of the first answer until that connection has ended.
struct Slow {
    address: String,
    /// Something comes when it has stopped, and when its client has gone.
    told: std::sync::mpsc::Receiver<()>,
}

impl Slow {
    fn of(archive: Vec<u8>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?.to_string();
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let _ = stream.and_then(|stream| Self::answer(stream, &archive, number == 0, &tell));
            }
        });
        Ok(Self { address, told })
    }

    fn answer(
        mut stream: TcpStream,
        archive: &[u8],
        stops: bool,
        tell: &std::sync::mpsc::Sender<()>,
    ) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let length = archive.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
        if !stops {
            return stream.write_all(archive);
        }
        stream.write_all(&archive[..length / 2])?;
        let _ = tell.send(());
        // Ends with the client.
        let _ = stream.read(&mut [0]);
        let _ = tell.send(());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_during_a_fetch_leaves_nothing_half() -> anyhow::Result<()> {
    let project = Project::new()?;
    project.sh("tar -czf app.tar.gz -C app.git app.py version")?;
    let server = Slow::of(fs::read(project.path("app.tar.gz"))?)?;
    // With a pin there is no look before the download.
    let hash = Command::new("sha256sum").arg(project.path("app.tar.gz")).output()?.stdout;
    let hash = String::from_utf8(hash)?.split(' ').next().context("a hash")?.to_owned();
    project.write(&format!("\"http://{}/app.tar.gz#sha256={hash}\"", server.address), "true")?;
    let (state, file) = (project.place.state(), project.path("lethe.toml"));
    let [state_dir, file] = [&state, &file].map(|path| path.to_str().unwrap_or_default());
    let arguments = ["up", "--listen", "127.0.0.1:0", "--state-dir", state_dir, file];
    let mut killed = project.place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let told = tokio::task::spawn_blocking(move || {
        server.told.recv()?;
        kill_9(killed.id())?;
        killed.wait()?;
        // The program that fetches ends with it, though nobody tells it to.
        server.told.recv()?;
        anyhow::Ok(())
    });
    told.await??;
    ensure!(project.releases()?.iter().any(|name| name.starts_with("fresh-")), "something half is there");
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    ensure!(version(&lethe).await? == "1");
    let releases = project.releases()?;
    ensure!(releases.len() == 1 && !releases[0].starts_with("fresh-"), "{releases:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_one_store_leave_each_other_what_they_need() -> anyhow::Result<()> {
    let project = Project::new()?;
    let build = format!("echo built >>{}", project.path("count").display());
    project.write("\"./app.git#main\"", &build)?;
    let lethe = project.up(&[]).await?;
    let before = lethe.ready(2).await?.workers;
    // The second process takes over while the first still has its workers.
    let upgraded = project.place.tell(&["upgrade"])?;
    ensure!(upgraded.status.success(), "{upgraded:?}");
    lethe
        .until("the workers of the new one are there", async || {
            let workers = lethe.client.status().await.ok()?.workers;
            let is_new = |pid| before.iter().all(|old| old.pid != pid);
            (workers.len() == 2 && workers.iter().all(|worker| is_new(worker.pid))).then_some(())
        })
        .await?;
    ensure!(version(&lethe).await? == "1" && project.builds() == 1, "built once");
    ensure!(project.releases()?.len() == 1);
    let workers = lethe.client.status().await?.workers;
    kill_9(workers[0].pid.context("a process")?)?;
    lethe
        .until("another worker is ready", async || {
            let now = lethe.client.status().await.ok()?.workers;
            let is_back = now.iter().all(|it| it.pid.is_some() && it.pid != workers[0].pid);
            (is_back && now.len() == 2).then_some(())
        })
        .await?;
    lethe.ready(2).await?;
    ensure!(version(&lethe).await? == "1" && project.builds() == 1);
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_built_in_place_cannot_be_gone_back_to() -> anyhow::Result<()> {
    let project = Project::new()?;
    project.sh("cp app.git/app.py app.git/version .")?;
    let text = |word: &str| {
        format!(
            "[services.web]\ncommand = \"python3 app.py\"\nbuild = \"true\"\nenv = {{ A = \"{word}\" }}\n\
             rollout = {{ bake = \"0s\" }}\n"
        )
    };
    fs::write(project.path("lethe.toml"), text("one"))?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    fs::write(project.path("lethe.toml"), text("two"))?;
    let deployed = project.place.tell(&["deploy", "web"])?;
    ensure!(deployed.status.success(), "{deployed:?}");
    let refused = project.place.tell(&["rollback", "web"])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1) && said.contains("release 1 was built in"), "{said}");
    ensure!(said.contains("give web a `source`"), "{said}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_during_a_build_leaves_nothing_half() -> anyhow::Result<()> {
    let project = Project::new()?;
    let go = project.path("go");
    let build = format!(
        "echo built >>{}; touch half; echo begun; while [ ! -e {} ]; do sleep 0.01; done; rm half",
        project.path("count").display(),
        go.display()
    );
    project.write("\"./app.git#main\"", &build)?;
    let state = project.place.state();
    let file = project.path("lethe.toml");
    let arguments = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        state.to_str().context("UTF-8")?,
        file.to_str().context("UTF-8")?,
    ];
    let mut killed =
        project.place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = BufReader::new(killed.stdout.take().context("its output")?).lines();
    let begun = lines.map_while(Result::ok).any(|line| line.contains("begun"));
    ensure!(begun, "the build has begun");
    kill_9(killed.id())?;
    killed.wait()?;
    ensure!(!project.releases()?.is_empty(), "something half is there");

    fs::write(&go, "")?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    ensure!(version(&lethe).await? == "1" && project.builds() == 2, "it was built anew");
    let releases = project.releases()?;
    ensure!(releases.len() == 1, "{releases:?}");
    let tree = state.join("releases").join(&releases[0]).join("tree");
    ensure!(tree.join("app.py").exists() && !tree.join("half").exists(), "and from the beginning");
    // A third one finds it built.
    lethe.down().await?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    ensure!(project.builds() == 2, "it is built once");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_network_the_last_release_is_started() -> anyhow::Result<()> {
    let project = Project::new()?;
    let url = format!("\"file://{}#main\"", project.path("app.git").display());
    project.write(&url, "true")?;
    // What the environment says to git stays said; and a server of the old protocol gives no commit without a name.
    let env =
        [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "protocol.version"), ("GIT_CONFIG_VALUE_0", "0")];
    let lethe = project.up(&env).await?;
    let workers = lethe.ready(2).await?.workers;
    // The release is damaged and the branch has moved on: a new worker gets what the others have.
    project.commit("echo 2 >version")?;
    project.commit("echo 3 >version")?;
    fs::remove_file(
        project.place.state().join("releases").join(&project.releases()?[0]).join("tree/version"),
    )?;
    let killed = workers[0].pid.context("a process")?;
    kill_9(killed)?;
    lethe
        .until("another worker is ready", async || {
            let workers = lethe.client.status().await.ok()?.workers;
            let is_ready = workers.iter().all(|worker| worker.pid != Some(killed) && worker.pid.is_some());
            is_ready.then_some(())
        })
        .await?;
    lethe.ready(2).await?;
    for _ in 0..10 {
        ensure!(version(&lethe).await? == "1", "what was released");
    }
    lethe.down().await?;

    project.sh("mv app.git away.git")?;
    let lethe = project.up(&[]).await?;
    lethe.ready(2).await?;
    ensure!(version(&lethe).await? == "1", "the last that is known");
    let text = lethe.output.text();
    ensure!(text.contains("goes on with") && text.contains("cannot fetch"), "{text}");
    // Who changes the file is told, and nothing changes.
    project.write(&url, "true # another")?;
    let reload = project.place.tell(&["reload"])?;
    let text = String::from_utf8([reload.stdout, reload.stderr].concat())?;
    ensure!(!reload.status.success() && text.contains("cannot fetch"), "{text}");
    ensure!(version(&lethe).await? == "1", "the version that ran goes on");
    lethe.down().await
}
