//! What a server has to do, right or wrong as its client may be: the cases of h2spec, by their numbers there, as data.
//! `generic` are what must work; the others are RFC 9113 and RFC 7541, section by section.

use std::{net::SocketAddr, time::Duration};

use super::peer::*;

/// Longer than any case takes that is met.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

/// What is to come back.
pub enum Expect {
    /// A response begins on this stream.
    Head(u32),
    /// A response on this stream ends.
    End(u32),
    /// A DATA frame of this length on this stream.
    Data(u32, usize),
    /// Our settings are acknowledged.
    SettingsAck,
    /// An answer to a PING with this payload.
    Pong([u8; 8]),
    /// The connection still works.
    Alive,
    /// GOAWAY with one of these codes, or nothing but the end of the connection (RFC 9113, section 5.4.1).
    ConnectionError(&'static [u32]),
    /// RST_STREAM with one of these codes; or a connection error, which an endpoint may make of each stream error
    /// (section 5.4.2).
    StreamError(&'static [u32]),
}

/// A step of a case.
pub enum Step {
    Send(Vec<u8>),
    Expect(Expect),
}

/// One case.
pub struct Case {
    pub name: &'static str,
    /// Whether settings are exchanged before.
    pub greets: bool,
    pub steps: Vec<Step>,
}

impl Case {
    pub fn new(name: &'static str) -> Self {
        Self { name, greets: true, steps: Vec::new() }
    }

    pub fn without_greeting(mut self) -> Self {
        self.greets = false;
        self
    }

    pub fn send(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    pub fn expect(mut self, expect: Expect) -> Self {
        self.steps.push(Step::Expect(expect));
        self
    }

    async fn run(&self, address: SocketAddr) -> Result<(), String> {
        let mut peer = if self.greets { Peer::greet(address).await } else { Peer::connect(address).await };
        for step in &self.steps {
            match step {
                Step::Send(bytes) => peer.send(bytes).await,
                Step::Expect(expect) => expect.check(&mut peer).await?,
            }
        }
        Ok(())
    }
}

impl Expect {
    async fn check(&self, peer: &mut Peer) -> Result<(), String> {
        let alive = *b"stillup?";
        if let Self::Alive = self {
            peer.send(&frame(PING, 0, 0, alive)).await;
        }
        loop {
            let Some(frame) = peer.frame().await else {
                return match self {
                    Self::ConnectionError(_) | Self::StreamError(_) => Ok(()),
                    _ => Err("the connection ends".into()),
                };
            };
            let met = match self {
                Self::Head(stream) => frame.kind == HEADERS && frame.stream == *stream,
                Self::End(stream) => frame.ends_stream() && frame.stream == *stream,
                Self::Data(stream, length) => {
                    if frame.kind == DATA && frame.stream == *stream && frame.payload.len() != *length {
                        return Err(format!("{} bytes of DATA", frame.payload.len()));
                    }
                    frame.kind == DATA && frame.stream == *stream
                }
                Self::SettingsAck => frame.kind == SETTINGS && frame.flags & ACK != 0,
                Self::Pong(payload) => {
                    frame.kind == PING && frame.flags & ACK != 0 && frame.payload == payload
                }
                Self::Alive => frame.kind == PING && frame.flags & ACK != 0 && frame.payload == alive,
                Self::ConnectionError(codes) => frame.kind == GOAWAY && has_code(&frame, codes)?,
                Self::StreamError(codes) => {
                    matches!(frame.kind, GOAWAY | RST_STREAM) && has_code(&frame, codes)?
                }
            };
            if met {
                return Ok(());
            }
            let wants_error = matches!(self, Self::ConnectionError(_) | Self::StreamError(_));
            if frame.kind == GOAWAY && !wants_error {
                return Err(format!("GOAWAY with code {:?}", frame.code()));
            }
        }
    }
}

fn has_code(frame: &Frame, codes: &[u32]) -> Result<bool, String> {
    match frame.code() {
        Some(code) if codes.contains(&code) => Ok(true),
        code => Err(format!("frame of type {} with code {code:?} instead of {codes:?}", frame.kind)),
    }
}

/// Runs all cases against the server there, each on its own connection; `streams_max` is what it allows.
pub async fn run(address: SocketAddr, streams_max: u32) {
    let mut cases = super::generic::cases();
    cases.extend(super::rfc9113::cases(streams_max));
    cases.extend(super::rfc7541::cases());
    let mut failed = Vec::new();
    for case in &cases {
        match tokio::time::timeout(CASE_TIMEOUT, case.run(address)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failed.push(format!("{}: {why}", case.name)),
            Err(_elapsed) => failed.push(format!("{}: nothing comes", case.name)),
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert_eq!(cases.len(), 147, "cases of h2spec");
}
