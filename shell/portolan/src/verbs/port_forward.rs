//! `portolan port-forward`: ports of this machine that lead into a pod.
//!
//! Each local connection has a stream of its own to the API server; the pod is
//! reached on its loopback, so a Service or NetworkPolicy has no say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pods::{self, Target};
use crate::cli::{Listen, PortForwardArgs};
use crate::connect::Session;
use crate::out;

/// How long the pod may still answer once this side has finished sending:
/// the protocol cannot pass on a half-closed connection.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// How much is read at a time.
const CHUNK: usize = 32 * 1024;

/// One forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    /// 0 for any free one.
    local: u16,
    /// In the pod.
    remote: u16,
}

/// Runs the verb until a signal ends it, or the pod is gone.
pub(crate) async fn run(args: PortForwardArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let target = pods::target(&session, &args.target, args.pod_running_timeout).await?;
    let phase = target.pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        bail!("error: unable to forward port because pod is not running. Current status={phase}");
    }
    let name = target.pod["metadata"]["name"].as_str().unwrap_or_default();
    let pod = Arc::new((pods::api(&session), name.to_owned()));
    let (lost, mut is_lost) = mpsc::channel(1);
    let mut listening = JoinSet::new();
    for word in &args.ports {
        let forward = parse(word, &target)?;
        let listeners = listen(&args.address, forward).await?;
        for listener in listeners {
            let (pod, lost) = (Arc::clone(&pod), lost.clone());
            listening.spawn(accept(listener, forward.remote, pod, lost));
        }
    }
    match is_lost.recv().await {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// `8080:80`, `80`, `:http`, as the pod and the Service name their ports.
fn parse(word: &str, target: &Target) -> Result<Forward> {
    let (local, remote) = match word.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, word),
    };
    let Some(number) = remote_port(remote, target)? else {
        bail!(
            "error: Pod '{}' does not have a named port '{remote}'",
            pod_name(target)
        );
    };
    let local = match local {
        Some("") => 0,
        Some(text) => text.parse().map_err(|_no_port| {
            anyhow!("error: error parsing local port {text:?}: it must be a number")
        })?,
        // The same number on both sides: that of the Service where one was named.
        None => remote.parse().unwrap_or(number),
    };
    Ok(Forward {
        local,
        remote: number,
    })
}

fn pod_name(target: &Target) -> &str {
    target.pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The pod's port that a word means: through the Service's ports when one was named.
fn remote_port(word: &str, target: &Target) -> Result<Option<u16>> {
    let number: Option<u16> = word.parse().ok().filter(|n| *n != 0);
    let Some(service) = &target.service else {
        return Ok(number.or_else(|| container_port(&target.pod, word)));
    };
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let port = ports.into_iter().find(|p| match number {
        Some(number) => p["port"] == number,
        None => p["name"] == word,
    });
    let Some(port) = port else {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        bail!("error: Service {name} does not have a service port {word}");
    };
    let as_port = |v: &Value| v.as_u64().and_then(|n| u16::try_from(n).ok());
    // A headless Service's port is the pods' own.
    if service["spec"]["clusterIP"] == "None" {
        return Ok(as_port(&port["port"]));
    }
    let target_port = &port["targetPort"];
    Ok(match target_port.as_str() {
        Some(name) => container_port(&target.pod, name),
        None => as_port(target_port).or_else(|| as_port(&port["port"])),
    })
}

fn container_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let port = ports.find(|p| p["name"] == name)?;
    u16::try_from(port["containerPort"].as_u64()?).ok()
}

/// Listens at each address, and says so.
async fn listen(addresses: &[Listen], forward: Forward) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let wanted: &[IpAddr] = match address {
            Listen::Localhost => &[
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ],
            Listen::At(ip) => &[*ip],
        };
        for (i, ip) in wanted.iter().enumerate() {
            // A free port that was found for one address is used for the others.
            let port = match listeners.first() {
                Some(first) => first.local_addr()?.port(),
                None => forward.local,
            };
            match TcpListener::bind(SocketAddr::new(*ip, port)).await {
                Ok(listener) => listeners.push(listener),
                // localhost may have one family only.
                Err(_) if i > 0 => {}
                Err(error) => {
                    return Err(anyhow::Error::new(error)
                        .context(format!("error: unable to listen on port {port}")));
                }
            }
        }
    }
    for listener in &listeners {
        let at = listener.local_addr()?;
        out::line(format_args!("Forwarding from {at} -> {}", forward.remote));
    }
    Ok(listeners)
}

async fn accept(
    listener: TcpListener,
    remote: u16,
    pod: Arc<(Api<Pod>, String)>,
    lost: mpsc::Sender<anyhow::Error>,
) {
    let port = listener.local_addr().map_or(0, |a| a.port());
    while let Ok((connection, _)) = listener.accept().await {
        out::line(format_args!("Handling connection for {port}"));
        let (pod, lost) = (Arc::clone(&pod), lost.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(connection, remote, &pod).await {
                // Whoever gets the first error ends the program.
                drop(lost.try_send(error));
            }
        });
    }
}

/// Carries one connection. Only a pod that is gone is an error.
async fn forward(
    mut connection: TcpStream,
    remote: u16,
    (api, name): &(Api<Pod>, String),
) -> Result<()> {
    let mut forwarder = api
        .portforward(name, &[remote])
        .await
        .context("error: lost connection to pod")?;
    let mut stream = forwarder
        .take_stream(remote)
        .context("a forwarded port has a stream")?;
    let refused = forwarder
        .take_error(remote)
        .context("a forwarded port has an error stream")?;
    let carried = carry(&mut connection, &mut stream);
    tokio::pin!(refused);
    let said = tokio::select! {
        said = &mut refused => said,
        () = carried => None,
    };
    if let Some(message) = said {
        out::note(format_args!(
            "error: an error occurred forwarding {remote} to pod {name}: {}",
            message.trim_end()
        ));
    }
    forwarder.abort();
    Ok(())
}

/// Copies both ways until the pod ends, or some time after this side has.
async fn carry(connection: &mut TcpStream, stream: &mut tokio::io::DuplexStream) {
    let (mut from_here, mut to_here) = connection.split();
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    let mut sending = true;
    let (mut up, mut down) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        tokio::select! {
            read = from_here.read(&mut up), if sending => {
                let count = read.unwrap_or(0);
                let chunk = up.get(..count).unwrap_or_default();
                sending = count > 0 && to_pod.write_all(chunk).await.is_ok();
            }
            read = from_pod.read(&mut down) => {
                let count = read.unwrap_or(0);
                let chunk = down.get(..count).unwrap_or_default();
                if count == 0 || to_here.write_all(chunk).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(LAST_ANSWER), if !sending => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(service: Option<Value>) -> Target {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"ports": [{"name": "http", "containerPort": 8080}]}]}});
        Target { pod, service }
    }

    #[test]
    fn ports_of_a_pod_have_numbers_or_names() {
        let pod = target(None);
        let both = |local, remote| Forward { local, remote };
        assert_eq!(parse("80", &pod).unwrap(), both(80, 80));
        assert_eq!(parse("9000:80", &pod).unwrap(), both(9000, 80));
        assert_eq!(parse(":80", &pod).unwrap(), both(0, 80));
        assert_eq!(parse("9000:http", &pod).unwrap(), both(9000, 8080));
        assert_eq!(parse("http", &pod).unwrap(), both(8080, 8080));
        assert!(parse("x:80", &pod).is_err());
        let error = parse("9000:grpc", &pod).unwrap_err().to_string();
        assert_eq!(error, "error: Pod 'p' does not have a named port 'grpc'");
    }

    #[test]
    fn c2_ports_of_a_service_lead_to_their_target() {
        let service = |cluster_ip: &str| {
            json!({"metadata": {"name": "s"}, "spec": {"clusterIP": cluster_ip, "ports": [
                {"name": "web", "port": 80, "targetPort": "http"},
                {"name": "metrics", "port": 90, "targetPort": 9090}]}})
        };
        let of = |word: &str, ip: &str| parse(word, &target(Some(service(ip)))).unwrap();
        assert_eq!(
            of("80", "10.0.0.1"),
            Forward {
                local: 80,
                remote: 8080
            }
        );
        assert_eq!(
            of("7000:metrics", "10.0.0.1"),
            Forward {
                local: 7000,
                remote: 9090
            }
        );
        assert_eq!(
            of("90", "None"),
            Forward {
                local: 90,
                remote: 90
            }
        );
        let error = parse("81", &target(Some(service("10.0.0.1")))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error: Service s does not have a service port 81"
        );
    }
}
