//! TLS of the gRPC listener, with client certificates where a CA for them is configured.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::api::config::Tls;

/// TLS settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is not PEM.
    #[error("the {what} cannot be read: {source}")]
    Pem {
        /// The part that is not PEM.
        what: &'static str,
        /// The cause.
        source: pem::Error,
    },
    /// The certificate and the key do not fit, or the client CA is not acceptable.
    #[error("the certificates cannot be used: {0}")]
    Rejected(#[from] rustls::Error),
    /// The client CA is not acceptable.
    #[error("the client CA cannot be used: {0}")]
    ClientCa(#[from] VerifierBuilderError),
}

/// Accepts TLS on connections.
#[derive(Clone)]
pub(in crate::api) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Builds an acceptor from these settings.
    pub(in crate::api) fn new(tls: &Tls) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &tls.client_ca_pem {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("client CA", ca)? {
                    roots.add(root)?;
                }
                // A client without a certificate may still present a token; the gate decides.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(&tls.key_pem);
        let key = key.map_err(|source| TlsError::Pem { what: "key", source })?;
        let mut config = builder.with_single_cert(certificates("certificate", &tls.certificate_pem)?, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Performs the handshake.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::Pem {
            what,
            source: pem::Error::NoItemsFound,
        }),
        Ok(found) => Ok(found),
        Err(source) => Err(TlsError::Pem { what, source }),
    }
}
