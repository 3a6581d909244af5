//! The PROXY protocol, versions 1 and 2: what a proxy that only passes bytes on says at the beginning of a connection
//! about the client it speaks for (HAProxy's `doc/proxy-protocol.txt`). Whoever may say so is the caller's to know.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod v1;
mod v2;

use std::{io, net::SocketAddr};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest header that is accepted, in bytes; those of version 1 are shorter still.
pub const HEADER_BYTES_MAX: usize = v2::HEADER_BYTES_MAX;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The connection stands for itself, as a proxy's health checks do, or it is not said (or not as an address) for whom:
    /// its own addresses hold.
    Own,
    /// The connection stands for a client's.
    Relayed {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
        /// The client's connection to the proxy is known to be encrypted (version 2, `PP2_CLIENT_SSL`).
        tls: bool,
    },
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It begins with something else.
    #[error(
        "the connection does not begin with a PROXY protocol header; have the proxy send one (HAProxy: send-proxy-v2), or turn it off for this listener"
    )]
    Absent,
    /// The header is not as the protocol demands.
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
    /// The header has no end in sight.
    #[error("the PROXY protocol header is longer than the {0} bytes that are accepted")]
    TooLong(usize),
}

/// Reads a header from the beginning of `bytes`: what it says and how long it is, or `None` if more bytes are needed.
///
/// It is refused with the first byte after which it cannot become a header any more, as far as this can be told without
/// the whole. More bytes change neither a header that was found nor that a connection is refused.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    match bytes.first() {
        None => Ok(None),
        Some(&first) if first == v1::PREFIX[0] => v1::parse(bytes),
        Some(&first) if first == v2::SIGNATURE[0] => v2::parse(bytes),
        Some(_) => Err(Error::Absent),
    }
}

/// Whether `bytes` are, as far as they go, what `expected` begins with.
fn agrees(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(one, other)| one == other)
}

/// Takes the header off the beginning of a connection, and not one byte more, so that whatever follows (TLS, say) is read
/// from the stream as if there had been none. There is no time limit here: the caller has one.
///
/// Fails with [`io::ErrorKind::InvalidData`] around an [`Error`], and with [`io::ErrorKind::UnexpectedEof`] if the
/// connection ends first.
///
/// Not cancel safe: a part of the header may be lost. The connection is to be closed then.
pub async fn read(stream: &mut TcpStream) -> io::Result<Header> {
    let mut buffer = vec![0; HEADER_BYTES_MAX];
    let mut held = 0;
    loop {
        let seen = held + stream.peek(&mut buffer[held..]).await?;
        if seen == held {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed =
            parse(&buffer[..seen]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // When more is needed, all that was seen belongs to the header; taking it makes the next look wait for more.
        let end = parsed.map_or(seen, |(_, end)| end);
        stream.read_exact(&mut buffer[held..end]).await?;
        held = end;
        if let Some((header, _)) = parsed {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests;
