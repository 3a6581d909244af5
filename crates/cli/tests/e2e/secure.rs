//! A visitor that comes over TLS and speaks HTTP/2. It never sends a request again, so that whatever the gateway loses is
//! seen; it connects anew only where nothing was sent: when it was told that the connection ends.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::Request;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Whom it meets is not the question here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// One visitor.
pub struct SecureVisitor {
    address: SocketAddr,
    connector: TlsConnector,
    connection: Option<SendRequest<Bytes>>,
    /// How often it has connected.
    pub connections: usize,
}

impl SecureVisitor {
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let dangerous = builder.with_safe_default_protocol_versions()?.dangerous();
        let mut config = dangerous.with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            connection: None,
            connections: 0,
        })
    }

    /// Has no connection any more.
    pub fn forget(&mut self) {
        self.connection = None;
    }

    /// Posts a text, and gives the status of the answer, which must be whole.
    pub async fn post(&mut self, text: String) -> anyhow::Result<u16> {
        loop {
            let kept = match self.connection.take() {
                Some(kept) => kept.ready().await.ok(),
                None => None,
            };
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let request = Request::post("https://localhost/").header("content-length", text.len()).body(())?;
            // It may be told between the two that the connection ends: then nothing was sent.
            let Ok((response, mut sending)) = connection.send_request(request, false) else { continue };
            // Taken back with the connection, which is told by the response.
            let _ = sending.send_data(text.clone().into(), true);
            let response = match response.await {
                // The connection ends and did not come to this request, which may be sent on another one then (RFC 9113,
                // sections 6.8 and 8.7), as browsers do.
                Err(error) if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => continue,
                Err(error) if error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM) => continue,
                response => response.context("no response")?,
            };
            let status = response.status().as_u16();
            let mut body = response.into_body();
            while let Some(piece) = body.data().await {
                let piece = piece.context("the response was cut short")?;
                body.flow_control().release_capacity(piece.len())?;
            }
            self.connection = Some(connection);
            return Ok(status);
        }
    }

    async fn connect(&mut self) -> anyhow::Result<SendRequest<Bytes>> {
        loop {
            // One that ends before it is of use is no loss: nothing was sent on it.
            if let Ok(connection) = self.open().await?.ready().await {
                return Ok(connection);
            }
        }
    }

    async fn open(&mut self) -> anyhow::Result<SendRequest<Bytes>> {
        self.connections += 1;
        let stream = TcpStream::connect(self.address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = self.connector.connect(name, stream).await.context("no handshake")?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "HTTP/2 was agreed on");
        let (sender, connection) = h2::client::handshake(stream).await.context("no HTTP/2")?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
