//! Fields of the spec: what is refused when a Service is made is refused, in
//! the same words, when one is replaced or patched.

use super::{V4, V6, cluster, create, merge, patch, refused, remove, replace, service, spec};
use crate::common::Lab;
use serde_json::{Value, json};

/// A field of a type that is refused, and the causes.
type Case = (&'static str, Value, &'static [&'static str]);

/// Both stacks, create, replace and merge patch.
async fn table(cases: &[Case]) {
    for ranges in [&[V4][..], &[V6, V4]] {
        let lab = cluster(ranges).await;
        for (service_type, fields, want) in cases {
            everywhere(&lab, service_type, fields, want).await;
        }
    }
}

async fn everywhere(lab: &Lab, service_type: &str, fields: &Value, want: &[&str]) {
    let bad = spec(service_type, fields);
    let made = lab.post(super::SERVICES, &service("web", &bad)).await;
    refused(&made, want);
    let good = match service_type {
        "ExternalName" => json!({"externalName": "a.example"}),
        _ => json!({}),
    };
    let mut spec = spec(service_type, &good);
    create(lab, "web", &spec).await;
    refused(&patch(lab, "web", fields).await, want);
    merge(&mut spec, fields);
    refused(&replace(lab, "web", &spec).await, want);
    remove(lab, "web").await;
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[tokio::test]
async fn s1_names() {
    let lab = cluster(&[V4]).await;
    let plain = spec("ClusterIP", &json!({}));
    create(&lab, "1-web", &plain).await;
    for name in ["Web", "a.b", "-a", "a_b"] {
        let got = lab.post(super::SERVICES, &service(name, &plain)).await;
        let want = format!("FieldValueInvalid metadata.name: Invalid value: \"{name}\": {LABEL}");
        refused(&got, &[&want]);
    }
    let long = "a".repeat(64);
    let got = lab.post(super::SERVICES, &service(&long, &plain)).await;
    let want = format!(
        "FieldValueInvalid metadata.name: Invalid value: \"{long}\": must be no more than 63 bytes"
    );
    refused(&got, &[&want]);
}

#[tokio::test]
async fn s2_s3_s5_types_and_what_they_need() {
    let lab = cluster(&[V4, V6]).await;
    let got = lab
        .post(
            super::SERVICES,
            &service("web", &spec("Cluster", &json!({}))),
        )
        .await;
    assert_eq!(got.expect(422)["reason"], "Invalid");
    let plain = create(&lab, "plain", &json!({"ports": [{"port": 1}]})).await;
    assert_eq!(plain["spec"]["type"], "ClusterIP");
    create(&lab, "bare", &json!({"clusterIP": "None"})).await;
    table(&[
        (
            "ClusterIP",
            json!({"ports": []}),
            &["FieldValueRequired spec.ports: Required value"],
        ),
        (
            "ExternalName",
            json!({"externalName": ""}),
            &["FieldValueRequired spec.externalName: Required value"],
        ),
        (
            "ExternalName",
            json!({"externalName": "a.example", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}),
            &["FieldValueForbidden spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        ),
        (
            "ExternalName",
            json!({"externalName": "a.example", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
            &[
                "FieldValueForbidden spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "FieldValueForbidden spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn s4_headless_is_of_type_cluster_ip() {
    for ranges in [&[V4][..], &[V6], &[V4, V6]] {
        let lab = cluster(ranges).await;
        for kind in ["NodePort", "LoadBalancer"] {
            let want = format!(
                "FieldValueInvalid spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for {kind} services"
            );
            let bad = spec(kind, &json!({"clusterIP": "None"}));
            let got = lab.post(super::SERVICES, &service("web", &bad)).await;
            refused(&got, &[&want]);
            let headless = spec("ClusterIP", &json!({"clusterIP": "None"}));
            create(&lab, "web", &headless).await;
            refused(&patch(&lab, "web", &json!({"type": kind})).await, &[&want]);
            refused(&replace(&lab, "web", &bad).await, &[&want]);
            remove(&lab, "web").await;
        }
    }
}

#[tokio::test]
async fn s6_s7_s8_s9_ports() {
    let range = "must be between 1 and 65535, inclusive";
    let port: [(Value, String); 2] = [0, 65_536].map(|bad: i64| {
        let want = format!("FieldValueInvalid spec.ports[0].port: Invalid value: {bad}: {range}");
        (json!({"ports": [{"port": bad, "targetPort": 8080}]}), want)
    });
    let lab = cluster(&[V4]).await;
    for (fields, want) in port {
        everywhere(&lab, "ClusterIP", &fields, &[&want]).await;
    }
    table(&[
        (
            "ClusterIP",
            json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
            &["FieldValueRequired spec.ports[0].name: Required value"],
        ),
        (
            "NodePort",
            json!({"ports": [{"port": 80, "name": "b"}, {"port": 81, "name": "b"}]}),
            &["FieldValueDuplicate spec.ports[1].name: Duplicate value: \"b\""],
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "targetPort": 65536}]}),
            &["FieldValueInvalid spec.ports[0].targetPort: Invalid value: 65536: must be between 1 and 65535, inclusive"],
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "targetPort": "HTTP"}]}),
            &[
                "FieldValueInvalid spec.ports[0].targetPort: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "FieldValueInvalid spec.ports[0].targetPort: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
            ],
        ),
        (
            "LoadBalancer",
            json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
            &["FieldValueNotSupported spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            &["FieldValueDuplicate spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}"],
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "nodePort": 30080}]}),
            &["FieldValueForbidden spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "appProtocol": "a b"}]}),
            &["FieldValueInvalid spec.ports[0].appProtocol: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn s10_session_affinity() {
    let timeout = |seconds: i64| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    table(&[
        (
            "ClusterIP",
            json!({"sessionAffinity": "Sticky"}),
            &["FieldValueNotSupported spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\""],
        ),
        (
            "ClusterIP",
            timeout(0),
            &["FieldValueInvalid spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than or equal to 86400"],
        ),
        (
            "NodePort",
            timeout(86_401),
            &["FieldValueInvalid spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than or equal to 86400"],
        ),
    ])
    .await;
    let lab = cluster(&[V4]).await;
    let made = create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
    assert_eq!(made["spec"]["sessionAffinity"], "None");
    let sticky = patch(&lab, "web", &json!({"sessionAffinity": "ClientIP"})).await;
    let config = &sticky.expect(200)["spec"]["sessionAffinityConfig"];
    assert_eq!(config, &json!({"clientIP": {"timeoutSeconds": 10800}}));
    // The default goes with what it belongs to.
    let loose = patch(&lab, "web", &json!({"sessionAffinity": "None"})).await;
    assert!(loose.expect(200)["spec"]["sessionAffinityConfig"].is_null());
}

#[tokio::test]
async fn s11_s29_external_ips() {
    table(&[
        (
            "ClusterIP",
            json!({"externalIPs": ["127.0.0.1", "0.0.0.0", "224.0.0.1"]}),
            &[
                "FieldValueInvalid spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "FieldValueInvalid spec.externalIPs[1]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
                "FieldValueInvalid spec.externalIPs[2]: Invalid value: \"224.0.0.1\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
            ],
        ),
        (
            "NodePort",
            json!({"externalIPs": ["010.1.1.1", "::ffff:192.0.2.1", "x"]}),
            &[
                "FieldValueInvalid spec.externalIPs[0]: Invalid value: \"010.1.1.1\": must not have leading 0s",
                "FieldValueInvalid spec.externalIPs[1]: Invalid value: \"::ffff:192.0.2.1\": must not be an IPv4-mapped IPv6 address",
                "FieldValueInvalid spec.externalIPs[2]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn s12_s13_s14_s29_load_balancer_fields() {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let lab = cluster(&[V4, V6]).await;
    for kind in ["ClusterIP", "NodePort"] {
        for (field, shown, value) in [
            (
                "loadBalancerSourceRanges",
                "LoadBalancerSourceRanges",
                json!(["192.0.2.0/24"]),
            ),
            (
                "allocateLoadBalancerNodePorts",
                "allocateLoadBalancerNodePorts",
                json!(true),
            ),
            ("loadBalancerClass", "loadBalancerClass", json!("a/b")),
        ] {
            let want = format!("FieldValueForbidden spec.{shown}: Forbidden: {only}");
            let mut all = vec![want.as_str()];
            let bad = spec(kind, &json!({field: value}));
            let got = lab.post(super::SERVICES, &service("web", &bad)).await;
            refused(&got, &all);
            create(&lab, "web", &spec(kind, &json!({}))).await;
            if field == "loadBalancerClass" {
                // An update looks at the class twice.
                all.push(&want);
            }
            refused(&replace(&lab, "web", &bad).await, &all);
            refused(&patch(&lab, "web", &json!({field: value})).await, &all);
            remove(&lab, "web").await;
        }
    }
    table(&[(
        "LoadBalancer",
        json!({"loadBalancerSourceRanges": [" 192.0.2.0/24 ", "192.0.2.1/24", "192.0.2.0/024", "192.0.2.1"]}),
        &[
            "FieldValueInvalid spec.LoadBalancerSourceRanges[1]: Invalid value: \"192.0.2.1/24\": must not have bits set beyond the prefix length",
            "FieldValueInvalid spec.LoadBalancerSourceRanges[2]: Invalid value: \"192.0.2.0/024\": must not have leading 0s in IP or prefix length",
            "FieldValueInvalid spec.LoadBalancerSourceRanges[3]: Invalid value: \"192.0.2.1\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    )])
    .await;
}

#[tokio::test]
async fn s14_the_class_does_not_change() {
    let lab = cluster(&[V4]).await;
    create(
        &lab,
        "web",
        &spec("LoadBalancer", &json!({"loadBalancerClass": "a/b"})),
    )
    .await;
    let want = |value: &str| {
        format!(
            "FieldValueInvalid spec.loadBalancerClass: Invalid value: {value}: may not change once set"
        )
    };
    let got = patch(&lab, "web", &json!({"loadBalancerClass": "a/c"})).await;
    refused(&got, &[&want("\"a/c\"")]);
    let got = patch(&lab, "web", &json!({"loadBalancerClass": null})).await;
    refused(&got, &[&want("\"null\"")]);
    // It may be set together with the type, and goes with the type.
    patch(&lab, "web", &json!({"type": "NodePort"}))
        .await
        .expect(200);
    let fields = json!({"type": "LoadBalancer", "loadBalancerClass": "x/y"});
    let again = patch(&lab, "web", &fields).await.expect(200);
    assert_eq!(again["spec"]["loadBalancerClass"], "x/y");
}

#[tokio::test]
async fn s15_s17_s18_traffic_policies() {
    table(&[
        (
            "ClusterIP",
            json!({"externalTrafficPolicy": "Local"}),
            &["FieldValueInvalid spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
        ),
        (
            "NodePort",
            json!({"externalTrafficPolicy": "Far"}),
            &["FieldValueNotSupported spec.externalTrafficPolicy: Unsupported value: \"Far\": supported values: \"Cluster\", \"Local\""],
        ),
        (
            "ClusterIP",
            json!({"internalTrafficPolicy": "Far"}),
            &["FieldValueNotSupported spec.internalTrafficPolicy: Unsupported value: \"Far\": supported values: \"Cluster\", \"Local\""],
        ),
        (
            "ClusterIP",
            json!({"trafficDistribution": "Near"}),
            &["FieldValueNotSupported spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\""],
        ),
    ])
    .await;
    let lab = cluster(&[V4]).await;
    let made = create(
        &lab,
        "open",
        &spec("ClusterIP", &json!({"externalIPs": ["192.0.2.1"]})),
    )
    .await;
    assert_eq!(made["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(made["spec"]["internalTrafficPolicy"], "Cluster");
    patch(&lab, "open", &json!({"externalTrafficPolicy": "Local"}))
        .await
        .expect(200);
}

#[tokio::test]
async fn s28_topology_annotations_agree() {
    let lab = cluster(&[V4]).await;
    let want = "FieldValueInvalid metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Auto\": must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified";
    let annotations = json!({"service.kubernetes.io/topology-mode": "Auto", "service.kubernetes.io/topology-aware-hints": "Disabled"});
    let mut object = service("web", &spec("ClusterIP", &json!({})));
    object["metadata"]["annotations"] = annotations.clone();
    refused(&lab.post(super::SERVICES, &object).await, &[want]);
    create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
    let body = json!({"metadata": {"annotations": annotations}});
    refused(&lab.merge(&super::path("web"), &body).await, &[want]);
}
