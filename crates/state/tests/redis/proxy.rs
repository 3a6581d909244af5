//! A network between engine and server that does what it is told: delays, holds back, cuts, or loses an answer. Each engine's
//! tests use some of that.

#![allow(dead_code, reason = "each engine's tests use some of it")]

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// It carries everything.
    Fair,
    /// It carries everything so much later.
    Slow(Duration),
    /// It keeps everything to itself.
    Still,
    /// It closes connections, also new ones.
    Cut,
    /// It brings what is asked, closes the connection instead of bringing the answer, and is fair again.
    LosesAnAnswer,
}

/// The network. It ends with the runtime.
pub struct Proxy {
    pub port: u16,
    weather: Arc<watch::Sender<Weather>>,
    /// How many connections it carries.
    carried: Arc<watch::Sender<usize>>,
}

impl Proxy {
    /// A fair one in front of a server.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let carried = Arc::new(watch::Sender::new(0));
        let (told, count) = (weather.clone(), carried.clone());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (told, count) = (told.clone(), count.clone());
                count.send_modify(|count| *count += 1);
                tokio::spawn(async move {
                    carry(client, server, told).await;
                    count.send_modify(|count| *count -= 1);
                });
            }
        });
        Self { port, weather, carried }
    }

    /// Changes the weather, also for connections that there are.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Cuts all connections that there are, and is fair again.
    pub async fn cut(&self) {
        self.set(Weather::Cut);
        self.carried.subscribe().wait_for(|count| *count == 0).await.unwrap();
        self.set(Weather::Fair);
    }

    /// What changes the weather from elsewhere.
    pub fn handle(&self) -> Arc<watch::Sender<Weather>> {
        self.weather.clone()
    }

    /// The weather now.
    pub fn weather(&self) -> Weather {
        *self.weather.borrow()
    }
}

async fn carry(client: TcpStream, server: u16, weather: Arc<watch::Sender<Weather>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (asks, answered) = client.into_split();
    let (answers, asked) = server.into_split();
    let mut cut = weather.subscribe();
    tokio::select! {
        _ = pump(asks, asked, &weather, false) => {}
        _ = pump(answers, answered, &weather, true) => {}
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

/// Carries what comes in one direction until an end closes, or the weather does.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    weather: &watch::Sender<Weather>,
    is_answer: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let mut told = weather.subscribe();
        let now = *told.wait_for(|weather| *weather != Weather::Still).await.map_err(io::Error::other)?;
        match now {
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::LosesAnAnswer if is_answer => {
                weather.send_replace(Weather::Fair);
                return Ok(());
            }
            _ => {}
        }
        to.write_all(&buffer[..length]).await?;
    }
}
