//! Chat over WebSockets: what one says goes to those alone who are connected to the same worker. The twin adds it to a log beside, which
//! all workers read, and pass on to those who are connected.

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::upgrade;
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::broadcast,
};

use crate::{failure::Failure, feed::Feed, store::Store};

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Kinds of frames, whole ones.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

pub fn app() -> Router {
    with(Feed::here())
}

pub fn fixed(store: Store) -> Router {
    with(Feed::beside(store, "/chat"))
}

fn with(feed: Feed) -> Router {
    Router::new().route("/", get("welcome")).route("/chat", get(connect)).with_state(feed)
}

async fn connect(State(feed): State<Feed>, mut request: Request) -> Response {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let accept = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    let (upgraded, told) = (upgrade::on(&mut request), feed.listen());
    tokio::spawn(async move {
        let (mut reader, writer) = split(TokioIo::new(upgraded.await?));
        let passing = tokio::spawn(pass_on(told, writer));
        let talked = listen(&mut reader, &feed).await;
        passing.abort();
        talked
    });
    let fields = [
        (header::UPGRADE, "websocket".to_owned()),
        (header::CONNECTION, "Upgrade".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, BASE64_STANDARD.encode(accept)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}

async fn listen(reader: &mut (impl AsyncRead + Unpin), feed: &Feed) -> Result<(), Failure> {
    loop {
        // Messages are short: a length of more than 125 bytes has another form.
        let [kind, length, mask @ ..] = {
            let mut head = [0; 6];
            reader.read_exact(&mut head).await?;
            head
        };
        let mut text = vec![0; usize::from(length & 0x7f)];
        reader.read_exact(&mut text).await?;
        if kind == CLOSE {
            return Ok(());
        }
        text.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        feed.say(String::from_utf8(text)?).await?;
    }
}

async fn pass_on(
    mut told: broadcast::Receiver<String>,
    mut writer: impl AsyncWrite + Unpin,
) -> Result<(), Failure> {
    loop {
        let text = told.recv().await?;
        let head = [TEXT, u8::try_from(text.len())?];
        writer.write_all(&[&head, text.as_bytes()].concat()).await?;
        writer.flush().await?;
    }
}
