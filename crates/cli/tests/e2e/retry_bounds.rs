//! What bounds the retry table: requests that kill their workers, workers that are killed from outside, no worker at all,
//! and the memory for what is kept.

use std::fs;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Method;

use crate::{
    caller::{Call, Http},
    custodian::gone,
    lethe::{Place, kill_9},
    mortal::{Manner, Moment, Order, payload, small},
    mortal_lab::{Lab, WORKERS, kind},
    retry_table::{Case, EMPTY, Fate, KEPT, SMALL, check, check_reply},
    visitor::Visitor,
};

/// A request that makes each of its workers fall by itself is given up after two, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_of_death() -> anyhow::Result<()> {
    let kinds = [kind("get", "GET"), kind("post", "POST")];
    let lab = Lab::open(&kinds, "").await?;
    for (http, manner) in [
        (Http::One, Manner::Aborts),
        (Http::One, Manner::Exits),
        (Http::Two, Manner::Aborts),
        (Http::Two, Manner::Exits),
    ] {
        for (kind, deadly) in kinds.iter().zip([2, 1]) {
            let case = Case { http, moment: Moment::Ran, manner, body_bytes: SMALL, fate: Fate::Unknown };
            let reply = lab.call(kind, case, usize::MAX).await?;
            check_reply(kind, case, &reply)?;
            let (ran, died) =
                (lab.record(kind).ran(&case.to_string()), lab.record(kind).dying(&case.to_string()));
            ensure!((ran, died.len()) == (deadly, deadly), "{} {case}: {ran}, {died:?}", kind.service);
        }
    }
    lab.lethe.down().await
}

/// A request is not blamed for workers that were killed from outside, however many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_from_outside() -> anyhow::Result<()> {
    const DEATHS: usize = 6;
    let kind = kind("get", "GET");
    let lab = Lab::open(std::slice::from_ref(&kind), "").await?;
    for http in [Http::One, Http::Two] {
        for (moment, manner, fate) in [
            (Moment::Ran, Manner::Awaited, Fate::Again),
            (Moment::HalfSmall, Manner::Killed, Fate::Again),
            // Each worker sends half of what is missing.
            (Moment::HalfTagged, Manner::Killed, Fate::Resumed),
        ] {
            let case = Case { http, moment, manner, body_bytes: SMALL, fate };
            let reply = lab.call(&kind, case, DEATHS).await?;
            check_reply(&kind, case, &reply).with_context(|| case.to_string())?;
            let ran = lab.record(&kind).ran(&case.to_string());
            ensure!(ran == DEATHS + 1, "{case} ran {ran} times");
        }
    }
    ensure!(lab.lethe.client.status().await?.gateway.unknown == 0, "something was unknown");
    lab.lethe.down().await
}

/// A worker has just died, and it may not be known yet: what is given to it was not sent, however safe its kept connections
/// looked, so that it is given to another one and carried out once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_was_sent() -> anyhow::Result<()> {
    const ROUNDS: usize = 20;
    const REQUESTS: usize = 4 * WORKERS;
    let kind = kind("post", "POST");
    let lab = Lab::open(std::slice::from_ref(&kind), "").await?;
    let send = async |name: String| {
        let order = Order { case: &name, moment: Moment::Never, manner: Manner::Killed, deaths: 0 };
        let (path, body) = (order.path(kind.service), payload(SMALL));
        let request = Call {
            method: "POST",
            path: &path,
            headers: &[],
            body: &body,
            is_open: false,
            before_pause: SMALL,
        };
        let reply = lab.send(&kind, Http::One, &request, async { Ok(()) }).await?;
        let ran = lab.record(&kind).ran(&name);
        ensure!((reply.status, ran) == (200, 1), "{name}: {}, ran {ran} times", reply.status);
        anyhow::Ok(())
    };
    for round in 0..ROUNDS {
        let workers = lab.lethe.ready(WORKERS).await?.workers;
        try_join_all((0..REQUESTS).map(|number| send(format!("{round}-before-{number}")))).await?;
        let victim = workers[round % WORKERS].pid.context("a ready worker has a process")?;
        kill_9(victim)?;
        gone(victim).await?;
        try_join_all((0..REQUESTS).map(|number| send(format!("{round}-after-{number}")))).await?;
    }
    lab.lethe.down().await
}

/// All workers are dead at once. What was inside them is treated as the table says, and what comes before there is a new
/// worker waits for it and is carried out once, also where a kept connection seems to be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once() -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    let kinds = [kind("get", "GET"), kind("post", "POST")];
    let lab = Lab::open(&kinds, "").await?;
    let mut killed = Vec::new();
    for round in 0..ROUNDS {
        for (kind, http) in kinds.iter().flat_map(|kind| [(kind, Http::One), (kind, Http::Two)]) {
            let workers = lab.alive(kind, &killed).await?;
            killed.extend(&workers);
            let send = async |name: String, deaths| {
                let fate = if deaths == 1 && kind.service == "post" { Fate::Unknown } else { Fate::Again };
                let order = Order { case: &name, moment: Moment::Ran, manner: Manner::Awaited, deaths };
                let (path, body) = (order.path(kind.service), payload(SMALL));
                let (method, headers) = (kind.method, kind.headers);
                let request =
                    Call { method, path: &path, headers, body: &body, is_open: false, before_pause: SMALL };
                let reply = lab.send(kind, http, &request, async { Ok(()) }).await?;
                let case =
                    Case { http, moment: Moment::Ran, manner: Manner::Awaited, body_bytes: SMALL, fate };
                check_reply(kind, case, &reply).context(name.clone())?;
                let ran = lab.record(kind).ran(&name);
                // One that may be repeated may have come to another worker shortly before that was killed.
                let once_each = deaths + usize::from(fate == Fate::Again);
                let may_be_more = deaths == 1 && fate == Fate::Again;
                ensure!(ran == once_each || may_be_more && ran > once_each, "{name} ran {ran} times");
                anyhow::Ok(())
            };
            let name = |what: &str, number: usize| format!("{http:?}-{round}-{what}-{number}");
            let inside = try_join_all((0..2 * WORKERS).map(|number| send(name("inside", number), 1)));
            let killed = async {
                for number in 0..2 * WORKERS {
                    let name = name("inside", number);
                    lab.dying(kind, &name, 1).await?;
                }
                workers.iter().try_for_each(|&worker| kill_9(worker))?;
                try_join_all(workers.iter().map(|&worker| gone(worker))).await?;
                try_join_all((0..WORKERS).map(|number| send(name("after", number), 0))).await
            };
            tokio::try_join!(inside, killed).with_context(|| format!("{} {http:?}", kind.service))?;
        }
    }
    let totals = lab.lethe.client.status().await?.gateway;
    ensure!(totals.unknown == (ROUNDS * 2 * 2 * WORKERS) as u64, "{totals:?}");
    lab.lethe.down().await
}

/// Bodies are kept within one bound for all: once it is reached, a request with a body is sent once, and one without as
/// often as ever. Those that have ended give back what they took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_kept_is_bounded() -> anyhow::Result<()> {
    const HOLDERS: usize = 2;
    let kinds = [kind("hold", "PUT"), kind("put", "PUT")];
    let [hold, put] = &kinds;
    let limit = format!("cores = 1\nlimits.replay-total-bytes-max = {}", HOLDERS * KEPT);
    let lab = Lab::open(&kinds, &limit).await?;
    let (released, release) = tokio::sync::watch::channel(false);
    let body = payload(2 * KEPT);
    let held = try_join_all((0..HOLDERS).map(async |number| {
        let name = format!("holder-{number}");
        let order = Order { case: &name, moment: Moment::HalfBody, manner: Manner::Killed, deaths: 0 };
        let (path, before_pause) = (order.path(hold.service), KEPT);
        let request = Call {
            method: hold.method,
            path: &path,
            headers: &[],
            body: &body,
            is_open: false,
            before_pause,
        };
        let pause = async { Ok(release.clone().wait_for(|released| *released).await.map(drop)?) };
        let reply = lab.send(hold, Http::One, &request, pause).await?;
        ensure!((reply.status, reply.body) == (200, small(&body)), "the holder: {}", reply.status);
        Ok(())
    }));
    let case = |body_bytes, http, fate| {
        let (moment, manner) = (Moment::Ran, Manner::Killed);
        Case { http, moment, manner, body_bytes, fate }
    };
    let meanwhile = async {
        for number in 0..HOLDERS {
            let (record, name) = (lab.record(hold), format!("holder-{number}"));
            lab.lethe.until("half of it came", async || record.has_passed(&name).then_some(())).await?;
        }
        for http in [Http::One, Http::Two] {
            check(&lab, put, case(SMALL, http, Fate::Unknown)).await.context("nothing is left")?;
            check(&lab, put, case(EMPTY, http, Fate::Again)).await.context("nothing is needed")?;
        }
        released.send_replace(true);
        Ok(())
    };
    tokio::try_join!(held, meanwhile)?;
    check(&lab, put, case(KEPT, Http::One, Fate::Again)).await.context("it was given back")?;
    lab.lethe.down().await
}

/// Answers one request on each connection, with its name; after one for `/deaf` it listens no more, and lives on.
const DEAF: &str = "\
import os, socket, time

listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))
name = os.environ['LETHE_INSTANCE'].encode()
deaf = False
while not deaf:
    peer, _ = listener.accept()
    deaf = b' /deaf ' in peer.recv(1 << 16)
    if deaf:
        listener.close()
    try:
        peer.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(name), name))
    except OSError:
        pass
    peer.close()
time.sleep(3600)
";

/// A worker of which nobody knows yet that it is lost, as in the moment between its death and the word of it: what cannot be
/// sent there goes elsewhere, whatever its method.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_before_anybody_knows() -> anyhow::Result<()> {
    const REQUESTS: usize = 10;
    let place = Place::new()?;
    let app = place.path().join("app.py");
    fs::write(&app, DEAF)?;
    let lethe = place.up(&["--instances", "2", "--", "python3", app.to_str().context("UTF-8")?]).await?;
    lethe.ready(2).await?;
    let mut visitor = Visitor::new(lethe.listen);
    let deaf = visitor.get("/deaf").await?.text().to_owned();
    for number in 0..REQUESTS {
        let page = visitor.send(Method::POST, "/", &[], Bytes::from_static(b"a=1")).await?;
        ensure!(page.status == 200 && page.text() != deaf, "{number}: {page:?}");
    }
    let admin = lethe.client.status().await?.node.admin.context("an admin address")?;
    let metrics = Visitor::new(admin).get("/metrics").await?;
    let unsent =
        metrics.text().lines().find(|line| line.starts_with("lethe_retries_total{reason=\"unsent\"}"));
    let count: f64 = unsent.and_then(|line| line.rsplit(' ').next()).context("a count")?.parse()?;
    ensure!(count >= 1.0, "nothing was tried again: {unsent:?}");
    lethe.down().await
}
