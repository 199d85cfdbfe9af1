//! From every type to every other: what is given, what is dropped.

use super::{
    SERVICES, V4, V6, cluster, create, patch, refused, remove, replace, service, spec, stored,
};
use serde_json::{Value, json};

const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];

/// What a type always has besides the type.
fn own(service_type: &str) -> Value {
    match service_type {
        "ExternalName" => json!({"externalName": "a.example"}),
        _ => json!({}),
    }
}

#[track_caller]
fn check(service_type: &str, spec: &Value, families: usize) {
    assert_eq!(spec["type"], service_type);
    let has = |field: &str| !spec[field].is_null();
    let external = service_type == "ExternalName";
    let node = matches!(service_type, "NodePort" | "LoadBalancer");
    let balanced = service_type == "LoadBalancer";
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(has(field), !external, "{service_type} {field} {spec}");
    }
    assert_eq!(has("internalTrafficPolicy"), !external, "{spec}");
    assert_eq!(has("externalTrafficPolicy"), node, "{spec}");
    assert_eq!(has("allocateLoadBalancerNodePorts"), balanced, "{spec}");
    assert!(!has("healthCheckNodePort"), "{spec}");
    assert_eq!(!spec["ports"][0]["nodePort"].is_null(), node, "{spec}");
    if !external {
        assert_eq!(spec["clusterIPs"].as_array().unwrap().len(), families);
    }
}

#[tokio::test]
async fn a8_s2_from_every_type_to_every_other() {
    for ranges in [&[V4][..], &[V6], &[V4, V6], &[V6, V4]] {
        let lab = cluster(ranges).await;
        for from in TYPES {
            for to in TYPES {
                create(&lab, "web", &spec(from, &own(from))).await;
                let before = stored(&lab, "web").await;
                check(from, &before, 1);
                let mut fields = own(to);
                fields["type"] = json!(to);
                let patched = patch(&lab, "web", &fields).await.expect(200)["spec"].clone();
                check(to, &patched, 1);
                if from != "ExternalName" && to != "ExternalName" {
                    assert_eq!(patched["clusterIPs"], before["clusterIPs"]);
                }
                // The same by a manifest, and back.
                let back = replace(&lab, "web", &spec(from, &own(from))).await;
                check(from, &back.expect(200)["spec"], 1);
                let again = replace(&lab, "web", &spec(to, &own(to))).await;
                check(to, &again.expect(200)["spec"], 1);
                remove(&lab, "web").await;
            }
        }
    }
}

#[tokio::test]
async fn a8_what_a_load_balancer_leaves_behind() {
    let lab = cluster(&[V4, V6]).await;
    for to in ["ClusterIP", "NodePort", "ExternalName"] {
        let full = json!({"externalTrafficPolicy": "Local", "loadBalancerClass": "a/b", "ipFamilyPolicy": "RequireDualStack",
            "healthCheckNodePort": 30500, "ports": [{"port": 80, "nodePort": 30080}]});
        let made = create(&lab, "web", &spec("LoadBalancer", &full)).await;
        let mut fields = own(to);
        fields["type"] = json!(to);
        let got = patch(&lab, "web", &fields).await.expect(200)["spec"].clone();
        check(to, &got, 2);
        assert!(got["loadBalancerClass"].is_null());
        let kept = to == "NodePort";
        let node_port = &got["ports"][0]["nodePort"];
        assert_eq!(*node_port == 30080, kept);
        // All that went is free.
        let mut freed = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30500});
        if !kept {
            freed["ports"] = json!([{"port": 80, "nodePort": 30080}]);
        }
        if to == "ExternalName" {
            freed["clusterIP"] = made["spec"]["clusterIP"].clone();
        }
        create(&lab, "heir", &spec("LoadBalancer", &freed)).await;
        remove(&lab, "heir").await;
        remove(&lab, "web").await;
    }
}

#[tokio::test]
async fn a8_what_is_changed_with_the_type_is_not_dropped() {
    let lab = cluster(&[V4]).await;
    let full = json!({"ports": [{"port": 80, "nodePort": 30080}], "loadBalancerSourceRanges": ["192.0.2.0/24"], "loadBalancerClass": "a/b"});
    create(&lab, "web", &spec("LoadBalancer", &full)).await;
    let ranges = "FieldValueForbidden spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'";
    refused(
        &patch(&lab, "web", &json!({"type": "ClusterIP"})).await,
        &[ranges],
    );
    let class = "FieldValueForbidden spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'";
    let fields =
        json!({"type": "NodePort", "loadBalancerSourceRanges": null, "loadBalancerClass": "a/c"});
    refused(&patch(&lab, "web", &fields).await, &[class, class]);
    let port = "FieldValueForbidden spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'";
    let fields = json!({"type": "ClusterIP", "loadBalancerSourceRanges": null, "ports": [{"port": 80, "nodePort": 30081}]});
    refused(&patch(&lab, "web", &fields).await, &[port]);
    let ips =
        "FieldValueForbidden spec.clusterIPs: Forbidden: may not be set for ExternalName services";
    let fields = json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.9", "loadBalancerSourceRanges": null});
    refused(&patch(&lab, "web", &fields).await, &[ips]);
    // Ports may go or move when none is new.
    let fields = json!({"type": "ClusterIP", "loadBalancerSourceRanges": null,
        "ports": [{"port": 81, "name": "a", "nodePort": 30080}, {"port": 82, "name": "b"}]});
    let got = patch(&lab, "web", &fields).await.expect(200);
    assert!(got["spec"]["ports"][0]["nodePort"].is_null());
}

#[tokio::test]
async fn a8_s17_external_names() {
    let lab = cluster(&[V6, V4]).await;
    let fields =
        json!({"externalName": "a.example.", "internalTrafficPolicy": "Local", "ports": null});
    let made = create(&lab, "web", &spec("ExternalName", &fields)).await;
    assert!(made["spec"]["internalTrafficPolicy"].is_null());
    assert!(made["spec"]["clusterIPs"].is_null());
    // Without ports it cannot become another type.
    let got = patch(&lab, "web", &json!({"type": "ClusterIP"})).await;
    refused(&got, &["FieldValueRequired spec.ports: Required value"]);
    let fields = json!({"type": "ClusterIP", "ports": [{"port": 80}]});
    let got = patch(&lab, "web", &fields).await.expect(200);
    assert_eq!(got["spec"]["externalName"], "a.example.");
    assert_eq!(got["spec"]["ipFamilies"], json!(["IPv6"]));
    // Headless to ExternalName and back to another address.
    create(
        &lab,
        "none",
        &spec("ClusterIP", &json!({"clusterIP": "None"})),
    )
    .await;
    let external = json!({"type": "ExternalName", "externalName": "a.b"});
    patch(&lab, "none", &external).await.expect(200);
    let wanted = json!({"clusterIP": "10.96.0.90"});
    let got = replace(&lab, "none", &spec("ClusterIP", &wanted))
        .await
        .expect(200);
    assert_eq!(got["spec"]["clusterIPs"], json!(["10.96.0.90"]));
    let taken = lab
        .post(SERVICES, &service("x", &spec("ClusterIP", &wanted)))
        .await;
    taken.expect(422);
}
