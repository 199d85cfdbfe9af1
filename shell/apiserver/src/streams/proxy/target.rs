//! Which pod or node and which port `[scheme:]name[:port]` means.

use std::net::IpAddr;

use portolan_api::kinds::endpoint_slice::SERVICE_NAME_LABEL;
use portolan_api::value::{at, int_at, list_at, str_at, strings_at};
use portolan_api::{Status, meta};
use serde_json::Value;

use crate::context::Context;
use crate::request::Asked;
use crate::store::Key;
use crate::streams::pod;
use crate::streams::refused::Refused;

/// Where a proxied request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// None for the node itself.
    pub(super) pod: Option<Pod>,
    pub(super) node: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// A pod that a proxied request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) uid: String,
}

impl Target {
    /// As it stands in URLs.
    pub(super) fn authority(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }
}

/// Find the pod of a request for `pods/…/proxy` or `services/…/proxy`, or the
/// node of one for `nodes/…/proxy`.
pub(super) fn resolve(context: &Context, asked: &Asked) -> Result<Target, Refused> {
    let kind = &asked.resource.kind;
    let Some(wanted) = Wanted::read(&asked.name) else {
        return Err(Refused::bad_request(format!(
            "invalid {} request {:?}",
            kind.singular, asked.name
        )));
    };
    match kind.kind {
        "Pod" => of_pod(context, &asked.namespace, &wanted),
        "Node" => of_node(context, &wanted),
        _ => of_service(context, &asked.namespace, &wanted),
    }
}

/// The parts of the name in the path.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Wanted<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let tls = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { tls, name, port })
    }
}

fn get(context: &Context, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let resource = context.core(kind)?;
    let key = Key::new(resource.index, namespace, name);
    Some(context.store.get(&key)?.value())
}

fn not_found(context: &Context, kind: &str, name: &str) -> Refused {
    match context.core(kind) {
        Some(resource) => Status::not_found(&resource.kind, name).into(),
        None => Status::no_such_path().into(),
    }
}

fn of_pod(context: &Context, namespace: &str, wanted: &Wanted<'_>) -> Result<Target, Refused> {
    let Some(pod) = get(context, "Pod", namespace, wanted.name) else {
        return Err(not_found(context, "Pod", wanted.name));
    };
    let port = match wanted.port {
        "" => {
            let declared = list_at(&pod, "spec.containers")
                .iter()
                .find_map(|container| list_at(container, "ports").first())
                .and_then(|port| int_at(port, "containerPort"));
            let usual = if wanted.tls { 443 } else { 80 };
            declared.map_or(Some(usual), |port| u16::try_from(port).ok())
        }
        text => text.parse().ok(),
    };
    let Some(port) = port.filter(|port| *port > 0) else {
        return Err(Refused::bad_request(format!(
            "invalid pod request \"{}:{}\"",
            wanted.name, wanted.port
        )));
    };
    let address = list_at(&pod, "status.podIPs")
        .first()
        .map_or("", |entry| str_at(entry, "ip"))
        .parse()
        .ok()
        .filter(allowed);
    let Some(address) = address else {
        return Err(Refused::bad_request("address not allowed"));
    };
    Ok(Target {
        tls: wanted.tls,
        pod: Some(Pod {
            name: wanted.name.to_owned(),
            uid: meta::uid(&pod).to_owned(),
        }),
        node: pod::node(&pod)?,
        address,
        port,
    })
}

/// The port of a kubelet, over TLS, where a request names none.
const KUBELET_PORT: u16 = 10250;

/// A port of a node, at the node's own address.
fn of_node(context: &Context, wanted: &Wanted<'_>) -> Result<Target, Refused> {
    let Some(node) = get(context, "Node", "", wanted.name) else {
        return Err(not_found(context, "Node", wanted.name));
    };
    let (tls, port) = match wanted.port {
        "" => (true, Some(KUBELET_PORT)),
        text => (wanted.tls, text.parse().ok()),
    };
    let Some(port) = port.filter(|port| *port > 0) else {
        return Err(Refused::bad_request(format!(
            "invalid node request \"{}:{}\"",
            wanted.name, wanted.port
        )));
    };
    let address = list_at(&node, "status.addresses")
        .iter()
        .find(|entry| str_at(entry, "type") == "InternalIP")
        .and_then(|entry| str_at(entry, "address").parse().ok())
        .filter(allowed);
    let Some(address) = address else {
        return Err(Refused::bad_request("address not allowed"));
    };
    Ok(Target {
        tls,
        pod: None,
        node: wanted.name.to_owned(),
        address,
        port,
    })
}

/// Pods have ordinary addresses. Anything else could be a way to the server
/// itself.
fn allowed(address: &IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

fn of_service(context: &Context, namespace: &str, wanted: &Wanted<'_>) -> Result<Target, Refused> {
    let number = wanted.port.parse::<i64>().ok();
    let Some(service) = get(context, "Service", namespace, wanted.name) else {
        // Kubernetes looks at the Service only to give a number its name.
        let kind = if number.is_some() {
            "Service"
        } else {
            "Endpoints"
        };
        return Err(not_found(context, kind, wanted.name));
    };
    let port = match number {
        None => wanted.port.to_owned(),
        Some(number) => {
            let ports = list_at(&service, "spec.ports");
            let found = ports
                .iter()
                .find(|port| int_at(port, "port") == Some(number));
            let Some(found) = found else {
                return Err(Status::service_unavailable(format!(
                    "no service port {number} found for service {:?}",
                    wanted.name
                ))
                .into());
            };
            str_at(found, "name").to_owned()
        }
    };
    let mut targets: Vec<Target> = slices(context, namespace, wanted.name)
        .iter()
        .flat_map(|slice| of_slice(context, namespace, slice, &port, wanted.tls))
        .collect();
    if targets.is_empty() {
        return Err(Status::service_unavailable(format!(
            "no endpoints available for service {:?}",
            wanted.name
        ))
        .into());
    }
    // Random bits from where identities come from; even spreading is enough.
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    let count = u64::try_from(targets.len()).unwrap_or(u64::MAX);
    let chosen = usize::try_from(random % count).unwrap_or_default();
    Ok(targets.swap_remove(chosen))
}

/// The EndpointSlices of a Service.
fn slices(context: &Context, namespace: &str, service: &str) -> Vec<Value> {
    let Some(resource) = context.resource("discovery.k8s.io", "v1", "endpointslices") else {
        return Vec::new();
    };
    let snapshot = context.store.cache().snapshot(resource.index);
    let first = Key::new(resource.index, namespace, "").name;
    snapshot
        .objects
        .range(first..)
        .take_while(|(name, _)| name.namespace == namespace)
        .filter(|(_, stored)| stored.label(SERVICE_NAME_LABEL) == Some(service))
        .map(|(_, stored)| stored.value())
        .collect()
}

/// The ready endpoints of a slice that are pods.
fn of_slice(
    context: &Context,
    namespace: &str,
    slice: &Value,
    port: &str,
    tls: bool,
) -> Vec<Target> {
    let number = list_at(slice, "ports")
        .iter()
        .find(|entry| str_at(entry, "name") == port)
        .and_then(|entry| u16::try_from(int_at(entry, "port")?).ok())
        .filter(|port| *port > 0);
    let Some(number) = number else {
        return Vec::new();
    };
    list_at(slice, "endpoints")
        .iter()
        .filter(|endpoint| at(endpoint, "conditions.ready").as_bool() != Some(false))
        .filter_map(|endpoint| {
            let [address, ..] = strings_at(endpoint, "addresses")[..] else {
                return None;
            };
            let name = str_at(endpoint, "targetRef.name");
            let is_pod = str_at(endpoint, "targetRef.kind") == "Pod"
                && matches!(str_at(endpoint, "targetRef.namespace"), other if other.is_empty() || other == namespace);
            // The address must be that of the pod: slices are written by users
            // too, and must not lead this server anywhere else.
            let pod = is_pod.then(|| get(context, "Pod", namespace, name)).flatten()?;
            let own = list_at(&pod, "status.podIPs")
                .iter()
                .any(|entry| str_at(entry, "ip") == address);
            let address = address.parse().ok().filter(allowed)?;
            own.then(|| Target {
                tls,
                pod: Some(Pod {
                    name: name.to_owned(),
                    uid: meta::uid(&pod).to_owned(),
                }),
                node: str_at(&pod, "spec.nodeName").to_owned(),
                address,
                port: number,
            })
        })
        .filter(|target| !target.node.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_up_to_three_parts() {
        let read = |text| Wanted::read(text).map(|wanted| (wanted.tls, wanted.name, wanted.port));
        assert_eq!(read("web"), Some((false, "web", "")));
        assert_eq!(read("web:80"), Some((false, "web", "80")));
        assert_eq!(read("http:web:80"), Some((false, "web", "80")));
        assert_eq!(read("https:web:"), Some((true, "web", "")));
        assert_eq!(read("ftp:web:80"), None);
        assert_eq!(read("a:b:c:d"), None);
        assert_eq!(read(":80"), None);
    }

    #[test]
    fn only_addresses_of_pods_are_allowed() {
        for (address, expected) in [
            ("10.1.2.3", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(allowed(&address.parse().unwrap()), expected, "{address}");
        }
    }
}
