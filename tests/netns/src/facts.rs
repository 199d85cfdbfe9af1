//! Services and their endpoints in few words, as model facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_model::{
    Affinity, Change, Conditions, Endpoint, Fact, Family, Protocol, Publication, Service,
    ServiceKey, ServicePort, Slice, SliceKey, SlicePort, Text, TrafficPolicy,
};

use crate::world::{Pod, World};

/// The port of every Service.
pub const PORT: u16 = 80;
/// Where endpoints serve the Services' TCP port.
pub const TCP_TARGET: u16 = 8080;
/// Where endpoints serve the Services' UDP port of the same number (P12).
pub const UDP_TARGET: u16 = 8081;

/// Serving while it terminates.
pub const LEAVING: Conditions = Conditions {
    ready: false,
    serving: true,
    terminating: true,
};
/// Neither ready nor serving.
pub const NOT_READY: Conditions = Conditions {
    ready: false,
    serving: false,
    terminating: false,
};
/// Ready to serve.
pub const READY: Conditions = Conditions::READY;

/// The cluster address with this number.
pub fn cluster_ip(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The node port of the Service with this number.
pub fn node_port(number: u8) -> u16 {
    30_000 + u16::from(number)
}

/// A NodePort Service of both families and protocols; its addresses and node port
/// by number.
pub fn service(name: &str, number: u8) -> Service {
    let port = |protocol: Protocol| ServicePort {
        name: protocol.name().into(),
        protocol,
        port: PORT,
        node_port: Some(node_port(number)),
    };
    Service {
        key: ServiceKey::new("default", name),
        publication: Publication::NodePort,
        cluster_ips: Family::BOTH.map(|family| cluster_ip(family, number)).into(),
        ports: [Protocol::Tcp, Protocol::Udp].map(port).into(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        other_proxy: None,
        outer: None,
        spread: None,
    }
}

/// Somebody who serves: addresses, the node, and conditions.
#[derive(Debug, Clone)]
pub struct Server {
    ips: Vec<IpAddr>,
    node: Text,
    conditions: Conditions,
}

impl Server {
    /// A pod.
    pub fn pod(world: &World, pod: &Pod, conditions: Conditions) -> Self {
        let node = world.nodes.get(pod.node).map_or("", |node| &node.net.name);
        Self {
            ips: pod.net.ips.clone(),
            node: node.into(),
            conditions,
        }
    }

    /// A process on the node itself.
    pub fn node(world: &World, node: usize) -> Self {
        let net = world.nodes.get(node).map(|node| &node.net);
        let ips = net.map(|net| net.ips.clone()).unwrap_or_default();
        Self {
            ips,
            node: net.map_or("", |net| &net.name).into(),
            conditions: READY,
        }
    }
}

/// The slices of a Service, one per family.
pub fn slices(service: &str, servers: &[Server]) -> [Change; 2] {
    Family::BOTH.map(|family| {
        let of_family = |server: &Server| {
            let address = server
                .ips
                .iter()
                .copied()
                .find(|ip| Family::of(*ip) == family)?;
            Some(Endpoint {
                address,
                conditions: server.conditions,
                zone: 0,
                node: Some(server.node.clone()),
                hostname: None,
                pod: None,
                hints: None,
            })
        };
        let port = |protocol: Protocol, port| SlicePort {
            name: protocol.name().into(),
            protocol,
            port: Some(port),
        };
        let slice = Slice {
            key: SliceKey::new("default", &format!("{service}-{family}")),
            service: ServiceKey::new("default", service),
            family,
            headless: false,
            weight: 1,
            ports: vec![
                port(Protocol::Tcp, TCP_TARGET),
                port(Protocol::Udp, UDP_TARGET),
            ],
            endpoints: servers.iter().filter_map(of_family).collect(),
            zones: Box::default(),
        };
        Change::Upsert(Fact::Slice(slice.into()))
    })
}

/// A Service and its slices.
pub fn with_endpoints(service: Service, servers: &[Server]) -> Vec<Change> {
    let slices = slices(&service.key.name, servers);
    let service = Change::Upsert(Fact::Service(service.into()));
    std::iter::once(service).chain(slices).collect()
}
