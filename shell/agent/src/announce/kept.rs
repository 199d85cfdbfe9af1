//! What is kept of Services and EndpointSlices.
//!
//! Every agent holds those of the whole cluster, beside the facts of its data plane. So
//! only what announcing asks for is kept, as small as it goes: Services that are not
//! ours to serve leave nothing, and a slice the names of nodes, held once for all slices
//! that have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::workloads::{BalancedService, Meta, Object, ObjectKey, ReadyNodes};
use portolan_plan::announce::Shared;
use portolan_plan::load_balancer::is_ours;
use portolan_plan::slices::SERVICE_NAME;
use serde_json::Value;

use crate::cluster::feed::News;

/// A Service as a watch tells of it: nothing but its name where it is not ours.
#[derive(Clone)]
pub(super) struct Told(BalancedService);

impl Object for Told {
    fn read(object: &Value) -> Self {
        let service = BalancedService::read(object);
        let ours = is_ours(&service);
        let meta = Meta {
            key: service.meta.key,
            ..Meta::default()
        };
        Self(match ours {
            false => BalancedService {
                meta,
                ..BalancedService::default()
            },
            true => BalancedService {
                meta: Meta {
                    uid: service.meta.uid,
                    labels: service.meta.labels,
                    ..meta
                },
                wanted: service.wanted,
                class: service.class,
                local: service.local,
                ingress: service.ingress,
                ..BalancedService::default()
            },
        })
    }
    fn meta(&self) -> &Meta {
        &self.0.meta
    }
    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.0.meta
    }
}

/// What is kept of a Service that is ours to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    uid: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    class: Option<Box<str>>,
    local: bool,
    ingress: Box<[IpAddr]>,
}

impl Kept {
    fn of(service: BalancedService) -> Self {
        let labels = service.meta.labels.into_iter();
        Self {
            uid: service.meta.uid.into(),
            labels: labels
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            class: service.class.map(Into::into),
            local: service.local,
            ingress: service.ingress.into(),
        }
    }

    fn service(&self, key: &ObjectKey) -> BalancedService {
        let labels = self.labels.iter();
        BalancedService {
            meta: Meta {
                key: key.clone(),
                uid: self.uid.to_string(),
                labels: labels
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .collect(),
                ..Meta::default()
            },
            wanted: true,
            class: self.class.as_deref().map(str::to_owned),
            local: self.local,
            ingress: self.ingress.to_vec(),
            ..BalancedService::default()
        }
    }
}

/// The Services that are ours to serve.
#[derive(Default)]
pub(super) struct Services {
    all: BTreeMap<ObjectKey, Kept>,
    listed: bool,
}

impl Services {
    /// Whether a complete list has been seen.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Takes news in. Answers with those that are not as they were.
    pub(super) fn take(&mut self, news: News<Told>) -> BTreeSet<ObjectKey> {
        match news {
            News::All(services, _) => {
                self.listed = true;
                let mut gone: BTreeSet<ObjectKey> = self.all.keys().cloned().collect();
                let mut other = BTreeSet::new();
                for service in services {
                    gone.remove(service.key());
                    other.extend(self.put(service));
                }
                self.all.retain(|key, _| !gone.contains(key));
                other.extend(gone);
                other
            }
            News::Is(service) => self.put(service).into_iter().collect(),
            News::Gone(service) => self.remove(service.key()).into_iter().collect(),
        }
    }

    fn put(&mut self, Told(service): Told) -> Option<ObjectKey> {
        let key = service.meta.key.clone();
        if !is_ours(&service) {
            return self.remove(&key);
        }
        let kept = Kept::of(service);
        if self.all.get(&key) == Some(&kept) {
            return None;
        }
        self.all.insert(key.clone(), kept);
        Some(key)
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        self.all.remove_entry(key).map(|(key, _)| key)
    }

    /// A Service, as the plan sees it.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<BalancedService> {
        self.all.get(key).map(|kept| kept.service(key))
    }

    /// Whether only nodes with an endpoint serve it.
    pub(super) fn is_local(&self, key: &ObjectKey) -> bool {
        self.all.get(key).is_some_and(|kept| kept.local)
    }

    /// The uid of a Service.
    pub(super) fn uid(&self, key: &ObjectKey) -> Option<&str> {
        self.all.get(key).map(|kept| kept.uid.as_ref())
    }

    /// All of them.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.all.keys()
    }
}

impl Told {
    fn key(&self) -> &ObjectKey {
        &self.0.meta.key
    }
}

/// An EndpointSlice as a watch tells of it.
#[derive(Clone)]
pub(super) struct Slice {
    /// Nothing but its name.
    meta: Meta,
    /// The name of its Service; empty for none.
    service: String,
    /// The nodes of its ready endpoints, in order.
    nodes: Box<[Box<str>]>,
}

impl Object for Slice {
    fn read(object: &Value) -> Self {
        let mut slice = ReadyNodes::read(object);
        let service = slice.meta.labels.remove(SERVICE_NAME);
        let nodes = slice.nodes.into_iter();
        Self {
            meta: Meta {
                key: slice.meta.key,
                ..Meta::default()
            },
            service: service.unwrap_or_default(),
            nodes: nodes.map(Into::into).collect(),
        }
    }
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}

/// Names of nodes, in order.
type Nodes = Arc<[Arc<str>]>;

/// On which nodes Services have ready endpoints.
#[derive(Default)]
pub(super) struct Slices {
    /// The Service of each slice, and its nodes.
    all: BTreeMap<Arc<ObjectKey>, (Arc<ObjectKey>, Nodes)>,
    by_service: BTreeMap<Arc<ObjectKey>, Box<[Arc<ObjectKey>]>>,
    names: Shared<str>,
    sets: Shared<[Arc<str>]>,
    listed: bool,
}

impl Slices {
    /// Whether a complete list has been seen.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Takes news in. Answers with the Services whose nodes may be others.
    pub(super) fn take(&mut self, news: News<Slice>) -> BTreeSet<ObjectKey> {
        let mut other = BTreeSet::new();
        match news {
            News::All(slices, _) => {
                self.listed = true;
                let mut gone: BTreeSet<Arc<ObjectKey>> = self.all.keys().cloned().collect();
                for slice in slices {
                    gone.remove(&slice.meta.key);
                    self.put(slice, &mut other);
                }
                for key in gone {
                    self.remove(&key, &mut other);
                }
            }
            News::Is(slice) => self.put(slice, &mut other),
            News::Gone(slice) => self.remove(&slice.meta.key, &mut other),
        }
        other
    }

    fn put(&mut self, slice: Slice, other: &mut BTreeSet<ObjectKey>) {
        let (key, nodes) = (slice.meta.key, self.share(slice.nodes));
        let known = self.all.get(&key);
        let same = known.is_some_and(|(service, of)| service.name == slice.service && *of == nodes);
        if same {
            return;
        }
        self.remove(&key, other);
        if slice.service.is_empty() {
            return;
        }
        let service = ObjectKey::new(&key.namespace, slice.service);
        other.insert(service.clone());
        let known = self.by_service.get_key_value(&service);
        let service = known.map_or_else(|| Arc::new(service), |(known, _)| Arc::clone(known));
        let key = Arc::new(key);
        let list = self.by_service.entry(Arc::clone(&service)).or_default();
        let mut keys = std::mem::take(list).into_vec();
        keys.push(Arc::clone(&key));
        *list = keys.into();
        self.all.insert(key, (service, nodes));
    }

    fn remove(&mut self, key: &ObjectKey, other: &mut BTreeSet<ObjectKey>) {
        let Some((service, _)) = self.all.remove(key) else {
            return;
        };
        if let Some(list) = self.by_service.get_mut(&service) {
            let mut keys = std::mem::take(list).into_vec();
            keys.retain(|one| one.as_ref() != key);
            *list = keys.into();
            if list.is_empty() {
                self.by_service.remove(&service);
            }
        }
        other.insert(ObjectKey::clone(&service));
    }

    /// The set of these nodes that all slices have that have the same.
    fn share(&mut self, nodes: Box<[Box<str>]>) -> Nodes {
        let names = nodes.into_iter().map(|node| self.names.share(node));
        let names: Vec<Arc<str>> = names.collect();
        self.sets.share(names)
    }

    /// The nodes on which a Service has ready endpoints.
    pub(super) fn ready_on(&self, service: &ObjectKey) -> BTreeSet<&str> {
        let slices = self.by_service.get(service).into_iter().flatten();
        let nodes = slices.filter_map(|slice| self.all.get(slice));
        nodes
            .flat_map(|(_, nodes)| nodes.iter().map(AsRef::as_ref))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, policy: &str, kind: &str) -> Told {
        Told::read(&json!({
            "metadata": {"name": name, "namespace": "default", "uid": "u", "labels": {"app": "web"}},
            "spec": {"type": kind, "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.130"}]}},
        }))
    }

    fn slice(name: &str, service: &str, nodes: &[&str]) -> Slice {
        let endpoints = nodes.iter().map(|node| json!({"nodeName": node}));
        Slice::read(&json!({
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": service},
            },
            "endpoints": endpoints.collect::<Vec<_>>(),
        }))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    fn names<'a>(keys: impl IntoIterator<Item = &'a ObjectKey>) -> Vec<&'a str> {
        keys.into_iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn l8_services_of_others_leave_nothing_and_ours_are_as_the_plan_needs_them() {
        let mut services = Services::default();
        let list = vec![
            service("a", "Local", "LoadBalancer"),
            service("b", "Cluster", "ClusterIP"),
        ];
        assert_eq!(names(&services.take(News::All(list, 1))), ["a"]);
        assert!(services.is_listed() && services.is_local(&key("a")));
        assert_eq!(names(services.keys()), ["a"]);
        let found = services.get(&key("a")).unwrap();
        assert!(is_ours(&found) && found.local);
        assert_eq!(found.meta.labels["app"], "web");
        assert_eq!(found.ingress, ["192.0.2.130".parse::<IpAddr>().unwrap()]);
        assert_eq!(services.uid(&key("a")), Some("u"));
        // The same again is no news; another policy and another type are.
        let again = service("a", "Local", "LoadBalancer");
        assert!(services.take(News::Is(again)).is_empty());
        let other = service("a", "Cluster", "LoadBalancer");
        assert_eq!(names(&services.take(News::Is(other))), ["a"]);
        let other = service("a", "Cluster", "NodePort");
        assert_eq!(names(&services.take(News::Is(other))), ["a"]);
        assert!(services.get(&key("a")).is_none());
        assert!(services.take(News::Gone(service("b", "", ""))).is_empty());
        // A list without it takes it away.
        services.take(News::Is(service("c", "Local", "LoadBalancer")));
        assert_eq!(names(&services.take(News::All(vec![], 9))), ["c"]);
        assert_eq!(services.keys().count(), 0);
    }

    #[test]
    fn l8_a_services_nodes_are_those_of_all_of_its_slices() {
        let mut slices = Slices::default();
        let list = vec![
            slice("a-1", "a", &["n2", "n1"]),
            slice("a-2", "a", &["n3"]),
            slice("b-1", "b", &["n1", "n2"]),
            slice("c-1", "", &["n1"]),
        ];
        assert_eq!(names(&slices.take(News::All(list, 1))), ["a", "b"]);
        assert!(slices.is_listed());
        let on = |slices: &Slices, name: &str| -> Vec<String> {
            let nodes = slices.ready_on(&key(name));
            nodes.into_iter().map(str::to_owned).collect()
        };
        assert_eq!(on(&slices, "a"), ["n1", "n2", "n3"]);
        // Both have the same set, which is held once.
        let set = |slices: &Slices, name: &str| Arc::clone(&slices.all[&key(name)].1);
        assert!(Arc::ptr_eq(&set(&slices, "a-1"), &set(&slices, "b-1")));
        let same = slice("a-2", "a", &["n3"]);
        assert!(slices.take(News::Is(same)).is_empty());
        // It is another Service's from now on.
        let moved = slice("a-2", "b", &["n3"]);
        assert_eq!(names(&slices.take(News::Is(moved))), ["a", "b"]);
        assert_eq!(on(&slices, "a"), ["n1", "n2"]);
        assert_eq!(on(&slices, "b"), ["n1", "n2", "n3"]);
        let gone = slice("a-1", "a", &[]);
        assert_eq!(names(&slices.take(News::Gone(gone))), ["a"]);
        assert!(on(&slices, "a").is_empty());
        let rest = vec![slice("b-1", "b", &["n1", "n2"])];
        assert_eq!(names(&slices.take(News::All(rest, 9))), ["b"]);
        assert_eq!(on(&slices, "b"), ["n1", "n2"]);
        assert_eq!((slices.all.len(), slices.by_service.len()), (1, 1));
    }
}
