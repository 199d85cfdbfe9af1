//! TLS to servers (RFC 7858): whom to trust, and whom to expect.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::settings::TlsSettings;

/// The authorities of the machine, read once.
static MACHINE: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Proves that the other end is who the settings say.
pub(super) async fn connect(
    stream: TcpStream,
    settings: &TlsSettings,
    address: IpAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let name = match &settings.name {
        Some(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
        None => ServerName::from(address),
    };
    let config = match &settings.authorities {
        Some(path) => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || client(roots_of(&path)?)).await??
        }
        None => match MACHINE.get() {
            Some(config) => Arc::clone(config),
            None => {
                let config = tokio::task::spawn_blocking(|| client(machine_roots()?)).await??;
                Arc::clone(MACHINE.get_or_init(|| config))
            }
        },
    };
    TlsConnector::from(config).connect(name, stream).await
}

fn client(roots: RootCertStore) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(Arc::new(config))
}

/// What the machine trusts; certificates that cannot be read are passed over.
fn machine_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(io::Error::other(
            "this machine has no certificate authorities: name a file with them",
        ));
    }
    Ok(roots)
}

fn roots_of(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other(format!(
            "{} has no certificates",
            path.display()
        )));
    }
    Ok(roots)
}
