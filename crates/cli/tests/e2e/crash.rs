//! `kill -9` of `lethe` itself: what was acknowledged is there afterwards, no worker stays behind, and the next `up`
//! starts cleanly.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use lethe_state::{
    Engines, blobs,
    remote::Remote,
    sessions::{Change, NewSession, Patch, SessionId},
    tables::{Action, Condition, Write},
};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    custodian::gone,
    lethe::{Lethe, Place},
    seed::Random,
};

const KILLS: usize = 20;
const WRITERS: usize = 8;
/// Acknowledged writes of one round before the kill: at least 1, at most so many.
const WRITES_MAX: usize = 300;

/// What the engine said is done.
#[derive(Default)]
struct Acknowledged {
    rows: BTreeMap<String, String>,
    blobs: BTreeMap<String, Vec<u8>>,
    sessions: Vec<(SessionId, u64)>,
    count: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9_of_lethe() -> anyhow::Result<()> {
    let mut random = Random::for_test("acknowledged_writes_survive_kill_9_of_lethe");
    let place = Place::new()?;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..KILLS {
        let lethe = up(&place).await?;
        let workers: Vec<u32> =
            lethe.ready(2).await?.workers.iter().filter_map(|worker| worker.pid).collect();
        ensure!(workers.len() == 2, "two workers run");
        let engines = engines(&lethe)?;
        check(&engines, &acknowledged).await.with_context(|| format!("after {round} kills"))?;

        let enough = acknowledged.lock().expect("no writer panicked").count + 1 + random.below(WRITES_MAX);
        let (reached, mut kill_now) = tokio::sync::watch::channel(false);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (engines, acknowledged) = (engines.clone(), Arc::clone(&acknowledged));
                let (reached, random) = (reached.clone(), random.split());
                tokio::spawn(async move {
                    let name = format!("{round}-{writer}");
                    write_until_refused(&name, &engines, &acknowledged, random, || {
                        if acknowledged.lock().expect("no writer panicked").count >= enough {
                            reached.send_replace(true);
                        }
                    })
                    .await
                })
            })
            .collect();
        kill_now.wait_for(|reached| *reached).await?;
        lethe.signal(Signal::KILL)?;
        lethe.ended().await?;
        for writer in writers {
            writer.await?;
        }
        for worker in workers {
            gone(worker).await?;
        }
    }
    let lethe = up(&place).await?;
    lethe.ready(2).await?;
    check(&engines(&lethe)?, &acknowledged).await.context("at the end")?;
    let done = acknowledged.lock().expect("no writer panicked").count;
    println!("{done} writes were acknowledged in {KILLS} rounds, and all were there");
    lethe.down().await
}

async fn up(place: &Place) -> anyhow::Result<Lethe> {
    // `http.server` takes its port as an argument, so a shell passes it on.
    place
        .up(&["--instances", "2", "--", "sh", "-c", "exec python3 -m http.server --bind 127.0.0.1 $PORT"])
        .await
}

/// The state of this `lethe`, as a worker reaches it.
pub fn engines(lethe: &Lethe) -> anyhow::Result<Engines> {
    let socket = lethe.client.socket().with_file_name("state.sock");
    Ok(Remote::connect(&format!("unix://{}", socket.display()))?.engines())
}

/// Writes rows, blobs and session fields, and notes each that is acknowledged, until the engine is away.
async fn write_until_refused(
    name: &str,
    engines: &Engines,
    acknowledged: &Mutex<Acknowledged>,
    mut random: Random,
    noted: impl Fn(),
) {
    let Ok(session) = engines.sessions.create(NewSession::default()).await else { return };
    for number in 1_u64.. {
        let key = format!("{name}-{number}");
        let value = format!("{:x}", random.next());
        match random.below(3) {
            0 => {
                let action = Action::Put { value: value.clone().into(), ttl: None };
                let write =
                    Write { table: "crash".into(), key: key.clone(), condition: Condition::Absent, action };
                if engines.tables.apply(vec![write]).await.is_err() {
                    return;
                }
                acknowledged.lock().expect("no writer panicked").rows.insert(key, value);
            }
            1 => {
                let content = value.repeat(1 + random.below(2000)).into_bytes();
                let pieces: Vec<_> =
                    content.chunks(4096).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
                let body = futures_util::stream::iter(pieces).boxed();
                if engines.blobs.put("crash", &key, body, blobs::Put::default()).await.is_err() {
                    return;
                }
                acknowledged.lock().expect("no writer panicked").blobs.insert(key, content);
            }
            _ => {
                let change = Change { value: Some(json!(number)), expect: None };
                let patch = Patch { changes: BTreeMap::from([("number".to_owned(), change)]) };
                if engines.sessions.patch(&session.id, patch).await.is_err() {
                    return;
                }
                let mut acknowledged = acknowledged.lock().expect("no writer panicked");
                acknowledged.sessions.retain(|(id, _)| *id != session.id);
                acknowledged.sessions.push((session.id.clone(), number));
            }
        }
        acknowledged.lock().expect("no writer panicked").count += 1;
        noted();
    }
}

/// Everything acknowledged is there, as it was acknowledged.
async fn check(engines: &Engines, acknowledged: &Mutex<Acknowledged>) -> anyhow::Result<()> {
    let (rows, blobs, sessions) = {
        let acknowledged = acknowledged.lock().expect("no writer panicked");
        (acknowledged.rows.clone(), acknowledged.blobs.clone(), acknowledged.sessions.clone())
    };
    for (key, value) in rows {
        let row = engines.tables.get("crash", &key).await?.with_context(|| format!("row {key} is lost"))?;
        ensure!(row.value == value.as_bytes(), "row {key} is another");
    }
    for (key, content) in blobs {
        let blob =
            engines.blobs.get("crash", &key, None).await?.with_context(|| format!("blob {key} is lost"))?;
        let pieces: Vec<Bytes> = blob.body.map(|piece| piece.expect("the blob can be read")).collect().await;
        ensure!(pieces.concat() == content, "blob {key} is another");
    }
    for (id, number) in sessions {
        let session = engines.sessions.load(&id).await.context("a session is lost")?;
        let found = session.fields.get("number").and_then(|field| field.value.as_u64());
        // A patch that was under way at the kill may have happened: it was not refused, only not answered.
        ensure!(found.is_some_and(|found| found >= number), "a session went back from {number} to {found:?}");
    }
    Ok(())
}
