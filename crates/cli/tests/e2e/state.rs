//! `lethe state`: rows, sessions and blobs of a running `lethe`, seen and changed by hand.

use std::{
    io::Write,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use lethe_state::{
    cache::{Begun, Cache, Fill, Room},
    limits::Quota,
    realm::Realm,
    remote::Remote,
    sessions::{NewSession, Sessions},
};
use serde_json::{Value, json};

use crate::{lethe::Place, moto};

const WORKER: [&str; 6] =
    ["--instances", "1", "--", "sh", "-c", "exec python3 -m http.server --bind 127.0.0.1 $PORT"];

fn tell(place: &Place, arguments: &[&str]) -> anyhow::Result<String> {
    let output = place.tell(&[&["state"], arguments].concat())?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn json_of(place: &Place, arguments: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&tell(place, &[arguments, &["--json"]].concat())?)?)
}

/// What is said when it fails.
fn refused(place: &Place, arguments: &[&str]) -> anyhow::Result<String> {
    let output = place.tell(&[&["state"], arguments].concat())?;
    ensure!(output.status.code() == Some(1), "{arguments:?} did not fail");
    Ok(String::from_utf8(output.stderr)?)
}

fn tell_with_input(place: &Place, arguments: &[&str], input: &[u8]) -> anyhow::Result<Output> {
    let mut command = place.command(&[&["state"], arguments].concat());
    command.arg("--state-dir").arg(place.state());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("its standard input")?.write_all(input)?;
    Ok(child.wait_with_output()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_seen_and_changed() -> anyhow::Result<()> {
    let place = Place::new()?;
    let _lethe = place.up(&WORKER).await?;
    for n in 0..4 {
        tell(&place, &["tables", "put", "notes", &format!("{n:03}"), &format!("note {n}")])?;
    }
    ensure!(tell(&place, &["tables", "get", "notes", "002"])? == "note 2", "bytes as they are");
    let row = json_of(&place, &["tables", "get", "notes", "002"])?;
    ensure!(row["value"] == "note 2" && row["encoding"] == "utf8" && row["expires_at"].is_null(), "{row}");

    let binary =
        tell_with_input(&place, &["tables", "put", "notes", "binary", "-", "--ttl", "3600"], b"\xff\0\n")?;
    ensure!(binary.status.success());
    let row = json_of(&place, &["tables", "get", "notes", "binary"])?;
    ensure!(row["value"] == "/wAK" && row["encoding"] == "base64" && row["expires_at"].is_i64(), "{row}");

    let listed = tell(&place, &["tables", "scan", "notes", "--limit", "2"])?;
    ensure!(listed.contains("note 0") && listed.contains("note 1") && !listed.contains("note 2"), "{listed}");
    ensure!(listed.contains("--after 001"), "{listed}");
    let page = json_of(&place, &["tables", "scan", "notes", "--prefix", "00", "--after", "001"])?;
    let keys: Vec<&Value> = page["rows"].as_array().context("rows")?.iter().map(|row| &row["key"]).collect();
    ensure!(keys == ["002", "003"] && page["next"].is_null(), "{page}");

    let taken = refused(&place, &["tables", "put", "notes", "002", "x", "--absent"])?;
    ensure!(taken.contains("`002` in the table `notes` is there already"), "{taken}");
    let revision = row_revision(&place, "002")?;
    tell(&place, &["tables", "put", "notes", "002", "new", "--revision", &revision])?;
    refused(&place, &["tables", "put", "notes", "002", "late", "--revision", &revision])?;
    tell(&place, &["tables", "delete", "notes", "002"])?;
    for arguments in [["tables", "get", "notes", "002"], ["tables", "delete", "notes", "002"]] {
        let said = refused(&place, &arguments)?;
        ensure!(said.contains("there is no `002` in the table `notes`"), "{said}");
    }
    let said = refused(&place, &["tables", "get", "No Table", "x"])?;
    ensure!(said.contains("lower-case"), "{said}");
    Ok(())
}

fn row_revision(place: &Place, key: &str) -> anyhow::Result<String> {
    Ok(json_of(place, &["tables", "get", "notes", key])?["revision"].to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_seen_and_ended() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = place.up(&WORKER).await?;
    let url = lethe.ready(1).await?.node.state.context("it says where its state is")?;
    let remote = Remote::connect(&url)?;
    let new = || NewSession {
        user: Some("ada".into()),
        fields: [("cart".to_owned(), json!([1, 2]))].into(),
        ..NewSession::default()
    };
    let sessions = [remote.create(new()).await?, remote.create(new()).await?, remote.create(new()).await?];
    let shop = Realm::named("shop")?;
    let in_shop = remote.create(NewSession { realm: shop.clone(), ..new() }).await?;
    let text = tell(&place, &["sessions", "list", "ada", "--realm", "shop"])?;
    ensure!(text.lines().count() == 2 && text.contains("  shop  "), "{text}");
    let handle = remote.list_in(Some(&shop), "ada").await?[0].handle.clone();
    let said = refused(&place, &["sessions", "revoke", "ada", "--handle", &handle])?;
    ensure!(said.contains("has no session"), "no service has such sessions now: {said}");
    let text = tell(&place, &["sessions", "list", "ada", "--realm", "common"])?;
    ensure!(text.lines().count() == 4 && !text.contains("  shop  "), "{text}");
    let revoked = tell(&place, &["sessions", "revoke", "ada", "--handle", &handle, "--realm", "shop"])?;
    ensure!(revoked == "1 session ended\n" && remote.load(&in_shop.id).await.is_err());

    let listed = json_of(&place, &["sessions", "list", "ada"])?;
    let handles: Vec<&str> = listed["sessions"]
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(|info| info["handle"].as_str())
        .collect();
    ensure!(handles.len() == 3, "{listed}");
    let text = tell(&place, &["sessions", "list", "ada"])?;
    ensure!(handles.iter().all(|handle| text.contains(handle)) && text.contains("23h59m"), "{text}");

    let id = sessions[0].id.to_text();
    ensure!(!text.contains(&id) && !listed.to_string().contains(&id), "a list shows no secrets");
    let shown = tell_with_input(&place, &["sessions", "show"], format!("{id}\n").as_bytes())?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    ensure!(shown["user"] == "ada" && shown["fields"]["cart"] == json!([1, 2]), "{shown}");

    ensure!(tell(&place, &["sessions", "revoke", "ada", "--handle", handles[0]])? == "1 session ended\n");
    let said = refused(&place, &["sessions", "revoke", "ada", "--handle", handles[0]])?;
    ensure!(said.contains("lethe state sessions list ada"), "{said}");
    ensure!(tell(&place, &["sessions", "revoke", "ada", "--all"])? == "2 sessions ended\n");
    ensure!(remote.load(&sessions[1].id).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_are_seen_and_emptied() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = place.up(&WORKER).await?;
    let url = lethe.ready(1).await?.node.state.context("it says where its state is")?;
    let remote = Remote::connect(&url)?;
    let minute = Duration::from_secs(60);
    for (key, value) in [("mug", Some("a mug")), ("cup", Some("a cup")), ("pot", None)] {
        let Begun::Missing(claim) = remote.begin("catalogue", key, minute).await? else {
            bail!("not missing")
        };
        let value = value.map(Into::into);
        let fill = Fill { value, fresh: minute, stale: Duration::ZERO, room: Room::default() };
        ensure!(remote.fill(&claim, fill).await?);
    }
    ensure!(tell(&place, &["cache", "usage", "catalogue"])? == "3 entries, 19 B\n");
    ensure!(json_of(&place, &["cache", "usage", "catalogue"])? == json!({"entries": 3, "bytes": 19}));
    ensure!(tell(&place, &["cache", "get", "catalogue", "mug"])? == "a mug", "bytes as they are");
    let entry = json_of(&place, &["cache", "get", "catalogue", "mug"])?;
    ensure!(entry["value"] == "a mug" && entry["fresh_ms"].as_u64().context("a time")? <= 60_000, "{entry}");
    let said = refused(&place, &["cache", "get", "catalogue", "pot"])?;
    ensure!(said.contains("remembers that there is nothing under `pot`"), "{said}");
    tell(&place, &["cache", "remove", "catalogue", "mug"])?;
    let said = refused(&place, &["cache", "get", "catalogue", "mug"])?;
    ensure!(said.contains("the cache `catalogue` has nothing under `mug`"), "{said}");
    tell(&place, &["cache", "clear", "catalogue"])?;
    ensure!(tell(&place, &["cache", "usage", "catalogue"])? == "0 entries, 0 B\n");
    let said = refused(&place, &["cache", "clear", "No Cache"])?;
    ensure!(said.contains("lower-case"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_copied_both_ways() -> anyhow::Result<()> {
    let place = Place::new()?;
    let _lethe = place.up(&WORKER).await?;
    copy_both_ways(&place)
}

/// Blobs in a bucket are used as those on this machine are, through the same socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_may_be_in_a_bucket() -> anyhow::Result<()> {
    let place = Place::new()?;
    let bucket = moto::shared();
    let url = bucket.url("").replace("secret", "${BUCKET_SECRET}");
    let file = place.path().join("lethe.toml");
    let command = WORKER[5];
    std::fs::write(
        &file,
        format!(
            "[services.web]\ncommand = [\"sh\", \"-c\", \"{command}\"]\ninstances = 1\n[state]\nblobs = \"{url}\"\n"
        ),
    )?;
    let file = file.to_str().context("UTF-8")?;
    let lethe = place.up_with(&[file], &[("BUCKET_SECRET", "geheim")]).await?;
    copy_both_ways(&place)?;
    let folder = url.split(['/', '?']).nth(3).context("a folder")?;
    let objects = bucket.say(&format!("GET /{}?prefix={folder}/ HTTP/1.1\r\n", moto::BUCKET));
    ensure!(objects.contains(&format!("<Key>{folder}/backup/a</Key>")), "{objects}");
    tell(&place, &["tables", "put", "notes", "1", "x"])?;
    let said = lethe.output.text();
    lethe.down().await?;
    ensure!(!said.contains("geheim"), "{said}");
    Ok(())
}

/// Puts a blob, copies it and gets it back, and what is said when that cannot be.
fn copy_both_ways(place: &Place) -> anyhow::Result<()> {
    let (file, copy) = (place.path().join("a.bin"), place.path().join("b.bin"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(&file, &bytes)?;
    let (file, copy) = (file.to_str().context("UTF-8")?, copy.to_str().context("UTF-8")?);
    tell(place, &["blobs", "cp", file, "blob:photos/2026/a", "--type", "image/png"])?;
    tell(place, &["blobs", "cp", "blob:photos/2026/a", "blob:backup/a"])?;
    tell(place, &["blobs", "cp", "blob:backup/a", copy])?;
    let (target, link) = (format!("{copy}.target"), format!("{copy}.link"));
    std::fs::write(&target, "old")?;
    std::os::unix::fs::symlink(&target, &link)?;
    tell(place, &["blobs", "cp", "blob:backup/a", &link])?;
    ensure!(std::fs::symlink_metadata(&link)?.is_symlink(), "a link goes on to lead to the file");
    ensure!(std::fs::read(&target)? == std::fs::read(copy)?, "and that has the bytes");
    ensure!(std::fs::read(copy)? == bytes, "what went in came out");
    let listed = json_of(place, &["blobs", "ls", "backup"])?;
    ensure!(
        listed["blobs"][0]["content_type"] == "image/png" && listed["blobs"][0]["size"] == 3_000_000,
        "{listed}"
    );
    let text = tell(place, &["blobs", "ls", "photos", "--prefix", "2026/"])?;
    ensure!(text.contains("2026/a") && text.contains("2.9 MiB") && text.contains("image/png"), "{text}");
    tell(place, &["blobs", "rm", "blob:photos/2026/a"])?;
    for (arguments, part) in [
        (vec!["blobs", "rm", "blob:photos/2026/a"], "has no blob `2026/a`"),
        (vec!["blobs", "cp", "blob:photos/2026/a", copy], "has no blob `2026/a`"),
        (vec!["blobs", "cp", file, copy], "blob:BUCKET/KEY"),
        (vec!["blobs", "cp", file, "blob:photos"], "names no blob"),
        (vec!["blobs", "cp", "/nowhere", "blob:photos/x"], "cannot read /nowhere"),
        (vec!["blobs", "cp", "blob:backup/a", "/nowhere/x"], "cannot write /nowhere/x"),
    ] {
        let said = refused(place, &arguments)?;
        ensure!(said.contains(part), "{arguments:?}: {said}");
    }
    ensure!(std::fs::read(copy)? == bytes, "a copy that failed leaves the file as it was");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_locks_are_seen_and_let_go() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = place.up(&WORKER).await?;
    let url = lethe.ready(1).await?.node.state.context("it says where its state is")?;
    let engines = Remote::connect(&url)?.engines();
    let quota = Quota::per(5, Duration::from_secs(3600));
    engines.limits.take("sign-in", "192.0.2.7", quota, 5).await?;
    let listed = json_of(&place, &["limits", "list", "sign-in"])?;
    ensure!(listed["keys"][0]["key"] == "192.0.2.7", "{listed}");
    let text = tell(&place, &["limits", "list", "sign-in"])?;
    ensure!(text.contains("192.0.2.7") && text.contains("59m"), "{text}");
    ensure!(!engines.limits.take("sign-in", "192.0.2.7", quota, 1).await?.allowed);
    tell(&place, &["limits", "reset", "sign-in", "192.0.2.7"])?;
    ensure!(engines.limits.take("sign-in", "192.0.2.7", quota, 1).await?.allowed);
    let said = refused(&place, &["limits", "reset", "sign-in", "nobody"])?;
    ensure!(said.contains("lethe state limits list sign-in"), "{said}");

    let held = engines.locks.acquire("report", "web-1", Duration::from_secs(600)).await?;
    let held = held.context("nobody else holds it")?;
    let text = tell(&place, &["locks", "list"])?;
    ensure!(text.contains("report") && text.contains("web-1") && text.contains("9m"), "{text}");
    ensure!(tell(&place, &["locks", "release", "report"])? == "web-1 no longer holds `report`\n");
    ensure!(engines.locks.renew("report", held.token, Duration::from_secs(1)).await?.is_none());
    let said = refused(&place, &["locks", "release", "report"])?;
    ensure!(said.contains("nobody holds the lock `report`"), "{said}");
    Ok(())
}
