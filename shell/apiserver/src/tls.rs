//! TLS with optional client certificates.
//!
//! A certificate that we did not sign must give a 401 Status and not a broken
//! handshake, so the handshake proves only that the client has the key; who
//! signed the certificate is checked per connection by [`Tls::user`].

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use sha2::{Digest as _, Sha256};

use crate::OpenError;
use crate::auth::User;
use crate::identity::{Identity, subject_of};

/// What connections need of TLS.
pub(crate) struct Tls {
    /// For the acceptor.
    pub(crate) config: Arc<ServerConfig>,
    ours: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    pub(crate) fn new(identity: &Identity) -> Result<Self, OpenError> {
        build(identity).map_err(|source| OpenError::Identity {
            doing: "set up TLS".to_owned(),
            source,
        })
    }

    /// The user of a client certificate that our authority has signed.
    pub(crate) fn user(&self, chain: &[CertificateDer<'_>]) -> Option<User> {
        let (leaf, intermediates) = chain.split_first()?;
        self.ours
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .ok()?;
        let (name, groups) = subject_of(leaf)?;
        let digest = Sha256::digest(leaf.as_ref());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(User::new(name, groups).with_extra("credential-id", format!("X509SHA256={hex}")))
    }
}

fn build(identity: &Identity) -> Result<Tls, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let ours = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.server.certificate.as_bytes())
            .collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.server.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyCertificate(Arc::clone(&ours))))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls {
        config: Arc::new(config),
        ours,
    })
}

/// Takes any certificate whose key the client can prove to have.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
