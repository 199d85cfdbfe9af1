//! Clusters of any size: as facts, and as API objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use portolan_api::lean;
use portolan_model::{Change, Cluster, Fact, Family, Kind, intake};
use portolan_plan::NodeView;
use serde_json::{Value, json};

/// How many endpoints each Service has.
pub const ENDPOINTS: usize = 5;
/// The node whose agent is measured.
pub const NODE: &str = "node-1";
/// The ranges of all pods.
pub const POD_CIDRS: [&str; 2] = ["10.240.0.0/12", "fd00:240::/32"];
/// The ranges of cluster addresses.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/108"];

/// `10000x5`: a size as figures name it.
pub fn size(services: usize) -> String {
    format!("{services}x{ENDPOINTS}")
}

/// The cluster address of Service `number`: past what is reserved.
pub fn service_ip(family: Family, number: usize) -> IpAddr {
    let offset = u32::try_from(number + 0x200).unwrap_or(u32::MAX);
    match family {
        Family::V4 => {
            Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)).saturating_add(offset)).into()
        }
        Family::V6 => six([0xfd00, 0x96, 0, 0], offset),
    }
}

/// The address of endpoint `slot` of Service `number` in its generation `turn`.
pub fn endpoint_ip(family: Family, number: usize, slot: usize, turn: usize) -> IpAddr {
    let offset =
        u32::try_from((number * ENDPOINTS + slot) % 0x8_0000 + (turn % 2) * 0x8_0000).unwrap_or(0);
    match family {
        Family::V4 => {
            Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 240, 0, 0)).saturating_add(offset)).into()
        }
        Family::V6 => six([0xfd00, 0x240, 1, 0], offset),
    }
}

fn six([a, b, c, d]: [u16; 4], offset: u32) -> IpAddr {
    let [high, low] = [offset >> 16, offset & 0xffff].map(|half| u16::try_from(half).unwrap_or(0));
    Ipv6Addr::new(a, b, c, d, 0, 0, high, low).into()
}

/// A family as API objects write it.
fn written(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Service `number` as an API object.
pub fn service(family: Family, number: usize) -> Value {
    service_with(
        family,
        number,
        json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}]),
    )
}

/// The same with ports of its own.
pub fn service_with(family: Family, number: usize, ports: Value) -> Value {
    let ip = service_ip(family, number).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("svc-{number}"), "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ipFamilies": [written(family)],
            "ports": ports,
        },
    })
}

/// The EndpointSlice of Service `number`; another `turn` moves its first endpoint.
pub fn slice(family: Family, number: usize, turn: usize) -> Value {
    let endpoint = |slot| {
        let turn = if slot == 0 { turn } else { 0 };
        endpoint_ip(family, number, slot, turn)
    };
    let addresses: Vec<IpAddr> = (0..ENDPOINTS).map(endpoint).collect();
    let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
    slice_with(family, number, &addresses, ports)
}

/// The same with these endpoints and ports.
pub fn slice_with(family: Family, number: usize, addresses: &[IpAddr], ports: Value) -> Value {
    let endpoints: Vec<Value> = (0_usize..)
        .zip(addresses)
        .map(|(slot, address)| {
            json!({
                "addresses": [address.to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{}", slot % 3 + 1),
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("svc-{number}-7d9f6c5b4-{slot:05}")},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("svc-{number}-slice"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("svc-{number}")},
        },
        "addressType": written(family),
        "ports": ports,
        "endpoints": endpoints,
    })
}

/// The node that is measured.
pub fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE},
        "spec": {"podCIDR": "10.240.1.0/24", "podCIDRs": ["10.240.1.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    })
}

/// API objects as the agent holds them while it takes them in.
pub struct Objects {
    services: Vec<lean::Service>,
    slices: Vec<lean::EndpointSlice>,
    node: lean::Node,
}

impl Objects {
    /// The objects of so many Services.
    ///
    /// # Errors
    /// When the agent's form of an object does not fit it, which a test would find.
    pub fn new(family: Family, services: usize) -> Result<Self> {
        let service = |n| serde_json::from_value(service(family, n)).context("a Service");
        let slice = |n| serde_json::from_value(slice(family, n, 0)).context("an EndpointSlice");
        Ok(Self {
            services: (0..services).map(service).collect::<Result<_>>()?,
            slices: (0..services).map(slice).collect::<Result<_>>()?,
            node: serde_json::from_value(node()).context("a Node")?,
        })
    }

    /// Intake: what is known of these objects.
    pub fn facts(&self) -> Cluster {
        let mut cluster = Cluster::default();
        let services = self.services.iter();
        let facts = services.map(|lean| Fact::Service(Arc::new(intake::service(lean).0)));
        cluster.apply(Change::Replace(Kind::Service, facts.collect()));
        let facts = self.slices.iter().filter_map(fact_of_slice);
        cluster.apply(Change::Replace(Kind::Slice, facts.collect()));
        let fact = Fact::Node(Arc::new(intake::node(&self.node).0));
        cluster.apply(Change::Replace(Kind::Node, vec![fact]));
        cluster
    }
}

fn fact_of_slice(lean: &lean::EndpointSlice) -> Option<Fact> {
    let (mut slice, _) = intake::slice(lean);
    // As the agent does.
    for endpoint in slice.iter_mut().flat_map(|slice| &mut slice.endpoints) {
        endpoint.shorten();
    }
    slice.map(|slice| Fact::Slice(Arc::new(slice)))
}

/// The change that an event is, from the text of its EndpointSlice.
///
/// # Errors
/// When the text is none.
pub fn slice_change(text: &[u8]) -> Result<Change> {
    let lean: lean::EndpointSlice = serde_json::from_slice(text)?;
    let fact = fact_of_slice(&lean).context("an EndpointSlice with a Service")?;
    Ok(Change::Upsert(fact))
}

/// The change that a Service is.
///
/// # Errors
/// When the object is none.
pub fn service_change(object: Value) -> Result<Change> {
    let lean: lean::Service = serde_json::from_value(object)?;
    Ok(Change::Upsert(Fact::Service(Arc::new(
        intake::service(&lean).0,
    ))))
}

/// A cluster of so many Services, as facts.
///
/// # Errors
/// As [`Objects::new`].
pub fn facts(family: Family, services: usize) -> Result<Cluster> {
    Ok(Objects::new(family, services)?.facts())
}

/// The measured node's view.
pub fn view(cluster: &Cluster) -> NodeView {
    let ranges = |texts: [&str; 2]| texts.iter().filter_map(|r| r.parse().ok()).collect();
    NodeView {
        node: NODE.into(),
        cluster_pod_cidrs: ranges(POD_CIDRS),
        service_cidrs: ranges(SERVICE_CIDRS),
        dns_addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
        ..NodeView::default()
    }
    .observed(cluster)
}
