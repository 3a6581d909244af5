//! A network in between: passes on what client and server say, until it is told to swallow it, or to cut.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    sync::watch,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Passes all on.
    Fair,
    /// Passes on what the client says; with the server's next word, the connection is cut.
    CutAnswers,
    /// Nothing comes through any more, and nobody is told.
    Fog,
    /// All connections are cut, and new ones too.
    Storm,
}

/// The weather, and how many storms there were: one that is over by the time that a connection looks has cut it too.
#[derive(Clone, Copy, Debug)]
struct Sky {
    weather: Weather,
    storms: usize,
}

/// The network to one server.
pub struct Proxy {
    address: SocketAddr,
    sky: watch::Sender<Sky>,
}

impl Proxy {
    pub async fn start(server: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sky = watch::Sender::new(Sky { weather: Weather::Fair, storms: 0 });
        tokio::spawn(serve(listener, server.to_owned(), sky.clone()));
        Self { address, sky }
    }

    pub fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| {
            sky.weather = weather;
            sky.storms += usize::from(weather == Weather::Storm);
        });
    }

    /// The server's URL, through here.
    pub fn url(&self, schema: &str, more: &str) -> String {
        format!("postgres://lethe@{}/postgres?sslmode=disable&schema={schema}{more}", self.address)
    }
}

async fn serve(listener: TcpListener, server: PathBuf, sky: watch::Sender<Sky>) {
    while let Ok((client, _)) = listener.accept().await {
        let Sky { weather, storms } = *sky.borrow();
        if weather == Weather::Storm {
            continue;
        }
        let Ok(server) = UnixStream::connect(&server).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let (up, down, mut above) = (sky.subscribe(), sky.subscribe(), sky.subscribe());
        tokio::spawn(async move {
            // The first that ends takes the rest with it.
            tokio::select! {
                () = pass_on(from_client, to_server, up, false) => {}
                () = pass_on(from_server, to_client, down, true) => {}
                _ = above.wait_for(|sky| sky.storms > storms) => {}
            }
        });
    }
}

async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    sky: watch::Receiver<Sky>,
    are_answers: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        match sky.borrow().weather {
            // What was said in a fog is lost, but nobody hangs up.
            Weather::Fog => continue,
            Weather::CutAnswers if are_answers => return,
            _ => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
