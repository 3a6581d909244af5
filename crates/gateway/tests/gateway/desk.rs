//! A worker whose requests all come to one desk, whatever their connection: the test sees them in the order of their
//! arrival and answers each when it wants to, or lets the desk answer by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

use crate::lab::{FakeWorker, Message, Peer};

/// What a desk that answers by itself says, and what it counted.
#[derive(Default)]
pub struct Clerk {
    /// Requests that were answered, apart from checks.
    pub answers: AtomicUsize,
    /// The status of the answers.
    pub status: AtomicU16,
    /// Requests for `/check`.
    pub checks: watch::Sender<usize>,
    /// The status of the answers to them.
    pub check_status: AtomicU16,
    /// How long each answer takes: time itself, of which the gateway measures latencies.
    pub pause_us: AtomicU64,
}

impl Clerk {
    /// Lets a worker answer by itself: 200, with its name as the body.
    pub fn at(worker: &mut FakeWorker) -> Arc<Self> {
        let name = worker.entry.instance.as_str().to_owned();
        Self::serve(worker.take_listener(), name)
    }

    /// Waits for so many checks more.
    pub async fn checked(&self, more: usize) {
        let wanted = *self.checks.borrow() + more;
        self.checks.subscribe().wait_for(|&checks| checks >= wanted).await.unwrap();
    }

    pub fn serve(listener: TcpListener, name: String) -> Arc<Self> {
        let clerk = Arc::new(Self { status: 200.into(), check_status: 200.into(), ..Self::default() });
        let serving = Arc::clone(&clerk);
        tokio::spawn(async move {
            loop {
                let peer = Peer::new(listener.accept().await.unwrap().0);
                tokio::spawn(Arc::clone(&serving).answer_all(peer, name.clone()));
            }
        });
        clerk
    }

    async fn answer_all(self: Arc<Self>, mut peer: Peer, name: String) {
        while let Some(request) = peer.try_request().await {
            let status = if request.line.starts_with("GET /check ") {
                assert_eq!(request.header("user-agent"), Some("lethe-health"));
                assert!(request.header("host").is_some());
                self.checks.send_modify(|checks| *checks += 1);
                self.check_status.load(SeqCst)
            } else {
                self.answers.fetch_add(1, SeqCst);
                self.status.load(SeqCst)
            };
            let pause = self.pause_us.load(SeqCst);
            if pause > 0 {
                tokio::time::sleep(Duration::from_micros(pause)).await;
            }
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", name.len());
            if !peer.try_send(head + &name).await {
                return;
            }
        }
    }
}

/// Requests that may wait at a desk; whoever comes then waits on its connection.
const ARRIVALS_MAX: usize = 1024;

/// A request that waits for its answer.
pub struct Arrival {
    pub request: Message,
    answer: oneshot::Sender<()>,
}

impl Arrival {
    pub fn path(&self) -> &str {
        self.request.line.split(' ').nth(1).unwrap()
    }

    /// Answers 200.
    pub fn answer(self) {
        // The gateway may have gone.
        let _ = self.answer.send(());
    }
}

/// The requests of one worker.
pub struct Desk(mpsc::Receiver<Arrival>);

impl Desk {
    pub fn at(worker: &mut FakeWorker) -> Self {
        let listener = worker.take_listener();
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        tokio::spawn(async move {
            loop {
                let peer = Peer::new(listener.accept().await.unwrap().0);
                tokio::spawn(receive(peer, sender.clone()));
            }
        });
        Self(arrivals)
    }

    /// The next request.
    pub async fn next(&mut self) -> Arrival {
        self.0.recv().await.unwrap()
    }

    /// Whether nothing has come since.
    pub fn is_empty(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

async fn receive(mut peer: Peer, arrivals: mpsc::Sender<Arrival>) {
    while let Some(request) = peer.try_request().await {
        let (answer, answered) = oneshot::channel();
        let _ = arrivals.send(Arrival { request, answer }).await;
        if answered.await.is_err() || !peer.try_send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await {
            return;
        }
    }
}
