//! Which worker gets a request: in turn, by weight, and not those that fail.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use lethe_gateway::{
    config::{self, Concurrency, Config, Ejection, Health},
    stats::Retry,
};
use lethe_model::{
    gate::Gate,
    roster::{Protocol, Worker, WorkerState},
    service::InstanceId,
    workers::Workers,
};
use tokio::net::TcpListener;

use crate::{
    desk::Clerk,
    lab::{FakeWorker, Lab, entry, run, service},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const LONG: Duration = Duration::from_secs(3600);

pub fn treat(config: &mut Config, how: config::Service) {
    config.services.insert(service(), how);
}

/// A lab whose workers answer by themselves.
async fn clerks(workers: u64, tweak: impl FnOnce(&mut Config)) -> (Lab, Vec<Arc<Clerk>>) {
    let mut lab = Lab::with(workers, tweak).await;
    let clerks = lab.workers.iter_mut().map(Clerk::at).collect();
    (lab, clerks)
}

/// Who answered so many requests, one after the other, on one connection.
async fn ask(lab: &Lab, requests: usize) -> Vec<String> {
    let mut client = lab.client().await;
    let mut names = Vec::new();
    for _ in 0..requests {
        client.send(GET).await;
        names.push(client.response().await.text().to_owned());
    }
    names
}

fn counts(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn equals_take_turns_while_others_come_and_go() {
    run(async {
        let (mut lab, _clerks) = clerks(4, |_| {}).await;
        let mut names = Vec::new();
        for number in 5..15 {
            names.extend(ask(&lab, 7).await);
            let mut worker = FakeWorker::start(number).await;
            Clerk::at(&mut worker);
            lab.workers.push(worker);
            lab.publish();
            let instance = lab.workers.last().unwrap().entry.instance.clone();
            lab.until(|snapshot| snapshot.workers.contains_key(&instance)).await;
            names.extend(ask(&lab, 3).await);
            lab.workers.pop();
            lab.publish();
            lab.until(|snapshot| !snapshot.workers.contains_key(&instance)).await;
        }
        let stayed = ["shop-1", "shop-2", "shop-3", "shop-4"];
        let names: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| stayed.contains(name)).collect();
        for from in 0..names.len() {
            let mut counts: BTreeMap<&str, usize> = stayed.iter().map(|&name| (name, 0)).collect();
            for name in &names[from..] {
                *counts.get_mut(name).unwrap() += 1;
                let spread = counts.values().max().unwrap() - counts.values().min().unwrap();
                assert!(spread <= 1, "{counts:?} in {names:?}");
            }
        }
    });
}

#[test]
fn weights_are_kept_and_may_change() {
    run(async {
        let (mut lab, _clerks) = clerks(3, |_| {}).await;
        for (worker, weight) in lab.workers.iter_mut().zip([1, 2, 5]) {
            worker.entry.weight = weight;
        }
        lab.publish();
        // The new weights hold as soon as one core, the only one, has seen that roster: shown by a worker that left.
        lab.workers.push(FakeWorker::start(4).await);
        lab.workers[3].entry.state = WorkerState::Starting;
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 4).await;
        let names = ask(&lab, 160).await;
        for (name, expected) in [("shop-1", 20usize), ("shop-2", 40), ("shop-3", 100)] {
            let count = counts(&names)[name];
            assert!(count.abs_diff(expected) <= 2, "{name}: {count}");
        }
    });
}

#[test]
fn a_new_worker_among_old_ones_starts_slowly() {
    run(async {
        let how = config::Service { slow_start: LONG, ..config::Service::default() };
        let (mut lab, _clerks) = clerks(2, |config| treat(config, how)).await;
        assert_eq!(
            counts(&ask(&lab, 10).await),
            BTreeMap::from([("shop-1", 5), ("shop-2", 5)]),
            "all are new"
        );
        let mut third = FakeWorker::start(3).await;
        Clerk::at(&mut third);
        lab.workers.push(third);
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 3).await;
        let names = ask(&lab, 210).await;
        let counts = counts(&names);
        assert!(counts["shop-3"].abs_diff(10) <= 1, "a tenth at first: {counts:?}");
        assert!(counts["shop-1"].abs_diff(counts["shop-2"]) <= 1, "{counts:?}");
        // The others go: now it is as good as any.
        lab.workers.drain(..2);
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() == 1).await;
        assert_eq!(ask(&lab, 3).await, ["shop-3"; 3]);
    });
}

#[test]
fn who_keeps_failing_is_passed_over_down_to_the_floor() {
    run(async {
        let ejection = Ejection { failures: 3, shortest: LONG, longest: LONG, out_percent_max: 50 };
        let how = config::Service { ejection, ..config::Service::default() };
        let (lab, clerks) = clerks(3, |config| treat(config, how)).await;
        // What a worker does not offer is no failure of it.
        for status in [501, 505, 404] {
            clerks[0].status.store(status, SeqCst);
            ask(&lab, 30).await;
        }
        assert_eq!(lab.stats().ejections, 0);
        clerks[0].status.store(500, SeqCst);
        let before = clerks[0].answers.load(SeqCst);
        ask(&lab, 30).await;
        assert_eq!(clerks[0].answers.load(SeqCst) - before, 3, "out after three failures");
        assert_eq!((lab.stats().out, lab.stats().ejections), (1, 1));
        // Two of three may not be out.
        clerks[1].status.store(500, SeqCst);
        let before = clerks[1].answers.load(SeqCst);
        ask(&lab, 30).await;
        assert_eq!(clerks[1].answers.load(SeqCst) - before, 15);
        assert_eq!((lab.stats().out, lab.stats().ejections), (1, 1));
        // When all who are in are dead, better one that fails; the dead do not come back.
        lab.workers[1].entry.gate.close();
        lab.workers[2].entry.gate.close();
        assert_eq!(ask(&lab, 3).await, ["shop-1"; 3]);
    });
}

/// A process that lives and takes no connections is as one that fails.
#[test]
fn who_takes_no_connections_is_passed_over_for_longer_and_longer() {
    run(async {
        let ejection = Ejection { failures: 3, shortest: LONG, longest: LONG, out_percent_max: 50 };
        let how = config::Service { ejection, ..config::Service::default() };
        let mut lab = Lab::with(2, |config| treat(config, how)).await;
        Clerk::at(&mut lab.workers[1]);
        lab.workers[0].die();
        while lab.stats().out == 0 {
            assert_eq!(ask(&lab, 2).await, ["shop-2"; 2]);
        }
        ask(&lab, 30).await;
        assert_eq!((lab.stats().out, lab.stats().ejections), (1, 1));
        assert_eq!(lab.gateway.snapshot().retries_by[&Retry::Unsent], 3, "it was asked three times");
    });
}

/// Of a thousand workers all but one are busy: that one is found, although not all are asked each time; and so is one that
/// has become free without a sign.
#[test]
fn the_free_one_of_many_is_found() {
    const WORKERS: usize = 1000;
    run(async {
        let concurrency = Concurrency::Limited(1);
        let how = config::Service { concurrency, ..config::Service::default() };
        let lab = Lab::with(0, |config| treat(config, how)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Clerk::serve(listener, "ok".into());
        let workers: Vec<Worker> = (0..WORKERS as u64).map(|number| entry(number, address.into())).collect();
        for (number, worker) in workers.iter().enumerate() {
            if number != 777 {
                worker.gate.admit(None).unwrap();
            }
        }
        lab.publish_entries(workers.clone());
        lab.until(|snapshot| snapshot.workers.len() == WORKERS).await;
        for _ in 0..3 {
            assert_eq!(ask(&lab, 1).await, ["ok"]);
        }
        assert_eq!(workers[777].gate.answered(), 3);
        workers[777].gate.admit(None).unwrap();
        let mut client = lab.send(GET).await;
        lab.until_stats(|stats| stats.queued_timely == 1).await;
        workers[123].gate.leave();
        assert_eq!(client.response().await.text(), "ok");
        assert_eq!(workers[123].gate.answered(), 1);
    });
}

#[test]
fn an_answer_that_never_ends_is_a_failure_and_who_was_out_comes_back() {
    run(async {
        let shortest = Duration::from_millis(20);
        let ejection = Ejection { failures: 1, shortest, longest: shortest, out_percent_max: 50 };
        let how = config::Service { ejection, ..config::Service::default() };
        let mut lab = Lab::with(2, |config| treat(config, how)).await;
        let second = Clerk::at(&mut lab.workers[1]);
        let mut client = lab.send(GET).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        worker.reset();
        assert_eq!(client.response().await.text(), "shop-2");
        assert_eq!(lab.stats().ejections, 1);
        let first = Clerk::at(&mut lab.workers[0]);
        while first.answers.load(SeqCst) == 0 {
            ask(&lab, 1).await;
        }
        assert!(second.answers.load(SeqCst) > 0);
        lab.until_stats(|stats| stats.out == 0).await;
    });
}

#[test]
fn a_health_check_puts_a_worker_out_and_brings_it_back() {
    run(async {
        let health = Health {
            path: "/check".into(),
            every: Duration::from_millis(5),
            timeout: Duration::from_secs(5),
            failures: 2,
            successes: 2,
        };
        let how = config::Service { health: Some(health), ..config::Service::default() };
        let (lab, clerks) = clerks(2, |config| {
            config.cores = 2;
            treat(config, how);
        })
        .await;
        clerks[0].check_status.store(503, SeqCst);
        lab.until_stats(|stats| stats.out == 1).await;
        assert!(*clerks[0].checks.borrow() >= 2);
        assert_eq!(ask(&lab, 10).await, ["shop-2"; 10]);
        // The floor: one of two stays in, however it is.
        clerks[1].check_status.store(503, SeqCst);
        clerks[1].checked(10).await;
        assert_eq!(lab.stats().out, 1);
        assert_eq!(ask(&lab, 10).await, ["shop-2"; 10]);
        clerks[1].check_status.store(200, SeqCst);
        clerks[0].check_status.store(204, SeqCst);
        lab.until_stats(|stats| stats.out == 0).await;
        assert_eq!(counts(&ask(&lab, 10).await).len(), 2);
    });
}

#[test]
fn a_check_is_bounded() {
    run(async {
        let health = Health {
            path: "/check".into(),
            every: Duration::from_millis(5),
            timeout: Duration::from_millis(50),
            failures: 1,
            successes: 1,
        };
        let how = config::Service { health: Some(health), ..config::Service::default() };
        let mut lab = Lab::with(3, |config| treat(config, how)).await;
        Clerk::at(&mut lab.workers[2]);
        // One that never ends its line, and one that never answers; one of the two is put out, the floor keeps the other.
        let mut talker = lab.workers[0].accept().await;
        assert!(talker.request().await.line.starts_with("GET /check "));
        assert!(talker.try_send("x".repeat(1024)).await);
        lab.until_stats(|stats| stats.out == 1).await;
        talker.closed().await;
        let mut silent = lab.workers[1].accept().await;
        silent.request().await;
        silent.closed().await;
        lab.until_stats(|stats| stats.out == 1).await;
    });
}

#[test]
fn a_worker_that_speaks_http_2_is_checked_by_that() {
    run(async {
        let health = Health {
            path: "/check".into(),
            every: Duration::from_millis(5),
            timeout: Duration::from_secs(30),
            failures: 1,
            successes: 1,
        };
        let how =
            config::Service { protocol: Protocol::H2c, health: Some(health), ..config::Service::default() };
        let lab = Lab::with(2, |config| treat(config, how)).await;
        // SETTINGS, and HEADERS with `:status` 500, then 204.
        for (status, out) in [(0x8e, 1), (0x89, 0)] {
            let mut worker = lab.workers[0].accept().await;
            assert_eq!(worker.exactly(24).await.unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            worker.send(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01").await;
            worker.send([status]).await;
            lab.until_stats(|stats| stats.out == out).await;
        }
    });
}

/// Ten thousand workers, and a roster that changes with each request: all are answered, and nobody is asked twice
/// before everybody was asked once.
#[test]
fn many_workers_and_a_roster_that_changes_all_the_time() {
    const WORKERS: u64 = 10_000;
    const REQUESTS: usize = 300;
    run(async {
        let lab = Lab::new(0).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Clerk::serve(listener, "ok".into());
        let worker = |number| Worker {
            instance: InstanceId::new(&service(), number),
            address: address.into(),
            protocol: Protocol::Http1,
            state: WorkerState::Ready,
            gate: Gate::new(),
            weight: Worker::WEIGHT,
        };
        let mut workers: Workers = (0..WORKERS).map(worker).collect();
        let mut all: Vec<Worker> = workers.iter().cloned().collect();
        lab.publish_workers(workers.clone());
        lab.until(|snapshot| snapshot.workers.len() as u64 == WORKERS).await;
        let mut client = lab.client().await;
        for number in 0..REQUESTS {
            // The youngest and one in the middle go, two come.
            for index in [workers.len() - 1, number * 31 % (workers.len() - 1)] {
                let instance = workers[index].instance.clone();
                assert!(workers.remove(&instance));
            }
            for new in [0, 1] {
                all.push(worker(WORKERS + 2 * number as u64 + new));
                workers.insert(all.last().unwrap().clone());
            }
            lab.publish_workers(workers.clone());
            client.send(GET).await;
            assert_eq!(client.response().await.status(), 200);
        }
        let asked: Vec<u64> = all.iter().map(|worker| worker.gate.answered()).collect();
        assert_eq!(asked.iter().sum::<u64>(), REQUESTS as u64);
        assert!(asked.iter().all(|&count| count <= 1), "somebody was asked twice");
        assert!(all.iter().all(|worker| worker.gate.in_flight() == 0));
    });
}
