//! `lethe state export` and `import`: all that is kept, from a running `lethe` into a folder and from there into another engine,
//! whatever is killed in between.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lethe_state::{
    Engines,
    blobs::{Condition as BlobCondition, Put},
    embedded::Embedded,
    idempotency::{Answer, Beginning, Begun, Fingerprint},
    remote::Remote,
    sessions::NewSession,
    tables::{Action, Condition, Write},
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    azurite, gcs,
    lethe::{Lethe, Place},
    moto, redis,
};

const WORKER: [&str; 6] =
    ["--instances", "1", "--", "sh", "-c", "exec python3 -m http.server --bind 127.0.0.1 $PORT"];
/// Rows, of a KiB each: more than fit into two files of records.
const ROWS: usize = 20_000;
const HOUR: Duration = Duration::from_secs(3600);

async fn remote(lethe: &Lethe) -> anyhow::Result<Remote> {
    let url = lethe.ready(1).await?.node.state.context("it says where its state is")?;
    Ok(Remote::connect(&url)?)
}

async fn fill(remote: &Remote) -> anyhow::Result<()> {
    let tables = remote.engines().tables;
    for first in (0..ROWS).step_by(100) {
        let put = |n: usize| Write {
            table: format!("t{}", n % 3),
            key: format!("{n:08}"),
            condition: Condition::Any,
            action: Action::Put { value: vec![b'a' + (n % 26) as u8; 1024].into(), ttl: None },
        };
        tables.apply((first..first + 100).map(put).collect()).await?;
    }
    Ok(())
}

/// Makes a file that cannot be opened until somebody has the other end.
fn fifo(path: &Path) -> anyhow::Result<()> {
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
}

/// All lines of all files of records, in their order.
fn lines(dump: &Path) -> anyhow::Result<Vec<String>> {
    let mut files: Vec<_> =
        fs::read_dir(dump)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        lines.extend(fs::read_to_string(file)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_half_way_it_goes_on() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = place.up(&WORKER).await?;
    fill(&remote(&lethe).await?).await?;
    let path = |name: &str| place.path().join(name);
    let whole = place.tell(&["state", "export", path("whole").to_str().context("UTF-8")?])?;
    ensure!(whole.status.success(), "{whole:?}");

    // Another one, which cannot open its second file of rows, and so stands still behind the first.
    let cut = path("cut");
    fs::DirBuilder::new().mode(0o700).create(&cut)?;
    let mut manifest: Value = serde_json::from_slice(&fs::read(path("whole").join("manifest.json"))?)?;
    ensure!(
        manifest["parts"]["rows"]["segments"].as_array().is_some_and(|files| files.len() > 1),
        "{manifest}"
    );
    manifest["is_complete"] = false.into();
    for progress in manifest["parts"].as_object_mut().context("parts")?.values_mut() {
        *progress = json!({ "segments": [], "next": null, "is_complete": false });
    }
    fs::write(cut.join("manifest.json"), manifest.to_string())?;
    let second = cut.join("rows-000002.ndjson.part");
    fifo(&second)?;
    let mut child = place
        .command(&["state", "export", cut.to_str().context("UTF-8")?, "--state-dir"])
        .arg(place.state())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let manifest = || fs::read_to_string(cut.join("manifest.json")).unwrap_or_default();
    while !manifest().contains("rows-000001.ndjson") {
        ensure!(child.try_wait()?.is_none(), "it has ended");
        tokio::task::yield_now().await;
    }
    child.kill()?;
    child.wait()?;
    fs::remove_file(&second)?;
    ensure!(!manifest().contains("rows-000002.ndjson"), "it stood still");
    let early =
        place.run(&["state", "import", "--to", "embedded:nowhere", cut.to_str().context("UTF-8")?])?;
    ensure!(String::from_utf8_lossy(&early.stderr).contains("is not whole"), "{early:?}");
    let again = place.tell(&["state", "export", cut.to_str().context("UTF-8")?, "--json"])?;
    ensure!(again.status.success(), "{again:?}");
    let said: Value = serde_json::from_slice(&again.stdout)?;
    ensure!(said["records"]["rows"] == ROWS, "{said}");
    ensure!(lines(&cut)? == lines(&path("whole"))?, "what was interrupted is as what was not");

    let target = path("target");
    let address = format!("embedded:{}", target.display());
    let import = ["state", "import", "--to", &address, cut.to_str().context("UTF-8")?];
    let (second, aside) = (cut.join("rows-000002.ndjson"), cut.join("aside"));
    fs::rename(&second, &aside)?;
    fifo(&second)?;
    let mut child = place.command(&import).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let imported = || fs::read_to_string(cut.join("imported.json")).unwrap_or_default();
    while !imported().contains("rows-000001") {
        ensure!(child.try_wait()?.is_none(), "it has ended");
        tokio::task::yield_now().await;
    }
    child.kill()?;
    child.wait()?;
    fs::rename(&aside, &second)?;
    let again = place.run(&import)?;
    ensure!(again.status.success(), "{again:?}");
    ensure!(String::from_utf8_lossy(&again.stdout).contains("read back and compared"), "{again:?}");
    let back = path("back");
    let export = ["state", "export", "--from", &address, back.to_str().context("UTF-8")?];
    ensure!(place.run(&export)?.status.success());
    ensure!(lines(&back)? == lines(&cut)?, "what came out is what went in");
    // A second time, there is something already.
    fs::remove_file(cut.join("imported.json"))?;
    let twice = place.run(&import)?;
    ensure!(String::from_utf8_lossy(&twice.stderr).contains("has rows already"), "{twice:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_notice_nothing_of_a_move() -> anyhow::Result<()> {
    let (old, new) = (Place::new()?, Place::new()?);
    let lethe = old.up(&WORKER).await?;
    let engines = remote(&lethe).await?.engines();
    let fields = [("cart".to_owned(), json!([1]))].into();
    let session = engines
        .sessions
        .create(NewSession { user: Some("ada".into()), fields, ..NewSession::default() })
        .await?;
    let gone = engines.sessions.create(NewSession::default()).await?;
    engines.sessions.destroy(&gone.id).await?;
    let beginning = || Beginning {
        scope: "shop".into(),
        key: "k".into(),
        fingerprint: Fingerprint([7; 32]),
        owner: "w".into(),
        displaces: Vec::new(),
        at_most_once: false,
        lease: HOUR,
        kept: HOUR,
    };
    let Begun::Claimed(claim) = engines.idempotency.begin(beginning()).await? else { panic!("a fresh key") };
    let answer = Answer { status: 201, fields: Vec::new(), body: "made".into() };
    engines.idempotency.finish(&claim, answer.clone()).await?;
    let held = engines.locks.acquire("l", "h", HOUR).await?.context("nobody else has it")?;
    let picture = old.path().join("picture");
    fs::write(&picture, vec![7; 3_000_000])?;
    let copied = old.tell(&[
        "state",
        "blobs",
        "cp",
        picture.to_str().context("UTF-8")?,
        "blob:photos/a/1",
        "--type",
        "image/png",
    ])?;
    ensure!(copied.status.success(), "{copied:?}");

    let dump = old.path().join("dump");
    let dump = dump.to_str().context("UTF-8")?;
    let exported = old.tell(&["state", "export", dump])?;
    ensure!(exported.status.success(), "{exported:?}");
    lethe.down().await?;
    let lethe = new.up(&WORKER).await?;
    let engines = remote(&lethe).await?.engines();
    let imported = new.tell(&["state", "import", dump])?;
    ensure!(imported.status.success(), "{imported:?}");

    let loaded = engines.sessions.load(&session.id).await?;
    ensure!((loaded.user.as_deref(), &loaded.fields) == (Some("ada"), &session.fields), "{loaded:?}");
    ensure!(matches!(engines.sessions.load(&gone.id).await, Err(lethe_state::error::Error::Gone)));
    ensure!(engines.idempotency.begin(beginning()).await? == Begun::Answered(answer));
    let lease = engines.locks.acquire("l", "h", HOUR).await?.context("locks do not move")?;
    ensure!(lease.token > held.token, "{} after {}", lease.token, held.token);
    let listed = new.tell(&["state", "blobs", "ls", "photos", "--json"])?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    let blob = &listed["blobs"][0];
    ensure!(blob["content_type"] == "image/png" && blob["size"] == 3_000_000, "{listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_or_different_is_said() -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = |name: &str| place.path().join(name);
    let source = format!("embedded:{}", path("source").display());
    {
        let engine = Embedded::open(&path("source"))?;
        let put = |key: &str| Write {
            table: "t".into(),
            key: key.into(),
            condition: Condition::Any,
            action: Action::Put { value: "v".into(), ttl: None },
        };
        engine.engines().tables.apply(vec![put("a"), put("b")]).await?;
        engine.close().await;
    }
    let dump = path("dump");
    let shown = dump.to_str().context("UTF-8")?;
    let refused = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = place.run(&[&["state"], arguments].concat())?;
        ensure!(output.status.code() == Some(1), "{arguments:?} did not fail: {output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    ensure!(place.run(&["state", "export", "--from", &source, shown])?.status.success());
    let said = refused(&["export", "--from", &source, shown])?;
    ensure!(said.contains("has a whole dump already"), "{said}");
    for (arguments, part) in [
        (vec!["export", "--from", "mysql://db", shown], "the engine `mysql`"),
        (vec!["export", "--from", "embedded", shown], "embedded:FOLDER"),
        (vec!["export", "--from", "redis://localhost", "--only", "blobs", shown], "does not keep blobs"),
        (vec!["export", "--from", &source, "/proc"], "is not empty"),
        (vec!["import", "--to", &source, "/"], "is no dump"),
        (vec!["import", "--to", &source, shown], "has rows already"),
    ] {
        let said = refused(&arguments)?;
        ensure!(said.contains(part), "{arguments:?}: {said}");
    }
    let file = dump.join("rows-000001.ndjson");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("\"v\"", "\"w\""))?;
    let target = format!("embedded:{}", path("target").display());
    let said = refused(&["import", "--to", &target, shown])?;
    ensure!(said.contains("is damaged"), "{said}");
    fs::write(&file, &text)?;
    ensure!(place.run(&["state", "import", "--to", &target, shown])?.status.success());
    // Something was written there since: the comparison at the end says so.
    {
        let engine = Embedded::open(&path("target"))?;
        let delete = |key: &str| Write {
            table: "t".into(),
            key: key.into(),
            condition: Condition::Any,
            action: Action::Delete,
        };
        engine.engines().tables.apply(vec![delete("a")]).await?;
        engine.close().await;
    }
    let said = refused(&["import", "--to", &target, shown])?;
    ensure!(said.contains("has 1 rows after the import, and the dump 2"), "{said}");
    Ok(())
}

/// What is in a dump is for its owner alone: its folder can be entered by nobody else, and its files are closed also where they are
/// taken out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_can_read_nothing_of_a_dump() -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = |name: &str| place.path().join(name);
    let source = format!("embedded:{}", path("source").display());
    let engine = Embedded::open(&path("source"))?;
    put_blob(&engine.engines(), "a", 1, 1, None).await?;
    engine.engines().sessions.create(NewSession::default()).await?;
    engine.close().await;
    let (dump, open) = (path("dump"), fs::Permissions::from_mode(0o755));
    fs::create_dir(&dump)?;
    fs::set_permissions(&dump, open)?;
    let shown = dump.to_str().context("UTF-8")?;
    let export = ["state", "export", "--from", &source, shown];
    let refused = place.run(&export)?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1) && said.contains(&format!("chmod 700 {shown}")), "{said}");
    ensure!(fs::read_dir(&dump)?.next().is_none(), "nothing is in it");
    fs::set_permissions(&dump, fs::Permissions::from_mode(0o700))?;
    ensure!(place.run(&export)?.status.success(), "as it said");
    let import = ["state", "import", "--to", &format!("embedded:{}", path("target").display()), shown];
    ensure!(place.run(&import)?.status.success());
    let mut files = 0;
    for folder in [dump.clone(), dump.join("blobs")] {
        for entry in fs::read_dir(&folder)? {
            let (entry, mut expected) = (entry?, 0o700);
            if entry.file_type()?.is_file() {
                (files, expected) = (files + 1, 0o600);
            }
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            ensure!(mode == expected, "{} has mode {mode:o}", entry.path().display());
        }
    }
    ensure!(files >= 5, "{files}");
    Ok(())
}

async fn put_blob(
    engines: &Engines,
    key: &str,
    piece: u8,
    pieces: usize,
    fence: Option<u64>,
) -> anyhow::Result<()> {
    let pieces = stream::iter((0..pieces).map(move |n| Ok(Bytes::from(vec![piece ^ n as u8; 1 << 20]))));
    let put = Put { content_type: "image/png".into(), fence, ..Put::default() };
    engines.blobs.put("photos", key, pieces.boxed(), put).await?;
    Ok(())
}

async fn bytes_of(engines: &Engines, key: &str) -> anyhow::Result<Vec<u8>> {
    let blob = engines.blobs.get("photos", key, None).await?.context(key.to_owned())?;
    ensure!(blob.info.content_type == "image/png", "{:?}", blob.info);
    Ok(blob.body.try_collect::<Vec<_>>().await?.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_move_to_s3_and_back() -> anyhow::Result<()> {
    // The moto of this test takes any key; what is not replaced is no bucket's name.
    let url = moto::shared().url("").replace("key:secret", "${LETHE_TEST_KEY}:${LETHE_TEST_SECRET}");
    blobs_move_to(&url, azurite::KEY).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_move_to_azure_and_back() -> anyhow::Result<()> {
    let login = format!("{}:{}", azurite::ACCOUNT, azurite::KEY);
    let url =
        azurite::new_folder("").replace(&login, &format!("{}:${{LETHE_TEST_SECRET}}", azurite::ACCOUNT));
    blobs_move_to(&url, azurite::KEY).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_move_to_gcs_and_back() -> anyhow::Result<()> {
    let credentials = gcs::shared().credentials("shop").display().to_string();
    blobs_move_to(&gcs::new_folder("").replace(&credentials, "${LETHE_TEST_SECRET}"), &credentials).await
}

/// A shared access signature of the whole account (Azure's REST API, "Create an account SAS").
fn signature() -> anyhow::Result<String> {
    let (version, expiry) = ("2023-11-03", "2126-01-01T00:00:00Z");
    let text = format!("{}\nrwdlc\nb\nco\n\n{expiry}\n\n\n{version}\n\n", azurite::ACCOUNT);
    let key = BASE64_STANDARD.decode(azurite::KEY)?;
    // HMAC (RFC 2104) of a key that is shorter than a block.
    let padded =
        |pad: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or_default() ^ pad).collect() };
    let inner = Sha256::digest([padded(0x36), text.into_bytes()].concat());
    let hash = BASE64_STANDARD.encode(Sha256::digest([padded(0x5c), inner.to_vec()].concat()));
    let hash = hash.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    Ok(format!("sv={version}&ss=b&srt=co&sp=rwdlc&se={expiry}&sig={hash}"))
}

/// Who has no key has a signature, in the environment. It is shown nowhere, also where it is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_move_by_a_shared_access_signature() -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = |name: &str| place.path().join(name);
    let address = |name: &str| format!("embedded:{}", path(name).display());
    let engine = Embedded::open(&path("source"))?;
    put_blob(&engine.engines(), "small", 1, 1, None).await?;
    put_blob(&engine.engines(), "a/large", 2, 13, None).await?;
    let before = bytes_of(&engine.engines(), "a/large").await?;
    engine.close().await;
    let url = azurite::new_folder("").replace(&format!(":{}@", azurite::KEY), "@");
    let run = |arguments: &[&str], token: &str| -> anyhow::Result<(bool, String)> {
        let mut command = place.command(&[&["state"], arguments].concat());
        let output = command.env("AZURE_STORAGE_SAS_TOKEN", token).output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        let (_, secret) = token.split_once("sig=").context("a signature")?;
        ensure!(!text.contains(secret), "a secret is shown: {text}");
        Ok((output.status.success(), text))
    };
    let token = signature()?;
    let must = |arguments: &[&str]| -> anyhow::Result<()> {
        let (is_done, said) = run(arguments, &token)?;
        ensure!(is_done, "{arguments:?}: {said}");
        Ok(())
    };
    let (dump, back) = (path("dump"), path("back"));
    let (dump, back) = (dump.to_str().context("UTF-8")?, back.to_str().context("UTF-8")?);
    must(&["export", "--from", &address("source"), dump])?;
    let (is_done, said) =
        run(&["import", "--to", &url, "--only", "blobs", dump], "sv=2023-11-03&sig=wrong%3D")?;
    ensure!(!is_done && said.contains("shared access signature"), "{said}");
    must(&["import", "--to", &url, "--only", "blobs", dump])?;
    must(&["export", "--from", &url, back])?;
    must(&["import", "--to", &address("target"), back])?;
    let target = Embedded::open(&path("target"))?;
    ensure!(bytes_of(&target.engines(), "a/large").await? == before);
    Ok(())
}

/// Also blobs that are sent in parts, and with a password that stands in no argument; what a store cannot keep is said.
async fn blobs_move_to(url: &str, secret: &str) -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = |name: &str| place.path().join(name);
    let address = |name: &str| format!("embedded:{}", path(name).display());
    let engine = Embedded::open(&path("source"))?;
    let source = engine.engines();
    put_blob(&source, "small", 1, 1, None).await?;
    put_blob(&source, "a/large", 2, 13, None).await?;
    put_blob(&source, "fenced", 3, 1, Some(7)).await?;
    put_blob(&source, "gone", 4, 1, Some(9)).await?;
    source.blobs.delete("photos", "gone", BlobCondition::Any, None).await?;
    drop(source);
    engine.close().await;

    let run = |arguments: &[&str]| -> anyhow::Result<String> {
        let mut command = place.command(&[&["state"], arguments].concat());
        let output = command.env("LETHE_TEST_KEY", "key").env("LETHE_TEST_SECRET", secret).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text)?;
        ensure!(output.status.success(), "{arguments:?}: {text}");
        ensure!(!text.contains(secret), "a secret is shown: {text}");
        Ok(text)
    };
    let (dump, back) = (path("dump"), path("back"));
    let (dump, back) = (dump.to_str().context("UTF-8")?, back.to_str().context("UTF-8")?);
    run(&["export", "--from", &address("source"), dump])?;
    let said = run(&["import", "--to", url, "--only", "blobs", dump])?;
    ensure!(said.contains("read back and compared: 4 blobs"), "{said}");
    ensure!(said.contains("2 fences of blobs were left behind"), "{said}");
    // Again, it finds all there, and compares.
    let said = run(&["import", "--to", url, "--only", "blobs", dump])?;
    ensure!(said.contains("read back and compared"), "{said}");
    let kept = fs::read_to_string(path("dump").join("imported.json"))?;
    ensure!(!kept.contains(secret), "{kept}");
    // Into another dump, and from there into another engine.
    run(&["export", "--from", url, back])?;
    run(&["import", "--to", &address("target"), back])?;
    let (source, target) = (Embedded::open(&path("source"))?, Embedded::open(&path("target"))?);
    for key in ["small", "a/large", "fenced"] {
        let (before, after) =
            (bytes_of(&source.engines(), key).await?, bytes_of(&target.engines(), key).await?);
        ensure!(before == after, "{key}: {} bytes and {}", before.len(), after.len());
    }
    // Somewhere else there is something already.
    fs::remove_file(path("dump").join("imported.json"))?;
    let refused = place.run(&["state", "import", "--to", url, dump])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(
        said.contains("environment variable `LETHE_TEST_") && said.contains("`, which is not set"),
        "{said}"
    );
    Ok(())
}

/// What was emptied is imported into anew, and a part of a dump goes on from the engine alone that it was begun from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_are_told_apart() -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = |name: &str| place.path().join(name);
    let source = format!("embedded:{}", path("source").display());
    let engine = Embedded::open(&path("source"))?;
    for _ in 0..3 {
        engine.engines().sessions.create(NewSession::default()).await?;
    }
    engine.close().await;
    let server = redis::Server::start_synced();
    let url = |namespace: &str| format!("redis://127.0.0.1:{}/?namespace={namespace}", server.port);
    let dump = path("dump");
    let dump = dump.to_str().context("UTF-8")?;
    let run = |arguments: &[&str]| -> anyhow::Result<(bool, String)> {
        let output = place.run(&[&["state"], arguments].concat())?;
        Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
    };
    let must = |arguments: &[&str]| -> anyhow::Result<()> {
        let (is_done, said) = run(arguments)?;
        ensure!(is_done, "{arguments:?}: {said}");
        Ok(())
    };
    must(&["export", "--from", &source, dump])?;
    must(&["import", "--to", &url("one"), dump])?;
    // Another namespace of the same server is another engine.
    must(&["import", "--to", &url("two"), dump])?;
    let (is_done, said) = run(&["import", "--to", &url("one"), dump])?;
    ensure!(!is_done && said.contains("already"), "{said}");
    let emptied = Command::new("redis-cli").args(["-p", &server.port.to_string(), "flushall"]).output()?;
    ensure!(emptied.status.success(), "{emptied:?}");
    must(&["import", "--to", &url("two"), dump])?;

    let part = path("part");
    let shown = part.to_str().context("UTF-8")?;
    must(&["export", "--from", &url("two"), shown])?;
    let manifest = fs::read_to_string(part.join("manifest.json"))?;
    let manifest = manifest.replacen("\"is_complete\": true", "\"is_complete\": false", 1);
    fs::write(part.join("manifest.json"), manifest)?;
    let (is_done, said) = run(&["export", "--from", &url("one"), shown])?;
    ensure!(!is_done && said.contains("has a part of a dump of"), "{said}");
    must(&["export", "--from", &url("two"), shown])
}

/// How much memory a command had at most, in KiB, by the kernel's account.
fn peak_kib(place: &Place, arguments: &[&str]) -> anyhow::Result<u64> {
    const MEASURE: &str = "\
import resource, subprocess, sys

code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
";
    let output = Command::new("python3")
        .args(["-c", MEASURE, env!("CARGO_BIN_EXE_lethe"), "state"])
        .args(arguments)
        .env("XDG_RUNTIME_DIR", place.path())
        .output()?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// However much is moved, and however large single things are, little of it is in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_is_in_memory() -> anyhow::Result<()> {
    /// MiB of rows and of a blob, each.
    const MIB: usize = 128;
    /// Above what a move of nothing takes.
    const GROWN_MIB_MAX: u64 = 80;
    let place = Place::new()?;
    let path = |name: &str| place.path().join(name);
    let address = |name: &str| format!("embedded:{}", path(name).display());
    Embedded::open(&path("nothing"))?.close().await;
    let engine = Embedded::open(&path("source"))?;
    for n in 0..MIB {
        let put = Action::Put { value: vec![n as u8; 1 << 20].into(), ttl: None };
        let write = Write { table: "t".into(), key: n.to_string(), condition: Condition::Any, action: put };
        engine.engines().tables.apply(vec![write]).await?;
    }
    put_blob(&engine.engines(), "large", 5, MIB, None).await?;
    engine.close().await;
    let dump = |name: &str| path(name).display().to_string();
    let idle = peak_kib(&place, &["export", "--from", &address("nothing"), &dump("of-nothing")])?;
    let export = peak_kib(&place, &["export", "--from", &address("source"), &dump("dump")])?;
    let import = peak_kib(&place, &["import", "--to", &address("target"), &dump("dump")])?;
    println!(
        "{MIB} MiB of rows and a blob of as much: nothing {idle} KiB, export {export} KiB, import {import} KiB"
    );
    for peak in [export, import] {
        ensure!(peak.saturating_sub(idle) <= GROWN_MIB_MAX << 10, "{peak} KiB, and {idle} for nothing");
    }
    Ok(())
}
