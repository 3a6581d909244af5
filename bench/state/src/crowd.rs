//! Very many sessions in the embedded engine: what they take, and how long a load, a list and their expiry are.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lethe_state::{
    clock::ManualClock,
    embedded::Embedded,
    sessions::{Lifetime, NewSession},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{Options, near::fields, timing::Times};

/// Those who create them.
const CREATORS: usize = 256;
/// Sessions of one user.
const PER_USER: usize = 10;
/// One in so many is loaded later.
const SAMPLE: usize = 100;

pub async fn measured(options: &Options) -> Value {
    let (folder, sessions) = (Path::new(options.text("folder")), options.number("sessions"));
    let length = Duration::from_millis(options.number("milliseconds") as u64);
    let clock = ManualClock::new(1_800_000_000_000);
    let engine = Arc::new(Embedded::open_with(folder, Arc::new(clock.clone())).expect("a folder"));
    let engines = engine.engines();

    let (begin, next, ids) =
        (Instant::now(), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let creators = (0..CREATORS).map(|_| {
        let (engine, next, ids) = (engines.sessions.clone(), next.clone(), ids.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= sessions {
                    return;
                }
                let lifetime = Lifetime { idle: Duration::from_secs(3600), ..Lifetime::default() };
                let user = Some(format!("user-{}", number / PER_USER));
                let id = engine
                    .create(NewSession {
                        user,
                        fields: fields().into_iter().collect(),
                        lifetime,
                        ..NewSession::default()
                    })
                    .await;
                let id = id.expect("a session").id;
                if number % SAMPLE == 0 {
                    ids.lock().await.push(id);
                }
            }
        })
    });
    for creator in creators.collect::<Vec<_>>() {
        creator.await.expect("a creator");
    }
    let create_s = begin.elapsed().as_secs_f64();
    let (resident_mib, ids) = (resident_mib(), ids.lock().await.clone());

    let mut number = 0;
    let loads = Times::of(length, || {
        number = (number + 7919) % ids.len();
        let (engine, id) = (engines.sessions.clone(), ids[number].clone());
        async move { drop(engine.load(&id).await.expect("the session")) }
    });
    let loads = loads.await.figures(length);
    let lists = Times::of(length, || {
        number = (number + 7919) % (sessions / PER_USER);
        let (engine, user) = (engines.sessions.clone(), format!("user-{number}"));
        async move { assert_eq!(engine.list(&user).await.expect("a list").len(), PER_USER) }
    });
    let lists = lists.await.figures(length);
    let disk_mib = fs::metadata(folder.join("state.db")).expect("the database").len() >> 20;

    // All expire at once; one session that lives is loaded meanwhile.
    clock.advance(Duration::from_secs(7200));
    let alive = engines.sessions.create(NewSession::default()).await.expect("a session").id;
    let (begin, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let sweeping = tokio::spawn({
        let (engine, over) = (engine.clone(), over.clone());
        async move {
            engine.sweep().await.expect("a sweep");
            over.store(true, Relaxed);
        }
    });
    let mut beside = Vec::new();
    while !over.load(Relaxed) {
        let load = async || drop(engines.sessions.load(&alive).await.expect("the session"));
        beside.push(Times::of(Duration::from_millis(20), load).await);
    }
    sweeping.await.expect("the sweep");
    let expire_s = begin.elapsed().as_secs_f64();
    json!({
        "create_s": create_s, "resident_mib": resident_mib, "disk_mib": disk_mib, "load": loads, "list": lists,
        "expire_s": expire_s, "load_beside_expiry": Times::joined(beside).figures(begin.elapsed()),
    })
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 10
}
