//! Who is meant by `--from` and `--to`.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use portolan_model::{Pod, PodKey, Protocol, ServiceKey};
use portolan_why::doctor::nearest;

use crate::observed::Observed;
use crate::trace::{self, From, To, node_address, node_named, to_service};

/// A protocol as people write it.
pub(super) fn protocol(text: &str) -> Result<Protocol> {
    Protocol::parse(&text.to_uppercase())
        .with_context(|| format!("error: {text:?} is no protocol: tcp, udp or sctp"))
}

/// Who sends.
pub(super) fn source(observed: &Observed, namespace: &str, text: &str, to: &To) -> Result<From> {
    let text = match text.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        _ => text,
    };
    trace::source(observed, namespace, text, to)
}

/// What a destination says, before the cluster is asked about it.
#[derive(Debug, PartialEq, Eq)]
struct Typed<'t> {
    kind: Option<Kind>,
    namespace: Option<&'t str>,
    name: &'t str,
    port: Option<&'t str>,
    protocol: Option<&'t str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Service,
    Node,
}

/// `POD:PORT`, `NAMESPACE/POD:PORT`, `service/NAME:PORT`, `node/NAME:PORT`,
/// `ADDRESS:PORT`, each with `/udp` behind where it is UDP.
fn typed(text: &str) -> Typed<'_> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address without brackets are its own.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let (port, protocol) = match port.and_then(|port| port.split_once('/')) {
        Some((port, protocol)) => (Some(port), Some(protocol)),
        None => (port, None),
    };
    let (kind, namespace, name) = match host.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => (Some(Kind::Pod), None, name),
        Some(("service" | "services" | "svc", name)) => (Some(Kind::Service), None, name),
        Some(("node" | "nodes" | "no", name)) => (Some(Kind::Node), None, name),
        Some((namespace, name)) => (Some(Kind::Pod), Some(namespace), name),
        None => (None, None, host.trim_matches(['[', ']'])),
    };
    Typed {
        kind,
        namespace,
        name,
        port,
        protocol,
    }
}

/// Where to.
pub(super) fn destination(
    observed: &Observed,
    namespace: &str,
    text: &str,
    given: Option<Protocol>,
) -> Result<To> {
    let typed = typed(text);
    let said = typed.protocol.map(protocol).transpose()?;
    let protocol = given.or(said);
    if let (None, Ok(address)) = (typed.kind, typed.name.parse::<IpAddr>()) {
        return Ok(To::at(observed, address, protocol, number(typed.port)?));
    }
    let namespace = typed.namespace.unwrap_or(namespace);
    let key = PodKey::new(namespace, typed.name);
    let pod = observed.cluster.pod(&key);
    if let (None | Some(Kind::Pod), Some(pod)) = (typed.kind, pod) {
        return to_pod(observed, pod, protocol, typed.port);
    }
    let mut labels = typed.name.split('.');
    let name = labels.next().unwrap_or_default();
    let service = ServiceKey::new(labels.next().unwrap_or(namespace), name);
    let service = observed.cluster.service(&service);
    if let (None | Some(Kind::Service), Some(service)) = (typed.kind, service) {
        return to_service(service, protocol, typed.port);
    }
    let is_node = observed
        .nodes
        .iter()
        .any(|node| node.metadata.name == typed.name);
    if typed.kind == Some(Kind::Node) || typed.kind.is_none() && is_node {
        let node = node_named(observed, typed.name)?;
        let address = node_address(node, portolan_model::Family::V4)
            .or_else(|_| node_address(node, portolan_model::Family::V6))?;
        return Ok(To::at(observed, address, protocol, number(typed.port)?));
    }
    bail!("{}", unknown(observed, namespace, &typed))
}

fn unknown(observed: &Observed, namespace: &str, typed: &Typed<'_>) -> String {
    let kind = if typed.kind == Some(Kind::Service) {
        "services"
    } else {
        "pods"
    };
    let names = |all: Vec<&str>| nearest(typed.name, all).map(str::to_owned);
    let there = if typed.kind == Some(Kind::Service) {
        let services = observed.cluster.services();
        let services = services.filter(|service| *service.key.namespace == *namespace);
        names(services.map(|service| &*service.key.name).collect())
    } else {
        let namespace = namespace.into();
        let pods = observed.cluster.pods_of(&namespace);
        names(pods.map(|pod| &*pod.key.name).collect())
    };
    let meant = there.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    format!(
        "error: --to: {kind} {:?} not found in namespace {namespace:?}{meant}",
        typed.name
    )
}

/// A pod's port by number or name; without one, the only one that it names.
fn to_pod(
    observed: &Observed,
    pod: &Pod,
    protocol: Option<Protocol>,
    port: Option<&str>,
) -> Result<To> {
    let Some(address) = pod.addresses.first() else {
        bail!("error: --to: pod {} has no address yet", pod.key);
    };
    let fits = |own: &&portolan_model::NamedPort| {
        protocol.is_none_or(|wanted| wanted == own.protocol)
            && port.is_none_or(|wanted| *own.name == *wanted)
    };
    let named: Vec<_> = pod.ports.iter().filter(fits).collect();
    let is_number = port.is_some_and(|port| port.parse::<u16>().is_ok());
    match (named.as_slice(), port) {
        ([own], _) if !is_number => Ok(To::at(observed, *address, Some(own.protocol), own.port)),
        (_, Some(port)) if !is_number => bail!(
            "error: --to: pod {} has no port named {port:?}{}",
            pod.key,
            match protocol {
                Some(protocol) => format!(" for {protocol}"),
                None if named.len() > 1 => " for one protocol only: give --protocol".to_owned(),
                None => String::new(),
            }
        ),
        _ => Ok(To::at(observed, *address, protocol, number(port)?)),
    }
}

fn number(port: Option<&str>) -> Result<u16> {
    let Some(port) = port else {
        bail!("error: --to: say which port, as in NAME:80")
    };
    port.parse()
        .with_context(|| format!("error: --to: {port:?} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_typed_in_many_ways() {
        type Wanted<'t> = (
            Option<Kind>,
            Option<&'t str>,
            &'t str,
            Option<&'t str>,
            Option<&'t str>,
        );
        let table: [(&str, Wanted<'_>); 9] = [
            ("api:80", (None, None, "api", Some("80"), None)),
            ("api", (None, None, "api", None, None)),
            (
                "shop/api:http",
                (Some(Kind::Pod), Some("shop"), "api", Some("http"), None),
            ),
            (
                "pod/api:80/udp",
                (Some(Kind::Pod), None, "api", Some("80"), Some("udp")),
            ),
            (
                "svc/api.shop:80",
                (Some(Kind::Service), None, "api.shop", Some("80"), None),
            ),
            (
                "node/node-1:30080",
                (Some(Kind::Node), None, "node-1", Some("30080"), None),
            ),
            (
                "10.0.0.1:53/udp",
                (None, None, "10.0.0.1", Some("53"), Some("udp")),
            ),
            ("[fd00::1]:80", (None, None, "fd00::1", Some("80"), None)),
            ("fd00::1", (None, None, "fd00::1", None, None)),
        ];
        for (text, (kind, namespace, name, port, protocol)) in table {
            let wanted = Typed {
                kind,
                namespace,
                name,
                port,
                protocol,
            };
            assert_eq!(typed(text), wanted, "{text}");
        }
    }
}
