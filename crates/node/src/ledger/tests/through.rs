//! The same through a gateway, before a worker that answers as the test says: what a client learns that comes again.

use std::{collections::VecDeque, net::SocketAddr, sync::Mutex};

use lethe_gateway::{
    config::Config,
    gateway::{Bound, Gateway},
};
use lethe_model::{
    gate::Gate,
    roster::{Protocol, Roster, Worker, WorkerState},
    service::InstanceId,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;

/// What the worker does with a request: it answers with this status and so large a body, or falls dead.
type Deed = Option<(u16, usize)>;

struct Site {
    _gateway: Gateway,
    _workers: watch::Sender<Arc<Roster>>,
    address: SocketAddr,
    /// What is not done yet.
    deeds: Arc<Mutex<VecDeque<Deed>>>,
}

impl Site {
    async fn open(lab: &Lab, hold_total_bytes_max: usize, answer_bytes_max: usize, deeds: &[Deed]) -> Self {
        let service = ServiceName::new("shop").unwrap();
        let once = Once { answer_bytes_max, ..once() };
        let route = Route { once: Some(once), ..Route::everything_to(service.clone()) };
        let mut config = Config { routes: vec![route], ..Config::new(([127, 0, 0, 1], 0).into()) };
        config.cores = 1;
        config.limits.hold_total_bytes_max = hold_total_bytes_max;
        config.limits.hold_bytes_max = config.limits.hold_bytes_max.min(hold_total_bytes_max);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let worker = Worker {
            instance: InstanceId::new(&service, 1),
            address: listener.local_addr().unwrap().into(),
            protocol: Protocol::Http1,
            state: WorkerState::Ready,
            gate: Gate::new(),
            weight: Worker::WEIGHT,
        };
        let services = [(service, [worker].into_iter().collect())].into();
        let (workers, roster) = watch::channel(Arc::new(Roster { generation: 1, services }));
        let bound = Bound::bind(config).unwrap().recorded_by(AnswerStore::new(&lab.engines));
        let address = bound.address();
        let gateway = bound.run(roster);
        let deeds = Arc::new(Mutex::new(deeds.iter().copied().collect::<VecDeque<_>>()));
        tokio::spawn(work(listener, Arc::clone(&deeds)));
        Self { _gateway: gateway, _workers: workers, address, deeds }
    }

    /// The status of the answer to the one request of the test, and what else matters of it.
    async fn ask(&self) -> (u16, &'static str) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let fields = "host: shop.example\r\nconnection: close\r\nidempotency-key: k\r\ncontent-length: 5";
        stream.write_all(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\na mug").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let notes = ["lethe-outcome: unknown", "idempotent-replayed: true"].map(|note| answer.contains(note));
        let note = match notes {
            [false, false] => "",
            [true, false] => "unknown",
            [false, true] => "replayed",
            [true, true] => "unknown, replayed",
        };
        (answer[9..12].parse().unwrap(), note)
    }
}

async fn work(listener: TcpListener, deeds: Arc<Mutex<VecDeque<Deed>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"a mug") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request is whole");
        }
        let deed = deeds.lock().unwrap().pop_front().expect("no more requests reach the worker");
        if let Some((status, bytes)) = deed {
            let head =
                format!("HTTP/1.1 {status} So\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
            stream.write_all(format!("{head}{}", "x".repeat(bytes)).as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_comes_again_is_told_what_was_done() {
    const LARGE: usize = 200;
    type Case<'a> = (usize, usize, &'a [Deed], &'a [(u16, &'a str)]);
    let cases: [Case<'_>; 5] = [
        // It failed with an answer too large to be kept: it is done again, and then it is done.
        (
            1 << 20,
            100,
            &[Some((503, LARGE)), Some((500, LARGE)), Some((429, LARGE)), Some((201, 4))],
            &[(503, ""), (500, ""), (429, ""), (201, ""), (201, "replayed")],
        ),
        // It is done, and its answer is too large.
        (1 << 20, 100, &[Some((201, LARGE))], &[(201, ""), (410, "replayed")]),
        // There is no memory to hold answers: a small one is kept all the same.
        (0, 100, &[Some((201, 4))], &[(201, ""), (201, "replayed")]),
        (0, 100, &[Some((503, 4)), Some((201, 4))], &[(503, ""), (201, ""), (201, "replayed")]),
        // Nobody knows, whatever there is room for.
        (0, 1, &[None], &[(502, "unknown"), (502, "unknown, replayed")]),
    ];
    for (hold_total, answer_max, deeds, expected) in cases {
        let lab = Lab::new();
        let site = Site::open(&lab, hold_total, answer_max, deeds).await;
        for (number, expected) in expected.iter().enumerate() {
            assert_eq!(site.ask().await, *expected, "request {number} of {deeds:?}");
        }
        assert!(site.deeds.lock().unwrap().is_empty(), "{deeds:?}");
    }
}
