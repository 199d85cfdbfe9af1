//! HTTP/1.1 requests written by hand over TLS, and what comes of an upgrade.

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portolan_apiserver::{PodBackend, Server};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::backend::Fake;
use crate::common::{DEADLINE, Lab};

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const WEB: &str = "/api/v1/namespaces/default/pods/web";

/// A server with pods: `web` runs, `two` has two containers, `new` has no node,
/// `done` has ended.
pub(crate) async fn start() -> (Lab, Arc<Fake>) {
    let lab = Lab::start().await;
    let fake = Arc::new(Fake::default());
    Server::set_pod_backend(&lab.server, Arc::clone(&fake) as Arc<dyn PodBackend>);
    for (name, containers, node, phase) in [
        ("web", vec!["main"], "n1", "Running"),
        ("two", vec!["a", "gone"], "n1", "Running"),
        ("new", vec!["main"], "", "Pending"),
        ("done", vec!["main"], "n1", "Succeeded"),
    ] {
        let containers: Vec<Value> = containers
            .iter()
            .map(|name| json!({"name": name, "image": "host", "stdin": true}))
            .collect();
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": containers},
        });
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        lab.post(PODS, &pod).await.expect(201);
        let ready = if phase == "Running" { "True" } else { "False" };
        let status = json!({"status": {
            "phase": phase,
            "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}],
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        let path = format!("{PODS}/{name}/status");
        lab.merge(&path, &status).await.expect(200);
    }
    (lab, fake)
}

pub(crate) async fn connect(lab: &Lab) -> TlsStream<TcpStream> {
    let kubeconfig = Kubeconfig::from_yaml(&lab.server.kubeconfig(&lab.url)).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let tls = Arc::new(config.rustls_client_config().unwrap());
    let address = lab.url.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(tls).connect(name, stream).await.unwrap()
}

/// An answer: code, head, and the connection behind the head.
pub(crate) struct Raw {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) stream: TlsStream<TcpStream>,
}

impl Raw {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body of an answer with a length.
    pub(crate) async fn body(mut self) -> String {
        let length = self.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    pub(crate) async fn websocket(self) -> Socket {
        assert_eq!(self.code, 101, "{}", self.head);
        let config = WebSocketConfig::default().max_message_size(Some(64 << 20));
        Socket(WebSocketStream::from_raw_socket(self.stream, Role::Client, Some(config)).await)
    }
}

/// `method path` with headers.
pub(crate) async fn request(lab: &Lab, method: &str, path: &str, headers: &[(&str, &str)]) -> Raw {
    let mut stream = connect(lab).await;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Raw { code, head, stream }
}

/// Ask for a WebSocket with these subprotocols.
pub(crate) async fn upgrade(lab: &Lab, path: &str, protocols: &str) -> Raw {
    let mut headers = vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    if !protocols.is_empty() {
        headers.push(("Sec-WebSocket-Protocol", protocols));
    }
    request(lab, "GET", path, &headers).await
}

/// A WebSocket of channels.
pub(crate) struct Socket(pub(crate) WebSocketStream<TlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::binary(message)).await.unwrap();
    }

    /// The next message, as channel and bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        tokio::time::timeout(DEADLINE, async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        let (channel, bytes) = bytes.split_first().unwrap();
                        return Some((*channel, bytes.to_vec()));
                    }
                    Some(Ok(Message::Text(text))) => {
                        let (channel, text) = text.as_bytes().split_first().unwrap();
                        return Some((*channel, text.to_vec()));
                    }
                    Some(Ok(Message::Close(_))) | None | Some(Err(_)) => return None,
                    Some(Ok(_)) => {}
                }
            }
        })
        .await
        .expect("no message came")
    }

    /// All there is until the end, by channel.
    pub(crate) async fn rest(&mut self) -> [Vec<u8>; 4] {
        let mut all: [Vec<u8>; 4] = Default::default();
        while let Some((channel, bytes)) = self.next().await {
            let channel = if channel >= b'0' {
                channel - b'0'
            } else {
                channel
            };
            all[usize::from(channel)].extend(bytes);
        }
        all
    }
}
