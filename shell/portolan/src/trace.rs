//! `portolan trace`: where a packet would go, and why.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use portolan_api::lean;
use portolan_model::{Family, Protocol, Service, ServiceKey};
use portolan_plan::LinkName;
use portolan_why::{Outcome, Packet, Trace, trace};
use serde_json::{Value, json};

use crate::cli::{ReportOutput, TraceArgs};
use crate::connect::Session;
use crate::observed::Observed;
use crate::out;
use crate::verbs::get::print_value;

/// The lab's outside world, for `--from outside`.
const OUTSIDE: [&str; 2] = ["172.18.0.1", "fd00:172:18::1"];

/// Runs the command.
pub(crate) async fn run(args: TraceArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let hops = explain(&session, &args.from, &args.to).await?;
    match args.output {
        Some(output) => {
            let hops: Vec<Value> = hops.iter().map(Trace::json).collect();
            print_value(&json!({ "hops": hops }), output == ReportOutput::Yaml)
        }
        None => {
            out::line(text(&hops).trim_end());
            Ok(())
        }
    }
}

/// The hops of a packet, as a person reads them.
pub(crate) fn text(hops: &[Trace]) -> String {
    hops.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Traces one packet over what the server holds now: at the node where it
/// starts and, if that passes it on to another node, there.
pub(crate) async fn explain(session: &Session, from: &str, to: &str) -> Result<Vec<Trace>> {
    let observed = Observed::read(session).await?;
    let to = destination(&observed, &session.namespace, to)?;
    let from = source(&observed, &session.namespace, from, &to)?;
    let at = |node: &str, from_node: bool| {
        let plan = observed.plan(node);
        let (source, destination) = (from.address, to.address);
        let packet = Packet {
            source,
            destination,
            protocol: to.protocol,
            port: to.port,
            from_node,
            link: LinkName::NONE,
        };
        trace(&observed.cluster, &plan, &plan.view, packet)
    };
    let mut hops = vec![at(&from.node, from.is_node)];
    let passed = matches!(hops.first().map(|hop| &hop.outcome), Some(Outcome::Pass(_)));
    if let Some(node) = to.node.filter(|node| passed && *node != from.node) {
        hops.push(at(&node, false));
    }
    Ok(hops)
}

/// Who sends, and at which node the decision is made.
pub(crate) struct From {
    pub(crate) node: String,
    pub(crate) address: IpAddr,
    pub(crate) is_node: bool,
}

/// Where to.
pub(crate) struct To {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Whose address it is, if a node's.
    node: Option<String>,
}

impl To {
    pub(crate) fn at(
        observed: &Observed,
        address: IpAddr,
        protocol: Option<Protocol>,
        port: u16,
    ) -> Self {
        let own = |n: &&lean::Node| {
            n.status
                .addresses
                .iter()
                .any(|a| a.address.parse() == Ok(address))
        };
        let node = observed
            .nodes
            .iter()
            .find(own)
            .map(|n| n.metadata.name.clone());
        Self {
            address,
            protocol: protocol.unwrap_or(Protocol::Tcp),
            port,
            node,
        }
    }
}

/// Who `--from` means: a pod, a node, the outside or an address.
pub(crate) fn source(observed: &Observed, namespace: &str, text: &str, to: &To) -> Result<From> {
    let family = Family::of(to.address);
    if text == "outside" || text.starts_with("outside@") {
        let first = observed.nodes.first().map(|n| n.metadata.name.as_str());
        let node = text
            .strip_prefix("outside@")
            .or(to.node.as_deref())
            .or(first)
            .context("the cluster has no node")?;
        let address = OUTSIDE
            .iter()
            .filter_map(|t| t.parse().ok())
            .find(|a| Family::of(*a) == family);
        node_named(observed, node)?;
        return Ok(From {
            node: node.to_owned(),
            address: address.context("an outside address")?,
            is_node: false,
        });
    }
    if let Some(node) = text.strip_prefix("node/") {
        let address = node_address(node_named(observed, node)?, family)?;
        return Ok(From {
            node: node.to_owned(),
            address,
            is_node: true,
        });
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let holds = |p: &&lean::Pod| p.status.pod_ips.iter().any(|ip| ip.ip == text);
        if let Some(pod) = observed.pods.iter().find(holds) {
            return Ok(From {
                node: pod.spec.node_name.clone(),
                address,
                is_node: false,
            });
        }
        let first = observed.nodes.first().context("the cluster has no node")?;
        return Ok(From {
            node: first.metadata.name.clone(),
            address,
            is_node: false,
        });
    }
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    let named = |p: &&lean::Pod| p.metadata.namespace == namespace && p.metadata.name == name;
    let Some(pod) = observed.pods.iter().find(named) else {
        bail!(
            "--from: pods {name:?} not found in namespace {namespace:?}: give a pod, node/NAME, outside, outside@NODE or an address"
        );
    };
    let addresses = pod
        .status
        .pod_ips
        .iter()
        .filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    let Some(address) = addresses.into_iter().find(|a| Family::of(*a) == family) else {
        bail!("--from: pod {namespace}/{name} has no {family} address yet");
    };
    Ok(From {
        node: pod.spec.node_name.clone(),
        address,
        is_node: pod.spec.host_network,
    })
}

pub(crate) fn node_named<'a>(observed: &'a Observed, name: &str) -> Result<&'a lean::Node> {
    let found = observed.nodes.iter().find(|n| n.metadata.name == name);
    found.with_context(|| format!("nodes {name:?} not found"))
}

pub(crate) fn node_address(node: &lean::Node, family: Family) -> Result<IpAddr> {
    let internal = node
        .status
        .addresses
        .iter()
        .filter(|a| a.address_type == "InternalIP");
    let mut own = internal.filter_map(|a| a.address.parse::<IpAddr>().ok());
    own.find(|a| Family::of(*a) == family)
        .with_context(|| format!("node {:?} has no {family} address", node.metadata.name))
}

fn destination(observed: &Observed, namespace: &str, text: &str) -> Result<To> {
    let (text, protocol) =
        match text.rsplit_once('/') {
            Some((head, name)) => {
                let protocol = Protocol::parse(&name.to_uppercase());
                (
                    head,
                    Some(protocol.with_context(|| {
                        format!("--to: {name:?} is no protocol: tcp, udp or sctp")
                    })?),
                )
            }
            None => (text, None),
        };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<IpAddr>().is_ok() || !host.contains(':') => {
            (host, Some(port))
        }
        Some((host, port)) if host.starts_with('[') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(To::at(observed, address, protocol, number(port)?));
    }
    if let Some(node) = observed.nodes.iter().find(|n| n.metadata.name == host) {
        let address = node_address(node, Family::V4)?;
        return Ok(To::at(observed, address, protocol, number(port)?));
    }
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    let namespace = labels.next().unwrap_or(namespace);
    let key = ServiceKey::new(namespace, name);
    let Some(service) = observed.cluster.service(&key) else {
        bail!("--to: services {name:?} not found in namespace {namespace:?}");
    };
    to_service(service, protocol, port)
}

/// A Service's port by number or name; without one, the only port it has.
pub(crate) fn to_service(
    service: &Service,
    protocol: Option<Protocol>,
    port: Option<&str>,
) -> Result<To> {
    let Some(address) = service.cluster_ips.first() else {
        bail!(
            "--to: service {} has no cluster address: it is headless or an external name",
            service.key
        );
    };
    let matches = |p: &&portolan_model::ServicePort| {
        let wanted = port.is_none_or(|w| w == &*p.name || w.parse() == Ok(p.port));
        wanted && protocol.is_none_or(|w| w == p.protocol)
    };
    let found: Vec<_> = service.ports.iter().filter(matches).collect();
    match (found.as_slice(), port) {
        ([one, ..], Some(_)) | ([one], None) => Ok(To {
            address: *address,
            protocol: one.protocol,
            port: one.port,
            node: None,
        }),
        // A port that the Service does not have is worth a trace too: it is rejected.
        ([], Some(_)) => {
            let protocol = protocol.unwrap_or(Protocol::Tcp);
            Ok(To {
                address: *address,
                protocol,
                port: number(port)?,
                node: None,
            })
        }
        _ => bail!(
            "--to: service {} has several ports: say which with NAME:PORT",
            service.key
        ),
    }
}

fn number(port: Option<&str>) -> Result<u16> {
    let Some(port) = port else {
        bail!("--to: say which port, as in NAME:80")
    };
    port.parse()
        .with_context(|| format!("--to: {port:?} is no port"))
}
