//! Rules E1–E16, and the law of packing.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::workloads::Object;
use proptest::prelude::*;

use super::*;

fn service(extra: Value) -> Service {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "svc", "labels": {"team": "x"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    });
    merge(&mut object, extra);
    Service::read(&object)
}

fn pod(i: usize, extra: Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": format!("p{i:04}"), "namespace": "a", "uid": format!("u{i}"),
            "labels": {"app": "web"}},
        "spec": {
            "nodeName": "n1",
            "containers": [{"ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {
            "phase": "Running",
            "podIPs": [
                {"ip": format!("10.244.{}.{}", i / 250, i % 250 + 1)},
                {"ip": format!("fd00:10:244::{i:x}")},
            ],
            "conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:05Z"}],
        },
    });
    merge(&mut object, extra);
    Pod::read(&object)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                merge(a.entry(key).or_insert(Value::Null), value);
            }
        }
        (place, value) => *place = value,
    }
}

fn not_ready() -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
}

/// The server: slices by name, changed by the steps' writes.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    made: usize,
    nodes: BTreeMap<String, Node>,
    cpus: Option<Cpus>,
}

impl Server {
    fn new() -> Self {
        let node = Node::read(&json!({"metadata": {"name": "n1",
            "labels": {ZONE: "zone-a"}}}));
        Self {
            nodes: [("n1".to_owned(), node)].into(),
            ..Self::default()
        }
    }

    fn known(&self) -> Vec<Slice> {
        self.objects.values().map(Slice::read).collect()
    }

    fn step(&self, service: &Service, pods: &[Pod]) -> Step {
        let pods: Vec<&Pod> = pods.iter().collect();
        let known = self.known();
        let existing: Vec<&Slice> = known.iter().collect();
        let backing = Backing {
            service,
            pods: &pods,
            node: &|name| self.nodes.get(name),
            trigger: None,
            cpus: self.cpus.as_ref(),
        };
        slices(&backing, &existing)
    }

    /// Carries a step out; answers with how many writes it took.
    fn reconcile(&mut self, service: &Service, pods: &[Pod]) -> usize {
        let step = self.step(service, pods);
        let writes = step.writes.len();
        for write in step.writes {
            match write.action {
                Action::Create(mut body) => {
                    self.made += 1;
                    let name = format!("web-{:05}", self.made);
                    body["metadata"]["name"] = name.as_str().into();
                    body["metadata"]["uid"] = name.as_str().into();
                    self.objects.insert(name, body);
                }
                Action::Merge(patch) => {
                    let object = self.objects.get_mut(&write.key.name).expect("known");
                    merge(object, patch);
                }
                Action::Delete { .. } => {
                    self.objects.remove(&write.key.name).expect("known");
                }
                Action::Strategic(_)
                | Action::MergeStatus(_)
                | Action::StrategicStatus(_)
                | Action::Bind { .. } => panic!("not a write of slices: {:?}", write.key),
            }
        }
        assert_eq!(
            self.step(service, pods).writes,
            [],
            "settled after one step"
        );
        writes
    }

    fn endpoints(&self) -> Vec<SliceEndpoint> {
        self.known()
            .into_iter()
            .flat_map(|slice| slice.endpoints)
            .collect()
    }

    fn only(&self) -> Value {
        assert_eq!(self.objects.len(), 1);
        self.objects.values().next().expect("one").clone()
    }
}

/// The slices after one step from nothing.
fn made(service: &Service, pods: &[Pod]) -> Server {
    let mut server = Server::new();
    server.reconcile(service, pods);
    server
}

#[test]
fn e1_a_slice_holds_100_endpoints_of_one_set_of_ports() {
    let pods: Vec<Pod> = (0..250).map(|i| pod(i, json!({}))).collect();
    let sizes: Vec<usize> = made(&service(json!({})), &pods)
        .known()
        .iter()
        .map(|s| s.endpoints.len())
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn e2_labels_are_the_services_and_our_own() {
    let headless = service(json!({
        "metadata": {"labels": {SERVICE_NAME: "forged", HEADLESS: "forged"}},
        "spec": {"clusterIP": "None"},
    }));
    let labels = made(&headless, &[]).only()["metadata"]["labels"].clone();
    assert_eq!(
        labels,
        json!({SERVICE_NAME: "web", MANAGED_BY: CONTROLLER, HEADLESS: "", "team": "x"})
    );
    let labels = made(&service(json!({})), &[]).only()["metadata"]["labels"].clone();
    assert_eq!(labels.get(HEADLESS), None);
}

#[test]
fn e2_a_changed_label_changes_the_slices_but_not_their_endpoints() {
    let pods = [pod(1, json!({}))];
    let mut server = made(&service(json!({})), &pods);
    let relabelled = service(json!({"metadata": {"labels": {"team": "y"}}}));
    assert_eq!(server.reconcile(&relabelled, &pods), 1);
    assert_eq!(server.only()["metadata"]["labels"]["team"], "y");
    assert_eq!(server.endpoints().len(), 1);
}

#[test]
fn e3_the_service_owns_its_slices_and_their_names_are_generated() {
    let slice = made(&service(json!({})), &[]).only();
    assert_eq!(slice["metadata"]["generateName"], "web-");
    let owner = &slice["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Service"), &json!("svc"))
    );
    assert_eq!(owner["controller"], true);
}

#[test]
fn e4_each_family_has_its_slices_and_a_dropped_family_loses_them() {
    let dual = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}));
    let pods = [pod(1, json!({}))];
    let mut server = made(&dual, &pods);
    let families: Vec<_> = server.known().iter().map(|s| s.family).collect();
    assert_eq!(families, [Some(Family::V4), Some(Family::V6)]);
    server.reconcile(&service(json!({"spec": {"ipFamilies": ["IPv6"]}})), &pods);
    assert_eq!(server.endpoints().len(), 1);
    assert_eq!(server.endpoints()[0].address, "fd00:10:244::1");
}

#[test]
fn e5_which_pods_are_in() {
    let table = [
        (json!({}), true),
        (json!({"metadata": {"labels": {"app": "other"}}}), false),
        (json!({"status": {"phase": "Succeeded"}}), false),
        (json!({"status": {"phase": "Failed"}}), false),
        (json!({"status": {"podIPs": []}}), false),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            true,
        ),
        (not_ready(), true),
    ];
    for (extra, is_in) in table {
        let server = made(&service(json!({})), &[pod(1, extra.clone())]);
        assert_eq!(server.endpoints().len() == 1, is_in, "{extra}");
    }
}

#[test]
fn e6_conditions_follow_readiness_and_deletion() {
    let gone = || json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let mut gone_unready = gone();
    merge(&mut gone_unready, not_ready());
    // pod, publishNotReadyAddresses → ready, serving, terminating
    let table = [
        (json!({}), false, (true, true, false)),
        (not_ready(), false, (false, false, false)),
        (not_ready(), true, (true, false, false)),
        (gone(), false, (false, true, true)),
        (gone(), true, (true, true, true)),
        (gone_unready, false, (false, false, true)),
    ];
    for (extra, publish, expected) in table {
        let service = service(json!({"spec": {"publishNotReadyAddresses": publish}}));
        let e = made(&service, &[pod(1, extra.clone())])
            .endpoints()
            .remove(0);
        assert_eq!(
            (e.ready, e.serving, e.terminating),
            expected,
            "{extra} {publish}"
        );
    }
}

#[test]
fn e7_an_endpoint_names_its_node_zone_and_pod() {
    let e = made(&service(json!({})), &[pod(7, json!({}))])
        .endpoints()
        .remove(0);
    assert_eq!((e.node.as_str(), e.zone.as_str()), ("n1", "zone-a"));
    let target = e.target.expect("a pod");
    assert_eq!((target.name.as_str(), target.uid.as_str()), ("p0007", "u7"));
}

#[test]
fn e8_a_hostname_counts_only_under_its_own_subdomain() {
    let table = [
        ("db-0", "web", "db-0"),
        ("db-0", "other", ""),
        ("", "web", ""),
    ];
    for (hostname, subdomain, expected) in table {
        let named = pod(
            1,
            json!({"spec": {"hostname": hostname, "subdomain": subdomain}}),
        );
        let e = made(&service(json!({})), &[named]).endpoints().remove(0);
        assert_eq!(e.hostname, expected, "{hostname}.{subdomain}");
    }
}

#[test]
fn e16_traffic_distribution_gives_ready_endpoints_their_own_zone_and_node() {
    let zone = json!({"forZones": [{"name": "zone-a"}]});
    let node = json!({"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "n1"}]});
    let table = [
        ("PreferClose", &zone),
        ("PreferSameZone", &zone),
        ("PreferSameNode", &node),
    ];
    for (preference, expected) in table {
        let near = service(json!({"spec": {"trafficDistribution": preference}}));
        let pods = [pod(1, json!({})), pod(2, not_ready())];
        let slice = made(&near, &pods).only();
        let hints = |i: usize| slice["endpoints"][i].get("hints");
        assert_eq!(hints(0), Some(expected), "{preference}");
        assert_eq!(hints(1), None, "{preference}: not ready");
    }
}

#[test]
fn e16_hints_come_and_go_with_the_wish_and_with_readiness() {
    let near = service(json!({"spec": {"trafficDistribution": "PreferSameZone"}}));
    let far = service(json!({}));
    let ready = [pod(1, json!({}))];
    let mut server = made(&far, &ready);
    let hinted = |server: &Server| server.only()["endpoints"][0].get("hints").is_some();
    assert!(!hinted(&server));
    for (service, pods, expected) in [
        (&near, &ready, true),
        (&near, &[pod(1, not_ready())], false),
        (&near, &ready, true),
        (&far, &ready, false),
    ] {
        assert_eq!(server.reconcile(service, pods), 1);
        assert_eq!(hinted(&server), expected);
    }
}

#[test]
fn e16_without_a_zone_only_the_node_is_named_and_the_annotation_goes_first() {
    let near = service(json!({"spec": {"trafficDistribution": "PreferSameNode"}}));
    let mut server = Server::new();
    let bare = Node::read(&json!({"metadata": {"name": "n1"}}));
    server.nodes.insert("n1".to_owned(), bare);
    server.reconcile(&near, &[pod(1, json!({}))]);
    assert_eq!(
        server.only()["endpoints"][0]["hints"],
        json!({"forNodes": [{"name": "n1"}]})
    );
    for annotation in ["topology-mode", "topology-aware-hints"] {
        let name = format!("service.kubernetes.io/{annotation}");
        let auto = service(json!({
            "metadata": {"annotations": {name: "Auto"}},
            "spec": {"trafficDistribution": "PreferSameNode"},
        }));
        let slice = made(&auto, &[pod(1, json!({}))]).only();
        assert_eq!(slice["endpoints"][0].get("hints"), None, "{annotation}");
    }
}

#[test]
fn e16_by_cpu_crowded_zones_lend_to_poor_ones_or_nobody_gets_a_hint() {
    let node = |name: &str, cpu: &str| {
        Node::read(&json!({
            "metadata": {"name": name, "labels": {ZONE: format!("zone-{name}")}},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi"},
                "conditions": [{"type": "Ready", "status": "True"}]},
        }))
    };
    let auto = service(json!({"metadata": {"annotations":
        {"service.kubernetes.io/topology-mode": "Auto"}}}));
    let mut server = Server::new();
    let nodes = [node("n1", "2"), node("n2", "2")];
    server.cpus = cpus(nodes.iter());
    server.nodes = nodes
        .into_iter()
        .map(|n| (n.meta.key.name.clone(), n))
        .collect();
    let pods: Vec<Pod> = (0..6)
        .map(|i| {
            pod(
                i,
                json!({"spec": {"nodeName": if i < 5 { "n1" } else { "n2" }}}),
            )
        })
        .collect();
    let told = server.step(&auto, &pods).tell;
    assert_eq!(told[0].reason, "TopologyAwareHintsEnabled");
    server.reconcile(&auto, &pods);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for e in server.endpoints() {
        *shares.entry(e.hints.zones.concat()).or_default() += 1;
    }
    assert_eq!(
        shares,
        [("zone-n1".to_owned(), 3), ("zone-n2".to_owned(), 3)].into()
    );
    // One endpoint cannot serve two zones.
    let told = server.step(&auto, &pods[..1]).tell;
    assert_eq!(
        (told[0].reason, told[0].message.as_str()),
        (
            "TopologyAwareHintsDisabled",
            "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4"
        )
    );
    server.reconcile(&auto, &pods[..1]);
    assert_eq!(server.endpoints()[0].hints, Hints::default());
}

#[test]
fn e9_pods_that_resolve_a_port_differently_land_in_different_slices() {
    let other = json!({"spec": {"containers": [
        {"ports": [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]}]}});
    let sidecar = json!({"spec": {"containers": [], "initContainers": [
        {"restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 7070}]}]}});
    let pods = [
        pod(1, json!({})),
        pod(2, other),
        pod(3, sidecar),
        pod(4, json!({})),
    ];
    let ports: BTreeMap<Option<u16>, usize> = made(&service(json!({})), &pods)
        .known()
        .iter()
        .map(|s| (s.ports[0].port, s.endpoints.len()))
        .collect();
    assert_eq!(
        ports,
        [(Some(8080), 2), (Some(9090), 1), (Some(7070), 1)].into()
    );
}

#[test]
fn e9_a_port_of_the_same_name_and_another_protocol_does_not_match() {
    let udp = json!({"spec": {"containers": [
        {"ports": [{"name": "http", "containerPort": 8080, "protocol": "UDP"}]}]}});
    let slice = made(&service(json!({})), &[pod(1, udp)]).only();
    assert_eq!(slice["ports"], json!([]));
}

#[test]
fn e10_a_port_that_does_not_resolve_is_left_out() {
    let two = service(json!({"spec": {"ports": [
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "metrics", "port": 90, "targetPort": "metrics"},
    ]}}));
    let slice = made(&two, &[pod(1, json!({}))]).only();
    assert_eq!(
        slice["ports"],
        json!([{"name": "http", "protocol": "TCP", "port": 8080}])
    );
    assert_eq!(slice["endpoints"].as_array().map(Vec::len), Some(1));
}

#[test]
fn e11_a_pod_on_an_unknown_node_waits_unless_unready_ones_are_published() {
    let lost = [pod(1, json!({"spec": {"nodeName": "n9"}}))];
    let server = Server::new();
    let step = server.step(&service(json!({})), &lost);
    assert_eq!(step.again, Some(NODE_MISSING));
    assert_eq!(made(&service(json!({})), &lost).endpoints().len(), 0);
    let publish = service(json!({"spec": {"publishNotReadyAddresses": true}}));
    assert_eq!(made(&publish, &lost).endpoints().len(), 1);
}

#[test]
fn e12_without_pods_there_is_an_empty_slice_per_family() {
    let dual = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}));
    let mut server = made(&dual, &[]);
    assert_eq!(server.objects.len(), 2);
    assert!(
        server
            .known()
            .iter()
            .all(|s| s.endpoints.is_empty() && s.ports.is_empty())
    );
    let names: Vec<String> = server.objects.keys().cloned().collect();
    server.reconcile(&dual, &[pod(1, json!({}))]);
    server.reconcile(&dual, &[]);
    assert_eq!(
        server.objects.keys().cloned().collect::<Vec<_>>(),
        names,
        "the same slices"
    );
}

#[test]
fn e13_without_a_selector_or_while_going_nothing_is_written() {
    let pods = [pod(1, json!({}))];
    for extra in [
        json!({"spec": {"selector": null}}),
        json!({"spec": {"type": "ExternalName"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ] {
        let step = Server::new().step(&service(extra.clone()), &pods);
        assert_eq!(step, Step::default(), "{extra}");
    }
}

#[test]
fn e14_one_changed_pod_is_one_changed_slice() {
    let mut pods: Vec<Pod> = (0..250).map(|i| pod(i, json!({}))).collect();
    let service = service(json!({}));
    let mut server = made(&service, &pods);
    pods[120] = pod(120, not_ready());
    assert_eq!(server.reconcile(&service, &pods), 1);
    pods.remove(30);
    pods.push(pod(900, json!({})));
    assert_eq!(
        server.reconcile(&service, &pods),
        1,
        "the gap is filled where it is"
    );
    pods.push(pod(901, json!({})));
    assert_eq!(
        server.reconcile(&service, &pods),
        1,
        "the last slice has room"
    );
}

#[test]
fn e15_the_oldest_unwritten_change_is_the_trigger() {
    let service = service(json!({}));
    let pods = [pod(1, json!({})), pod(2, not_ready())];
    let pods: Vec<&Pod> = pods.iter().collect();
    let (first, written) = Triggers::default().since(&service, &pods);
    assert_eq!(first, "2026-01-01T00:00:00Z".parse().ok());
    let (none, _) = written.since(&service, &pods);
    assert_eq!(none, None);
    let later = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
        "lastTransitionTime": "2026-01-01T00:01:00Z"}]}});
    let changed = [pod(1, later), pod(2, not_ready())];
    let changed: Vec<&Pod> = changed.iter().collect();
    let (trigger, _) = written.since(&service, &changed);
    assert_eq!(trigger, "2026-01-01T00:01:00Z".parse().ok());
}

/// One pod of a random crowd: its number, readiness, and port.
fn crowd() -> impl Strategy<Value = BTreeMap<usize, (bool, bool)>> {
    prop::collection::btree_map(0usize..400, (any::<bool>(), any::<bool>()), 0..320)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After any sequence of crowds every endpoint is there exactly once, no
    /// slice has more than 100, none is empty beside others, and what stays
    /// does not move.
    #[test]
    fn e14_packing_keeps_every_endpoint_exactly_once(crowds in prop::collection::vec(crowd(), 1..5)) {
        let service = service(json!({}));
        let mut server = Server::new();
        for crowd in crowds {
            let pods: Vec<Pod> = crowd.iter().map(|(i, (ready, other_port))| {
                let mut extra = if *ready { json!({}) } else { not_ready() };
                if *other_port {
                    merge(&mut extra, json!({"spec": {"containers": [
                        {"ports": [{"name": "http", "containerPort": 9090}]}]}}));
                }
                pod(*i, extra)
            }).collect();
            server.reconcile(&service, &pods);
            let known = server.known();
            prop_assert!(known.iter().all(|s| s.endpoints.len() <= MAX_ENDPOINTS));
            if !pods.is_empty() {
                prop_assert!(known.iter().all(|s| !s.endpoints.is_empty()));
            }
            let endpoints = server.endpoints();
            let uids: BTreeSet<String> = endpoints
                .iter()
                .filter_map(|e| e.target.as_ref().map(|t| t.uid.clone()))
                .collect();
            prop_assert_eq!(endpoints.len(), uids.len(), "no endpoint twice");
            let wanted: BTreeSet<String> = pods.iter().map(|p| p.meta.uid.clone()).collect();
            prop_assert_eq!(uids, wanted);
            for (i, (ready, _)) in &crowd {
                let uid = format!("u{i}");
                let e = endpoints.iter().find(|e| e.target.as_ref().is_some_and(|t| t.uid == uid));
                prop_assert_eq!(e.map(|e| e.ready), Some(*ready));
            }
        }
    }
}
