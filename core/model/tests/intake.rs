//! What objects become as facts, and how a cluster takes them in.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use portolan_api::lean;
use portolan_model::{
    Affinity, Change, Cluster, Conditions, Dirty, Fact, Family, Key, Kind, Problem, Publication,
    Service, ServiceKey, Slice, SliceKey, TrafficPolicy, intake,
};
use serde_json::{Value, json};

fn service(object: &Value) -> (Service, Vec<Problem>) {
    let object: lean::Service = lean::view(object).unwrap();
    intake::service(&object)
}

fn slice(object: &Value) -> (Option<Slice>, Vec<Problem>) {
    let object: lean::EndpointSlice = lean::view(object).unwrap();
    intake::slice(&object)
}

fn web(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec})
}

fn slice_of(service: &str, name: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints,
    })
}

fn slice_fact(service: &str, name: &str, addresses: &[&str]) -> Fact {
    Fact::Slice(slice(&slice_of(service, name, addresses)).0.unwrap().into())
}

#[test]
fn absent_fields_read_as_the_api_defaults_them() {
    let (fact, problems) = service(&web(
        json!({"clusterIP": "10.96.0.20", "ports": [{"port": 80}]}),
    ));
    assert_eq!(problems, []);
    assert_eq!(fact.publication, Publication::ClusterIp);
    assert_eq!(
        fact.cluster_ips,
        ["10.96.0.20".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(fact.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(fact.affinity, Affinity::None);
    let (fact, _) = service(&web(json!({"sessionAffinity": "ClientIP"})));
    assert_eq!(fact.affinity, Affinity::ClientIp { seconds: 10_800 });
    let (fact, _) = service(&web(json!({"clusterIP": "None", "clusterIPs": ["None"]})));
    assert_eq!(
        (fact.publication, fact.cluster_ips.len()),
        (Publication::Headless, 0)
    );
}

#[test]
fn bad_parts_cost_themselves_and_nothing_else() {
    let (fact, problems) = service(&web(json!({
        "clusterIPs": ["10.96.0.20", "nonsense"],
        "internalTrafficPolicy": "Sideways",
        "ports": [{"port": 80}, {"port": 0}, {"port": 81, "protocol": "DCCP"}],
    })));
    assert_eq!((fact.cluster_ips.len(), fact.ports.len()), (1, 1));
    assert_eq!(problems.len(), 4);
    let shown = problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        shown.contains("Service ns/web: spec.clusterIPs: \"nonsense\" is not an IP address"),
        "{shown}"
    );
    let (fact, problems) = slice(&slice_of("web", "web-1", &["10.244.1.7", "fd00::1", "x"]));
    assert_eq!((fact.unwrap().endpoints.len(), problems.len()), (1, 2));
}

#[test]
fn e6_unknown_conditions_count_as_ready() {
    let mut object = slice_of("web", "web-1", &["10.244.1.7", "10.244.1.8", "10.244.1.9"]);
    object["endpoints"][1]["conditions"] = json!({"ready": false});
    object["endpoints"][2]["conditions"] =
        json!({"ready": false, "serving": true, "terminating": true});
    let conditions: Vec<_> = slice(&object)
        .0
        .unwrap()
        .endpoints
        .iter()
        .map(|one| one.conditions)
        .collect();
    let no = Conditions {
        ready: false,
        serving: false,
        terminating: false,
    };
    let going = Conditions {
        ready: false,
        serving: true,
        terminating: true,
    };
    assert_eq!(conditions, [Conditions::READY, no, going]);
}

#[test]
fn p10_load_balancer_addresses_in_proxy_mode_are_not_ours() {
    let mut object = web(json!({"type": "LoadBalancer"}));
    object["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.1", "ipMode": "VIP"},
        {"ip": "192.0.2.2", "ipMode": "Proxy"},
        {"ip": "192.0.2.3"},
        {"hostname": "lb.example.com"},
    ]}});
    let addresses = service(&object).0.outer.unwrap().load_balancer_ips;
    assert_eq!(
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["192.0.2.1", "192.0.2.3"]
    );
}

#[test]
fn s12_source_ranges_come_from_the_field_or_else_the_annotation() {
    let mut object = web(json!({"type": "LoadBalancer"}));
    object["metadata"]["annotations"] = json!({"service.beta.kubernetes.io/load-balancer-source-ranges": " 10.0.0.0/8 ,192.0.2.0/24"});
    assert_eq!(service(&object).0.outer.unwrap().source_ranges.len(), 2);
    object["spec"]["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    assert_eq!(service(&object).0.outer.unwrap().source_ranges.len(), 1);
}

#[test]
fn p16_labels_of_other_proxies_and_headless_slices_are_kept() {
    let mut object = web(json!({}));
    object["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "mesh"});
    assert_eq!(service(&object).0.other_proxy.as_deref(), Some("mesh"));
    let mut object = slice_of("web", "web-1", &[]);
    object["metadata"]["labels"]["service.kubernetes.io/headless"] = "".into();
    assert!(slice(&object).0.unwrap().headless);
}

#[test]
fn slices_without_service_or_addresses_give_no_fact() {
    let mut object = slice_of("web", "web-1", &[]);
    object["metadata"]["labels"] = json!({});
    assert_eq!(slice(&object), (None, Vec::new()));
    let mut object = slice_of("web", "web-1", &[]);
    object["addressType"] = "FQDN".into();
    assert_eq!(slice(&object), (None, Vec::new()));
}

fn dirty_services(dirty: &Dirty) -> Vec<String> {
    dirty.services.iter().map(ToString::to_string).collect()
}

#[test]
fn a_slice_that_moves_makes_both_services_dirty() {
    let mut cluster = Cluster::default();
    cluster.apply(Change::Upsert(slice_fact("web", "s1", &["10.244.1.7"])));
    let dirty = cluster.apply(Change::Upsert(slice_fact("api", "s1", &["10.244.1.7"])));
    assert_eq!(dirty_services(&dirty), ["ns/api", "ns/web"]);
    assert_eq!(cluster.slices_of(&ServiceKey::new("ns", "web")).count(), 0);
    let dirty = cluster.apply(Change::Delete(Key::Slice(SliceKey::new("ns", "s1"))));
    assert_eq!(dirty_services(&dirty), ["ns/api"]);
}

#[test]
fn what_changes_nothing_makes_nothing_dirty() {
    let mut cluster = Cluster::default();
    let fact = || slice_fact("web", "s1", &["10.244.1.7"]);
    assert!(!cluster.apply(Change::Upsert(fact())).is_empty());
    assert!(cluster.apply(Change::Upsert(fact())).is_empty());
    assert!(
        cluster
            .apply(Change::Replace(Kind::Slice, vec![fact()]))
            .is_empty()
    );
    assert!(
        cluster
            .apply(Change::Delete(Key::Service(ServiceKey::new("ns", "none"))))
            .is_empty()
    );
}

#[test]
fn a_relist_is_swapped_in_whole() {
    let mut cluster = Cluster::default();
    for name in ["s1", "s2"] {
        cluster.apply(Change::Upsert(slice_fact("web", name, &["10.244.1.7"])));
    }
    let before = cluster.clone();
    let list = vec![
        slice_fact("web", "s2", &["10.244.1.7"]),
        slice_fact("api", "s3", &["10.244.1.8"]),
    ];
    let dirty = cluster.apply(Change::Replace(Kind::Slice, list));
    assert_eq!(dirty_services(&dirty), ["ns/api", "ns/web"]);
    let names: Vec<_> = cluster
        .slices()
        .map(|slice| slice.key.name.to_string())
        .collect();
    assert_eq!(names, ["s3", "s2"]);
    assert_eq!(before.slices().count(), 2, "a snapshot stays as it was");
    assert!(cluster.slices().all(|slice| slice.family == Family::V4));
}

#[test]
fn d8_zones_of_endpoints_are_kept_once_per_slice_at_no_cost_to_each() {
    let object = serde_json::json!({
        "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.244.1.1"], "zone": "west-a"},
            {"addresses": ["10.244.1.2"], "zone": "west-b"},
            {"addresses": ["10.244.1.3"], "zone": "west-a"},
            {"addresses": ["10.244.1.4"], "zone": ""},
            {"addresses": ["10.244.1.5"]},
        ],
    });
    let (slice, _) = intake::slice(&serde_json::from_value(object).unwrap());
    let mut slice = slice.unwrap();
    let zones = |slice: &portolan_model::Slice| -> Vec<String> {
        let zone = |endpoint| {
            slice
                .zone_of(endpoint)
                .map_or("-", |zone| &**zone)
                .to_owned()
        };
        slice.endpoints.iter().map(zone).collect()
    };
    assert_eq!(zones(&slice), ["west-a", "west-b", "west-a", "-", "-"]);
    assert_eq!(slice.zones.len(), 2);
    slice.forget_zones();
    assert_eq!(zones(&slice), ["-"; 5]);
    // The number lies in what aligning the fields leaves free.
    assert_eq!(size_of::<portolan_model::Endpoint>(), 80);
}
