use std::{path::PathBuf, process::Command, time::Duration};

use lethe_model::service::InstanceId;
use lethe_state::embedded::Embedded;
use lethe_supervisor::home::Home;

use super::*;
use crate::config::{Overrides, load};

/// A repository, a `lethe.toml` that runs what is in it, and a file that counts builds.
struct Lab {
    place: tempfile::TempDir,
    engine: Embedded,
}

impl Lab {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let engine = Embedded::open(&place.path().join("state")).unwrap();
        let lab = Self { place, engine };
        lab.sh("git init -q -b main app.git && cd app.git && git config user.email a@b && git config user.name a");
        lab.commit("echo 1 >version");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn sh(&self, script: &str) {
        let status = Command::new("sh").current_dir(&self.place).args(["-ec", script]).status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn commit(&self, script: &str) {
        self.sh(&format!("cd app.git; {script}; git add -A; git commit -qm change"));
    }

    fn maker(&self) -> Arc<Maker> {
        Arc::new(Maker::new(&self.path("state"), self.engine.engines().blobs, Stop::new()))
    }

    /// The service, with these lines more.
    fn service(&self, more: &str) -> ServiceConfig {
        let count = self.path("count");
        let build = format!("build = \"echo built >>{} && cp version made\"\n", count.display());
        let build = if more.contains("build =") { String::new() } else { build };
        let source = if more.contains("source =") { "" } else { "source = './app.git#main'\n" };
        let text = format!("[services.web]\ncommand = 'sh'\n{source}{build}{more}");
        fs::write(self.path("lethe.toml"), text).unwrap();
        let config = load(config::Source::Path(self.place.path().into()), Overrides::default());
        config.unwrap_or_else(|errors| panic!("{errors}")).services.remove(0)
    }

    fn builds(&self) -> usize {
        fs::read_to_string(self.path("count")).unwrap_or_default().lines().count()
    }
}

/// What was made, and where it is.
#[derive(Debug)]
struct Built {
    directory: PathBuf,
    revision: Option<String>,
    _pin: Option<Arc<Pin>>,
}

/// Makes it; what it has made and what was said.
async fn make(
    maker: &Maker,
    mut service: ServiceConfig,
    wanted: Wanted,
) -> (Result<Built, Error>, Vec<String>) {
    let mut said = Vec::new();
    let mut watch = |step: Step<'_>| {
        if let Step::Notice(text) = step {
            said.push(text.to_owned());
        }
    };
    let made = maker.make(&mut service, wanted, &mut watch).await;
    let built =
        made.map(|Made { revision, pin }| Built { directory: service.spec.directory, revision, _pin: pin });
    (built, said)
}

async fn newest(maker: &Maker, service: ServiceConfig) -> Built {
    make(maker, service, Wanted::Newest).await.0.unwrap()
}

/// Where it is and what it was made of.
fn what(made: &Built) -> (PathBuf, Option<String>) {
    (made.directory.clone(), made.revision.clone())
}

fn version(made: &Built) -> String {
    fs::read_to_string(made.directory.join("made")).unwrap()
}

#[tokio::test]
async fn the_same_is_built_once() {
    let lab = Lab::new();
    let maker = lab.maker();
    let first = newest(&maker, lab.service("")).await;
    assert_eq!((version(&first).as_str(), lab.builds()), ("1\n", 1));
    assert!(!first.directory.join(".git").exists());
    assert_eq!(what(&newest(&maker, lab.service("")).await), what(&first));
    // Another process, another service setting, another commit with the same files.
    assert_eq!(what(&newest(&lab.maker(), lab.service("drain = '5s'\n")).await), what(&first));
    lab.sh("cd app.git && git commit -q --allow-empty -m nothing");
    let same = newest(&maker, lab.service("")).await;
    assert_eq!((&same.directory, lab.builds()), (&first.directory, 1));
    assert_ne!(same.revision, first.revision);
    // Another build, and other files, are another release.
    let other = newest(&maker, lab.service("build = 'cp version made; true'\n")).await;
    assert_ne!(other.directory, first.directory);
    lab.commit("echo 2 >version");
    let second = newest(&maker, lab.service("")).await;
    assert_eq!((version(&second).as_str(), lab.builds()), ("2\n", 2));
    assert_eq!(version(&first), "1\n", "the old one is left alone");
    // Back to the first, by its tag: it is there.
    lab.sh("cd app.git && git tag v1 HEAD~2");
    assert_eq!(newest(&maker, lab.service("source = './app.git#v1'\n")).await.directory, first.directory);
    assert_eq!(lab.builds(), 2);
    lab.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_at_one_time_waits_for_one_build() {
    let lab = Lab::new();
    // Two makers are as two processes.
    let makers = [lab.maker(), lab.maker()];
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let (maker, service) = (Arc::clone(&makers[number % 2]), lab.service(""));
            tokio::spawn(async move { newest(&maker, service).await })
        })
        .collect();
    for made in futures_util::future::join_all(tasks).await {
        assert_eq!(version(&made.unwrap()), "1\n");
    }
    assert_eq!(lab.builds(), 1);
    lab.engine.close().await;
}

#[tokio::test]
async fn what_cannot_be_fetched_or_built_leaves_the_last() {
    let lab = Lab::new();
    let first = newest(&lab.maker(), lab.service("")).await;
    // Away, as a network is.
    lab.sh("mv app.git away.git");
    let source = format!("source = 'file://{}#main'\n", lab.path("app.git").display());
    let maker = lab.maker();
    let (refused, _) = make(&maker, lab.service(&source), Wanted::NewestOrLast).await;
    assert!(matches!(refused, Err(Error::Source(_))), "nothing is known of this source: {refused:?}");
    lab.sh("mv away.git app.git");
    let first_there = newest(&maker, lab.service(&source)).await;
    assert_eq!(first_there.directory, first.directory);
    lab.sh("mv app.git away.git");
    let maker = lab.maker();
    let (made, said) = make(&maker, lab.service(&source), Wanted::NewestOrLast).await;
    assert_eq!(what(&made.unwrap()), what(&first_there));
    assert!(said[0].starts_with("goes on with ") && said[0].contains("cannot fetch"), "{said:?}");
    let (refused, _) = make(&maker, lab.service(&source), Wanted::Newest).await;
    assert!(matches!(refused, Err(Error::Source(_))), "who deploys is told: {refused:?}");
    lab.sh("mv away.git app.git");
    // Broken, and known as broken from then on, until it moves.
    let runs = first.directory.clone();
    assert!(!maker.has_news(&lab.service(&source), std::slice::from_ref(&runs)).await.unwrap(), "it runs");
    lab.commit("rm version; echo >broken");
    let (refused, _) = make(&maker, lab.service(&source), Wanted::Newest).await;
    assert!(matches!(refused, Err(Error::Build(build::Error::Failed { .. }))), "{refused:?}");
    assert!(!maker.has_news(&lab.service(&source), std::slice::from_ref(&runs)).await.unwrap());
    let builds = lab.builds();
    let maker = lab.maker();
    let (made, said) = make(&maker, lab.service(&source), Wanted::NewestOrLast).await;
    assert_eq!(made.unwrap().directory, first.directory);
    assert!(said[0].contains("failed when it was tried"), "{said:?}");
    assert_eq!(lab.builds(), builds, "it is not tried again");
    assert!(!maker.has_news(&lab.service(&source), std::slice::from_ref(&runs)).await.unwrap());
    lab.commit("echo 3 >version");
    assert!(maker.has_news(&lab.service(&source), std::slice::from_ref(&runs)).await.unwrap());
    let third = newest(&maker, lab.service(&source)).await;
    assert_eq!(version(&third), "3\n");
    assert!(
        maker.has_news(&lab.service(&source), std::slice::from_ref(&runs)).await.unwrap(),
        "it was made and does not run"
    );
    assert!(!maker.has_news(&lab.service(&source), std::slice::from_ref(&third.directory)).await.unwrap());
    // It was built, and did not start.
    maker.was_bad(&ServiceName::new("web").unwrap(), &third.directory);
    assert!(!maker.has_news(&lab.service(&source), std::slice::from_ref(&runs)).await.unwrap());
    let (made, _) = make(&lab.maker(), lab.service(&source), Wanted::NewestOrLast).await;
    assert_eq!(made.unwrap().directory, first.directory);
    // No half release is left of all that failed.
    let names = fs::read_dir(lab.path("state/releases")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name != "services").count(), 2);
    lab.engine.close().await;
}

#[tokio::test]
async fn each_worker_has_its_own_and_a_damaged_release_is_made_again() {
    let lab = Lab::new();
    let maker = lab.maker();
    let made = newest(&maker, lab.service("")).await;
    let worker = |number| InstanceId::new(&ServiceName::new("web").unwrap(), number);
    let one = maker.home(&made.directory, &worker(1)).await.unwrap();
    let read = |home: &Home| fs::read_to_string(home.directory.join("made")).unwrap();
    fs::write(one.directory.join("made"), "mine").unwrap();
    fs::write(one.directory.join("cache"), "").unwrap();
    let two = maker.home(&made.directory, &worker(2)).await.unwrap();
    assert_eq!((read(&two).as_str(), two.directory.join("cache").exists()), ("1\n", false));
    // Somebody tidies up.
    fs::remove_dir_all(lab.path("state/releases")).unwrap();
    let three = maker.home(&made.directory, &worker(3)).await.unwrap();
    assert_eq!((read(&three).as_str(), lab.builds()), ("1\n", 2));
    // A file is lost; several workers start at one time.
    fs::remove_file(made.directory.join("version")).unwrap();
    // It has moved on, and what is fetched again is what it was.
    lab.commit("echo 2 >version");
    let homes = (4..8).map(|number| {
        let (maker, directory) = (&maker, &made.directory);
        async move { maker.home(directory, &worker(number)).await.unwrap() }
    });
    for home in futures_util::future::join_all(homes).await {
        assert_eq!(read(&home), "1\n");
    }
    assert_eq!(lab.builds(), 3);
    // It cannot be had any more: that is said, and nothing else is started in its place.
    fs::remove_file(made.directory.join("version")).unwrap();
    lab.sh("rm -rf app.git");
    let why = maker.home(&made.directory, &worker(9)).await.unwrap_err();
    assert!(why.contains("cannot fetch"), "{why}");
    // A worker's folder goes with it.
    let folder = one.directory.clone();
    drop((one, two, three));
    let gone = async {
        while folder.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    // Where nothing was released, workers run where their service is.
    let home = maker.home(Path::new("/"), &worker(10)).await.unwrap();
    assert_eq!(home.directory, Path::new("/"));
    lab.engine.close().await;
}

#[tokio::test]
async fn a_folder_and_a_part_of_it() {
    let lab = Lab::new();
    lab.sh("mkdir -p shop/api && echo 1 >shop/api/version && echo secret >shop/.env");
    let more = "source = 'shop'\ndirectory = 'api'\n";
    let maker = lab.maker();
    let first = newest(&maker, lab.service(more)).await;
    assert!(first.directory.ends_with("tree/api") && version(&first) == "1\n");
    assert_eq!(what(&newest(&maker, lab.service(more)).await), what(&first));
    assert_eq!(lab.builds(), 1);
    lab.sh("echo 2 >shop/api/version");
    assert_eq!(version(&newest(&maker, lab.service(more)).await), "2\n");
    let (refused, _) = make(&maker, lab.service("source = 'shop'\ndirectory = 'no'\n"), Wanted::Newest).await;
    let refused = in_full(&refused.unwrap_err());
    assert!(refused.contains("`directory`") && refused.contains("no"), "{refused}");
    lab.engine.close().await;
}

#[tokio::test]
async fn a_build_says_no_password() {
    let lab = Lab::new();
    lab.sh("tar -czf app.tar.gz -C app.git version");
    let service = lab.service("source = 'app.tar.gz'\nbuild = 'echo wrong >&2; exit 3'\n");
    let (refused, _) = make(&lab.maker(), service, Wanted::Newest).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("wrong") && refused.contains("exit status: 3"), "{refused}");
    // What the program prints, lines and the end of a failed one alike.
    let service =
        lab.service("source = 'https://me:hunter2@127.0.0.1:1/x.tar'\nbuild = 'echo hunter2; exit 3'\n");
    let mut lines = Vec::new();
    let mut watch = |step: Step<'_>| {
        if let Step::Line(line) = step {
            lines.push(line.to_owned());
        }
    };
    let mut here = service.clone();
    here.fetched(&lab.path("app.git"));
    let failed = lab.maker().build(&here, &mut watch).await.unwrap_err().to_string();
    assert_eq!(lines, ["…"]);
    assert!(failed.contains("\n…") && !failed.contains("\nhunter2"), "{failed}");
    lab.engine.close().await;
}

#[tokio::test]
async fn what_was_built_comes_back_without_a_fetch_or_a_build() {
    for name in ["app.git#main", "app.tar.gz", "app"] {
        let lab = Lab::new();
        let source = format!("source = './{name}'\n");
        lab.sh("tar -czf app.tar.gz -C app.git version; mkdir app; cp app.git/version app");
        let first = newest(&lab.maker(), lab.service(&source)).await;
        lab.commit("echo 2 >version");
        lab.sh("tar -czf app.tar.gz -C app.git version; cp app.git/version app");
        assert_eq!(version(&newest(&lab.maker(), lab.service(&source)).await), "2\n");
        // It is not there any more; a folder of that name is another one.
        lab.sh("rm -rf app.git app.tar.gz app; mkdir app");
        let service = || {
            let service = lab.service(&source);
            let pinned = service.source.as_ref().unwrap().at(first.revision.as_ref().unwrap());
            service.with_source(pinned)
        };
        assert_eq!(what(&newest(&lab.maker(), service()).await), what(&first), "{name}");
        assert_eq!(lab.builds(), 2, "{name}");
        // One that is not kept is what it was, or nothing.
        fs::remove_dir_all(lab.path("state/releases")).unwrap();
        let (refused, _) = make(&lab.maker(), service(), Wanted::Newest).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Source(_)), "{name}: {refused:?}");
        lab.engine.close().await;
    }
}

#[tokio::test]
async fn what_is_pinned_stays_and_the_rest_goes() {
    let lab = Lab::new();
    let maker = lab.maker();
    let first = newest(&maker, lab.service("")).await;
    // More than the book has room for.
    for number in 2..9 {
        lab.commit(&format!("echo {number} >version"));
        newest(&maker, lab.service("")).await;
        maker.hold_only([]);
        maker.sweep().await;
        assert_eq!(version(&first), "1\n", "it is pinned");
    }
    let directory = first.directory.clone();
    drop(first);
    maker.hold_only([directory.clone()]);
    maker.sweep().await;
    assert!(directory.is_dir(), "it is in use");
    maker.hold_only([]);
    // A process that another test is just starting has its claim too, for a moment.
    let gone = async {
        while directory.exists() {
            maker.sweep().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    lab.engine.close().await;
}

#[tokio::test]
async fn a_full_disk_is_named_and_says_nothing_of_the_version() {
    let lab = Lab::new();
    let small = lab.path("small");
    fs::create_dir(&small).unwrap();
    let mount = |script: &str| Command::new("sh").args(["-c", script, "sh"]).arg(&small).status().unwrap();
    if !mount("mount -t tmpfs -o size=600k none \"$1\" 2>&1").success() {
        println!("not tested: only root may mount a small file system");
        return lab.engine.close().await;
    }
    lab.sh("mkdir app; echo 1 >app/version");
    let maker = Arc::new(Maker::new(&small, lab.engine.engines().blobs, Stop::new()));
    let first = newest(&maker, lab.service("source = './app'\n")).await;
    lab.sh("head -c 1000000 /dev/zero >app/large; echo 2 >app/version");
    let (refused, _) = make(&maker, lab.service("source = './app'\n"), Wanted::Newest).await;
    let refused = refused.map_err(|error| in_full(&error));
    lab.sh("rm app/large");
    let second = make(&maker, lab.service("source = './app'\n"), Wanted::News).await.0;
    let (versions, names) = (
        [version(&first), second.as_ref().map(version).unwrap_or_default()],
        fs::read_dir(small.join("releases")).unwrap().count(),
    );
    drop((first, second, maker));
    assert!(mount("umount -l \"$1\"").success());
    assert!(refused.as_ref().is_err_and(|why| why.contains("the disk is full")), "{refused:?}");
    assert_eq!((versions, names), (["1\n".into(), "2\n".into()], 3), "both and their book");
    lab.engine.close().await;
}
