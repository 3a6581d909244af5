//! Workers that die all the time under load, and are replaced: nothing that may be repeated fails, and nothing that
//! may not be repeated runs twice.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::lab::{FakeWorker, Lab, Peer, run};

/// A worker dies each time that so many requests were carried out.
const WORK: usize = 12;

/// How often each request was carried out, by its path, and all of them together.
#[derive(Default)]
struct Ledger {
    ran: RefCell<BTreeMap<String, usize>>,
    total: watch::Sender<usize>,
}

impl Ledger {
    fn enter(&self, path: String) {
        *self.ran.borrow_mut().entry(path).or_default() += 1;
        self.total.send_modify(|total| *total += 1);
    }
}

/// A worker that answers by itself until it is killed, with all its connections.
fn serve(listener: TcpListener, ledger: Rc<Ledger>) -> JoinSet<()> {
    let mut process = JoinSet::new();
    process.spawn_local(async move {
        let mut connections = JoinSet::new();
        loop {
            let stream = listener.accept().await.unwrap().0;
            connections.spawn_local(answer_all(Peer::new(stream), Rc::clone(&ledger)));
        }
    });
    process
}

async fn answer_all(mut peer: Peer, ledger: Rc<Ledger>) {
    while let Some(request) = peer.try_request().await {
        let path = request.line.split(' ').nth(1).unwrap().to_owned();
        ledger.enter(path.clone());
        // A death may come between the work and the answer, and in the middle of the answer.
        tokio::task::yield_now().await;
        let answer = format!("{path} {}", request.body.len());
        let (half, rest) = answer.split_at(2);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{half}", answer.len());
        if !peer.try_send(head).await {
            return;
        }
        tokio::task::yield_now().await;
        if !peer.try_send(rest).await {
            return;
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_is_doubled() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 400;
    run(async {
        let local = tokio::task::LocalSet::new();
        local.run_until(storm(CLIENTS, REQUESTS)).await;
    });
}

async fn storm(clients: usize, requests: usize) {
    let mut lab = Lab::with(3, |config| {
        config.cores = 2;
        // Dying this often is not the request's fault.
        config.limits.deaths_max = 1000;
        config.limits.attempts_max = 1000;
    })
    .await;
    let ledger = Rc::<Ledger>::default();
    let mut processes = Vec::new();
    for worker in &mut lab.workers {
        processes.push(serve(worker.take_listener(), Rc::clone(&ledger)));
    }
    let left = Rc::new(watch::Sender::new(clients));
    let mut load = JoinSet::new();
    for client in 0..clients {
        let (address, ledger, left) = (lab.address, Rc::clone(&ledger), Rc::clone(&left));
        load.spawn_local(async move {
            let unknown = shop(address, client, requests, &ledger).await;
            left.send_modify(|left| *left -= 1);
            unknown
        });
    }
    let (mut number, mut deaths) = (3, 0);
    let (mut total, mut ended) = (ledger.total.subscribe(), left.subscribe());
    loop {
        let wanted = *total.borrow() + WORK;
        tokio::select! {
            worked = total.wait_for(|&total| total >= wanted) => drop(worked.unwrap()),
            ended = ended.wait_for(|&left| left == 0) => break drop(ended.unwrap()),
        }
        let victim = deaths % 3;
        // First it is dead, then the roster says so.
        processes[victim].shutdown().await;
        tokio::task::yield_now().await;
        number += 1;
        lab.workers[victim] = FakeWorker::start(number).await;
        processes[victim] = serve(lab.workers[victim].take_listener(), Rc::clone(&ledger));
        lab.publish();
        deaths += 1;
    }
    let unknown: usize = load.join_all().await.into_iter().sum();
    let snapshot = lab.gateway.snapshot();
    assert_eq!(snapshot.unknown as usize, unknown);
    assert!(
        deaths > 10 && snapshot.retries > 0,
        "{deaths} deaths and {} retries are no storm",
        snapshot.retries
    );
}

/// One client: each request in turn, on one connection. Returns how many ended as unknown.
async fn shop(address: std::net::SocketAddr, client: usize, requests: usize, ledger: &Ledger) -> usize {
    let mut peer = Peer::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let mut unknown = 0;
    for turn in 0..requests {
        let path = format!("/{client}/{turn}");
        let (method, fields, body) = match turn % 4 {
            0 => ("GET", "", String::new()),
            1 => ("PUT", "", "x".repeat(turn * 10)),
            2 => ("POST", "idempotency-key: k\r\n", "x".repeat(turn)),
            _ => ("POST", "", "x".repeat(turn)),
        };
        let length = body.len();
        peer.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: h\r\n{fields}content-length: {length}\r\n\r\n{body}"
        ))
        .await;
        let response = peer.response().await;
        let ran = ledger.ran.borrow().get(&path).copied().unwrap_or(0);
        if response.status() == 200 {
            assert_eq!(response.text(), format!("{path} {length}"));
            assert!(ran >= 1);
        } else {
            assert_eq!((response.status(), response.header("lethe-outcome")), (502, Some("unknown")));
            assert_eq!((method, fields), ("POST", ""), "{path} failed, which may be repeated");
            unknown += 1;
        }
        assert!(ran <= 1 || (method, fields) != ("POST", ""), "{path} ran {ran} times");
    }
    unknown
}
