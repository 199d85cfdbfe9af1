//! The v1 Endpoints of a Service: the older, flat form of the same facts.
//!
//! One address family, at most 1 000 addresses (E18), no terminating pods.
//! Nothing here reads them; other people's tools do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_model::Family;
use portolan_model::workloads::{Endpoints, Pod, Service, SlicePort, Target};
use serde_json::{Value, json};

use crate::slices::{Backing, HEADLESS, TRIGGER_TIME, changes, ports, target_json};
use crate::workloads::{Action, Kind, Step, Write, same};

/// Addresses in one Endpoints object (E18).
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
/// The annotation of Endpoints that are a lock.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The addresses that share a set of ports.
#[derive(Default)]
struct Subset<'a> {
    ready: BTreeMap<IpAddr, &'a Pod>,
    not_ready: BTreeMap<IpAddr, &'a Pod>,
}

/// What brings the Endpoints of a Service up to date.
pub fn endpoints(backing: &Backing<'_>, existing: Option<&Endpoints>) -> Step {
    let mut step = Step::default();
    let service = backing.service;
    if service.selector.is_none() || service.external_name || service.meta.deleting {
        return step;
    }
    let mut subsets = subsets(backing);
    let truncated = truncate(&mut subsets);
    let subsets: Value = subsets
        .iter()
        .map(|(ports, subset)| subset_json(service, ports, subset))
        .collect();
    let labels = labels(service);
    match existing {
        None => step
            .writes
            .push(create(backing, &labels, &subsets, truncated)),
        Some(known) => {
            let relabel = changes(&known.meta.labels, &labels);
            let was_truncated = known.meta.annotations.contains_key(OVER_CAPACITY);
            if same(&known.subsets, &subsets) && relabel.is_empty() && was_truncated == truncated {
                return step;
            }
            let patch = json!({
                "metadata": {
                    "labels": relabel,
                    "annotations": {
                        TRIGGER_TIME: backing.trigger.map(|at| at.to_string()),
                        OVER_CAPACITY: truncated.then_some("truncated"),
                    },
                },
                "subsets": subsets,
            });
            step.write(Kind::Endpoints, &known.meta, Action::Merge(patch));
        }
    }
    step
}

/// There is no such Service: Endpoints that were written for it go. Those
/// that somebody wrote by hand go when it was seen to go (`departed`): they
/// may have come before their Service. Old leader elections live in Endpoints
/// without a Service.
pub fn endpoints_of_deleted(existing: &Endpoints, departed: bool) -> Step {
    let mut step = Step::default();
    let ours = existing
        .meta
        .labels
        .get(MANAGED_BY)
        .is_some_and(|by| by == CONTROLLER);
    let elects = existing.meta.annotations.contains_key(LEADER);
    if (ours || departed) && !elects {
        let action = Action::Delete {
            uid: existing.meta.uid.clone(),
            force: false,
        };
        step.write(Kind::Endpoints, &existing.meta, action);
    }
    step
}

fn subsets<'a>(backing: &Backing<'a>) -> BTreeMap<Vec<SlicePort>, Subset<'a>> {
    let service = backing.service;
    let family = service.families.first().copied().unwrap_or(Family::V4);
    let mut subsets: BTreeMap<Vec<SlicePort>, Subset<'a>> = BTreeMap::new();
    for pod in backing.pods.iter().copied() {
        let out = pod.is_finished()
            || !service.selects(&pod.meta.labels)
            || (pod.meta.deleting && !service.publish_not_ready);
        let address = pod.addresses.iter().find(|ip| Family::of(**ip) == family);
        let Some(address) = address.filter(|_| !out) else {
            continue;
        };
        let ports = ports(service, pod);
        if ports.is_empty() && !(service.headless && service.ports.is_empty()) {
            continue;
        }
        let subset = subsets.entry(ports).or_default();
        if service.publish_not_ready || pod.ready {
            subset.ready.insert(*address, pod);
        } else {
            subset.not_ready.insert(*address, pod);
        }
    }
    subsets
}

/// Keeps 1 000 addresses, ready ones first. True if some had to go.
fn truncate(subsets: &mut BTreeMap<Vec<SlicePort>, Subset<'_>>) -> bool {
    let mut room = MAX_ADDRESSES;
    let mut truncated = false;
    let mut cut = |addresses: &mut BTreeMap<IpAddr, &Pod>| {
        while addresses.len() > room {
            addresses.pop_last();
            truncated = true;
        }
        room -= addresses.len();
    };
    subsets
        .values_mut()
        .for_each(|subset| cut(&mut subset.ready));
    subsets
        .values_mut()
        .for_each(|subset| cut(&mut subset.not_ready));
    truncated
}

fn subset_json(service: &Service, ports: &[SlicePort], subset: &Subset<'_>) -> Value {
    let mut body = json!({});
    for (field, addresses) in [
        ("addresses", &subset.ready),
        ("notReadyAddresses", &subset.not_ready),
    ] {
        if !addresses.is_empty() {
            body[field] = addresses
                .iter()
                .map(|(ip, pod)| address_json(service, *ip, pod))
                .collect();
        }
    }
    if !ports.is_empty() {
        body["ports"] = ports.iter().map(port_json).collect();
    }
    body
}

fn address_json(service: &Service, ip: IpAddr, pod: &Pod) -> Value {
    let target = Target::pod(pod);
    let mut body = json!({"ip": ip.to_string(), "targetRef": target_json(&target)});
    if !pod.node.is_empty() {
        body["nodeName"] = pod.node.as_str().into();
    }
    if !pod.hostname.is_empty() && pod.subdomain == service.meta.key.name {
        body["hostname"] = pod.hostname.as_str().into();
    }
    body
}

fn port_json(port: &SlicePort) -> Value {
    let mut body = json!({
        "protocol": port.protocol.to_string().to_uppercase(),
        "port": port.port,
    });
    if !port.name.is_empty() {
        body["name"] = port.name.as_str().into();
    }
    if let Some(protocol) = &port.app_protocol {
        body["appProtocol"] = protocol.as_str().into();
    }
    body
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.meta.labels.clone();
    labels.remove(HEADLESS);
    if service.headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

fn create(
    backing: &Backing<'_>,
    labels: &BTreeMap<String, String>,
    subsets: &Value,
    truncated: bool,
) -> Write {
    let key = &backing.service.meta.key;
    let mut metadata = json!({"name": key.name, "namespace": key.namespace, "labels": labels});
    if let Some(trigger) = backing.trigger {
        metadata["annotations"][TRIGGER_TIME] = trigger.to_string().into();
    }
    if truncated {
        metadata["annotations"][OVER_CAPACITY] = "truncated".into();
    }
    let mut body = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata});
    if subsets
        .as_array()
        .is_some_and(|subsets| !subsets.is_empty())
    {
        body["subsets"] = subsets.clone();
    }
    Write::quiet(Kind::Endpoints, key.clone(), Action::Create(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;

    fn service() -> Service {
        Service::read(&json!({
            "metadata": {"name": "web", "namespace": "a", "labels": {"team": "x"}},
            "spec": {
                "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
                "selector": {"app": "web"},
                "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        }))
    }

    fn pod(i: usize, ready: bool) -> Pod {
        Pod::read(&json!({
            "metadata": {"name": format!("p{i}"), "namespace": "a", "uid": format!("u{i}"),
                "labels": {"app": "web"}},
            "spec": {"nodeName": "n1"},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": format!("10.244.{}.{}", i / 250, i % 250 + 1)}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        }))
    }

    fn body(pods: &[Pod]) -> Value {
        let service = service();
        let pods: Vec<&Pod> = pods.iter().collect();
        let backing = Backing {
            service: &service,
            pods: &pods,
            node: &|_| None,
            trigger: None,
            cpus: None,
        };
        let Action::Create(body) = endpoints(&backing, None).writes.remove(0).action else {
            panic!("not created");
        };
        body
    }

    #[test]
    fn e18_not_ready_pods_are_listed_apart() {
        let body = body(&[pod(1, true), pod(2, false)]);
        let subset = &body["subsets"][0];
        assert_eq!(subset["addresses"][0]["ip"], "10.244.0.2");
        assert_eq!(subset["addresses"][0]["targetRef"]["name"], "p1");
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.244.0.3");
        assert_eq!(subset["ports"], json!([{"protocol": "TCP", "port": 8080}]));
        assert_eq!(body["metadata"]["labels"]["team"], "x");
    }

    #[test]
    fn e18_more_than_1000_addresses_are_truncated_ready_ones_first() {
        let pods: Vec<Pod> = (0..1100).map(|i| pod(i, i >= 200)).collect();
        let body = body(&pods);
        let count = |field: &str| body["subsets"][0][field].as_array().map_or(0, Vec::len);
        assert_eq!((count("addresses"), count("notReadyAddresses")), (900, 100));
        assert_eq!(body["metadata"]["annotations"][OVER_CAPACITY], "truncated");
    }

    #[test]
    fn e18_what_was_written_is_not_written_again() {
        let written = body(&[pod(1, true), pod(2, false)]);
        let known = Endpoints::read(&written);
        let service = service();
        let pods = [pod(1, true), pod(2, false)];
        let pods: Vec<&Pod> = pods.iter().collect();
        let backing = Backing {
            service: &service,
            pods: &pods,
            node: &|_| None,
            trigger: None,
            cpus: None,
        };
        assert_eq!(endpoints(&backing, Some(&known)), Step::default());
    }
}
