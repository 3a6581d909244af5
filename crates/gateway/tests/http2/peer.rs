//! An HTTP/2 client that writes what it is told to, right or wrong, frame by frame, and tells what came back.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PUSH_PROMISE: u8 = 0x5;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITIZED: u8 = 0x20;

pub const NO_ERROR: u32 = 0x0;
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const FLOW_CONTROL_ERROR: u32 = 0x3;
pub const STREAM_CLOSED: u32 = 0x5;
pub const FRAME_SIZE_ERROR: u32 = 0x6;
pub const REFUSED_STREAM: u32 = 0x7;
pub const CANCEL: u32 = 0x8;
pub const COMPRESSION_ERROR: u32 = 0x9;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A setting.
pub const INITIAL_WINDOW_SIZE: u16 = 0x4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longer than anything takes that works.
const HANGS: Duration = Duration::from_secs(120);

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A SETTINGS frame.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in values {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// The payload of a PRIORITY frame.
pub fn priority(depends_on: u32, weight: u8) -> Vec<u8> {
    let mut payload = depends_on.to_be_bytes().to_vec();
    payload.push(weight);
    payload
}

/// Fields as HPACK literals without indexing and without Huffman coding (RFC 7541, section 6.2.2), which leave the
/// tables of both sides as they are.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of 7 bits whose leading bit is 0 (RFC 7541, section 5.1).
fn integer(into: &mut Vec<u8>, value: usize) {
    if value < 127 {
        into.push(value as u8);
        return;
    }
    into.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        into.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    into.push(rest as u8);
}

/// The fields of a usual request, with others after them.
pub fn request(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];
    fields.extend(more);
    block(&fields)
}

/// A usual GET, whole.
pub fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, request("GET", &[]))
}

/// The head of a usual POST, whose body follows.
pub fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, request("POST", &[]))
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The code of a RST_STREAM or a GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap()))
    }
}

/// A connection.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Connects, and says nothing.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects, and exchanges settings.
    pub async fn greet(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address).await;
        peer.send(PREFACE).await;
        peer.send(&settings(&[])).await;
        let (mut theirs, mut ours) = (false, false);
        while !theirs || !ours {
            let frame = peer.frame().await.expect("the connection ends before the settings");
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                theirs = true;
                peer.send(&self::frame(SETTINGS, ACK, 0, [])).await;
            } else if frame.kind == SETTINGS {
                ours = true;
            }
        }
        peer
    }

    /// Writes. What the other side no longer takes is lost: it may close at any time, and what it said tells why.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(HANGS, self.stream.write_all(bytes)).await.expect("nothing is read");
    }

    /// Writes as much of it as the other side takes, and reads at the same time; gives all frames up to the end of the
    /// connection, or those of the first `enough` that satisfies.
    pub async fn exchange(mut self, bytes: &[u8], mut enough: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let (reader, mut writer) = self.stream.split();
        let mut reader = reader;
        let mut frames = Vec::new();
        let reading = async {
            while let Some(frame) = read_frame(&mut reader).await {
                let last = enough(&frame);
                frames.push(frame);
                if last {
                    break;
                }
            }
        };
        let writing = async {
            let _ = writer.write_all(bytes).await;
            std::future::pending::<()>().await
        };
        tokio::time::timeout(HANGS, async {
            tokio::select! { () = reading => {}, () = writing => {} }
        })
        .await
        .expect("the connection neither ends nor answers");
        frames
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        tokio::time::timeout(HANGS, read_frame(&mut self.stream)).await.expect("nothing comes")
    }

    /// Frames up to one that satisfies; panics when the connection ends before.
    pub async fn until(&mut self, mut enough: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.frame().await.expect("the connection ends");
            if enough(&frame) {
                return frame;
            }
        }
    }

    /// The body of a response, when it is whole.
    pub async fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.until(|frame| frame.stream == stream).await;
            assert_eq!(frame.code(), None, "stream {stream} is reset");
            if frame.kind == DATA {
                body.extend(&frame.payload);
            }
            if frame.ends_stream() {
                return body;
            }
        }
    }
}

pub async fn read_frame(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    from.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}
