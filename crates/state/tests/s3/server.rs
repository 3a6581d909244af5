//! A server of S3's protocol inside of the test, of the crate `s3s`: it checks signatures, and can be killed in the middle of
//! anything.

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use lethe_state::{
    clock::ManualClock,
    contract::Fixture,
    s3::{S3, Url},
};
use rcgen::{CertifiedKey, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use crate::vault::Vault;

/// The bucket that there is.
pub const BUCKET: &str = "shelf";

/// A running server, with a bucket.
pub struct Server {
    pub port: u16,
    pub vault: Vault,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Server {
    /// An empty one.
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// One that speaks TLS alone, with this certificate.
    pub async fn start_with_tls(made: &CertifiedKey<KeyPair>) -> Self {
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        Self::start_as(Some(Arc::new(config).into())).await
    }

    async fn start_as(tls: Option<TlsAcceptor>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(folder.path());
        vault.make_bucket(BUCKET);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(serve(listener, vault.clone(), tls));
        Self { port, vault, serving, _folder: folder }
    }

    /// Ends it at once, and all that it is doing. It keeps its files.
    pub async fn kill(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Starts it again, on its port.
    pub async fn restart(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.serving = tokio::spawn(serve(listener, self.vault.clone(), None));
    }

    /// The URL of the bucket.
    pub fn url(&self, options: &str) -> Url {
        url(self.port, options)
    }

    /// An engine in the bucket.
    pub fn engine(&self, options: &str) -> S3 {
        S3::open(&self.url(options)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The URL of a server's bucket at this port.
pub fn url(port: u16, options: &str) -> Url {
    format!("s3://key:secret@{BUCKET}?endpoint=http://127.0.0.1:{port}{options}").parse().unwrap()
}

async fn serve(listener: TcpListener, vault: Vault, tls: Option<TlsAcceptor>) {
    let service = {
        let mut builder = S3ServiceBuilder::new(vault);
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        builder.build()
    };
    // Dropped with this, it ends all connections.
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (service, tls) = (service.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => drop(http1::Builder::new().serve_connection(TokioIo::new(socket), service).await),
                Some(tls) => {
                    let Ok(socket) = tls.accept(socket).await else { return };
                    drop(http1::Builder::new().serve_connection(TokioIo::new(socket), service).await);
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A fresh engine for the contract, with a clock that can be moved.
pub fn fixture(url: &Url) -> Fixture {
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = S3::open_with(url, Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping(engine)
}
