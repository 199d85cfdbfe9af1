//! A cluster for tables: objects as they are written, a server that takes every
//! write, and the controller, which looks until there is nothing left to do.

use std::collections::{BTreeMap, BTreeSet};

use portolan_api::patch::{self, PatchType};
use portolan_model::workloads::{BalancedService, BalancerNode, Object, ObjectKey, Pool};
use serde_json::{Value, json};

use super::{Around, LoadBalancer, Places, Turn};
use crate::workloads::Action;

/// The time in all conditions.
pub(super) const NOW: &str = "2026-01-02T03:04:05Z";

#[derive(Clone, Debug, Default)]
pub(super) struct Bed {
    pub(super) balancer: LoadBalancer,
    pub(super) services: BTreeMap<ObjectKey, Value>,
    pub(super) nodes: BTreeMap<String, Value>,
    pub(super) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The nodes of each Service's ready endpoints.
    pub(super) ready_on: BTreeMap<ObjectKey, BTreeSet<String>>,
    pub(super) api_servers: BTreeSet<(std::net::IpAddr, u16)>,
    /// All events, `Reason Message`.
    pub(super) told: Vec<String>,
    /// How many Services were looked at.
    pub(super) looks: usize,
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// A Service of type LoadBalancer with port 80.
pub(super) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "selector": {"app": name},
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {}},
    })
}

pub(super) fn dual(name: &str, policy: &str) -> Value {
    let mut object = service(name);
    object["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    object["spec"]["ipFamilyPolicy"] = policy.into();
    object
}

pub(super) fn pool(name: &str, ranges: &[&str]) -> Value {
    json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name}, "spec": {"addresses": ranges},
    })
}

pub(super) fn node(name: &str, addresses: &[(&str, &str)]) -> Value {
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|(kind, address)| json!({"type": kind, "address": address}))
        .collect();
    json!({
        "metadata": {"name": name},
        "status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    })
}

impl Bed {
    pub(super) fn read(&self, key: &ObjectKey) -> BalancedService {
        BalancedService::read(&self.services[key])
    }

    /// Makes or changes a Service and looks at it.
    pub(super) fn put(&mut self, object: Value) {
        let key = BalancedService::read(&object).meta.key;
        self.services.insert(key.clone(), object);
        self.look([key].into());
    }

    /// Changes a Service and looks at it.
    pub(super) fn edit(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        change(self.services.get_mut(&key(name)).unwrap());
        self.look([key(name)].into());
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.services.remove(&key(name));
        let turn = self.balancer.forget(&key(name));
        self.look(turn.woken);
    }

    /// A pool comes or changes; everybody looks if it is the first.
    pub(super) fn pool(&mut self, object: &Value) {
        let by_nodes = self.balancer.is_by_nodes();
        let mut touched = self.balancer.set_pool(Pool::read(object));
        if by_nodes != self.balancer.is_by_nodes() {
            touched.extend(self.services.keys().cloned());
        }
        self.look(touched);
    }

    pub(super) fn drop_pool(&mut self, name: &str) {
        let by_nodes = self.balancer.is_by_nodes();
        let mut touched = self.balancer.remove_pool(&ObjectKey::new("", name));
        if by_nodes != self.balancer.is_by_nodes() {
            touched.extend(self.services.keys().cloned());
        }
        self.look(touched);
    }

    pub(super) fn node(&mut self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.nodes.insert(name, object);
        self.look(self.services.keys().cloned().collect());
    }

    /// The controller starts anew, with nothing but what the server has.
    pub(super) fn restart(&mut self, pools: &[Value]) {
        self.balancer = LoadBalancer::default();
        for object in pools {
            self.balancer.set_pool(Pool::read(object));
        }
        for key in self.services.keys().cloned().collect::<Vec<_>>() {
            let service = self.read(&key);
            self.with(&service.clone(), |balancer, around| {
                balancer.adopt(&service, around)
            });
        }
        self.look(self.services.keys().cloned().collect());
    }

    fn with<T>(
        &mut self,
        service: &BalancedService,
        run: impl FnOnce(&mut LoadBalancer, &Around<'_>) -> T,
    ) -> T {
        let nodes: Vec<BalancerNode> = self.nodes.values().map(BalancerNode::read).collect();
        let nodes: Vec<&BalancerNode> = nodes.iter().collect();
        let none = BTreeSet::new();
        let ready = self.ready_on.get(&service.meta.key).unwrap_or(&none);
        let no_labels = BTreeMap::new();
        let namespace = self.namespaces.get(&service.meta.key.namespace);
        let around = Around {
            places: Places {
                nodes: &nodes,
                ready_on: &ready.iter().map(String::as_str).collect(),
                api_servers: &self.api_servers,
            },
            namespace: namespace.unwrap_or(&no_labels),
            now: NOW.parse().unwrap(),
        };
        run(&mut self.balancer, &around)
    }

    /// Looks at these Services, and at those that are woken, until all is written.
    pub(super) fn look(&mut self, mut keys: BTreeSet<ObjectKey>) {
        let mut rounds = 0;
        while let Some(key) = keys.pop_first() {
            rounds += 1;
            assert!(rounds < 10_000, "no end");
            if !self.services.contains_key(&key) {
                continue;
            }
            self.looks += 1;
            let service = self.read(&key);
            let turn = self.with(&service, |balancer, around| {
                balancer.converge(&service, around)
            });
            keys.extend(turn.woken.iter().cloned());
            if self.carry_out(&key, &turn) {
                keys.insert(key);
            }
        }
    }

    fn carry_out(&mut self, key: &ObjectKey, turn: &Turn) -> bool {
        let tells = turn.step.tell.iter();
        self.told
            .extend(tells.map(|tell| format!("{} {}", tell.reason, tell.message)));
        let kind = portolan_api::kinds::by_kind("", "v1", "Service").unwrap();
        for write in &turn.step.writes {
            let object = self.services.get_mut(key).unwrap();
            let (Action::Strategic(body) | Action::StrategicStatus(body)) = &write.action else {
                panic!("not a patch: {write:?}");
            };
            *object = patch::apply(kind, PatchType::Strategic, object, body).unwrap();
        }
        !turn.step.writes.is_empty()
    }

    /// The addresses in a Service's status.
    pub(super) fn has(&self, name: &str) -> Vec<String> {
        let object = &self.services[&key(name)];
        let entries = object["status"]["loadBalancer"]["ingress"].as_array();
        let ips = entries.into_iter().flatten().map(|one| &one["ip"]);
        ips.map(|ip| ip.as_str().unwrap().to_owned()).collect()
    }

    /// A condition of a Service, `Status Reason Message`.
    pub(super) fn condition(&self, name: &str, kind: &str) -> String {
        let service = self.read(&key(name));
        service.condition(kind).map_or_else(String::new, |one| {
            format!("{} {} {}", one.status, one.reason, one.message)
        })
    }

    pub(super) fn why(&self, name: &str) -> String {
        self.condition(name, super::CONDITION)
    }
}
