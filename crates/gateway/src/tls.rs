//! TLS at the listeners: rustls with `ring`, one configuration shared by all cores, so that a client that comes back
//! resumes its session on whichever core the kernel gives it. Certificates are read and checked before they are used, and
//! can be replaced while connections go on: a handshake takes what is there at its moment, and established connections
//! are not touched.

mod made;
mod pair;
mod table;
mod watch;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{UnixTime, pem},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::config::Tls;

pub use watch::Look;

/// What one connection may have encrypted but not yet given to the kernel, in bytes. A client that does not read costs no
/// more than this; records received are bounded by TLS itself (16 KiB and a header, RFC 8446, section 5.2).
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How much of a request without TLS is thrown away before its connection is closed, in bytes.
const STRAY_BYTES_MAX: usize = 16 << 10;

/// Why certificates cannot be used. [`std::error::Error::source`] has the cause below it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to identify oneself with.
    #[error(
        "TLS needs a certificate, and none is named; name the files of one, or have one made with --tls-self-signed"
    )]
    NoneNamed,
    /// A file cannot be opened or read.
    #[error("cannot read {}; see that it exists and that this user may read it", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{} is larger than {} KiB, which no certificate or key is; see whether the path is right", path.display(), pair::FILE_BYTES_MAX >> 10)]
    TooLarge {
        /// Which one.
        path: PathBuf,
    },
    /// A file has PEM's markers, but is damaged.
    #[error("{} is not valid PEM; copy it again from where it was issued", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// Where it is damaged.
        source: pem::Error,
    },
    /// A file has no certificate in PEM.
    #[error(
        "{0} holds no certificate (`-----BEGIN CERTIFICATE-----`); if it is in DER, convert it: openssl x509 -inform der -in {0} -out {0}.pem",
        path.display()
    )]
    NoCertificate {
        /// Which one.
        path: PathBuf,
    },
    /// A file has no private key in PEM.
    #[error(
        "{0} holds no private key (`-----BEGIN PRIVATE KEY-----`); if it is in DER, convert it: openssl pkey -inform der -in {0} -out {0}.pem",
        path.display()
    )]
    NoKey {
        /// Which one.
        path: PathBuf,
    },
    /// The private key is protected by a passphrase.
    #[error(
        "the private key in {0} is encrypted, and nobody is there to type the passphrase; take it off: openssl pkey -in {0} -out {0}.plain",
        path.display()
    )]
    EncryptedKey {
        /// Which file it is in.
        path: PathBuf,
    },
    /// The private key is of a kind that is not supported.
    #[error("the private key in {} cannot be used; it must be ECDSA (P-256 or P-384), Ed25519 or RSA (2048 bits or more)", path.display())]
    Key {
        /// Which file it is in.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The certificate itself is not one that clients would understand.
    #[error("the certificate in {} cannot be used; it must be X.509, version 3", path.display())]
    Certificate {
        /// Which file it is in.
        path: PathBuf,
        /// What is wrong with it.
        source: webpki::Error,
    },
    /// Certificate and key belong to different pairs.
    #[error(
        "the private key in {} does not belong to the certificate in {}; name the two files that were issued together",
        key.display(),
        chain.display()
    )]
    Mismatch {
        /// The file with the certificate.
        chain: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// The certificate of the key is there, but others come before it.
    #[error(
        "{} begins with another certificate than that of the key in {}, which is number {position}; put that one first, then those that lead to its authority",
        chain.display(),
        key.display()
    )]
    Order {
        /// The file with the certificates.
        chain: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Where the right one is, counted from 1.
        position: usize,
    },
    /// A name that no certificate can carry.
    #[error("no certificate can be made for `{name}`; give a host name in ASCII or an address")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// The TLS library cannot be set up.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Certificates that were read and found to be usable, but are not in use yet.
#[derive(Debug)]
pub struct Loaded {
    tls: Tls,
    stamps: Vec<watch::Stamp>,
    pairs: Vec<pair::Pair>,
}

impl Loaded {
    /// Reads and checks everything that `tls` names. Blocks while it reads files.
    pub fn read(tls: &Tls) -> Result<Self, Error> {
        let now = UnixTime::now();
        // Before the files, so that one that changes while it is read is seen to have changed.
        let stamps = watch::stamps(tls);
        let pairs = match tls {
            Tls::Files(files) => {
                files.iter().map(|files| pair::read(files, now)).collect::<Result<_, _>>()?
            }
            Tls::SelfSigned(names) => vec![made::make(names, now)?],
        };
        if pairs.is_empty() {
            return Err(Error::NoneNamed);
        }
        Ok(Self { tls: tls.clone(), stamps, pairs })
    }

    /// What is wrong with them although they can be used, as sentences for the user: a certificate that has expired, say.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().flat_map(|pair| &pair.warnings).map(String::as_str)
    }

    fn into_table(self) -> (Source, table::Table) {
        let table = table::Table::new(self.pairs);
        (Source { tls: self.tls, stamps: self.stamps }, table)
    }
}

/// Where the certificates in use come from.
#[derive(Debug)]
struct Source {
    tls: Tls,
    stamps: Vec<watch::Stamp>,
}

/// The certificates in use, and the TLS configuration that hands them out. Clones share them.
#[derive(Clone, Debug)]
pub struct Certificates {
    current: Arc<table::Current>,
    /// Held while certificates are being replaced, never in a handshake.
    source: Arc<Mutex<Source>>,
    server: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads, checks and takes into use what `tls` names. Blocks while it reads files.
    pub fn load(tls: &Tls) -> Result<Self, Error> {
        Self::new(Loaded::read(tls)?)
    }

    /// Takes `loaded` into use.
    pub fn new(loaded: Loaded) -> Result<Self, Error> {
        let (source, table) = loaded.into_table();
        let current = Arc::new(table::Current::new(table));
        let server = Arc::new(server(Arc::clone(&current)).map_err(Error::Setup)?);
        Ok(Self { current, source: Arc::new(Mutex::new(source)), server })
    }

    /// Takes `loaded` into use instead, from the next handshake on. A self-signed certificate stays if its names do, so
    /// that what a browser was told to trust remains good.
    pub fn replace(&self, loaded: Loaded) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&source.tls, Tls::SelfSigned(_)) && source.tls == loaded.tls {
            return;
        }
        let (new, table) = loaded.into_table();
        self.current.set(table);
        *source = new;
    }

    /// What accepts connections with them; cheap, and all acceptors resume each other's sessions.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor { inner: TlsAcceptor::from(Arc::clone(&self.server)) }
    }
}

/// TLS 1.2 and 1.3. Sessions are resumed from tickets alone, encrypted with keys that change every six hours and never
/// leave this process: no core keeps anything for a client, and none waits for another's lock but to read those keys.
fn server(current: Arc<table::Current>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(current);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Acceptor {
    inner: TlsAcceptor,
}

impl Acceptor {
    /// Takes the connection through the handshake. There is no time limit here: the caller has one.
    ///
    /// A client that speaks HTTP without TLS is told so, and gets [`io::ErrorKind::InvalidData`] as any other that does not
    /// speak TLS.
    ///
    /// Cancel safety: dropping the future closes the connection; nothing else is held.
    pub async fn accept(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        // A TLS connection begins with a handshake record, which is 22; an HTTP method with a letter.
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
            refuse(&mut stream).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a client spoke HTTP without TLS"));
        }
        self.inner.accept_with(stream, |connection| connection.set_buffer_limit(Some(BUFFER_BYTES_MAX))).await
    }
}

/// Answers a request that came without TLS.
async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
        content-length: 40\r\n\r\nThis port speaks TLS: ask for https://.\n";
    // What is left unread when a socket is closed makes the kernel reset it, and the client never sees the answer.
    let mut stray = vec![0; STRAY_BYTES_MAX];
    let _ = stream.read(&mut stray).await?;
    stream.write_all(ANSWER).await?;
    stream.shutdown().await
}

/// What client and gateway agreed to speak (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, also for a client that does not know ALPN.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What was agreed on for this connection.
pub fn protocol(stream: &TlsStream<TcpStream>) -> Protocol {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

/// The host name that the client asked for (SNI, RFC 6066, section 3), if it did; a client that names an address does not.
pub fn server_name(stream: &TlsStream<TcpStream>) -> Option<&str> {
    stream.get_ref().1.server_name()
}

#[cfg(test)]
mod tests;
