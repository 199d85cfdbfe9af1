//! Asking once.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use portolan_kernel::netns::NetNs;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::{Answer, Handler, grpc};
use crate::container::{ExecError, Launcher, User, exec};

/// Who asks about which container.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The node's network, where connections come from.
    pub netns: NetNs,
    /// The pod's address.
    pub ip: IpAddr,
    /// Starts commands.
    pub launcher: Launcher,
    /// The container's PID 1.
    pub pid: i32,
    /// The container's environment.
    pub env: Arc<Vec<(String, String)>>,
    /// The container's user.
    pub user: Option<User>,
}

/// Asks once and waits for the answer, at most `timeout`.
pub async fn check(asker: &Asker, handler: &Handler, timeout: Duration) -> Answer {
    match handler {
        Handler::Http { .. } => http_get(asker, handler, timeout).await,
        Handler::Tcp { host, port } => {
            let at = match address(asker, host.as_deref(), *port).await {
                Ok(at) => at,
                Err(message) => return Answer::Failure(message),
            };
            match tokio::time::timeout(timeout, connect(&asker.netns, at)).await {
                Ok(Ok(_open)) => Answer::Success,
                Ok(Err(cause)) => Answer::Failure(refused(at, &cause)),
                Err(_late) => Answer::Failure(format!("dial tcp {at}: i/o timeout")),
            }
        }
        Handler::Grpc { port, service } => {
            let at = SocketAddr::from((asker.ip, *port));
            // Kubelet's client connects anew until its time is over.
            match tokio::time::timeout(timeout, connect(&asker.netns, at)).await {
                Ok(Ok(stream)) => grpc::ask(stream, at, service, timeout).await,
                Ok(Err(_)) | Err(_) => grpc::late(at, timeout),
            }
        }
        Handler::Exec { command } => run_command(asker, command, timeout).await,
        Handler::Impossible { message } => Answer::Failure(message.clone()),
    }
}

async fn run_command(asker: &Asker, command: &[String], timeout: Duration) -> Answer {
    match exec(
        &asker.launcher,
        (asker.pid, asker.user.as_ref()),
        command,
        &asker.env,
        timeout,
    )
    .await
    {
        Ok(done) if done.code == 0 => Answer::Success,
        Ok(done) => Answer::Failure(done.output),
        Err(ExecError::Timeout { command, limit }) => Answer::Failure(format!(
            "command timed out: {command:?} timed out after {limit:?}"
        )),
        Err(error @ (ExecError::Start { .. } | ExecError::Refused { .. })) => {
            Answer::Failure(error.to_string())
        }
    }
}

/// An error of connect(2) in the words that Go gives it.
fn refused(at: SocketAddr, cause: &io::Error) -> String {
    let text = cause.to_string();
    let text = text
        .split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase();
    format!("dial tcp {at}: connect: {text}")
}

/// The pod's address, or what `host` names.
async fn address(asker: &Asker, host: Option<&str>, port: u16) -> Result<SocketAddr, String> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return Ok((asker.ip, port).into());
    };
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|cause| format!("dial tcp: lookup {host}: {cause}"))?;
    found
        .next()
        .ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))
}

/// A connection that begins in the network `netns`.
pub(crate) async fn connect(netns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = netns.run(open).map_err(io::Error::other)??;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

async fn http_get(asker: &Asker, handler: &Handler, timeout: Duration) -> Answer {
    let Handler::Http {
        https,
        host,
        port,
        path,
        headers,
    } = handler
    else {
        return Answer::Failure("not an HTTP probe".to_owned());
    };
    let at = match address(asker, host.as_deref(), *port).await {
        Ok(at) => at,
        Err(message) => return Answer::Failure(message),
    };
    let scheme = if *https { "https" } else { "http" };
    let shown = host
        .clone()
        .map_or_else(|| at.to_string(), |host| format!("{host}:{port}"));
    let url = format!("{scheme}://{shown}{path}");
    let ask = async {
        let stream = connect(&asker.netns, at)
            .await
            .map_err(|cause| refused(at, &cause))?;
        let request = request(&shown, path, headers)?;
        if *https {
            let connector = TlsConnector::from(trusting().map_err(|e| e.to_string())?);
            let name = ServerName::IpAddress(at.ip().into());
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|e| e.to_string())?;
            send(stream, request).await
        } else {
            send(stream, request).await
        }
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Answer::Success,
        Ok(Ok(status)) => Answer::Failure(format!(
            "HTTP probe failed with statuscode: {}",
            status.as_u16()
        )),
        Ok(Err(message)) => Answer::Failure(format!("Get {url:?}: {message}")),
        Err(_late) => Answer::Failure(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// The request; a `Host` header of the probe's own replaces ours.
fn request(
    host: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(path);
    for (name, value) in [
        ("Host", host),
        ("User-Agent", "kube-probe/1.37"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ] {
        if !headers
            .iter()
            .any(|(own, _)| own.eq_ignore_ascii_case(name))
        {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).map_err(|e| e.to_string())
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<StatusCode, String> {
    let (mut sender, driver) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(driver);
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string());
    // The body does not matter, and neither does how the connection ends.
    driver.abort();
    let response = response?;
    tracing::trace!(location = ?response.headers().get(header::LOCATION), "probe answered");
    Ok(response.status())
}

/// A TLS configuration that trusts everybody, as kubelet's probes do.
fn trusting() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Verifies nothing but that the peer holds the key of the certificate it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
