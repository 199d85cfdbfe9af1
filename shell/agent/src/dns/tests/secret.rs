//! Resolvers over TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::super::{Forwarder, ServerSettings, TlsSettings, Upstream};
use super::resolver::{LONG, Manner, ask, forwarder, route, serve_stream, without_cache};
use super::{name, within};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }
}

/// A resolver over TLS whose certificate is for these names.
async fn resolver(
    authority: &Authority,
    names: &[&str],
) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, &authority.0).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"dot".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&asked), Arc::clone(&connections));
    let (kept, manner) = watch::channel(Manner::Good);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                counts.1.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve_stream(
                    stream,
                    manner.clone(),
                    7,
                    Arc::clone(&counts.0),
                ));
            }
        }
    });
    tokio::spawn(async move { kept.closed().await });
    (address, asked, connections)
}

fn over_tls(address: SocketAddr, name: Option<&str>, authorities: &Path) -> Arc<Forwarder> {
    let mut route = route(&[], LONG);
    route.servers = vec![ServerSettings {
        address,
        tls: Some(TlsSettings {
            name: name.map(str::to_owned),
            authorities: Some(authorities.to_owned()),
        }),
    }];
    forwarder(without_cache(route))
}

async fn refused(forwarder: &Forwarder) -> String {
    let query = portolan_dns::query(7, &name("a.example"), portolan_dns::Rtype::A);
    let asked = forwarder.forward(query.into(), portolan_dns::Transport::Udp);
    format!("{:?}", within(asked).await.expect_err("refused"))
}

#[tokio::test]
async fn d22_over_tls_one_connection_serves_many_questions() {
    let dir = tempfile::tempdir().unwrap();
    let authorities = dir.path().join("ca.pem");
    let authority = Authority::new();
    authority.write(&authorities);
    let (address, asked, connections) = resolver(&authority, &["dns.example", "127.0.0.1"]).await;
    for name in [Some("dns.example"), None] {
        let before = connections.load(Ordering::SeqCst);
        let forwarder = over_tls(address, name, &authorities);
        for _ in 0..20 {
            assert_eq!(ask(&forwarder, "a.example").await, Ok(7), "{name:?}");
        }
        assert_eq!(connections.load(Ordering::SeqCst) - before, 1);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 40);
}

#[tokio::test]
async fn d22_over_tls_nobody_else_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (own, others) = (dir.path().join("own.pem"), dir.path().join("others.pem"));
    let authority = Authority::new();
    authority.write(&own);
    Authority::new().write(&others);
    let (address, asked, _) = resolver(&authority, &["dns.example"]).await;
    let wrong_name = refused(&over_tls(address, Some("dns.other"), &own)).await;
    assert!(wrong_name.contains("NotValidForName"), "{wrong_name}");
    let by_address = refused(&over_tls(address, None, &own)).await;
    assert!(by_address.contains("NotValidForName"), "{by_address}");
    let stranger = refused(&over_tls(address, Some("dns.example"), &others)).await;
    assert!(
        stranger.contains("UnknownIssuer") || stranger.contains("BadSignature"),
        "{stranger}"
    );
    let nobody = refused(&over_tls(
        address,
        Some("dns.example"),
        &dir.path().join("none.pem"),
    ))
    .await;
    assert!(nobody.contains("NoReply"), "{nobody}");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nothing is said to them");
}
