//! Which EndpointSlices a Service should have.
//!
//! Desired endpoints are grouped by address family and by the ports that they
//! resolve to (E1, E9). Each group is packed into the slices that are there:
//! endpoints stay in the slice where they are, gaps are filled fullest slice
//! first, nothing is moved (E14). So one changed pod is one changed slice.

mod found;
mod hints;
mod mirror;
mod pack;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use portolan_model::Family;
use portolan_model::workloads::{
    Hints, Node, ObjectKey, Pod, Service, Slice, SliceEndpoint, SlicePort, Target,
};
use serde_json::{Map, Value, json};

use crate::workloads::{Action, Kind, Step, Write, controller_reference};
pub use found::{selecting, services_by_selector};
pub use hints::by_cpu;
pub use mirror::{MIRRORING, mirror};
use pack::{Change, Identity};
pub use topology::{Cpus, cpus};

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names a slice's author.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The author that the slices made here name.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The label of slices of Services without an address.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// The annotation for the network programming latency (E15).
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Endpoints per slice (E1).
pub const MAX_ENDPOINTS: usize = 100;
/// A pod's node that is not known yet is looked for after this long (E11).
const NODE_MISSING: Duration = Duration::from_millis(500);

/// A Service and what stands behind it.
pub struct Backing<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Pods that it selects.
    pub pods: &'a [&'a Pod],
    /// Looks a node up.
    pub node: &'a dyn Fn(&str) -> Option<&'a Node>,
    /// The oldest change that is not written yet (E15).
    pub trigger: Option<Timestamp>,
    /// The CPUs of the zones, where the Service asks for a share by them (E16).
    pub cpus: Option<&'a Cpus>,
}

/// What brings the slices of a Service up to date. `existing` are those that
/// this controller manages.
pub fn slices(backing: &Backing<'_>, existing: &[&Slice]) -> Step {
    let mut step = Step::default();
    let service = backing.service;
    // E13: without a selector somebody else writes the slices.
    if service.selector.is_none() || service.external_name || service.meta.deleting {
        return step;
    }
    let existing: Vec<&Slice> = existing
        .iter()
        .copied()
        .filter(|s| !s.meta.deleting)
        .collect();
    let labels = labels(service);
    let mut late = Vec::new();
    for family in &service.families {
        let here: Vec<&Slice> = existing
            .iter()
            .copied()
            .filter(|s| s.family == Some(*family))
            .collect();
        let mut wanted = desired(backing, *family, &mut step);
        let (written, verdict) = (step.writes.len(), share(backing, &mut wanted));
        for change in pack::family(wanted, &here) {
            match change {
                Change::Create { ports, endpoints } => {
                    step.writes
                        .push(create(backing, *family, &ports, &endpoints, &labels));
                }
                Change::Keep(slice) => update(backing, slice, None, &labels, &mut step),
                Change::Update {
                    slice,
                    ports,
                    endpoints,
                } => {
                    update(
                        backing,
                        slice,
                        Some((&ports, &endpoints)),
                        &labels,
                        &mut step,
                    );
                }
                Change::Delete(slice) => late.push(delete(slice)),
            }
        }
        // Told when something changes, not at every look.
        if let Some(verdict) = verdict.filter(|_| step.writes.len() > written) {
            hints::tell(service, *family, verdict, &here, &mut step);
        }
    }
    // E4: slices of families that the Service has no more.
    late.extend(
        existing
            .iter()
            .filter(|s| {
                s.family
                    .is_none_or(|family| !service.families.contains(&family))
            })
            .map(|slice| delete(slice)),
    );
    // Last, so that no endpoint is missing in between.
    step.writes.append(&mut late);
    step
}

/// The endpoints of a family, by the ports that they resolve to.
fn desired(
    backing: &Backing<'_>,
    family: Family,
    step: &mut Step,
) -> BTreeMap<Vec<SlicePort>, BTreeMap<Identity, SliceEndpoint>> {
    let mut groups: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for pod in backing.pods.iter().copied() {
        // E5: what has ended is out; what is terminating is in.
        if pod.is_finished() || !backing.service.selects(&pod.meta.labels) {
            continue;
        }
        let address = pod.addresses.iter().find(|ip| Family::of(**ip) == family);
        let Some(address) = address else {
            continue;
        };
        let node = (backing.node)(&pod.node);
        if node.is_none() && !pod.node.is_empty() && !backing.service.publish_not_ready {
            step.look_again(NODE_MISSING);
            continue;
        }
        let endpoint = endpoint(backing.service, pod, address.to_string(), node);
        groups
            .entry(ports(backing.service, pod))
            .or_default()
            .insert(pack::identity(&endpoint), endpoint);
    }
    groups
}

/// Hints by CPU, where the Service asks for them (E16).
fn share(
    backing: &Backing<'_>,
    groups: &mut BTreeMap<Vec<SlicePort>, BTreeMap<Identity, SliceEndpoint>>,
) -> Option<Result<(), String>> {
    hints::by_cpu(backing.service).then(|| {
        let endpoints = groups.values_mut().flat_map(BTreeMap::values_mut);
        topology::allocate(&mut endpoints.collect::<Vec<_>>(), backing.cpus)
    })
}

/// One pod as an endpoint (E6, E7, E8).
fn endpoint(service: &Service, pod: &Pod, address: String, node: Option<&Node>) -> SliceEndpoint {
    let terminating = pod.meta.deleting;
    let named = !pod.hostname.is_empty() && pod.subdomain == service.meta.key.name;
    let mut endpoint = SliceEndpoint {
        address,
        target: Some(Target::pod(pod)),
        ready: service.publish_not_ready || (pod.ready && !terminating),
        serving: pod.ready,
        terminating,
        hostname: if named {
            pod.hostname.clone()
        } else {
            String::new()
        },
        node: pod.node.clone(),
        zone: node
            .and_then(|node| node.meta.labels.get(ZONE))
            .cloned()
            .unwrap_or_default(),
        hints: Hints::default(),
    };
    endpoint.hints = hints::of(service, &endpoint);
    endpoint
}

/// The Service's ports in a pod; names that do not resolve are left out (E10).
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<SlicePort> {
    let mut ports: Vec<SlicePort> = service
        .ports
        .iter()
        .filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone(),
                protocol: port.protocol,
                port: Some(port.resolve(pod)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

/// The labels of every slice of a Service (E2).
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.meta.labels.clone();
    labels.remove(HEADLESS);
    if service.headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.meta.key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

fn create(
    backing: &Backing<'_>,
    family: Family,
    ports: &[SlicePort],
    endpoints: &[SliceEndpoint],
    labels: &BTreeMap<String, String>,
) -> Write {
    let key = &backing.service.meta.key;
    let mut metadata = json!({
        // E3: names cannot be guessed, so that two writers never collide.
        "generateName": format!("{}-", key.name),
        "namespace": key.namespace,
        "labels": labels,
        "ownerReferences": [controller_reference(Kind::Service, &backing.service.meta)],
    });
    if let Some(trigger) = backing.trigger {
        metadata["annotations"] = json!({TRIGGER_TIME: trigger.to_string()});
    }
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family.to_string(),
        "endpoints": endpoints.iter().map(endpoint_json).collect::<Vec<_>>(),
        "ports": ports.iter().map(port_json).collect::<Vec<_>>(),
    });
    Write::quiet(
        Kind::EndpointSlice,
        ObjectKey::new(&key.namespace, ""),
        Action::Create(body),
    )
}

/// Writes a slice where its content or its labels differ.
fn update(
    backing: &Backing<'_>,
    slice: &Slice,
    content: Option<(&[SlicePort], &[SliceEndpoint])>,
    labels: &BTreeMap<String, String>,
    step: &mut Step,
) {
    let relabel = changes(&slice.meta.labels, labels);
    if content.is_none() && relabel.is_empty() {
        return;
    }
    let trigger = backing.trigger.map(|at| at.to_string());
    let mut patch = json!({"metadata": {
        "uid": slice.meta.uid,
        "labels": relabel,
        // No new trigger: the old one would measure nonsense.
        "annotations": {TRIGGER_TIME: trigger},
    }});
    if let Some((ports, endpoints)) = content {
        patch["endpoints"] = endpoints.iter().map(endpoint_json).collect();
        patch["ports"] = ports.iter().map(port_json).collect();
    }
    step.write(Kind::EndpointSlice, &slice.meta, Action::Merge(patch));
}

fn delete(slice: &Slice) -> Write {
    let action = Action::Delete {
        uid: slice.meta.uid.clone(),
        force: false,
    };
    Write::quiet(Kind::EndpointSlice, slice.meta.key.clone(), action)
}

/// A merge patch from one set of texts to another.
pub(crate) fn changes(
    from: &BTreeMap<String, String>,
    to: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let gone = from
        .keys()
        .filter(|key| !to.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let new = to
        .iter()
        .filter(|(key, value)| from.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.as_str().into()));
    gone.chain(new).collect()
}

fn endpoint_json(endpoint: &SliceEndpoint) -> Value {
    let mut body = json!({
        "addresses": [endpoint.address],
        "conditions": {
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
        },
    });
    if let Some(target) = &endpoint.target {
        body["targetRef"] = target_json(target);
    }
    for (field, text) in [
        ("hostname", &endpoint.hostname),
        ("nodeName", &endpoint.node),
        ("zone", &endpoint.zone),
    ] {
        if !text.is_empty() {
            body[field] = text.as_str().into();
        }
    }
    if endpoint.hints != Hints::default() {
        body["hints"] = hints::json(&endpoint.hints);
    }
    body
}

pub(crate) fn target_json(target: &Target) -> Value {
    let mut body = json!({"kind": target.kind});
    for (field, text) in [
        ("namespace", &target.namespace),
        ("name", &target.name),
        ("uid", &target.uid),
    ] {
        if !text.is_empty() {
            body[field] = text.as_str().into();
        }
    }
    body
}

fn port_json(port: &SlicePort) -> Value {
    let mut body = json!({
        "name": port.name,
        "protocol": port.protocol.to_string().to_uppercase(),
        "port": port.port,
    });
    if let Some(protocol) = &port.app_protocol {
        body["appProtocol"] = protocol.as_str().into();
    }
    body
}

/// When what stands behind a Service last changed, as far as that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    pods: BTreeMap<ObjectKey, Timestamp>,
    service: Option<Timestamp>,
}

impl Triggers {
    /// The oldest change since these were taken, and what to remember once it
    /// is written (E15).
    pub fn since(&self, service: &Service, pods: &[&Pod]) -> (Option<Timestamp>, Self) {
        let now = Self {
            pods: pods
                .iter()
                .filter_map(|pod| Some((pod.meta.key.clone(), pod.ready_changed?)))
                .collect(),
            service: service.meta.created,
        };
        let changed_pods = now
            .pods
            .iter()
            .filter(|(key, at)| self.pods.get(*key).is_none_or(|before| before < *at))
            .map(|(_, at)| *at);
        let changed_service = now.service.filter(|_| now.service != self.service);
        (changed_pods.chain(changed_service).min(), now)
    }
}
