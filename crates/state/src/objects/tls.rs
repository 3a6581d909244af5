//! TLS to the store: which certificates are trusted.

use std::{io, path::Path};

use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::error::Error;

/// A connector that does TLS where the URL is `https://`, and trusts the certificates of `ca` (in PEM), or those of the system.
pub(super) fn connector(
    connector: HttpConnector,
    ca: Option<&Path>,
) -> Result<HttpsConnector<HttpConnector>, Error> {
    let failed = |error: io::Error| Error::Engine(Box::new(error));
    let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(io::Error::other(error)))?;
    let config = match ca {
        Some(path) => builder.with_root_certificates(read(path).map_err(failed)?),
        None => match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            Err(error) => {
                // A system without certificates can still speak to a server without TLS.
                tracing::debug!(%error, "no certificates of the system are trusted");
                builder.with_root_certificates(RootCertStore::empty())
            }
        },
    };
    let config = config.with_no_client_auth();
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector))
}

fn read(path: &Path) -> io::Result<RootCertStore> {
    let unreadable = |why: String| {
        io::Error::other(format!("the certificates in {} cannot be read: {why}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("there are none".into()));
    }
    Ok(roots)
}
