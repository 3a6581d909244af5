//! Channels to a service that tells all who listen what any of them says.

use std::{collections::BTreeMap, io, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use lethe_journey::{
    destination::Destination,
    player::{Error, Limits, Player, Settings},
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::broadcast,
    time::Instant,
};

use super::{journey, player, settings};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What ends the channels of all who hear it.
const END: &str = "good night";

/// A service with `/socket`, `/events` and `/say`; `/deaf` takes no key for an answer, `/numb` reads nothing, and all else is a page.
async fn town() -> Destination {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = broadcast::channel(16).0;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who listens may go at any moment.
            tokio::spawn(serve(stream, told.clone()));
        }
    });
    Destination::tcp(address)
}

async fn serve(stream: TcpStream, told: broadcast::Sender<String>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut path = String::new();
    reader.read_line(&mut path).await?;
    let (mut fields, mut line) = (BTreeMap::new(), String::new());
    while reader.read_line(&mut line).await? > 2 {
        let (name, value) = line.trim().split_once(": ").unwrap();
        fields.insert(name.to_ascii_lowercase(), value.to_owned());
        line.clear();
    }
    // Before it answers, so that nothing is missed.
    let heard = told.subscribe();
    match path.split(' ').nth(1).unwrap() {
        "/socket" => {
            assert_eq!((&*fields["upgrade"], &*fields["origin"]), ("websocket", "http://localhost"));
            let key = format!("{}{GUID}", fields["sec-websocket-key"]);
            let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()));
            writer.write_all(switching(&accept).as_bytes()).await?;
            tokio::spawn(listen(reader, told));
            tell(writer, heard).await
        }
        "/numb" => {
            let key = format!("{}{GUID}", fields["sec-websocket-key"]);
            let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()));
            writer.write_all(switching(&accept).as_bytes()).await?;
            // It keeps the connection, and reads nothing of it.
            std::future::pending().await
        }
        "/deaf" => writer.write_all(switching("no key").as_bytes()).await,
        "/events" => {
            assert_eq!(fields["accept"], "text/event-stream");
            writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await?;
            let mut heard = heard;
            while let Ok(text) = heard.recv().await {
                if text == END {
                    break;
                }
                writer.write_all(format!("data: {text}\n\n").as_bytes()).await?;
            }
            Ok(())
        }
        "/say" => {
            let mut text = vec![0; fields["content-length"].parse().unwrap()];
            reader.read_exact(&mut text).await?;
            told.send(String::from_utf8(text).unwrap()).unwrap();
            writer.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await
        }
        _ => writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await,
    }
}

fn switching(accept: &str) -> String {
    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}{accept}\r\n\r\n")
}

/// What a client says is told to all.
async fn listen(mut reader: BufReader<OwnedReadHalf>, told: broadcast::Sender<String>) -> io::Result<()> {
    loop {
        let mut head = [0; 6];
        reader.read_exact(&mut head).await?;
        let mut text = vec![0; usize::from(head[1] & 0x7F)];
        reader.read_exact(&mut text).await?;
        text.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        if head[0] == 0x81 {
            told.send(String::from_utf8(text).unwrap()).unwrap();
        } else {
            // The answer to a ping.
            assert_eq!((head[0], &*text), (0x8A, &b"?"[..]));
            told.send("pong".into()).unwrap();
        }
    }
}

async fn tell(mut writer: OwnedWriteHalf, mut heard: broadcast::Receiver<String>) -> io::Result<()> {
    while let Ok(text) = heard.recv().await {
        match text.as_str() {
            END => return writer.write_all(b"\x88\x02\x03\xe9").await,
            "ping" => writer.write_all(b"\x89\x01?").await?,
            _ => {
                let mut frame = vec![0x81, u8::try_from(text.len()).unwrap()];
                frame.extend(text.as_bytes());
                writer.write_all(&frame).await?;
            }
        }
    }
    Ok(())
}

const TALK: &str = r#"
[[steps]]
websocket = "/socket"
as = "ada"
send = "ada is here"
arrives = "is here"
capture = { who = { after = "", before = " is" } }

[[steps]]
events = "/events"

[[steps]]
post = "/say"
body = "hello, {{who}}"
arrives = { on = "events", text = "hello, ada" }

[[steps]]
send = ["ping", "good bye"]
arrives = { on = "ada", text = "pong" }

[[steps]]
post = "/say"
body = "one"
arrives = { on = "ada", text = "two", within = "10ms" }

[[steps]]
send = "good night"
arrives = { on = "events", text = "good morning" }

[[steps]]
send = "anybody?"
"#;

#[tokio::test]
async fn what_is_said_arrives_at_those_who_listen() {
    let town = town().await;
    let mut player = player(TALK);
    for (step, status) in [(1, 101), (2, 200), (3, 202), (4, 101)] {
        let observed = player.step(step, &town).await.unwrap();
        let unmet: Vec<_> = observed.unmet.iter().map(ToString::to_string).collect();
        assert_eq!((observed.status.as_u16(), unmet), (status, vec![]), "step {step}");
    }
    assert_eq!(player.variables().get("who"), Some(&"ada".into()));
    let late = player.step(5, &town).await.unwrap();
    assert_eq!(late.unmet[0].to_string(), "\"two\" did not arrive at ada within 10 ms");
    let ended = player.step(6, &town).await.unwrap();
    assert_eq!(
        ended.unmet[0].to_string(),
        "\"good morning\" did not arrive at events, which was ended by the service"
    );
    let until = Instant::now() + std::time::Duration::from_secs(120);
    assert_eq!(
        player.hears(4, "anything", until).await,
        Some(false),
        "it was closed too, and is not waited for"
    );
    let error = player.step(7, &town).await.unwrap_err();
    assert_eq!(error.to_string(), "step 7 cannot be said: ada was closed by the service with code 1001");
}

#[tokio::test]
async fn a_channel_that_is_lost_is_opened_again_where_the_next_step_is() {
    let (one, other) = (town().await, town().await);
    let mut player = player(TALK);
    player.step(1, &one).await.unwrap();
    player.step(2, &one).await.unwrap();
    // Nobody tells the other one, and nothing is expected of it.
    assert!(player.step(3, &other).await.unwrap().is_met());
    // What is said goes where the channel leads.
    assert!(player.step(4, &other).await.unwrap().is_met());
    player.lose(&one);
    assert!(player.step(3, &other).await.unwrap().is_met());
    assert!(player.step(4, &other).await.unwrap().is_met());
    let until = Instant::now() + std::time::Duration::from_secs(120);
    assert_eq!(player.hears(4, "good bye", until).await, Some(true));
    // Another tab of the same user hears what comes after it was opened.
    let mut tab = player.fork();
    tab.listen(3, &one).await.unwrap();
    player.trigger(3, &one).await.unwrap();
    assert_eq!(player.awaited(3).unwrap(), "hello, ada");
    assert!(tab.hears(3, "hello, ada", until).await.unwrap());
}

#[tokio::test]
async fn who_reads_nothing_is_not_waited_for() {
    let town = town().await;
    let limits = Limits { step_time_max: Duration::from_secs(1), ..Limits::default() };
    // More than the sockets of both have room for.
    let text = "[[steps]]\nwebsocket = \"/numb\"\n[[steps]]\nsend = [BIG]"
        .replace("BIG", &vec![format!("\"{}\"", "x".repeat(1 << 20)); 64].join(","));
    let settings = Settings { limits, ..settings() };
    let mut player = Player::new(journey(&text), settings).unwrap();
    player.step(1, &town).await.unwrap();
    let error = player.step(2, &town).await.unwrap_err();
    let expected = "step 2 cannot be said: websocket did not read what was said before within 1000 ms";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn what_is_no_channel_is_told() {
    let town = town().await;
    for (step, expected) in [
        ("websocket = \"/page\"", "status 200 instead of 101"),
        ("events = \"/page\"", "content-type is missing; it should be \"text/event-stream\""),
        ("websocket = \"/deaf\"", "sec-websocket-accept is missing; it should be \"the answer to its key\""),
    ] {
        let mut player = player(&format!("[[steps]]\n{step}\n[[steps]]\nget = \"/\""));
        let observed = player.step(1, &town).await.unwrap();
        assert_eq!(observed.unmet[0].to_string(), expected, "{step}");
    }
    let mut expecting = player("[[steps]]\nwebsocket = \"/page\"\nexpect = { status = 200 }");
    assert!(expecting.step(1, &town).await.unwrap().is_met());
    let mut player = player("[[steps]]\nwebsocket = \"/page\"\n[[steps]]\nsend = \"x\"");
    player.step(1, &town).await.unwrap();
    let error = player.step(2, &town).await.unwrap_err();
    assert!(matches!(error, Error::Ended { step: 2, .. }), "{error}");
}
