//! A plain HTTP/2 client over TLS, so that a benchmark measures the server and
//! not its client.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server and who we are to it.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// One connection; many requests may be in flight on it.
#[derive(Clone)]
pub struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    /// Whom the server takes us for: each agent has a share of its own.
    agent: String,
}

impl Target {
    /// Reads a kubeconfig with embedded certificates, for a server at `address`.
    pub fn new(kubeconfig: &str, address: SocketAddr) -> Result<Self> {
        let documents = portolan_api::yaml::parse(kubeconfig)?;
        let config = documents.first().context("a kubeconfig")?;
        let (cluster, user) = (
            &config["clusters"][0]["cluster"],
            &config["users"][0]["user"],
        );
        let authority = decoded(&cluster["certificate-authority-data"])?;
        let certificate = decoded(&user["client-certificate-data"])?;
        let key = decoded(&user["client-key-data"])?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority)?)?;
        let certificate = CertificateDer::from_pem_slice(&certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_slice(&key)?)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address,
            tls: Arc::new(tls),
        })
    }

    /// Opens a connection as the program `agent`.
    pub async fn connect(&self, agent: &str) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        // It ends with the last sender.
        drop(tokio::spawn(connection));
        Ok(Connection {
            sender,
            agent: agent.to_owned(),
        })
    }
}

fn decoded(text: &Value) -> Result<Vec<u8>> {
    let text = text
        .as_str()
        .context("embedded certificates in the kubeconfig")?;
    Ok(STANDARD.decode(text)?)
}

impl Connection {
    /// Changes an object by a strategic merge patch, which must succeed.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Bytes> {
        let kind = "application/strategic-merge-patch+json";
        let body = Full::new(Bytes::from(body.to_string()));
        let request = self.request(Method::PATCH, path).header(CONTENT_TYPE, kind);
        let answer = self.answer(request.body(body)?).await?;
        finished(answer, path).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header(USER_AGENT, &self.agent)
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<http::Response<Incoming>> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        gzip: bool,
    ) -> Result<http::Response<Incoming>> {
        let request = self.request(method, path);
        let mut request = request.header(CONTENT_TYPE, "application/json");
        if gzip {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        self.answer(request.body(Full::new(body))?).await
    }

    /// Sends a request that must succeed, and reads its answer.
    pub async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let response = self.send(method, path, body, false).await?;
        finished(response, path).await
    }
}

/// The body of a successful answer.
pub async fn finished(response: http::Response<Incoming>, path: &str) -> Result<Bytes> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(
        matches!(status, StatusCode::OK | StatusCode::CREATED),
        "{path}: {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}
