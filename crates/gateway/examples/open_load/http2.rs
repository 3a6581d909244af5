//! As much of HTTP/2 (RFC 9113) as a client needs that asks for one thing at a time and looks at nothing but the status
//! and the end of the answer.

use std::io::{self, BufReader, Read, Write};

use crate::connection::{Stream, Target};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of SETTINGS and PING.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// What a server may send before it is told that it may send more. So much that it never has to be told.
const WINDOW: u32 = i32::MAX as u32;
const FIRST_WINDOW: u32 = 65_535;

pub(crate) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    /// The header block of every request.
    request: Vec<u8>,
    next_stream: u32,
    payload: Vec<u8>,
}

impl Connection {
    /// Begins to speak it. That the server does so too shows in the first exchange.
    pub(crate) fn open(mut stream: Box<dyn Stream>, target: &Target) -> io::Result<Self> {
        let mut settings = Vec::new();
        // No compression state to be kept for responses, no push, a wide window.
        for (identifier, value) in [(1_u16, 0), (2, 0), (4, WINDOW)] {
            settings.extend(identifier.to_be_bytes());
            settings.extend(u32::to_be_bytes(value));
        }
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &settings));
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes()));
        stream.write_all(&bytes)?;
        // Fields of the static table (RFC 7541, appendix A), and literals that are not indexed: GET, the scheme, the
        // path and the authority.
        let mut request = vec![0x82, if target.tls.is_some() { 0x87 } else { 0x86 }];
        for (name, value) in [(0x04, target.path.as_str()), (0x01, "localhost")] {
            // A length that needs a second byte would be encoded differently.
            let length = u8::try_from(value.len()).ok().filter(|&length| length < 127);
            request.extend([name, length.ok_or_else(|| io::Error::other("the path is too long"))?]);
            request.extend(value.as_bytes());
        }
        Ok(Self { stream: BufReader::new(stream), request, next_stream: 1, payload: Vec::new() })
    }

    pub(crate) fn exchange(&mut self) -> io::Result<()> {
        let asked = self.next_stream;
        self.next_stream += 2;
        let request = frame(HEADERS, END_STREAM | END_HEADERS, asked, &self.request);
        self.stream.get_mut().write_all(&request)?;
        loop {
            let (kind, flags, stream) = self.read_frame()?;
            match kind {
                HEADERS if stream == asked => self.check_status()?,
                SETTINGS if flags & ACK == 0 => {
                    self.stream.get_mut().write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                }
                PING if flags & ACK == 0 => {
                    let answer = frame(PING, ACK, 0, &self.payload);
                    self.stream.get_mut().write_all(&answer)?;
                }
                RST_STREAM if stream == asked => return Err(io::Error::other("the stream was reset")),
                GOAWAY => return Err(io::Error::other("the server ends the connection")),
                _ => {}
            }
            if stream == asked && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Ok(());
            }
        }
    }

    /// Its type, flags and stream; what is in it goes into `payload`.
    fn read_frame(&mut self) -> io::Result<(u8, u8, u32)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        self.payload.resize(u32::from_be_bytes([0, l0, l1, l2]) as usize, 0);
        self.stream.read_exact(&mut self.payload)?;
        Ok((kind, flags, u32::from_be_bytes([s0, s1, s2, s3]) & WINDOW))
    }

    /// The status comes first, after what may be said about the size of the (empty) table.
    fn check_status(&self) -> io::Result<()> {
        const STATUS_200: u8 = 0x88;
        match self.payload.iter().find(|&&byte| byte & 0xe0 != 0x20) {
            Some(&STATUS_200) => Ok(()),
            _ => Err(io::Error::other("answered with something else than 200")),
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![l0, l1, l2, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
