//! Tables of inputs and causes, one test per S rule.

use super::*;
use crate::kinds::service::KIND;
use serde_json::json;

/// A valid Service of a type with these changes to its spec (null removes).
fn made(service_type: &str, changes: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": service_type, "ports": [{"port": 80}]},
    });
    for (key, value) in changes.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    (KIND.defaults)(&mut object);
    KIND.prepare_create(&mut object);
    object
}

fn lines(causes: Vec<Cause>) -> Vec<String> {
    causes
        .iter()
        .map(|cause| format!("{cause} ({:?})", cause.reason))
        .collect()
}

fn create(service_type: &str, changes: Value) -> Vec<String> {
    lines(KIND.validate_create(&made(service_type, changes)))
}

/// The causes start with these, in order, and there are no more.
fn check(got: Vec<String>, want: &[&str]) {
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "{got:?} should start with {want:?}");
    }
}

#[test]
fn s2_types() {
    for good in ["ClusterIP", "NodePort", "LoadBalancer"] {
        check(create(good, json!({})), &[]);
    }
    check(
        create("Cluster", json!({})),
        &[
            "spec.type: Unsupported value: \"Cluster\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
}

#[test]
fn s3_ports_are_required() {
    check(
        create("ClusterIP", json!({"ports": []})),
        &["spec.ports: Required value"],
    );
    check(
        create("ClusterIP", json!({"ports": [], "clusterIP": "None"})),
        &[],
    );
    check(
        create("ExternalName", json!({"ports": [], "externalName": "a.b"})),
        &[],
    );
}

#[test]
fn s4_headless_is_cluster_ip_only() {
    for service_type in ["LoadBalancer", "NodePort"] {
        check(
            create(service_type, json!({"clusterIP": "None"})),
            &[&format!(
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for {service_type} services"
            )],
        );
    }
}

#[test]
fn s5_external_name() {
    check(
        create("ExternalName", json!({})),
        &["spec.externalName: Required value"],
    );
    check(
        create("ExternalName", json!({"externalName": "db.example.com."})),
        &[],
    );
    check(
        create("ExternalName", json!({"externalName": "a_b"})),
        &["spec.externalName: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain"],
    );
    check(
        create(
            "ExternalName",
            json!({"externalName": "a.b", "clusterIP": "10.0.0.1", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}),
        ),
        &[
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ],
    );
}

#[test]
fn s6_several_ports_have_names() {
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
        ),
        &["spec.ports[0].name: Required value"],
    );
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "name": "b"}, {"port": 81, "name": "b"}]}),
        ),
        &["spec.ports[1].name: Duplicate value: \"b\""],
    );
    check(
        create("ClusterIP", json!({"ports": [{"port": 80, "name": "B"}]})),
        &["spec.ports[0].name: Invalid value: \"B\": a lowercase RFC 1123 label"],
    );
}

#[test]
fn s7_port_numbers_protocols_and_target_ports() {
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 0, "targetPort": 80}]}),
        ),
        &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
    );
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "targetPort": 65536}]}),
        ),
        &["spec.ports[0].targetPort: Invalid value: 65536: must be between 1 and 65535, inclusive"],
    );
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "protocol": "tcp"}]}),
        ),
        &[
            "spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "targetPort": "HTTP"}]}),
        ),
        &[
            "spec.ports[0].targetPort: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.ports[0].targetPort: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
        ],
    );
}

#[test]
fn s8_duplicates() {
    let ports = json!([{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]);
    check(
        create("ClusterIP", json!({"ports": ports})),
        &["spec.ports[1]: Duplicate value: {"],
    );
    let ports = json!([{"port": 80, "name": "a"}, {"port": 80, "name": "b", "protocol": "UDP"}]);
    check(create("ClusterIP", json!({"ports": ports})), &[]);
    let ports = json!([{"port": 80, "name": "a", "nodePort": 30080}, {"port": 81, "name": "b", "nodePort": 30080}]);
    check(
        create("NodePort", json!({"ports": ports})),
        &["spec.ports[1].nodePort: Duplicate value: 30080"],
    );
    let ports = json!([{"port": 53, "name": "a", "nodePort": 30053}, {"port": 53, "name": "b", "protocol": "UDP", "nodePort": 30053}]);
    check(create("NodePort", json!({"ports": ports})), &[]);
}

#[test]
fn s9_node_ports_and_app_protocols() {
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "nodePort": 30080}]}),
        ),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "appProtocol": "a b"}]}),
        ),
        &["spec.ports[0].appProtocol: Invalid value: \"a b\": name part"],
    );
    check(
        create(
            "ClusterIP",
            json!({"ports": [{"port": 80, "appProtocol": "kubernetes.io/h2c"}]}),
        ),
        &[],
    );
}

#[test]
fn s10_affinity() {
    let with = |seconds: i64| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    check(create("ClusterIP", with(86_400)), &[]);
    for bad in [0, 86_401] {
        check(
            create("ClusterIP", with(bad)),
            &[&format!(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: {bad}: must be greater than 0 and less than or equal to 86400"
            )],
        );
    }
    check(
        create("ClusterIP", json!({"sessionAffinity": "Sticky"})),
        &["spec.sessionAffinity: Unsupported value: \"Sticky\""],
    );
    let mut object = made("ClusterIP", json!({}));
    object["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 5}});
    check(
        lines(KIND.validate_create(&object)),
        &["spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None"],
    );
}

#[test]
fn s11_external_ips() {
    check(
        create("ClusterIP", json!({"externalIPs": ["192.0.2.1"]})),
        &[],
    );
    check(
        create("ClusterIP", json!({"externalIPs": ["127.0.0.1", "x"]})),
        &[
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
            "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address",
        ],
    );
}

#[test]
fn s12_source_ranges() {
    check(
        create(
            "LoadBalancer",
            json!({"loadBalancerSourceRanges": [" 10.0.0.0/8 "]}),
        ),
        &[],
    );
    check(
        create(
            "ClusterIP",
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
        ),
        &[
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ],
    );
    check(
        create(
            "LoadBalancer",
            json!({"loadBalancerSourceRanges": ["10.0.0.0"]}),
        ),
        &[
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value",
        ],
    );
}

#[test]
fn s13_s14_load_balancer_fields() {
    check(
        create("NodePort", json!({"allocateLoadBalancerNodePorts": true})),
        &["spec.allocateLoadBalancerNodePorts: Forbidden"],
    );
    check(
        create("NodePort", json!({"loadBalancerClass": "a/b"})),
        &["spec.loadBalancerClass: Forbidden"],
    );
    check(
        create("LoadBalancer", json!({"loadBalancerClass": "a b"})),
        &["spec.loadBalancerClass: Invalid value"],
    );
    let old = made("LoadBalancer", json!({"loadBalancerClass": "a/b"}));
    let new = made("LoadBalancer", json!({"loadBalancerClass": "a/c"}));
    check(
        lines(service(&new, Some(&old))),
        &["spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set"],
    );
}

#[test]
fn s15_s16_external_traffic_policy() {
    check(
        create("ClusterIP", json!({"externalTrafficPolicy": "Local"})),
        &[
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ],
    );
    check(
        create("NodePort", json!({"externalTrafficPolicy": "Far"})),
        &[
            "spec.externalTrafficPolicy: Unsupported value: \"Far\": supported values: \"Cluster\", \"Local\"",
        ],
    );
    check(
        create("NodePort", json!({"externalTrafficPolicy": "Local"})),
        &[],
    );
    check(
        create("LoadBalancer", json!({"externalTrafficPolicy": "Local"})),
        &["spec.healthCheckNodePort: Required value"],
    );
    check(
        create("NodePort", json!({"healthCheckNodePort": 30000})),
        &["spec.healthCheckNodePort: Invalid value: 30000: may only be set when"],
    );
    let local = |port: i64| {
        made(
            "LoadBalancer",
            json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": port}),
        )
    };
    check(
        lines(service(&local(30001), Some(&local(30000)))),
        &["spec.healthCheckNodePort: Forbidden: field is immutable"],
    );
}

#[test]
fn s17_s18_other_policies() {
    check(
        create("ClusterIP", json!({"internalTrafficPolicy": "x"})),
        &["spec.internalTrafficPolicy: Unsupported value: \"x\""],
    );
    for good in ["PreferClose", "PreferSameZone", "PreferSameNode"] {
        check(
            create("ClusterIP", json!({"trafficDistribution": good})),
            &[],
        );
    }
    check(
        create("ClusterIP", json!({"trafficDistribution": "x"})),
        &[
            "spec.trafficDistribution: Unsupported value: \"x\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
        ],
    );
}

#[test]
fn s19_cluster_ips() {
    let with = |ips: Value, families: Value| json!({"clusterIP": ips[0].clone(), "clusterIPs": ips, "ipFamilies": families});
    check(
        create(
            "ClusterIP",
            with(json!(["10.0.0.1", "fd00::1"]), json!(["IPv4", "IPv6"])),
        ),
        &[],
    );
    check(
        create(
            "ClusterIP",
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
        ),
        &["spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"],
    );
    check(
        create("ClusterIP", with(json!(["None", "10.0.0.1"]), json!([]))),
        &[
            "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: 'None' must be the first and only value",
        ],
    );
    check(
        create(
            "ClusterIP",
            with(json!(["10.0.0.1", "10.0.0.2"]), json!([])),
        ),
        &[
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
        ],
    );
    check(
        create("ClusterIP", with(json!(["10.0.0.1"]), json!(["IPv6"]))),
        &[
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ],
    );
    check(
        create("ClusterIP", json!({"ipFamilies": ["IPv4", "IPv4"]})),
        &["spec.ipFamilies[1]: Duplicate value: \"IPv4\""],
    );
    check(
        create("ClusterIP", json!({"ipFamilyPolicy": "Both"})),
        &[
            "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
        ],
    );
}

#[test]
fn s20_the_primary_address_is_immutable() {
    let with = |ip: &str| {
        made(
            "ClusterIP",
            json!({"clusterIP": ip, "ipFamilies": ["IPv4"]}),
        )
    };
    check(
        lines(service(&with("10.0.0.1"), Some(&with("10.0.0.1")))),
        &[],
    );
    check(
        lines(service(&with("10.0.0.2"), Some(&with("10.0.0.1")))),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
    let external = made("ExternalName", json!({"externalName": "a.b"}));
    check(lines(service(&with("10.0.0.2"), Some(&external))), &[]);
}

#[test]
fn s27_ingress_status() {
    let mut object = made("LoadBalancer", json!({}));
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    check(
        lines(status(&object, &object)),
        &[
            "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set",
        ],
    );
    (KIND.defaults)(&mut object);
    check(lines(status(&object, &object)), &[]);
    object["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "192.0.2.1"}]}});
    check(
        lines(status(&object, &object)),
        &[
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
        ],
    );
    object["spec"]["type"] = json!("NodePort");
    check(
        lines(status(&object, &object)),
        &[
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        ],
    );
}

#[test]
fn s28_topology_annotations_agree() {
    let mut object = made("ClusterIP", json!({}));
    object["metadata"]["annotations"] = json!({TOPOLOGY_MODE: "Auto", TOPOLOGY_HINTS: "Disabled"});
    check(
        lines(KIND.validate_create(&object)),
        &[
            "metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Auto\": must match",
        ],
    );
}
