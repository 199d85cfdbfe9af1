use std::collections::BTreeSet;
use std::net::SocketAddr;

use portolan_model::{
    Affinity, Change, Cluster, Conditions, Dirty, Endpoint, Fact, Family, Key, Protocol,
    Publication, Service, ServiceKey, ServicePort, Slice, SliceKey, SlicePort, TrafficPolicy,
};

use super::{Flow, Judge, Scope, Stale};
use crate::node::{NodePlan, Touched, renode};
use crate::view::{NodePortAddresses, NodePorts, NodeView};
use crate::{Frontend, Place};

const VIP: &str = "10.96.0.9:53";
const NODE: &str = "172.18.0.2:30053";
const A: &str = "10.244.1.2:5353";
const B: &str = "10.244.2.2:5353";
const C: &str = "10.244.2.3:5353";

const LEAVING: Conditions = Conditions {
    ready: false,
    serving: true,
    terminating: true,
};
const UNREADY: Conditions = Conditions {
    ready: false,
    serving: false,
    terminating: false,
};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A cluster, the plan of its node, and what the last change touched.
struct World {
    cluster: Cluster,
    plan: NodePlan,
    scope: Scope,
}

impl World {
    /// A Service of one UDP port, with endpoints.
    fn new(endpoints: &[(&str, Conditions)]) -> Self {
        let view = NodeView {
            node: "n1".into(),
            node_addresses: vec![at(NODE).ip()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            dns_addresses: vec!["10.96.0.10".parse().unwrap()],
            ..NodeView::default()
        };
        let mut world = Self {
            cluster: Cluster::default(),
            plan: NodePlan::empty(view),
            scope: Scope::default(),
        };
        world.apply(Change::Upsert(Fact::Service(service().into())));
        world.endpoints(endpoints);
        world
    }

    fn apply(&mut self, change: Change) -> Touched {
        let dirty: Dirty = self.cluster.apply(change);
        let view = self.plan.view.clone();
        let touched = renode(&mut self.plan, &self.cluster, &view, &dirty);
        self.scope = Scope::of(&self.plan, &self.cluster, &dirty, &touched);
        touched
    }

    fn endpoints(&mut self, endpoints: &[(&str, Conditions)]) {
        let endpoint = |(address, conditions): &(&str, Conditions)| Endpoint {
            address: at(address).ip(),
            conditions: *conditions,
            zone: 0,
            node: Some(if *address == A { "n1" } else { "n2" }.into()),
            hostname: None,
            pod: None,
            hints: None,
        };
        let slice = Slice {
            key: SliceKey::new("default", "dns-1"),
            service: service().key,
            family: Family::V4,
            headless: false,
            weight: 1,
            ports: vec![SlicePort {
                name: "dns".into(),
                protocol: Protocol::Udp,
                port: Some(5353),
            }],
            endpoints: endpoints.iter().map(endpoint).collect(),
            zones: Box::default(),
        };
        self.apply(Change::Upsert(Fact::Slice(slice.into())));
    }

    fn judge(&self, scope: &Scope, flow: Flow) -> Option<Stale> {
        let own = BTreeSet::from([at(NODE).ip()]);
        Judge::new(&self.plan, &self.cluster, scope, &own).judge(&flow)
    }

    /// By what changed last, and by everything: both say the same.
    fn both(&self, to: &str, answers_from: &str) -> Option<Stale> {
        let flow = udp(to, answers_from);
        let all = self.judge(&Scope::everything(), flow);
        assert_eq!(self.judge(&self.scope, flow), all, "{to} {answers_from}");
        all
    }
}

fn service() -> Service {
    Service {
        key: ServiceKey::new("default", "dns"),
        publication: Publication::NodePort,
        cluster_ips: vec![at(VIP).ip()],
        ports: vec![ServicePort {
            name: "dns".into(),
            protocol: Protocol::Udp,
            port: 53,
            node_port: Some(30053),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        other_proxy: None,
        outer: None,
        spread: None,
    }
}

fn udp(to: &str, answers_from: &str) -> Flow {
    Flow {
        protocol: Protocol::Udp,
        to: at(to),
        answers_from: at(answers_from),
        zoned: false,
    }
}

fn vip() -> Frontend {
    Frontend {
        place: Place::ClusterIp(at(VIP).ip()),
        protocol: Protocol::Udp,
        port: 53,
    }
}

fn node_port() -> Frontend {
    Frontend {
        place: Place::NodePort(Family::V4),
        protocol: Protocol::Udp,
        port: 30053,
    }
}

#[test]
fn p17_flows_to_endpoints_that_left_end() {
    let mut world = World::new(&[(A, Conditions::READY), (B, Conditions::READY)]);
    assert_eq!(world.both(VIP, B), None);
    world.endpoints(&[(A, Conditions::READY), (C, Conditions::READY)]);
    assert_eq!(world.both(VIP, B), Some(Stale::NotServing(vip())));
    assert_eq!(world.both(NODE, B), Some(Stale::NotServing(node_port())));
    for serving in [A, C] {
        assert_eq!(world.both(VIP, serving), None);
        assert_eq!(world.both(NODE, serving), None);
    }
    let elsewhere = udp(VIP, "10.244.1.2:9999");
    let stale = world.judge(&Scope::everything(), elsewhere);
    assert_eq!(
        stale,
        Some(Stale::NotServing(vip())),
        "a port nobody serves"
    );
}

#[test]
fn p17_without_endpoints_every_flow_ends() {
    let mut world = World::new(&[(A, Conditions::READY)]);
    world.endpoints(&[]);
    assert_eq!(world.both(VIP, A), Some(Stale::NotServing(vip())));
    assert_eq!(world.both(VIP, VIP), Some(Stale::NotTranslated(vip())));
    world.endpoints(&[(A, UNREADY)]);
    let all = world.judge(&Scope::everything(), udp(VIP, A));
    assert_eq!(all, Some(Stale::NotServing(vip())));
}

#[test]
fn p17_flows_from_before_the_rules_end() {
    let world = World::new(&[(A, Conditions::READY)]);
    assert_eq!(world.both(VIP, VIP), Some(Stale::NotTranslated(vip())));
    assert_eq!(
        world.both(NODE, NODE),
        Some(Stale::NotTranslated(node_port()))
    );
    let zoned = Flow {
        zoned: true,
        ..udp(VIP, VIP)
    };
    assert_eq!(world.judge(&Scope::everything(), zoned), None);
}

#[test]
fn p17_policies_and_hints_end_no_flow() {
    let mut world = World::new(&[(A, Conditions::READY), (B, Conditions::READY)]);
    let local = Service {
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        ..service()
    };
    world.apply(Change::Upsert(Fact::Service(local.into())));
    assert_eq!(world.both(VIP, B), None, "on another node");
    assert_eq!(world.both(NODE, B), None);
    world.endpoints(&[(A, Conditions::READY), (B, LEAVING)]);
    assert_eq!(world.both(VIP, B), None, "leaving");
    // Nothing about this is in the decision, which admits no other node anyway.
    world.endpoints(&[(A, Conditions::READY), (B, UNREADY)]);
    assert_eq!(world.both(VIP, B), Some(Stale::NotServing(vip())));
}

#[test]
fn p17_flows_of_a_deleted_service_end() {
    let mut world = World::new(&[(A, Conditions::READY)]);
    world.apply(Change::Delete(Key::Service(service().key)));
    assert_eq!(world.both(VIP, A), Some(Stale::NoFrontend));
    // What a node port led to is only known while it goes.
    let gone = world.judge(&world.scope, udp(NODE, A));
    assert_eq!(gone, Some(Stale::NoFrontend));
    let foreign = world.judge(&world.scope, udp(NODE, "10.244.7.7:53"));
    assert_eq!(foreign, None, "somebody else's translation of that port");
    assert_eq!(world.both(VIP, VIP), None);
}

#[test]
fn p17_foreign_flows_stay() {
    let world = World::new(&[(A, Conditions::READY)]);
    for (to, answers_from) in [
        ("192.0.2.1:53", "192.0.2.1:53"),
        ("192.0.2.1:30053", "192.0.2.7:30053"),
        ("172.18.0.2:5353", "10.244.1.9:5353"),
        ("10.96.0.10:53", "10.244.1.9:53"),
    ] {
        let stale = world.judge(&Scope::everything(), udp(to, answers_from));
        assert_eq!(stale, None, "{to}");
    }
    let tcp = Flow {
        protocol: Protocol::Tcp,
        ..udp(VIP, B)
    };
    assert_eq!(world.judge(&Scope::everything(), tcp), None, "P18");
}

#[test]
fn p17_another_proxys_flows_stay() {
    let mut world = World::new(&[(A, Conditions::READY)]);
    let theirs = Service {
        other_proxy: Some("mesh".into()),
        ..service()
    };
    world.apply(Change::Upsert(Fact::Service(theirs.into())));
    let all = Scope::everything();
    assert_eq!(world.judge(&all, udp(VIP, "10.244.7.7:53")), None);
    assert_eq!(world.judge(&world.scope, udp(VIP, "10.244.7.7:53")), None);
}

#[test]
fn p17_only_what_can_be_stale_is_asked_for() {
    let mut world = World::new(&[(A, Conditions::READY)]);
    assert_eq!(Scope::default().questions(&world.plan), []);
    let [all] = Scope::everything().questions(&world.plan)[..] else {
        panic!("there is no SCTP");
    };
    assert_eq!(
        (all.protocol, all.family, all.port),
        (Protocol::Udp, None, None)
    );
    world.endpoints(&[(A, Conditions::READY), (B, Conditions::READY)]);
    assert_eq!(world.scope.questions(&world.plan), [], "nobody left");
    let dns = Key::Service(service().key);
    let mut of_one = service();
    of_one.publication = Publication::ClusterIp;
    world.apply(Change::Delete(dns));
    world.apply(Change::Upsert(Fact::Service(of_one.into())));
    let [one] = world.scope.questions(&world.plan)[..] else {
        panic!("one protocol");
    };
    assert_eq!(one.address, Some(at(VIP).ip()));
    assert_eq!(one.port, Some(53));
}

#[test]
fn p17_node_ports_on_any_address_are_the_nodes_own() {
    let mut world = World::new(&[(A, Conditions::READY)]);
    let view = NodeView {
        node_ports: NodePorts::both(NodePortAddresses::AnyLocal),
        ..(*world.plan.view).clone()
    };
    renode(&mut world.plan, &world.cluster, &view, &Dirty::default());
    let all = Scope::everything();
    assert!(all.needs_own_addresses(&world.plan));
    assert_eq!(
        world.judge(&all, udp(NODE, B)),
        Some(Stale::NotServing(node_port()))
    );
    assert_eq!(world.judge(&all, udp("192.0.2.1:30053", B)), None);
}
