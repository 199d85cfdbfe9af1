use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::{Change, Condition, Hold, Key, Stored, Write, WriteError};

mod crowd;
mod laws;

const DUAL: &[&str] = &["10.96.0.0/16", "fd00:10:96::/112"];
const SINGLE: &[&str] = &["10.96.0.0/16"];

/// An allocator over a store in a directory of its own.
struct Cluster {
    _dir: TempDir,
    store: Store,
    allocator: Arc<Allocator>,
}

impl Cluster {
    async fn new(cidrs: &[&str]) -> Self {
        Self::with_ports(cidrs, 30_000..=32_767).await
    }

    async fn with_ports(cidrs: &[&str], ports: RangeInclusive<u16>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let collections = crate::context::collections();
        let store = Store::open(&dir.path().join("state.redb"), collections).unwrap();
        let nets: Vec<IpNet> = cidrs.iter().map(|net| net.parse().unwrap()).collect();
        let allocator = Allocator::new(&nets, ports, &store).unwrap();
        let cluster = Self {
            _dir: dir,
            store,
            allocator,
        };
        cluster.add_cidr("kubernetes", cidrs).await;
        cluster
    }

    async fn add_cidr(&self, name: &str, cidrs: &[&str]) -> u64 {
        let object = json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}});
        let key = Key::new(self.allocator.places.cidrs, "", name);
        let made = self.store.create(key, object, None).await;
        made.unwrap().revision
    }

    fn key(&self, service: &Value) -> Key {
        let name = portolan_api::meta::name(service);
        Key::new(self.allocator.places.services, "default", name)
    }

    async fn write(
        &self,
        new: Option<&Value>,
        old: Option<&Value>,
        reservation: Option<Reservation>,
    ) -> Result<Arc<Stored>, WriteError> {
        let key = self.key(new.or(old).unwrap());
        let condition = match self.store.get(&key) {
            Some(stored) => Condition::Revision(stored.revision),
            None => Condition::Absent,
        };
        let change = new.map_or(Change::Delete, |new| Change::Put(new.clone()));
        let mut writes = vec![Write {
            key,
            condition,
            change,
            namespace: None,
        }];
        writes.extend(self.allocator.companions(new, old, "2026-01-01T00:00:00Z"));
        let hold = reservation.map(|reservation| Box::new(reservation) as Hold);
        self.store.transact(writes, hold).await
    }

    async fn create(&self, name: &str, spec: Value) -> Result<Value, String> {
        let mut service = service(name, spec);
        let assigned = self.allocator.assign(&mut service, None, false);
        let reservation = assigned.map_err(|failure| failure.message.clone())?;
        self.write(Some(&service), None, Some(reservation))
            .await
            .unwrap();
        Ok(service)
    }

    async fn update(&self, old: &Value, mut new: Value) -> Result<Value, String> {
        let assigned = self.allocator.assign(&mut new, Some(old), false);
        let reservation = assigned.map_err(|failure| failure.message.clone())?;
        self.write(Some(&new), Some(old), Some(reservation))
            .await
            .unwrap();
        Ok(new)
    }

    /// What is in use: addresses and ports, and the IPAddress objects.
    fn used(&self) -> (usize, usize, Vec<String>) {
        let figures = self.allocator.figures();
        let addresses = figures.ranges.iter().map(|(_, used)| used).sum();
        let objects = self.store.cache().snapshot(self.allocator.places.addresses);
        let names = objects.objects.keys().map(|name| name.name.clone());
        (addresses, figures.ports, names.collect())
    }
}

fn service(name: &str, spec: Value) -> Value {
    let mut service =
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"type": "ClusterIP"}});
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    service
}

#[tokio::test]
async fn s21_s24_policies_and_families() {
    let (dual, single) = (Cluster::new(DUAL).await, Cluster::new(SINGLE).await);
    let (v4, both) = (json!(["IPv4"]), json!(["IPv4", "IPv6"]));
    let cases = [
        (&dual, json!({}), "SingleStack", &v4, 1),
        (
            &dual,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack",
            &both,
            2,
        ),
        (
            &single,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack",
            &v4,
            1,
        ),
        (
            &dual,
            json!({"ipFamilies": ["IPv6"]}),
            "SingleStack",
            &json!(["IPv6"]),
            1,
        ),
        (
            &single,
            json!({"clusterIP": "None"}),
            "RequireDualStack",
            &both,
            0,
        ),
        (
            &single,
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            "SingleStack",
            &v4,
            0,
        ),
    ];
    for (number, (cluster, spec, policy, families, addresses)) in cases.into_iter().enumerate() {
        let made = cluster
            .create(&format!("s{number}"), spec.clone())
            .await
            .unwrap();
        assert_eq!(made["spec"]["ipFamilyPolicy"], policy, "{spec}");
        assert_eq!(made["spec"]["ipFamilies"], *families, "{spec}");
        assert_eq!(addresses_of(&made).len(), addresses, "{spec}");
    }
    let refused = [
        (
            &single,
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "this cluster is not configured for dual-stack services",
        ),
        (
            &single,
            json!({"ipFamilies": ["IPv6"]}),
            "not configured on this cluster",
        ),
        (
            &dual,
            json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
            "when multiple IP families are specified",
        ),
    ];
    for (cluster, spec, text) in refused {
        let message = cluster.create("r", spec).await.unwrap_err();
        assert!(message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn a7_conflicts_and_ranges() {
    let cluster = Cluster::new(DUAL).await;
    let at = |address: &str| json!({"clusterIP": address});
    cluster.create("a", at("10.96.5.5")).await.unwrap();
    let cases = [
        (
            "10.96.5.5",
            "failed to allocate IP 10.96.5.5: provided IP is already allocated",
        ),
        (
            "10.97.0.1",
            "failed to allocate IP 10.97.0.1: the provided network does not match the current range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            "10.96.0.0",
            "failed to allocate IP 10.96.0.0: the provided IP (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            "10.96.255.255",
            "is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
    ];
    for (address, text) in cases {
        let message = cluster.create("b", at(address)).await.unwrap_err();
        let field = format!("spec.clusterIPs: Invalid value: [\"{address}\"]: ");
        assert!(
            message.contains(&field) && message.contains(text),
            "{message}"
        );
    }
    let port = |number: u16| json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": number}]});
    cluster.create("c", port(30_080)).await.unwrap();
    let taken = cluster.create("d", port(30_080)).await.unwrap_err();
    let text = "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated";
    assert!(taken.contains(text), "{taken}");
    let outside = cluster.create("d", port(29_999)).await.unwrap_err();
    let text = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    assert!(outside.contains(text), "{outside}");
}

#[tokio::test]
async fn a5_every_cluster_ip_has_an_ip_address_of_its_service() {
    let cluster = Cluster::new(DUAL).await;
    let spec = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.96.7.7", "fd00:10:96::a7"], "clusterIP": "10.96.7.7"});
    let old = cluster.create("web", spec).await.unwrap();
    assert_eq!(cluster.used().2, ["10.96.7.7", "fd00:10:96::a7"]);
    let key = cluster.allocator.address_key("10.96.7.7".parse().unwrap());
    let object = cluster.store.get(&key).unwrap().value();
    assert_eq!(
        object["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "web"})
    );
    assert_eq!(
        object["metadata"]["labels"],
        json!({
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        })
    );
    let mut new = old.clone();
    new["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    let single = cluster.update(&old, new).await.unwrap();
    assert_eq!(cluster.used().2, ["10.96.7.7"]);
    cluster.write(None, Some(&single), None).await.unwrap();
    assert_eq!(cluster.used(), (0, 0, Vec::new()));
}

#[tokio::test]
async fn a5_an_ip_address_of_somebody_else_reserves_its_address() {
    let cluster = Cluster::new(SINGLE).await;
    let address: IpAddr = "10.96.0.9".parse().unwrap();
    let object = json!({"metadata": {"name": "10.96.0.9"}, "spec": {"parentRef": {"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g", "namespace": "default"}}});
    let key = cluster.allocator.address_key(address);
    let made = cluster
        .store
        .create(key.clone(), object, None)
        .await
        .unwrap();
    let wanted = json!({"clusterIP": "10.96.0.9"});
    let message = cluster.create("web", wanted.clone()).await.unwrap_err();
    assert!(message.contains("provided IP is already allocated"));
    cluster
        .store
        .remove(key.clone(), made.revision)
        .await
        .unwrap();
    cluster.create("web", wanted.clone()).await.unwrap();
    // The Service has the address even where somebody deletes the IPAddress.
    let stored = cluster.store.get(&key).unwrap();
    cluster.store.remove(key, stored.revision).await.unwrap();
    assert!(cluster.create("other", wanted).await.is_err());
}

#[tokio::test]
async fn a6_more_ranges_and_a_deleted_one() {
    let cluster = Cluster::new(&["10.96.0.0/30"]).await;
    for name in ["a", "b"] {
        cluster.create(name, json!({})).await.unwrap();
    }
    let full = cluster.create("c", json!({})).await.unwrap_err();
    assert!(
        full.ends_with("failed to allocate a serviceIP: range is full"),
        "{full}"
    );
    let revision = cluster.add_cidr("more", &["10.97.0.0/24"]).await;
    let made = cluster.create("c", json!({})).await.unwrap();
    assert!(
        made["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("10.97.0.")
    );
    let key = Key::new(cluster.allocator.places.cidrs, "", "more");
    let mut deleted = cluster.store.get(&key).unwrap().value();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    cluster.store.replace(key, deleted, revision).await.unwrap();
    assert!(cluster.create("d", json!({})).await.is_err());
    assert!(!cluster.allocator.may_end("more"));
    cluster.write(None, Some(&made), None).await.unwrap();
    assert!(cluster.allocator.may_end("more"));
}

#[tokio::test]
async fn a12_a_failure_gives_everything_back() {
    let cluster = Cluster::new(DUAL).await;
    let spec = json!({
        "type": "NodePort",
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"port": 80, "nodePort": 31_000}, {"port": 81}, {"port": 82, "nodePort": 1}],
    });
    assert!(cluster.create("web", spec).await.is_err());
    assert_eq!(cluster.used(), (0, 0, Vec::new()));
    // The store refuses: somebody has made the IPAddress meanwhile.
    let mut one = service(
        "one",
        json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 80}]}),
    );
    let reservation = cluster.allocator.assign(&mut one, None, false).unwrap();
    let key = cluster.allocator.address_key("10.96.0.9".parse().unwrap());
    cluster
        .store
        .create(key, json!({"metadata": {"name": "10.96.0.9"}}), None)
        .await
        .unwrap();
    let refused = cluster.write(Some(&one), None, Some(reservation)).await;
    assert!(matches!(refused, Err(WriteError::Companion)), "{refused:?}");
    assert!(cluster.store.get(&cluster.key(&one)).is_none());
    assert_eq!(cluster.used(), (1, 0, vec!["10.96.0.9".to_owned()]));
}

#[tokio::test]
async fn a9_a_dry_run_consumes_nothing() {
    let cluster = Cluster::new(DUAL).await;
    cluster
        .create("web", json!({"clusterIP": "10.96.5.5"}))
        .await
        .unwrap();
    let before = cluster.used();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.5.5", "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}, {"port": 81}]});
    let mut dry = service("dry", spec);
    let reservation = cluster.allocator.assign(&mut dry, None, true).unwrap();
    assert_eq!(cluster.used(), before);
    drop(reservation);
    assert_eq!(cluster.used(), before);
    assert_eq!(
        dry["spec"]["clusterIPs"],
        json!(["10.96.5.5", "fd00:10:96::"])
    );
    let ports: Vec<&Value> = dry["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["nodePort"])
        .collect();
    assert_eq!(ports, [32_769, 32_770]);
}

#[tokio::test]
async fn a8_a_type_change_frees_and_deletion_frees_all() {
    let cluster = Cluster::new(DUAL).await;
    let spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}, {"port": 81}],
    });
    let old = cluster.create("web", spec).await.unwrap();
    assert_eq!(
        ports_of(&old).len(),
        3,
        "one shared port, one more, one health check port"
    );
    assert_eq!(cluster.used().1, 3);
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    new["spec"]["externalTrafficPolicy"] = Value::Null;
    new["spec"]["healthCheckNodePort"] = Value::Null;
    for port in new["spec"]["ports"].as_array_mut().unwrap() {
        port["nodePort"] = Value::Null;
    }
    let new = cluster.update(&old, new).await.unwrap();
    assert_eq!(addresses_of(&new), addresses_of(&old));
    assert_eq!(cluster.used().1, 0);
    cluster.write(None, Some(&new), None).await.unwrap();
    assert_eq!(cluster.used(), (0, 0, Vec::new()));
}

#[tokio::test]
async fn s22_releasing_the_secondary_needs_single_stack() {
    let cluster = Cluster::new(DUAL).await;
    let old = cluster
        .create("web", json!({"ipFamilyPolicy": "RequireDualStack"}))
        .await
        .unwrap();
    let mut new = old.clone();
    new["spec"]["clusterIPs"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    let message = cluster.update(&old, new).await.unwrap_err();
    assert!(
        message.contains("must be 'SingleStack' to release the secondary cluster IP"),
        "{message}"
    );
}

#[tokio::test]
async fn s16_a11_a_held_health_check_port_is_an_internal_error() {
    let cluster = Cluster::new(DUAL).await;
    let spec = |port: i64| json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port, "ports": [{"port": 80}]});
    cluster.create("web", spec(31_500)).await.unwrap();
    for bad in [31_500, -1, 80] {
        let mut service = service("other", spec(bad));
        let error = cluster
            .allocator
            .assign(&mut service, None, false)
            .unwrap_err();
        assert_eq!(error.code, 500, "{bad}");
    }
}

#[tokio::test]
async fn books_that_fall_behind_begin_anew() {
    let cluster = Cluster::new(&["10.96.0.0/16"]).await;
    let old = cluster
        .create("web", json!({"type": "NodePort", "ports": [{"port": 80}]}))
        .await
        .unwrap();
    let before = cluster.used();
    let others = (0..4_200).map(|number| {
        let other = service(&format!("other-{number}"), json!({"clusterIP": "None"}));
        cluster.store.create(cluster.key(&other), other, None)
    });
    let written = futures::future::join_all(others).await;
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(cluster.used(), before);
    cluster.write(None, Some(&old), None).await.unwrap();
    assert_eq!(cluster.used(), (0, 0, Vec::new()));
}
