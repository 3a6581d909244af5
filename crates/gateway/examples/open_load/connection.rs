//! A connection to what is measured: TCP or TLS, HTTP/1.1 or HTTP/2.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{http1, http2};

/// A response that makes no progress for this long is a failure.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where requests go, and what they are like.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    /// Length of the body, for a POST.
    pub(crate) post: Option<usize>,
    /// A connection for each request.
    pub(crate) close: bool,
    pub(crate) h2: bool,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(tls, stream);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Box::new(stream)
            }
        };
        Ok(match self.h2 {
            true => Connection::Http2(http2::Connection::open(stream, self)?),
            false => Connection::Http1(http1::Connection::new(stream, self)),
        })
    }
}

/// TLS 1.3 with a server that shows the certificate in the file at `path`.
pub(crate) fn trusting(path: &str, h2: bool) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(Arc::new(config))
}

/// Bytes, with or without TLS.
pub(crate) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

pub(crate) enum Connection {
    Http1(http1::Connection),
    Http2(http2::Connection),
}

impl Connection {
    /// Sends the request and takes the whole answer; says whether the connection can be used again.
    pub(crate) fn exchange(&mut self) -> io::Result<bool> {
        match self {
            Self::Http1(connection) => connection.exchange(),
            Self::Http2(connection) => connection.exchange().map(|()| true),
        }
    }
}
