use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lethe_state::{blobs::Put, embedded::Embedded};

use super::*;

fn parse(text: &str) -> Result<String, String> {
    Source::parse(text, Path::new("/app")).map(|source| source.to_string())
}

/// A place with a store and an engine.
struct Lab {
    place: tempfile::TempDir,
    engine: Embedded,
    store: Store,
}

impl Lab {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        Self { engine: Embedded::open(&state).unwrap(), store: Store::new(&state), place }
    }

    fn sh(&self, script: &str) {
        let status = Command::new("sh").current_dir(&self.place).args(["-ec", script]).status();
        assert!(status.unwrap().success(), "{script}");
    }

    async fn fetch(&self, text: &str) -> Result<Fetched, Error> {
        let source = Source::parse(text, self.place.path()).unwrap_or_else(|why| panic!("{text} {why}"));
        source.fetch(None, &self.store, &*self.engine.engines().blobs).await
    }

    async fn refused(&self, text: &str) -> String {
        self.fetch(text).await.unwrap_err().to_string()
    }
}

fn read(fetched: &Fetched, name: &str) -> String {
    fs::read_to_string(fetched.tree().join(name)).unwrap()
}

#[test]
fn kinds() {
    assert_eq!(parse("https://h/shop.git#v1").unwrap(), "https://h/shop.git#v1");
    assert_eq!(parse("git@h:me/shop").unwrap(), "git@h:me/shop");
    assert_eq!(parse("../shop.git").unwrap(), "/app/../shop.git");
    assert_eq!(parse("dist/shop.tar.gz").unwrap(), "/app/dist/shop.tar.gz");
    assert_eq!(parse("blob:releases/a/b.tgz").unwrap(), "blob:releases/a/b.tgz");
    assert!(matches!(Source::parse("https://h/x.tgz?a=b", Path::new("/")), Ok(Source::Download { .. })));
    assert!(matches!(Source::parse("tmp", Path::new("/")), Ok(Source::Folder { .. })));
    assert!(matches!(Source::parse("tmp#main", Path::new("/")), Ok(Source::Git { .. })));
    for bad in [
        "",
        "-x.git",
        "--upload-pack=x",
        "blob:x",
        "blob:/x",
        "x.tar#v1",
        "x.git#",
        "x.git#-x",
        "shop",
        "x.git#a b",
        "x.git#a:b",
        "x.git\nurl",
        "x.tar#sha256=12",
        "ftp://h/x.tar",
        "ext::sh -c x",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn credentials_are_never_shown() {
    let source = Source::parse("https://me:s3cret@h/shop.git", Path::new("/")).unwrap();
    assert_eq!(source.to_string(), "https://…@h/shop.git");
    assert_eq!(format!("{source:?}"), "Source(https://…@h/shop.git)");
    assert_eq!(source.masked("fatal: 'https://me:s3cret@h/'"), "fatal: 'https://…@h/'");
    let [one, other] = ["a", "b"]
        .map(|token| Source::parse(&format!("https://h/x.tar?token={token}"), Path::new("/")).unwrap());
    assert_eq!(one.to_string(), "https://h/x.tar?…");
    assert!(one.identity() != other.identity() && !one.identity().contains("token"));
}

#[tokio::test]
async fn a_blob_and_an_archive() {
    let lab = Lab::new();
    lab.sh("echo 1 >app.py && tar -czf app.tar.gz app.py && sha256sum app.tar.gz | cut -d' ' -f1 >hash");
    let fetched = lab.fetch("app.tar.gz").await.unwrap();
    assert_eq!(read(&fetched, "app.py"), "1\n");
    let hash = fs::read_to_string(lab.place.path().join("hash")).unwrap();
    assert_eq!(fetched.revision, hash.trim());
    let pinned = lab.fetch(&format!("app.tar.gz#sha256={}", hash.trim().to_uppercase())).await.unwrap();
    assert_eq!(pinned.digest, fetched.digest);
    let refused = lab.refused(&format!("app.tar.gz#sha256={}", "0".repeat(64))).await;
    assert!(refused.contains(hash.trim()) && refused.contains("another archive"), "{refused}");
    let refused = lab.refused("no.tar").await;
    assert!(refused.contains("no.tar") && refused.contains("check the path"), "{refused}");

    let refused = lab.fetch("blob:releases/app.tar.gz").await.unwrap_err();
    assert!(matches!(refused, Error::NoBlob(_)), "{refused}");
    let body =
        stream::iter([Ok(Bytes::from(fs::read(lab.place.path().join("app.tar.gz")).unwrap()))]).boxed();
    lab.engine.engines().blobs.put("releases", "app.tar.gz", body, Put::default()).await.unwrap();
    let blob = lab.fetch("blob:releases/app.tar.gz").await.unwrap();
    assert_eq!(blob.digest, fetched.digest, "where it is from does not matter");
    let folder = blob.tree();
    drop(blob);
    assert!(!folder.exists());
    lab.engine.close().await;
}

#[tokio::test]
async fn a_repository_at_a_tag_a_branch_and_a_commit() {
    let lab = Lab::new();
    lab.sh("git init -q -b main app.git; cd app.git; git config user.email a@b; git config user.name a
         echo 1 >version; git add .; git commit -qm 1; git tag -a v1 -m v1; git rev-parse HEAD >../first
         echo 2 >version; git commit -qam 2; git branch next; echo 3 >version; git commit -qam 3
         echo echo hooked >.git/hooks/post-checkout; chmod +x .git/hooks/post-checkout");
    let first = fs::read_to_string(lab.place.path().join("first")).unwrap();
    let url = format!("file://{}/app.git", lab.place.path().display());
    for (reference, version) in [("#v1", "1\n"), ("", "3\n"), ("#next", "2\n"), ("#refs/heads/next", "2\n")] {
        let fetched = lab.fetch(&format!("{url}{reference}")).await.unwrap();
        assert_eq!(
            (read(&fetched, "version").as_str(), fetched.tree().join(".git").exists()),
            (version, false)
        );
        assert_eq!(fetched.mark.as_ref(), Some(&fetched.revision));
        if reference == "#v1" {
            assert_eq!(fetched.revision, first.trim(), "the commit, not the tag");
        }
    }
    for commit in [first.trim().to_owned(), first.trim().to_uppercase()] {
        assert_eq!(read(&lab.fetch(&format!("{url}#{commit}")).await.unwrap(), "version"), "1\n");
    }
    let refused = lab.refused(&format!("{url}#v9")).await;
    assert!(refused.contains("no branch or tag `v9`") && refused.contains("app.git#v9"), "{refused}");
    let refused = lab.refused(&format!("{url}#{}", "a".repeat(40))).await;
    assert!(refused.contains("git ended with"), "{refused}");
    let refused = lab.refused("file:///nowhere.git").await;
    assert!(refused.contains("/nowhere.git"), "{refused}");
    lab.engine.close().await;
}

/// A server that answers each request as `answer` says: it gets the head, and may look around meanwhile.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while lines.read_line(&mut head).unwrap() > 2 {}
            let _ = stream.write_all(&answer(&head));
        }
    });
    address
}

fn response(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The arguments of all processes.
fn arguments() -> String {
    let ids = fs::read_dir("/proc").unwrap().flatten();
    let lines = ids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

/// `me:hunter2` (RFC 7617).
const BASIC: &str = "authorization: basic bwu6ahvudgvymg==";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_with_a_login_that_no_list_of_processes_shows() {
    let lab = Lab::new();
    lab.sh("echo 1 >app.py && tar -cJf app.tar.xz app.py");
    let archive = fs::read(lab.place.path().join("app.tar.xz")).unwrap();
    let address = serve(move |head| {
        let processes = arguments();
        let line = processes.lines().find(|line| line.starts_with("curl ") && line.contains("--dump-header"));
        assert!(head.starts_with("HEAD") || line.is_some(), "curl runs while it is asked");
        if processes.contains("hunter2") || processes.contains("t0ken") {
            return response("500 It shows", "", b"");
        }
        match head.to_ascii_lowercase().contains(BASIC) && head.contains("/app.tar.xz?sig=t0ken ") {
            true => response("200 OK", "ETag: \"7\"\r\n", &archive),
            false => response("403 Forbidden", "", b""),
        }
    });
    let url = format!("http://me:hunter2@{address}/app.tar.xz?sig=t0ken");
    let fetched = lab.fetch(&url).await.unwrap();
    assert_eq!((read(&fetched, "app.py").as_str(), fetched.mark.as_deref()), ("1\n", Some("\"7\"")));
    assert_eq!(Source::parse(&url, Path::new("/")).unwrap().mark().await.unwrap().as_deref(), Some("\"7\""));
    let refused = lab.refused(&format!("http://me:hunter2@{address}/no.tar.xz?sig=t0ken")).await;
    assert!(
        refused.contains("403") && !refused.contains("hunter2") && !refused.contains("t0ken"),
        "{refused}"
    );
    lab.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_with_a_login_that_no_list_of_processes_shows() {
    let lab = Lab::new();
    let address = serve(|head| {
        let processes = arguments();
        if !processes.contains("git-remote-http") {
            return response("500 Git does not run", "", b"");
        }
        if processes.contains("hunter2") {
            return response("500 It shows", "", b"");
        }
        match head.to_ascii_lowercase().contains(BASIC) {
            true => response("410 Seen", "", b""),
            false => response("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        }
    });
    // Seen means that the login has come.
    let refused = lab.refused(&format!("http://me:hunter2@{address}/app.git#main")).await;
    assert!(refused.contains("410") && !refused.contains("hunter2"), "{refused}");
    // Without one, nobody is asked.
    let refused = lab.refused(&format!("http://{address}/app.git#main")).await;
    assert!(refused.contains("git ended with") && !refused.contains("410"), "{refused}");
    lab.engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_leads_to_the_web_alone() {
    let lab = Lab::new();
    lab.sh("echo 1 >app.py && tar -cf app.tar app.py");
    let file = lab.place.path().join("app.tar").display().to_string();
    let archive = fs::read(&file).unwrap();
    let address = serve(move |head| match head.split(' ').nth(1) {
        Some("/moved.tar") => response("302 Found", "Location: /app.tar\r\n", b""),
        Some("/file.tar") => response("302 Found", &format!("Location: file://{file}\r\n"), b""),
        Some("/circle.tar") => response("302 Found", "Location: /circle.tar\r\n", b""),
        _ => response("200 OK", "", &archive),
    });
    let fetched = lab.fetch(&format!("http://{address}/moved.tar")).await.unwrap();
    assert_eq!((read(&fetched, "app.py").as_str(), &fetched.mark), ("1\n", &None));
    for bad in ["file", "circle"] {
        let refused = lab.refused(&format!("http://{address}/{bad}.tar")).await;
        assert!(refused.contains("curl ended with"), "{refused}");
    }
    lab.engine.close().await;
}
