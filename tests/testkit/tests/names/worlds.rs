//! Random clusters as the DNS sees them, in a universe small enough that names meet:
//! few namespaces, Services, hosts and addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::{
    Affinity, Change, Conditions, Endpoint, Fact, Family, Key, Kind, Labels, Namespace, Pod,
    PodKey, Protocol, Publication, Service, ServiceCidr, ServiceKey, ServicePort, Slice, SliceKey,
    SlicePort, Text, TrafficPolicy,
};
use portolan_plan::{NodeView, PodNames};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// One of them is called as a part of the tree is; what stands here more often is met
/// more often.
const NAMESPACES: [&str; 6] = ["default", "default", "default", "default", "1st", "svc"];
const SERVICES: [&str; 6] = ["web", "db", "db", "0-zero", "svc", "a"];
const HOSTS: [&str; 4] = ["db-0", "db-0", "DB-1", "0"];
/// Where endpoints are.
pub(crate) const ZONES: [&str; 3] = ["west-1a", "East", "far"];
/// Where aliases lead: inside, in circles, to nothing, outside.
const TARGETS: [&str; 22] = [
    "west-1a.pin._zone.db.default.svc.cluster.local",
    "far.prefer._zone.db.default.svc.cluster.local",
    "far.prefer._zone.db.default.svc.cluster.local",
    "far.prefer._zone.db.default.svc.cluster.local",
    "far.prefer._zone.db.default.svc.cluster.local",
    "web.default.svc.cluster.local",
    "db.default.svc.cluster.local",
    "Web.1st.svc.cluster.local.",
    "db-0.db.default.svc.cluster.local",
    "db-0.db.default.svc.cluster.local",
    "0-zero.default.svc.cluster.local",
    "a.default.svc.cluster.local",
    "a.default.svc.cluster.local",
    "a.default.svc.cluster.local",
    "10-244-1-1.default.pod.cluster.local",
    "10-244-1-1.default.pod.cluster.local",
    "10-244-1-1.default.pod.cluster.local",
    "missing.default.svc.cluster.local",
    "default.svc.cluster.local",
    "cluster.local",
    "db.example.com",
    "DB.Example.COM.",
];

fn text(all: &'static [&'static str]) -> impl Strategy<Value = Text> {
    select(all).prop_map(Text::from)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A Service's address; rarely one outside the ranges.
fn cluster_ip(family: Family, index: u8) -> IpAddr {
    match (family, index) {
        (Family::V4, 5) => ip("192.0.2.1"),
        (Family::V6, 5) => ip("2001:db8:5::1"),
        (Family::V4, _) => ip(&format!("10.96.0.{index}")),
        (Family::V6, _) => ip(&format!("fd00:10:96::{index}")),
    }
}

/// A pod's address, or that of a node; one ends with zeros.
pub(crate) fn pod_ip(family: Family, index: u8) -> IpAddr {
    match (family, index) {
        (Family::V4, 5) => ip("172.18.0.2"),
        // A Service's, too.
        (Family::V4, 6) => ip("10.96.0.1"),
        (Family::V6, 6) => ip("fd00:10:96::1"),
        (Family::V6, 5) => ip("2001:db8:18::2"),
        (Family::V4, _) => ip(&format!("10.244.1.{index}")),
        (Family::V6, 0 | 4) => ip("fd00:10:244:1::"),
        (Family::V6, _) => ip(&format!("fd00:10:244:1::{index}")),
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select([Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp].as_slice())
}

/// As long as the name of a port may be.
const LONGEST: &str = "a23456789-a23456789-a23456789-a23456789-a23456789-a23456789-a23";

fn port_name() -> impl Strategy<Value = Text> {
    // With its underscore the longest one is no label any more.
    text(&["http", "sql", "sql", "0", "", LONGEST])
}

fn number() -> impl Strategy<Value = u16> {
    select([53_u16, 80, 8080].as_slice())
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    (text(&NAMESPACES), text(&SERVICES))
        .prop_map(|(namespace, name)| ServiceKey { namespace, name })
}

fn publication() -> impl Strategy<Value = Publication> {
    prop_oneof![
        4 => Just(Publication::ClusterIp),
        1 => Just(Publication::NodePort),
        1 => Just(Publication::LoadBalancer),
        7 => Just(Publication::Headless),
        4 => text(&TARGETS).prop_map(Publication::ExternalName),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let port = (port_name(), protocol(), number()).prop_map(|(name, protocol, port)| ServicePort {
        name,
        protocol,
        port,
        node_port: None,
    });
    let addresses = (1_u8..6, 0..4);
    let published = (publication(), text(&TARGETS));
    (service_key(), published, addresses, vec(port, 0..4)).prop_map(
        |(key, (publication, target), (index, families), ports)| {
            // This one is always an alias, so that others can lead to one.
            let publication = if &*key.name == "a" {
                Publication::ExternalName(target)
            } else {
                publication
            };
            let addressed = !matches!(
                publication,
                Publication::Headless | Publication::ExternalName(_)
            );
            let families: &[Family] = match families {
                0 => &[Family::V4],
                1 => &[Family::V6],
                _ => &[Family::V4, Family::V6],
            };
            let ips = families.iter().map(|family| cluster_ip(*family, index));
            Service {
                key,
                publication,
                cluster_ips: ips.filter(|_| addressed).collect(),
                ports,
                internal_policy: TrafficPolicy::Cluster,
                external_policy: TrafficPolicy::Cluster,
                affinity: Affinity::None,
                other_proxy: None,
                outer: None,
                spread: None,
            }
        },
    )
}

/// Ready, not ready, and ready although it terminates (publishNotReadyAddresses).
fn conditions() -> impl Strategy<Value = Conditions> {
    let of = |(ready, serving, terminating)| Conditions {
        ready,
        serving,
        terminating,
    };
    prop_oneof![
        6 => Just((true, true, false)),
        1 => Just((false, true, true)),
        2 => Just((false, false, false)),
        1 => Just((true, false, true)),
    ]
    .prop_map(of)
}

fn slice() -> impl Strategy<Value = Slice> {
    let family = select(Family::BOTH.as_slice());
    let key = (
        text(&NAMESPACES),
        text(&["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"]),
    );
    let port = (
        port_name(),
        protocol(),
        proptest::option::weighted(0.9, number()),
    );
    let port = port.prop_map(|(name, protocol, port)| SlicePort {
        name,
        protocol,
        port,
    });
    let hostname = proptest::option::weighted(0.6, text(&HOSTS));
    let endpoint = (0_u8..7, conditions(), hostname, 0_u16..4);
    (
        family,
        key,
        text(&SERVICES),
        vec(port, 0..4),
        vec(endpoint, 1..6),
    )
        .prop_map(
            |(family, (namespace, name), service, ports, endpoints)| Slice {
                service: ServiceKey {
                    namespace: namespace.clone(),
                    name: service,
                },
                key: SliceKey { namespace, name },
                family,
                headless: false,
                weight: 1,
                ports,
                zones: ZONES.map(Text::from).into(),
                endpoints: endpoints
                    .into_iter()
                    .map(|(index, conditions, hostname, zone)| Endpoint {
                        address: pod_ip(family, index),
                        conditions,
                        zone,
                        node: None,
                        hostname,
                        pod: None,
                        hints: None,
                    })
                    .collect(),
            },
        )
}

fn pod() -> impl Strategy<Value = Pod> {
    let address = (select(Family::BOTH.as_slice()), 0_u8..3)
        .prop_map(|(family, index)| pod_ip(family, index));
    let key = (text(&NAMESPACES), text(&["p1", "p2", "p3"]));
    (key, proptest::option::weighted(0.8, address))
        .prop_map(|((namespace, name), address)| Pod::at(PodKey { namespace, name }, address))
}

fn service_cidr() -> impl Strategy<Value = ServiceCidr> {
    let ranges = [
        "192.0.2.0/28",
        "192.0.2.32/31",
        "10.96.0.0/24",
        "2001:db8:5::/46",
        // A node's address, and parts of a range that there is.
        "172.18.0.2/32",
        "2001:db8:18::/126",
        "10.96.0.128/28",
    ];
    let ranges = proptest::sample::subsequence(ranges.map(range).to_vec(), 1..=3);
    ranges.prop_map(|ranges| ServiceCidr {
        name: "more".into(),
        ranges,
    })
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        8 => service().prop_map(|service| Fact::Service(service.into())),
        10 => slice().prop_map(|slice| Fact::Slice(slice.into())),
        4 => text(&["default", "1st", "svc", "empty"])
            .prop_map(|name| Fact::Namespace(Namespace { name, labels: Labels::default() })),
        3 => pod().prop_map(|pod| Fact::Pod(pod.into())),
        1 => service_cidr().prop_map(|cidr| Fact::ServiceCidr(cidr.into())),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    // A list of the API has each name once.
    let list = vec(fact(), 6..12).prop_map(|facts| {
        let mut list = Vec::new();
        for fact in facts {
            replay(&mut list, &Change::Upsert(fact));
        }
        list
    });
    let list = (select(Kind::ALL_AND_PODS.as_slice()), list);
    prop_oneof![
        24 => fact().prop_map(Change::Upsert),
        4 => fact().prop_map(|fact| Change::Delete(fact.key())),
        1 => list.prop_map(|(kind, list)| Change::Replace(kind, list)),
    ]
}

/// A history of changes.
pub(crate) fn history() -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 12..56)
}

/// What of a node's view names depend on.
pub(crate) fn view() -> impl Strategy<Value = NodeView> {
    let domain = prop_oneof![
        8 => Just("cluster.local"),
        1 => Just("local"),
        1 => Just("Prod.Example.ORG"),
    ];
    let pods = select(&[PodNames::Disabled, PodNames::Insecure, PodNames::Verified][..]);
    let ranges = select(&["10.96.0.0/16", "10.96.0.0/12"][..]);
    let here = proptest::sample::subsequence(vec![ip("10.96.0.10"), ip("fd00:10:96::a")], 0..=2);
    let ttl = select(&[0_u32, 5, 30][..]);
    (domain, (pods, any::<bool>()), ttl, ranges, here).prop_map(
        |(domain, (pod_names, zonal_names), dns_ttl, services, dns_addresses)| NodeView {
            node: "node-1".into(),
            cluster_domain: domain.into(),
            service_cidrs: vec![range(services), range("fd00:10:96::/112")],
            cluster_pod_cidrs: vec![range("10.244.0.0/16"), range("fd00:10:244::/48")],
            dns_addresses,
            pod_names,
            zonal_names,
            dns_ttl,
            ..NodeView::default()
        },
    )
}

/// Takes a change into a plain list of facts.
pub(crate) fn replay(facts: &mut Vec<Fact>, change: &Change) {
    let mut drop_key = |key: &Key| facts.retain(|fact| fact.key() != *key);
    match change {
        Change::Delete(key) => drop_key(key),
        Change::Upsert(fact) => {
            drop_key(&fact.key());
            facts.push(fact.clone());
        }
        // Not generated here.
        Change::Attach(_) | Change::Detach(..) => {}
        Change::Replace(kind, list) => {
            facts.retain(|fact| fact.key().kind() != *kind);
            for fact in list.iter().filter(|fact| fact.key().kind() == *kind) {
                replay(facts, &Change::Upsert(fact.clone()));
            }
        }
    }
}
