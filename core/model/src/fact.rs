//! What we know of each object: only the fields that a decision needs.
//!
//! The lean forms have public fields and no `Serialize`: the API's language
//! ends at [`crate::intake`].

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::algorithm::Algorithm;
use crate::attached::Uid;
use crate::cluster_policy::ClusterPolicy;
use crate::key::{Family, PodKey, PolicyKey, Protocol, ServiceKey, SliceKey};
use crate::labels::Labels;
use crate::policy::NetworkPolicy;
use crate::text::{Interner, Text};

/// One known object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    Slice(Arc<Slice>),
    /// A Node.
    Node(Arc<Node>),
    /// A Namespace.
    Namespace(Namespace),
    /// A ServiceCIDR.
    ServiceCidr(Arc<ServiceCidr>),
    /// A Pod.
    Pod(Arc<Pod>),
    /// A NetworkPolicy.
    Policy(Arc<NetworkPolicy>),
    /// A ClusterNetworkPolicy.
    ClusterPolicy(Arc<ClusterPolicy>),
}

/// The kinds that facts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Services.
    Service,
    /// EndpointSlices.
    Slice,
    /// Nodes.
    Node,
    /// Namespaces.
    Namespace,
    /// ServiceCIDRs; servers before Kubernetes 1.33 have none.
    ServiceCidr,
    /// Pods, which only those watch who answer for their names (D15) or enforce
    /// policies.
    Pod,
    /// NetworkPolicies, which only those watch who enforce them.
    Policy,
    /// ClusterNetworkPolicies, which they watch too; many servers have none.
    ClusterPolicy,
}

impl Kind {
    /// All kinds that every agent lists before anything is programmed.
    pub const ALL: [Self; 5] = [
        Self::Service,
        Self::Slice,
        Self::Node,
        Self::Namespace,
        Self::ServiceCidr,
    ];

    /// The same, and pods.
    pub const ALL_AND_PODS: [Self; 6] = [
        Self::Service,
        Self::Slice,
        Self::Node,
        Self::Namespace,
        Self::ServiceCidr,
        Self::Pod,
    ];
}

/// Names one fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A Service.
    Service(ServiceKey),
    /// An EndpointSlice.
    Slice(SliceKey),
    /// A Node.
    Node(Text),
    /// A Namespace.
    Namespace(Text),
    /// A ServiceCIDR.
    ServiceCidr(Text),
    /// A Pod.
    Pod(PodKey),
    /// A NetworkPolicy.
    Policy(PolicyKey),
    /// A ClusterNetworkPolicy.
    ClusterPolicy(Text),
}

impl Fact {
    /// The name of this fact.
    pub fn key(&self) -> Key {
        match self {
            Self::Service(service) => Key::Service(service.key.clone()),
            Self::Slice(slice) => Key::Slice(slice.key.clone()),
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Namespace(namespace) => Key::Namespace(namespace.name.clone()),
            Self::ServiceCidr(cidr) => Key::ServiceCidr(cidr.name.clone()),
            Self::Pod(pod) => Key::Pod(pod.key.clone()),
            Self::Policy(policy) => Key::Policy(policy.key.clone()),
            Self::ClusterPolicy(policy) => Key::ClusterPolicy(policy.name.clone()),
        }
    }

    /// Replaces the strings that repeat by the copies that `texts` holds.
    pub fn share(&mut self, texts: &mut Interner) {
        match self {
            Self::Service(service) => Arc::make_mut(service).share(texts),
            Self::Slice(slice) => Arc::make_mut(slice).share(texts),
            Self::Pod(pod) => Arc::make_mut(pod).share(texts),
            Self::Node(_)
            | Self::Namespace(_)
            | Self::ServiceCidr(_)
            | Self::Policy(_)
            | Self::ClusterPolicy(_) => {}
        }
    }
}

impl Key {
    /// The kind that this key names.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Slice(_) => Kind::Slice,
            Self::Node(_) => Kind::Node,
            Self::Namespace(_) => Kind::Namespace,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
            Self::Pod(_) => Kind::Pod,
            Self::Policy(_) => Kind::Policy,
            Self::ClusterPolicy(_) => Kind::ClusterPolicy,
        }
    }
}

/// A Service: a stable address and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// How it is published.
    pub publication: Publication,
    /// Cluster addresses, at most one per family; empty when headless or external.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports, in the object's order.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`: governs the cluster addresses only (P4).
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: governs node ports and outer addresses (P4).
    pub external_policy: TrafficPolicy,
    /// `spec.sessionAffinity`.
    pub affinity: Affinity,
    /// Whether another proxy serves it (P16); its names are ours all the same.
    pub other_proxy: Option<Text>,
    /// What few Services have.
    pub outer: Option<Box<Outer>>,
    /// What few Services have, too.
    pub spread: Option<Box<Spread>>,
}

impl Service {
    /// As [`Fact::share`].
    pub(crate) fn share(&mut self, texts: &mut Interner) {
        texts.share(&mut self.key.namespace);
        texts.share(&mut self.key.name);
        for port in &mut self.ports {
            texts.share(&mut port.name);
        }
    }

    /// Its load balancer's and external addresses.
    pub fn outer_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.outer.iter().flat_map(|outer| {
            let all = outer.load_balancer_ips.iter().chain(&outer.external_ips);
            all.copied()
        })
    }
}

/// How a Service's connections are spread over its endpoints, by its annotations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// `portolan.dev/lb-algorithm`; none for the node's default.
    pub algorithm: Option<Algorithm>,
    /// `portolan.dev/weights`: the beginnings of pods' names, without the dash that
    /// follows, each with the weight of such a pod.
    pub weights: Vec<(Text, u16)>,
}

impl Spread {
    /// The weight of a pod, by the longest beginning of its name; none when the
    /// Service does not speak of it.
    pub fn weight(&self, pod: &str) -> Option<u16> {
        let begins = |beginning: &Text| {
            let rest = pod.strip_prefix(&**beginning);
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        let matching = self.weights.iter().filter(|(text, _)| begins(text));
        let longest = matching.max_by_key(|(text, _)| text.len());
        longest.map(|(_, weight)| *weight)
    }
}

/// How a Service is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// `type: ClusterIP` with an address.
    ClusterIp,
    /// `clusterIP: None`: names only.
    Headless,
    /// `type: NodePort`.
    NodePort,
    /// `type: LoadBalancer`.
    LoadBalancer,
    /// `type: ExternalName`: an alias in DNS, nothing in the data plane.
    ExternalName(Text),
}

/// Addresses beyond the cluster's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outer {
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` with ipMode VIP (P10).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges` (P9).
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort` (P14).
    pub health_check_port: Option<u16>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when it is the only one and has none.
    pub name: Text,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port clients use.
    pub port: u16,
    /// The port on every node, when the Service has one.
    pub node_port: Option<u16>,
}

/// Which endpoints a traffic policy admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficPolicy {
    /// All endpoints of the cluster.
    Cluster,
    /// Only endpoints on the node that got the packet.
    Local,
}

/// Whether a client stays on one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Every connection chooses anew.
    None,
    /// `ClientIP`, for so many idle seconds.
    ClientIp {
        /// `sessionAffinityConfig.clientIP.timeoutSeconds`.
        seconds: u32,
    },
}

/// An EndpointSlice: some of the endpoints behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub key: SliceKey,
    /// The Service it belongs to, by label.
    pub service: ServiceKey,
    /// The family of its addresses.
    pub family: Family,
    /// Whether it carries the headless label: then the data plane ignores it (P16).
    pub headless: bool,
    /// `portolan.dev/weight`: the weight of each of its endpoints, 1 if it says
    /// nothing. The Service's own words about a pod come first.
    pub weight: u16,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// The zones that its endpoints are in, which they name by number. Only names
    /// tell of them, so whoever does not answer for those keeps none.
    pub zones: Box<[Text]>,
}

impl Slice {
    /// The zone that an endpoint of the slice is in.
    pub fn zone_of(&self, endpoint: &Endpoint) -> Option<&Text> {
        let number = usize::from(endpoint.zone).checked_sub(1)?;
        self.zones.get(number)
    }

    /// Forgets the zones of the endpoints.
    pub fn forget_zones(&mut self) {
        self.zones = Box::default();
        for endpoint in &mut self.endpoints {
            endpoint.zone = 0;
        }
    }

    /// As [`Fact::share`].
    pub(crate) fn share(&mut self, texts: &mut Interner) {
        texts.share(&mut self.key.namespace);
        texts.share(&mut self.service.namespace);
        texts.share(&mut self.service.name);
        for port in &mut self.ports {
            texts.share(&mut port.name);
        }
        for endpoint in &mut self.endpoints {
            texts.share_option(&mut endpoint.node);
            texts.share_option(&mut endpoint.pod);
        }
        for zone in &mut self.zones {
            texts.share(zone);
        }
    }
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Text,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port on the endpoint; a null port means "all ports" and serves names only.
    pub port: Option<u16>,
}

/// One endpoint: usually a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is; further addresses of the same endpoint have no meaning in Kubernetes.
    pub address: IpAddr,
    /// `conditions`, with absent values read as the API tells to.
    pub conditions: Conditions,
    /// The number of its zone among those of the slice, from 1 on; 0 for none. See
    /// [`Slice::zone_of`]. It lies where nothing else would.
    pub zone: u16,
    /// The node it runs on.
    pub node: Option<Text>,
    /// Its own name below a headless Service (D10).
    pub hostname: Option<Text>,
    /// The pod's name, for explanations and weights; in an agent only its beginning,
    /// see [`Endpoint::shorten`].
    pub pod: Option<Text>,
    /// Topology hints (P2).
    pub hints: Option<Box<Hints>>,
}

impl Endpoint {
    /// Forgets of the pod's name what follows the last dash: no weight asks for it,
    /// and what is left is the same for all pods of a ReplicaSet, so that it is kept
    /// once for all of them.
    pub fn shorten(&mut self) {
        let beginning = |name: &Text| name.rfind('-').map(|dash| Text::from(&name[..=dash]));
        self.pod = self.pod.as_ref().and_then(beginning);
    }
}

/// The three conditions of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Absent means true.
    pub ready: bool,
    /// Absent means the same as ready.
    pub serving: bool,
    /// Absent means false.
    pub terminating: bool,
}

impl Conditions {
    /// Ready to serve.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };

    /// Going away but still answering (P1's fallback).
    pub fn is_serving_terminating(self) -> bool {
        self.serving && self.terminating
    }
}

/// Where an endpoint would rather be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hints {
    /// `hints.forZones`.
    pub zones: Vec<Text>,
    /// `hints.forNodes`.
    pub nodes: Vec<Text>,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Text,
    /// `status.addresses` that are IP addresses, in the object's order.
    pub addresses: Vec<NodeAddress>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Text>,
    /// Whether the cluster autoscaler is about to delete it (KEP-3836).
    pub leaving: bool,
}

/// One address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address.
    pub address: IpAddr,
    /// `InternalIP`, as opposed to `ExternalIP`.
    pub internal: bool,
}

/// A Namespace: names may be asked for in it (D6), and policies find pods by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Text,
    /// Its labels.
    pub labels: Labels,
}

/// A ServiceCIDR: ranges that cluster addresses come from (A6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Its name.
    pub name: Text,
    /// `spec.cidrs`.
    pub ranges: Vec<IpNet>,
}

/// A Pod: its address has a name (D15), and policies are about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub key: PodKey,
    /// `status.podIPs`; none before it has one, and once it has run to its end.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Which of the pods that may have that name.
    pub uid: Uid,
    /// The node that it runs on.
    pub node: Option<Text>,
    /// It has run to its end.
    pub over: bool,
    /// Whether it has its node's network: to policies it is its node then (N13).
    pub host_network: bool,
    /// The ports of its containers that have names.
    pub ports: Vec<NamedPort>,
}

/// A port of a pod that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name.
    pub name: Text,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

impl Pod {
    /// A pod of which only the address is known.
    pub fn at(key: PodKey, address: Option<IpAddr>) -> Self {
        Self {
            key,
            addresses: address.into_iter().collect(),
            labels: Labels::default(),
            uid: Uid::UNKNOWN,
            node: None,
            over: false,
            host_network: false,
            ports: Vec::new(),
        }
    }

    /// The numbers of a port that it calls so (N10).
    pub fn named(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let same = move |port: &&NamedPort| *port.name == *name && port.protocol == protocol;
        self.ports.iter().filter(same).map(|port| port.port)
    }

    /// Replaces the strings that repeat by the copies that `texts` holds.
    pub(crate) fn share(&mut self, texts: &mut Interner) {
        texts.share(&mut self.key.namespace);
        texts.share_option(&mut self.node);
        self.labels.share(texts);
        for port in &mut self.ports {
            texts.share(&mut port.name);
        }
    }
}
