//! A cluster for tables: objects as they are written, and the nodes that look at them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::workloads::{
    BalancedService, BalancerNode, BgpAnnouncement, CommunityNames, L2Announcement, Object,
    ObjectKey, Peer, Pool, Speaker,
};
use serde_json::{Value, json};

use super::{Account, Announcing, Facts, Ground, Touched, account};

#[derive(Clone, Debug, Default)]
pub(super) struct Bed {
    pub(super) nodes: BTreeMap<String, Value>,
    pub(super) speakers: BTreeMap<String, Value>,
    pub(super) pools: BTreeMap<ObjectKey, Value>,
    pub(super) l2: BTreeMap<ObjectKey, Value>,
    pub(super) bgp: BTreeMap<ObjectKey, Value>,
    pub(super) peers: BTreeMap<ObjectKey, Value>,
    pub(super) communities: BTreeMap<ObjectKey, Value>,
    pub(super) services: BTreeMap<ObjectKey, Value>,
    /// The nodes of each Service's ready endpoints.
    pub(super) ready_on: BTreeMap<ObjectKey, BTreeSet<String>>,
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

pub(super) fn key_of(object: &Value) -> ObjectKey {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

pub(super) fn service(name: &str, addresses: &[&str]) -> Value {
    let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "type": "LoadBalancer", "ports": [{"port": 80}],
            "externalTrafficPolicy": "Cluster", "selector": {"app": name},
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

pub(super) fn local(name: &str, addresses: &[&str]) -> Value {
    let mut object = service(name, addresses);
    object["spec"]["externalTrafficPolicy"] = "Local".into();
    object
}

pub(super) fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

/// An object of MetalLB.
pub(super) fn metal(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec})
}

impl Bed {
    /// Three nodes with one link in 192.0.2.0/24 and 2001:db8::/64, of which n3 has
    /// another in 198.51.100.0/24; a pool of our own in each.
    pub(super) fn new() -> Self {
        let mut bed = Self::default();
        for n in 1..=3 {
            bed.node(&format!("n{n}"), true, json!({"rack": format!("r{n}")}));
            let mut links = vec![json!({
                "name": "eth0",
                "addresses": [format!("192.0.2.{n}/24"), format!("2001:db8::{n}/64")],
            })];
            if n == 3 {
                links.push(json!({"name": "eth1", "addresses": ["198.51.100.3/24"]}));
                links.push(json!({"name": "docker0", "addresses": ["172.17.0.1/16"]}));
            }
            bed.speaker(&format!("n{n}"), &links.into());
        }
        let ranges = json!(["192.0.2.128/25", "2001:db8::100/120"]);
        bed.pool(object("home", json!({"addresses": ranges})));
        bed.pool(object("other", json!({"addresses": ["198.51.100.128/25"]})));
        bed
    }

    pub(super) fn node(&mut self, name: &str, ready: bool, labels: Value) {
        let status = if ready { "True" } else { "False" };
        let object = json!({
            "metadata": {"name": name, "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        });
        self.nodes.insert(name.to_owned(), object);
    }

    pub(super) fn speaker(&mut self, node: &str, links: &Value) {
        let object = json!({
            "metadata": {
                "name": node, "namespace": "portolan",
                "annotations": {"portolan.dev/links": links.to_string()},
            },
            "spec": {"holderIdentity": node},
        });
        self.speakers.insert(node.to_owned(), object);
    }

    pub(super) fn pool(&mut self, object: Value) {
        self.pools.insert(key_of(&object), object);
    }

    pub(super) fn l2(&mut self, object: Value) {
        self.l2.insert(key_of(&object), object);
    }

    pub(super) fn bgp(&mut self, object: Value) {
        self.bgp.insert(key_of(&object), object);
    }

    pub(super) fn peer(&mut self, object: Value) {
        self.peers.insert(key_of(&object), object);
    }

    pub(super) fn service(&mut self, object: Value) {
        self.services.insert(key_of(&object), object);
    }

    pub(super) fn ready_on(&mut self, name: &str, nodes: &[&str]) {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        self.ready_on.insert(key(name), nodes);
    }

    pub(super) fn ground(&self) -> Ground {
        fn all<T: Object, K>(of: &BTreeMap<K, Value>) -> Vec<T> {
            of.values().map(T::read).collect()
        }
        let nodes: Vec<BalancerNode> = all(&self.nodes);
        let speakers: Vec<Speaker> = all(&self.speakers);
        let pools: Vec<Pool> = all(&self.pools);
        let l2: Vec<L2Announcement> = all(&self.l2);
        let bgp: Vec<BgpAnnouncement> = all(&self.bgp);
        let peers: Vec<Peer> = all(&self.peers);
        let communities: Vec<CommunityNames> = all(&self.communities);
        Ground::of(&Facts {
            nodes: nodes.iter().collect(),
            speakers: speakers.iter().collect(),
            pools: pools.iter().collect(),
            l2: l2.iter().collect(),
            bgp: bgp.iter().collect(),
            peers: peers.iter().collect(),
            communities: communities.iter().collect(),
            profiles: Vec::new(),
        })
    }

    pub(super) fn converge(&self, on: &mut Announcing, key: &ObjectKey) -> Touched {
        let Some(object) = self.services.get(key) else {
            return on.forget(key);
        };
        let none = BTreeSet::new();
        let ready = self.ready_on.get(key).unwrap_or(&none);
        let ready = ready.iter().map(String::as_str).collect();
        on.converge(&BalancedService::read(object), &ready)
    }

    /// What a node makes of all.
    pub(super) fn on(&self, node: &str) -> Announcing {
        let mut announcing = Announcing::new(node);
        announcing.set_ground(self.ground());
        for key in self.services.keys() {
            self.converge(&mut announcing, key);
        }
        announcing
    }

    pub(super) fn account(&self, name: &str) -> Account {
        let service = BalancedService::read(&self.services[&key(name)]);
        let none = BTreeSet::new();
        let ready = self.ready_on.get(&key(name)).unwrap_or(&none);
        let ready = ready.iter().map(String::as_str).collect();
        account(&self.ground(), &service, service.ingress[0], &ready)
    }

    /// Who may answer for an address: `n1 on eth0, n2 on eth0`.
    pub(super) fn answers(&self, address: &str) -> String {
        candidates(&self.on("n1"), address)
    }

    /// What a node tells its peers: `tor 192.0.2.130/32`.
    pub(super) fn tells(&self, node: &str) -> Vec<String> {
        let announcing = self.on(node);
        let routes = announcing.routes();
        routes
            .map(|(peer, prefix)| format!("{peer} {prefix}"))
            .collect()
    }

    /// Why nodes do not announce the address of a Service: `n2: not ready`.
    pub(super) fn mutes(&self, name: &str) -> Vec<String> {
        let account = self.account(name);
        let l2 = account.l2.iter().flat_map(|on| &on.nodes);
        let l2 = l2.filter_map(|(node, on)| Some((node, on.as_ref().err()?)));
        let bgp = account.bgp.iter().flat_map(|to| &to.nodes);
        let bgp = bgp.filter_map(|(node, to)| Some((node, to.as_ref().err()?)));
        l2.chain(bgp)
            .map(|(node, why)| format!("{node}: {why}"))
            .collect()
    }
}

pub(super) fn candidates(announcing: &Announcing, address: &str) -> String {
    let address: IpAddr = address.parse().unwrap();
    let nodes = announcing.candidates(address).into_iter();
    let nodes = nodes.map(|(node, links)| {
        let links: Vec<&str> = links.iter().map(AsRef::as_ref).collect();
        format!("{node} on {}", links.join("+"))
    });
    nodes.collect::<Vec<_>>().join(", ")
}
