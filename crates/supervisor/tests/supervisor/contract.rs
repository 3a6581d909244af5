//! What a worker is given, and when it counts as ready.

use std::{
    fs,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
};

use lethe_model::roster::{Worker, WorkerState};
use lethe_supervisor::{
    descriptors,
    logs::Source,
    service::Listener,
    supervisor::{Config, Error, Supervisor},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::stage::{PROGRAM, Stage, connect, soon, spec};

#[tokio::test]
async fn environment() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    // Meant for `lethe` itself, and ignored in it: neither may reach the worker.
    // SAFETY: sets no handler. No other test depends on SIGHUP or SIGUSR2.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    let script = format!(
        "env; echo \"directory: $(pwd)\"; grep -E '^Sig(Ign|Blk)' /proc/self/status; \
         readlink /proc/$$/fd/0; cut -d' ' -f5 /proc/$$/stat; echo \"self: $$\"; exec {PROGRAM} serve"
    );
    let mut spec = spec(1, &[]);
    spec.command = vec!["sh".into(), "-c".into(), script];
    spec.directory = directory.clone();
    // Both are in the environment of this process; the second one is set anew for the workers.
    spec.withheld = ["CARGO_PKG_NAME".into(), "CARGO_PKG_VERSION".into()].into();
    assert!(std::env::var("CARGO_PKG_NAME").is_ok() && std::env::var("CARGO_PKG_VERSION").is_ok());
    spec.env = [
        ("COLOUR".into(), "blue = not red".into()),
        ("LETHE_SERVICE".into(), "fake".into()),
        ("CARGO_PKG_VERSION".into(), "of the worker".into()),
    ]
    .into();
    let mut stage = Stage::new(spec).await;
    let worker = stage.until_ready(1).await.remove(0);
    let printed = stage.supervisor.logs(Some("web-1"), usize::MAX).unwrap();
    let printed: Vec<&str> =
        printed.iter().filter(|line| line.source == Source::Stdout).map(|line| line.text.as_str()).collect();
    let pid = stage.pid("web-1").as_raw_nonzero();
    let expected = [
        format!("PORT={}", worker.address.port().unwrap()),
        "LETHE_SERVICE=web".into(),
        "LETHE_INSTANCE=web-1".into(),
        "LETHE_STATE=unix:/run/web".into(),
        "COLOUR=blue = not red".into(),
        "CARGO_PKG_VERSION=of the worker".into(),
        format!("PATH={}", std::env::var("PATH").unwrap()),
        format!("directory: {}", directory.display()),
        "SigBlk:\t0000000000000000".into(),
        "/dev/null".into(),
        format!("self: {pid}"),
        // It leads its own process group.
        pid.to_string(),
    ];
    for line in expected {
        assert!(printed.contains(&line.as_str()), "{line}: {printed:#?}");
    }
    let others = ["LISTEN_", "SOCKET=", "CARGO_PKG_NAME="];
    assert!(!printed.iter().any(|line| others.iter().any(|other| line.starts_with(other))), "{printed:#?}");
    let ignored = printed.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    // Bits 31 and 32 are signals that the C library keeps for itself and lets nobody change.
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !0x1_8000_0000, 0, "{ignored}");
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn descriptors_are_closed() {
    // Open in this process, and not marked to be closed by exec.
    let file = fs::File::open("/").unwrap();
    let leaks: Vec<_> = (0..20).map(|_| rustix::io::dup(&file).unwrap()).collect();
    assert!(leaks.iter().all(|leak| leak.as_raw_fd() > 2));
    let mut stage = Stage::new(spec(1, &["descriptors"])).await;
    // Its own listener has the first free number.
    stage.line("three and its own", |line| line.text == "open: [0, 1, 2, 3]").await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn inherited_listener() {
    let mut spec = spec(2, &["inherited"]);
    spec.listener = Listener::Inherited;
    let mut stage = Stage::new(spec).await;
    for worker in stage.until_ready(2).await {
        let text = format!("serves {}", worker.address.port().unwrap());
        stage.line(&text, |line| line.instance == worker.instance && line.text == text).await;
        stage
            .line("its descriptors", |line| {
                line.instance == worker.instance && line.text == "open: [0, 1, 2, 3]"
            })
            .await;
    }
    // We hold no copy: the socket dies with the worker.
    let victim = stage.roster.borrow().services["web"][0].clone();
    stage.shoot(victim.instance.as_str());
    stage
        .until("it is gone", |workers| workers.iter().all(|worker| worker.instance != victim.instance))
        .await;
    let refused = connect(&victim).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    stage.until_ready(2).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn unix_socket() {
    for ready in [None, Some("/healthz".to_owned())] {
        let mut spec = spec(2, &["socket"]);
        (spec.listener, spec.ready) = (Listener::Socket, ready);
        let mut stage = Stage::new(spec).await;
        let path = |worker: &Worker| worker.address.path().unwrap().to_owned();
        let workers = stage.until_ready(2).await;
        assert_ne!(path(&workers[0]), path(&workers[1]));
        for (worker, status) in workers.iter().zip(stage.supervisor.workers()) {
            assert_eq!(path(worker).parent().unwrap(), stage.sockets.path());
            assert_eq!((status.port, status.socket), (None, Some(path(worker))));
            UnixStream::connect(path(worker)).unwrap();
        }
        // The process has no chance to remove it, and the next one gets another.
        let victim = workers[0].clone();
        stage.shoot(victim.instance.as_str());
        let is_other = |worker: &Worker| worker.instance != victim.instance;
        stage.until("it is gone", |workers| workers.iter().all(is_other)).await;
        let successors = stage.until_ready(2).await;
        assert!(!path(&victim).exists());
        assert!(successors.iter().all(|worker| path(worker) != path(&victim)));
        // Nor does this program remove it at SIGTERM.
        stage.supervisor.drain(successors[0].instance.as_str()).await.unwrap();
        assert!(!path(&successors[0]).exists());
        stage.supervisor.stop().await;
        assert_eq!(fs::read_dir(stage.sockets.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn ready_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("ready");
    let mut spec = spec(1, &["ready-if", flag.to_str().unwrap()]);
    spec.ready = Some("/healthz".into());
    let mut stage = Stage::new(spec).await;
    let worker = stage.until("started", |workers| workers.len() == 1).await.remove(0);
    soon("its port accepts", async {
        while connect(&worker).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(stage.roster.borrow().services["web"][0].state, WorkerState::Starting);
    fs::write(&flag, "").unwrap();
    stage.until_ready(1).await;
    stage.line("it is told", |line| line.text.starts_with("ready after ")).await;
    stage.supervisor.stop().await;
}

/// Time is paused and runs ahead by itself. No bound on waits here, since that would run ahead too.
#[tokio::test(start_paused = true)]
async fn one_that_never_listens_is_named() {
    let mut stage = Stage::new(spec(1, &["deaf"])).await;
    let line = loop {
        let line = stage.lines.recv().await.unwrap();
        if line.text.starts_with("not ready") {
            break line;
        }
    };
    let port = stage.roster.borrow().services["web"][0].address.port().unwrap();
    let expected =
        format!("not ready after 30s: it has not opened port {port}; it must listen on 127.0.0.1:$PORT");
    assert!(line.text.starts_with(&expected), "{}", line.text);
    let status = stage.supervisor.workers().remove(0);
    assert_eq!(status.trouble.unwrap(), line.text);
    assert!(status.pid.is_some(), "it is left to go on");
    stage.supervisor.kill_all();
    stage.supervisor.stop().await;
}

/// As above.
#[tokio::test(start_paused = true)]
async fn one_that_does_not_know_its_socket_is_told() {
    let mut spec = spec(1, &["deaf"]);
    spec.listener = Listener::Socket;
    let stage = Stage::new(spec).await;
    let mut lines = stage.supervisor.follow();
    let line = loop {
        let line = lines.recv().await.unwrap();
        if line.text.starts_with("not ready") {
            break line;
        }
    };
    let path = stage.sockets.path().join("1.sock");
    let expected = format!(
        "not ready after 30s: it has not opened socket {path}; it must listen on the unix socket $SOCKET \
         (SOCKET={path}); for a program that listens on a port, leave out `listener = \"socket\"`",
        path = path.display()
    );
    assert_eq!(line.text, expected);
    stage.supervisor.kill_all();
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_wrong_command_starts_nothing() {
    let mut wrong = spec(1, &[]);
    wrong.name = lethe_model::service::ServiceName::new("wrong").unwrap();
    wrong.command = vec!["no-such-program".into()];
    let guard = Path::new(PROGRAM).into();
    let config = Config {
        services: vec![spec(1, &["serve"]), wrong],
        sockets: "/nowhere".into(),
        state_urls: None,
        homes: None,
        guard,
    };
    let Err(Error::Command { service, reason }) = Supervisor::start(config).await else {
        panic!("it must be refused");
    };
    assert_eq!(service.as_str(), "wrong");
    assert!(reason.starts_with("command `no-such-program` was not found in PATH ("), "{reason}");
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_trouble() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, "neither a script nor a binary").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = spec(1, &[]);
    spec.command = vec![program.to_str().unwrap().into()];
    let mut stage = Stage::new(spec).await;
    stage.line("a second try", |line| line.text.contains("failure 2 in a row")).await;
    let status = stage.supervisor.workers().remove(0);
    assert_eq!(status.pid, None);
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains("nor a script with a `#!` line"), "{trouble}");
    fs::remove_file(&program).unwrap();
    stage.line("it is gone", |line| line.text.contains("does not exist")).await;
    soon("it stops", stage.supervisor.stop()).await;
}

#[tokio::test]
async fn workers_get_the_limit_of_descriptors_as_it_was() {
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum: usual.maximum }).unwrap();
    descriptors::raise(0).unwrap();
    assert!(getrlimit(Resource::Nofile).current.unwrap() > 1000, "the tests need a hard limit over 1000");
    let mut spec = spec(1, &[]);
    spec.command =
        ["sh", "-c", &format!("echo limit $(ulimit -n); exec {PROGRAM} serve")].map(Into::into).into();
    let mut stage = Stage::new(spec).await;
    stage.line("its limit", |line| line.text == "limit 1000").await;
    stage.supervisor.stop().await;
}
