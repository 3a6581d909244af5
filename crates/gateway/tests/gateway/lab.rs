//! A gateway with workers that the test plays by hand.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use lethe_gateway::{
    config::{Config, Route},
    gateway::{Bound, Gateway},
    stats::ServiceStats,
};
use lethe_model::{
    gate::Gate,
    roster::{Address, Protocol, Roster, Worker, WorkerState},
    service::{InstanceId, ServiceName},
    workers::Workers,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Runs a test, with an end for one that hangs.
pub fn run(test: impl Future<Output = ()>) {
    run_within(Duration::from_secs(300), test);
}

/// One that may take so long.
pub fn run_within(limit: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("test hangs") });
}

/// A gateway and its workers.
pub struct Lab {
    pub gateway: Gateway,
    pub address: SocketAddr,
    /// Of all listeners, the first one's is `address`.
    pub addresses: Vec<SocketAddr>,
    pub workers: Vec<FakeWorker>,
    roster: watch::Sender<Arc<Roster>>,
}

/// A worker: a listener, and what the roster says of it.
pub struct FakeWorker {
    pub entry: Worker,
    listener: Option<TcpListener>,
}

impl FakeWorker {
    pub async fn start(number: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let entry = entry(number, listener.local_addr().unwrap().into());
        Self { entry, listener: Some(listener) }
    }

    /// The next connection of the gateway.
    pub async fn accept(&self) -> Peer {
        Peer::new(self.listener.as_ref().unwrap().accept().await.unwrap().0)
    }

    /// Accepts the next connection and reads its first request.
    pub async fn request(&self) -> (Peer, Message) {
        let mut peer = self.accept().await;
        let request = peer.request().await;
        (peer, request)
    }

    /// Whether a connection is waiting to be accepted.
    pub fn is_called(&self) -> bool {
        let socket = socket2::SockRef::from(self.listener.as_ref().unwrap());
        socket.accept().is_ok()
    }

    /// The listener, for a worker that answers by itself.
    pub fn take_listener(&mut self) -> TcpListener {
        self.listener.take().unwrap()
    }

    /// Stops listening, as a process that has died.
    pub fn die(&mut self) {
        self.listener = None;
    }

    /// Comes back at the same address.
    pub async fn revive(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let Address::Tcp(address) = self.entry.address else { panic!("a port is needed") };
        socket.bind(address).unwrap();
        self.listener = Some(socket.listen(64).unwrap());
    }
}

/// What the roster says of a ready worker.
pub fn entry(number: u64, address: Address) -> Worker {
    Worker {
        instance: InstanceId::new(&service(), number),
        address,
        protocol: Protocol::Http1,
        state: WorkerState::Ready,
        gate: Gate::new(),
        weight: Worker::WEIGHT,
    }
}

pub fn service() -> ServiceName {
    ServiceName::new("shop").unwrap()
}

pub fn config() -> Config {
    Config { routes: vec![Route::everything_to(service())], ..Config::new(([127, 0, 0, 1], 0).into()) }
}

impl Lab {
    /// A gateway with so many workers, asked in order, the first one first.
    pub async fn new(workers: u64) -> Self {
        Self::with(workers, |_| {}).await
    }

    pub async fn with(workers: u64, tweak: impl FnOnce(&mut Config)) -> Self {
        Self::bound(workers, tweak, |bound| bound).await
    }

    /// One whose gateway is given more than a configuration.
    pub async fn bound(
        workers: u64,
        tweak: impl FnOnce(&mut Config),
        more: impl FnOnce(Bound) -> Bound,
    ) -> Self {
        Self::made(workers, tweak, |config| more(Bound::bind(config).unwrap())).await
    }

    /// One that takes over the listeners of another.
    pub async fn after(other: &Self, workers: u64, tweak: impl FnOnce(&mut Config)) -> Self {
        let listeners = other.gateway.listeners().unwrap();
        Self::made(workers, tweak, |config| Bound::adopt(config, listeners).unwrap()).await
    }

    async fn made(workers: u64, tweak: impl FnOnce(&mut Config), bind: impl FnOnce(Config) -> Bound) -> Self {
        let mut config = config();
        tweak(&mut config);
        let mut fakes = Vec::new();
        for number in 1..=workers {
            let mut fake = FakeWorker::start(number).await;
            fake.entry.protocol = config.services.get(&service()).map(|how| how.protocol).unwrap_or_default();
            fakes.push(fake);
        }
        let (roster, receiver) = watch::channel(Arc::new(Roster::default()));
        let bound = bind(config);
        let (address, addresses) = (bound.address(), bound.addresses().to_vec());
        let mut lab = Self { gateway: bound.run(receiver), address, addresses, workers: fakes, roster };
        lab.publish();
        lab.until(|snapshot| snapshot.workers.len() as u64 == workers).await;
        lab
    }

    /// Publishes the workers as the roster.
    pub fn publish(&mut self) {
        self.publish_entries(self.workers.iter().map(|worker| worker.entry.clone()).collect());
    }

    /// Publishes these workers as the roster.
    pub fn publish_entries(&self, workers: Vec<Worker>) {
        self.publish_workers(workers.into_iter().collect());
    }

    /// Publishes these workers as the roster; those of before share with them what is alike.
    pub fn publish_workers(&self, workers: Workers) {
        self.roster.send_modify(|roster| {
            let generation = roster.generation + 1;
            let services = BTreeMap::from([(service(), workers)]);
            *roster = Arc::new(Roster { generation, services });
        });
    }

    /// What was counted for the service.
    pub fn stats(&self) -> ServiceStats {
        self.gateway.snapshot().services.remove(&service()).unwrap()
    }

    /// Waits until what was counted for the service says so.
    pub async fn until_stats(&self, done: impl Fn(&ServiceStats) -> bool) {
        self.until(|snapshot| done(&snapshot.services[&service()])).await;
    }

    /// Waits until the gateway's counters say so. They are looked at again and again: cores count in plain memory, and wake
    /// nobody when they do.
    pub async fn until(&self, done: impl Fn(&lethe_gateway::stats::Snapshot) -> bool) {
        while !done(&self.gateway.snapshot()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A new client connection.
    pub async fn client(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// A new client connection on which this was sent.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> Peer {
        let mut client = self.client().await;
        client.send(bytes).await;
        client
    }
}

/// One end of a connection: the client of the gateway, or a worker.
pub struct Peer<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

/// A message as it came over the wire.
#[derive(Debug)]
pub struct Message {
    /// The request or status line.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The field lines after a chunked body.
    pub trailers: Vec<String>,
    /// The bytes of the head.
    pub head: String,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} is there more than once: {self:?}");
        first
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Ends the connection as the kernel does for a process that is killed with unread data: by a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// On any kind of connection.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends unless the other side has gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Answers 200 with a body.
    pub async fn answer(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// More bytes into the buffer; false at the end.
    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0
    }

    /// Everything until the other side closes.
    pub async fn rest(mut self) -> Vec<u8> {
        while self.fill().await {}
        self.buffer
    }

    /// Asserts that the other side has closed without another byte.
    pub async fn closed(self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more came: {}", String::from_utf8_lossy(&rest));
    }

    pub async fn head(&mut self) -> Message {
        self.try_head().await.expect("the connection ended within a head")
    }

    async fn try_head(&mut self) -> Option<Message> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers = lines.map(field).collect();
        Some(Message { line, headers, body: Vec::new(), trailers: Vec::new(), head })
    }

    /// A whole request.
    pub async fn request(&mut self) -> Message {
        self.try_request().await.expect("the connection ended within a request")
    }

    /// A whole request, or `None` if the connection ends before it is whole.
    pub async fn try_request(&mut self) -> Option<Message> {
        let mut message = self.try_head().await?;
        self.body(&mut message).await.then_some(message)
    }

    /// A whole response to anything but `HEAD`.
    pub async fn response(&mut self) -> Message {
        let mut message = self.head().await;
        if !matches!(message.status(), 101 | 204 | 304) {
            assert!(self.body(&mut message).await, "the connection ended within a response: {message:?}");
        }
        message
    }

    pub async fn body(&mut self, message: &mut Message) -> bool {
        if message.header("transfer-encoding") == Some("chunked") {
            loop {
                let Some(line) = self.line().await else { return false };
                let size = usize::from_str_radix(&line, 16).unwrap();
                if size == 0 {
                    return self.trailers(message).await;
                }
                let Some(mut chunk) = self.exactly(size + 2).await else { return false };
                chunk.truncate(size);
                message.body.extend(chunk);
            }
        }
        let length = message.header("content-length").map_or(0, |length| length.parse().unwrap());
        let Some(body) = self.exactly(length).await else { return false };
        message.body = body;
        true
    }

    async fn trailers(&mut self, message: &mut Message) -> bool {
        while let Some(line) = self.line().await {
            if line.is_empty() {
                return true;
            }
            message.trailers.push(line);
        }
        false
    }

    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < bytes {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..bytes).collect())
    }
}
