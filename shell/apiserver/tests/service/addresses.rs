//! ClusterIPs: bands, wishes, conflicts, and what is given back.

use super::{
    SERVICES, V4, V6, cluster, create, create_dry, patch, path, refused, remove, replace, service,
    spec, stored, texts,
};
use crate::common::Lab;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

async fn addresses(lab: &Lab) -> BTreeSet<String> {
    let list = lab.get(ADDRESSES).await.expect(200);
    let items = list["items"].as_array().unwrap();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    items.iter().map(name).collect()
}

async fn cluster_ip(lab: &Lab, name: &str) -> String {
    let made = create(lab, name, &spec("ClusterIP", &json!({}))).await;
    made["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a4_the_first_address_is_kubernetes() {
    for (ranges, first, family) in [
        (&[V4][..], "10.96.0.1", "IPv4"),
        (&[V6], "fd00:10:96::1", "IPv6"),
        (&[V4, V6], "10.96.0.1", "IPv4"),
        (&[V6, V4], "fd00:10:96::1", "IPv6"),
    ] {
        let lab = cluster(ranges).await;
        let spec = stored(&lab, "kubernetes").await;
        assert_eq!(spec["clusterIP"], first, "{ranges:?}");
        assert_eq!(spec["ipFamilies"], json!([family]));
        let cidr = lab
            .get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
            .await;
        assert_eq!(texts(&cidr.expect(200)["spec"]["cidrs"]), *ranges);
    }
}

#[tokio::test]
async fn a1_a2_the_upper_band_first_then_the_lower() {
    // 64 addresses, 62 usable: the band of 16 is the last resort.
    let lab = cluster(&["10.99.0.0/26"]).await;
    let upper = Ipv4Addr::new(10, 99, 0, 16);
    let used = addresses(&lab).await.len();
    for number in 0..62 - used {
        let ip: Ipv4Addr = cluster_ip(&lab, &format!("web-{number}"))
            .await
            .parse()
            .unwrap();
        let low = ip <= upper;
        assert_eq!(low, number >= 46, "{number}: {ip}");
    }
    let full = lab
        .post(SERVICES, &service("more", &spec("ClusterIP", &json!({}))))
        .await;
    let full = full.expect(500);
    assert_eq!(full["reason"], "InternalError");
    let text = "Internal error occurred: failed to allocate a serviceIP: range is full";
    assert_eq!(full["message"], text);
    // A static wish may lie in either band.
    for name in ["web-0", "web-50"] {
        let wanted = json!({"clusterIP": stored(&lab, name).await["clusterIP"]});
        remove(&lab, name).await;
        create(&lab, name, &spec("ClusterIP", &wanted)).await;
    }
}

#[tokio::test]
async fn a7_conflicts_and_ranges_of_addresses() {
    for (range, held, outside, edge, last) in [
        (
            V4,
            "10.96.0.50",
            "10.97.0.1",
            "10.96.0.0",
            Some("10.96.255.255"),
        ),
        (V6, "fd00:10:96::50", "fd00:10:97::1", "fd00:10:96::", None),
    ] {
        let lab = cluster(&[range]).await;
        create(
            &lab,
            "held",
            &spec("ClusterIP", &json!({"clusterIP": held})),
        )
        .await;
        let why = |address: &str, text: &str| {
            format!(
                "FieldValueInvalid spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP {address}: {text}"
            )
        };
        let ends = [Some(edge), last].into_iter().flatten();
        let unusable = ends.map(|end| {
            (end, format!("the provided IP ({end}) is not in the valid range. The range of valid IPs is {range}"))
        });
        let network = format!(
            "the provided network does not match the current range. The range of valid IPs is {range}"
        );
        let cases = [
            (held, "provided IP is already allocated".to_owned()),
            (outside, network),
        ];
        for (address, text) in cases.into_iter().chain(unusable) {
            let fields = json!({"clusterIP": address});
            let got = lab
                .post(SERVICES, &service("web", &spec("ClusterIP", &fields)))
                .await;
            refused(&got, &[&why(address, &text)]);
            // The same on the way from ExternalName.
            create(
                &lab,
                "web",
                &spec("ExternalName", &json!({"externalName": "a.b"})),
            )
            .await;
            let got = replace(&lab, "web", &spec("ClusterIP", &fields)).await;
            refused(&got, &[&why(address, &text)]);
            remove(&lab, "web").await;
        }
    }
}

#[tokio::test]
async fn a7_a12_a_second_address_that_is_held_gives_the_first_back() {
    let lab = cluster(&[V4, V6]).await;
    create(
        &lab,
        "held",
        &spec("ClusterIP", &json!({"clusterIP": "fd00:10:96::50"})),
    )
    .await;
    let both = json!({"clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.50", "fd00:10:96::50"], "ipFamilyPolicy": "RequireDualStack"});
    let want = "FieldValueInvalid spec.clusterIPs: Invalid value: [\"10.96.0.50\",\"fd00:10:96::50\"]: failed to allocate IP fd00:10:96::50: provided IP is already allocated";
    let before = addresses(&lab).await;
    let got = lab
        .post(SERVICES, &service("web", &spec("ClusterIP", &both)))
        .await;
    refused(&got, &[want]);
    assert_eq!(addresses(&lab).await, before);
    create(
        &lab,
        "web",
        &spec("ClusterIP", &json!({"clusterIP": "10.96.0.50"})),
    )
    .await;
    // And on the way up from one family.
    let fields = json!({"clusterIPs": both["clusterIPs"], "ipFamilyPolicy": "RequireDualStack"});
    refused(&patch(&lab, "web", &fields).await, &[want]);
    let fields = json!({"clusterIPs": ["10.96.0.50", "fd00:10:96::51"], "ipFamilyPolicy": "RequireDualStack"});
    let up = patch(&lab, "web", &fields).await.expect(200);
    assert_eq!(up["spec"]["clusterIPs"], fields["clusterIPs"]);
}

#[tokio::test]
async fn a12_what_validation_refuses_has_taken_nothing() {
    let lab = cluster(&[V4, V6]).await;
    let before = addresses(&lab).await;
    let wanted = json!({"clusterIP": "10.96.0.60", "ports": [{"port": 80, "nodePort": 30060}], "sessionAffinity": "Sticky"});
    let got = lab
        .post(SERVICES, &service("web", &spec("NodePort", &wanted)))
        .await;
    got.expect(422);
    // A port that is held: the address goes back, too.
    let port = json!([{"port": 80, "nodePort": 30061}]);
    create(&lab, "port", &spec("NodePort", &json!({"ports": port}))).await;
    let fields = json!({"clusterIP": "10.96.0.60", "ports": port});
    lab.post(SERVICES, &service("web", &spec("NodePort", &fields)))
        .await
        .expect(422);
    remove(&lab, "port").await;
    assert_eq!(addresses(&lab).await, before);
    let fields = json!({"clusterIP": "10.96.0.60", "ports": [{"port": 80, "nodePort": 30060}]});
    create(&lab, "web", &spec("NodePort", &fields)).await;
}

#[tokio::test]
async fn a5_a8_addresses_come_and_go_with_their_services() {
    let lab = cluster(&[V4, V6]).await;
    let dual = json!({"ipFamilyPolicy": "RequireDualStack"});
    let made = create(&lab, "web", &spec("ClusterIP", &dual)).await;
    for ip in texts(&made["spec"]["clusterIPs"]) {
        let object = lab.get(&format!("{ADDRESSES}/{ip}")).await.expect(200);
        let parent =
            json!({"group": "", "resource": "services", "namespace": "default", "name": "web"});
        let mut got = object["spec"]["parentRef"].clone();
        got["group"] = json!("");
        assert_eq!(got, parent);
    }
    let held = addresses(&lab).await;
    let external = json!({"type": "ExternalName", "externalName": "a.b"});
    patch(&lab, "web", &external).await.expect(200);
    assert_eq!(addresses(&lab).await.len(), held.len() - 2);
    patch(&lab, "web", &json!({"type": "ClusterIP"}))
        .await
        .expect(200);
    assert_eq!(addresses(&lab).await.len(), held.len() - 1);
    // A finalizer keeps the address as long as the Service.
    let body = json!({"metadata": {"finalizers": ["example.com/wait"]}});
    lab.merge(&path("web"), &body).await.expect(200);
    remove(&lab, "web").await;
    assert_eq!(addresses(&lab).await.len(), held.len() - 1);
    let body = json!({"metadata": {"finalizers": null}});
    lab.merge(&path("web"), &body).await.expect(200);
    assert_eq!(addresses(&lab).await.len(), held.len() - 2);
    lab.get(&path("web")).await.expect(404);
}

#[tokio::test]
async fn a9_a_dry_run_consumes_nothing() {
    for ranges in [&[V4][..], &[V6, V4]] {
        let lab = cluster(ranges).await;
        let before = addresses(&lab).await;
        let fields = json!({"externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack"});
        let dry = create_dry(&lab, "web", &spec("LoadBalancer", &fields))
            .await
            .expect(201);
        assert!(dry["spec"]["healthCheckNodePort"].as_i64().unwrap() > 0);
        assert_eq!(texts(&dry["spec"]["clusterIPs"]).len(), ranges.len());
        lab.get(&path("web")).await.expect(404);
        assert_eq!(addresses(&lab).await, before);

        create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
        let held = addresses(&lab).await;
        let was = stored(&lab, "web").await;
        let dry = format!("{}?dryRun=All", path("web"));
        for change in [
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30070}]}),
            json!({"type": "ExternalName", "externalName": "a.b"}),
            json!({"ipFamilyPolicy": "PreferDualStack"}),
        ] {
            lab.merge(&dry, &json!({"spec": change})).await.expect(200);
            assert_eq!(stored(&lab, "web").await, was, "{change}");
            assert_eq!(addresses(&lab).await, held, "{change}");
        }
        lab.delete(&dry).await.expect(200);
        assert_eq!(stored(&lab, "web").await, was);
        let taken = json!({"ports": [{"port": 80, "nodePort": 30070}]});
        create(&lab, "port", &spec("NodePort", &taken)).await;
    }
}

#[tokio::test]
async fn a6_a7_a9_a_dry_run_looks_at_the_range_only() {
    let lab = cluster(&[V4]).await;
    let taken = spec("ClusterIP", &json!({"clusterIP": "10.96.0.50"}));
    create(&lab, "held", &taken).await;
    create_dry(&lab, "web", &taken).await.expect(201);
    let outside = spec("ClusterIP", &json!({"clusterIP": "10.97.0.1"}));
    create_dry(&lab, "web", &outside).await.expect(422);
    // Another ServiceCIDR makes it good.
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}});
    lab.post("/apis/networking.k8s.io/v1/servicecidrs", &cidr)
        .await
        .expect(201);
    create(&lab, "web", &outside).await;
}
