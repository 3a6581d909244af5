//! The pauses between attempts, on a clock that runs only while everybody waits for it.

use std::{collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};

use lethe_model::roster::{Address, Worker, WorkerState::Ready};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::LocalSet,
    time::Instant,
};

use super::*;
use crate::{
    body_budget::Budgets,
    client::Client,
    config::{Limits, RetryOn, Route},
    core::Core,
    downstream::fake,
    forwarded::Scheme,
    head::{Bounds, RequestHead},
    request::{self, Prepared},
    route::{Table, Target},
    service::tests::{apply, route_to, service, worker},
    upload::Upload,
    watch::Phase,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Timers are as exact as that.
const TIMER: Duration = Duration::from_millis(1);

/// Answers that it has too much to do, and tells when it was asked.
async fn overloaded(listener: UnixListener, times: usize) -> Vec<Instant> {
    let mut asked = Vec::new();
    for _ in 0..times {
        let (mut stream, _) = listener.accept().await.unwrap();
        let count = stream.read(&mut [0; 4096]).await.unwrap();
        assert!(count > GET.len(), "{count} bytes came at once");
        asked.push(Instant::now());
        stream.write_all(BUSY).await.unwrap();
    }
    asked
}

/// A core with one route, which tries 503 again.
fn core(target: Target) -> Rc<Core> {
    let core = Core::new(0, Arc::default(), Arc::default(), Budgets::new(&Limits::default()));
    core.bounds.set(Bounds { head_bytes_max: 4096, target_bytes_max: 1024, headers_max: 100 });
    core.table.replace(Table::new(vec![Rc::new(target)]));
    Rc::new(core)
}

#[test]
fn after_an_overload_it_pauses_longer_each_time_and_never_as_long_as_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let service = service("shop");
    apply(&service, &[Worker { address: Address::Unix(path.into()), ..worker(1, Ready) }]);
    let retry_on = RetryOn { unavailable: true, timeout: false };
    let route = Route { retry_on, ..route_to("shop") };
    let core = core(Target { route, service, stats: Arc::default(), judge: None });
    let attempts = core.limits().attempts_max;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let asked = LocalSet::new().block_on(&runtime, async {
        let worker = overloaded(UnixListener::from_std(listener).unwrap(), attempts);
        let asked = tokio::task::spawn_local(worker);
        let client = Client::new([192, 0, 2, 7].into(), Scheme::Http, false);
        let (mut head, mut prepared) = (RequestHead::default(), Prepared::default());
        assert_eq!(head.parse(GET, core.bounds.get()), Ok(true));
        let (record, target) = request::prepare(&core, &client, (GET, &head), None, &mut prepared);
        let target = target.unwrap();
        let mut exchange = Exchange {
            core: &core,
            watched: &Watched::new(Phase::Choosing),
            target: &target,
            prepared: &prepared,
            upload: Upload::new(prepared.length, 0, &core.replay_share),
            down: &mut fake::Client::default(),
            record: &record,
            lost: Vec::new(),
            standing: &Vec::new(),
            attempts_left: attempts,
        };
        assert_eq!(forward(&mut exchange).await, Ok(End::Whole), "the last word is the worker's own");
        asked.await.unwrap()
    });
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let bounds: Vec<Duration> = (0..).map(|retry| backoff(retry, u64::MAX)).take(pauses.len()).collect();
    assert_eq!(pauses.len(), attempts - 1);
    for (pause, bound) in pauses.iter().zip(&bounds) {
        assert!(*pause <= *bound + TIMER, "{pause:?} is more than {bound:?}: {pauses:?}");
    }
    let (paused, most): (Duration, Duration) = (pauses.iter().sum(), bounds.iter().sum());
    assert!(paused > most / 50, "not as long as chance would have it: {pauses:?}");
    assert!(pauses.iter().collect::<BTreeSet<_>>().len() > pauses.len() / 2, "not by chance: {pauses:?}");
}
