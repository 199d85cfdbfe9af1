//! NodePorts: bands, sharing, conflicts, and what an update keeps.

use super::{
    SERVICES, V4, V6, cluster, create, create_dry, patch, refused, remove, replace, service, spec,
    stored, strategic,
};
use crate::common::Lab;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn node_ports(spec: &Value) -> Vec<i64> {
    let ports = spec["ports"].as_array().unwrap().iter();
    ports
        .map(|port| port["nodePort"].as_i64().unwrap_or(0))
        .collect()
}

#[tokio::test]
async fn a3_the_upper_band_first_then_the_lower() {
    // 200 ports: the first 16 are the last resort.
    let lab = Lab::start_with(|config| config.node_ports = 30_000..=30_199).await;
    for round in 0..4 {
        let ports: Vec<Value> = (0..46)
            .map(|port| json!({"name": format!("p{port}"), "port": 1 + port}))
            .collect();
        let made = create(
            &lab,
            &format!("web-{round}"),
            &json!({"type": "NodePort", "ports": ports}),
        )
        .await;
        let ports = node_ports(&made["spec"]);
        assert!(ports.iter().all(|port| *port >= 30_016), "{ports:?}");
    }
    let ports: Vec<Value> = (0..16)
        .map(|port| json!({"name": format!("p{port}"), "port": 1 + port}))
        .collect();
    let made = create(&lab, "low", &json!({"type": "NodePort", "ports": ports})).await;
    let got: BTreeSet<i64> = node_ports(&made["spec"]).into_iter().collect();
    assert_eq!(got, (30_000..30_016).collect());
    let full = lab
        .post(SERVICES, &service("more", &spec("NodePort", &json!({}))))
        .await;
    let text = "Internal error occurred: failed to allocate a nodePort: range is full";
    assert_eq!(full.expect(500)["message"], text);
}

#[tokio::test]
async fn s8_a7_one_port_of_the_node_for_protocols_of_one_port() {
    for ranges in [&[V4][..], &[V6], &[V6, V4]] {
        let lab = cluster(ranges).await;
        let dns =
            json!([{"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"}]);
        let made = create(&lab, "dns", &spec("NodePort", &json!({"ports": dns}))).await;
        let ports = node_ports(&made["spec"]);
        assert_eq!(ports[0], ports[1]);
        let two = json!([{"name": "tcp", "port": 53, "nodePort": 30053}, {"name": "udp", "port": 54, "protocol": "UDP", "nodePort": 30053}]);
        let got = lab
            .post(
                SERVICES,
                &service("web", &spec("NodePort", &json!({"ports": two}))),
            )
            .await;
        refused(
            &got,
            &[
                "FieldValueInvalid spec.ports[1].nodePort: Invalid value: 30053: provided port is already allocated",
            ],
        );
        // An update shares nothing of itself, and allows what it is told.
        create(&lab, "web", &spec("ClusterIP", &json!({"ports": dns}))).await;
        let got = patch(&lab, "web", &json!({"type": "NodePort"}))
            .await
            .expect(200);
        let ports = node_ports(&got["spec"]);
        assert!(
            ports[0] > 0 && ports[1] > 0 && ports[0] != ports[1],
            "{ports:?}"
        );
        let got = replace(&lab, "web", &spec("NodePort", &json!({"ports": two})))
            .await
            .expect(200);
        assert_eq!(node_ports(&got["spec"]), [30_053, 30_053]);
        let twice = json!([{"name": "a", "port": 53, "nodePort": 30053}, {"name": "b", "port": 54, "nodePort": 30053}]);
        let got = replace(&lab, "web", &spec("NodePort", &json!({"ports": twice}))).await;
        assert_eq!(
            got.expect(500)["message"],
            "duplicate nodePort: {TCP 30053}"
        );
    }
}

#[tokio::test]
async fn a7_conflicts_and_ranges_of_ports() {
    let lab = cluster(&[V4]).await;
    let port = |port: i64| json!({"ports": [{"port": 80, "nodePort": port}]});
    create(&lab, "held", &spec("NodePort", &port(30_080))).await;
    create(&lab, "web", &spec("NodePort", &json!({}))).await;
    let range = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    for kind in ["NodePort", "LoadBalancer"] {
        for (wanted, why) in [
            (30_080, "provided port is already allocated"),
            (29_999, range),
            (32_768, range),
            (80, range),
            (-1, range),
        ] {
            let want =
                format!("FieldValueInvalid spec.ports[0].nodePort: Invalid value: {wanted}: {why}");
            let spec = spec(kind, &port(wanted));
            let got = lab.post(SERVICES, &service("bad", &spec)).await;
            refused(&got, &[&want]);
            refused(&replace(&lab, "web", &spec).await, &[&want]);
            refused(&patch(&lab, "web", &spec).await, &[&want]);
        }
    }
    // A dry run looks at who has the port.
    let dry = create_dry(&lab, "bad", &spec("NodePort", &port(30_080))).await;
    refused(
        &dry,
        &[
            "FieldValueInvalid spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ],
    );
    remove(&lab, "held").await;
    patch(&lab, "web", &port(30_080)).await.expect(200);
}

#[tokio::test]
async fn s30_ports_of_the_node_go_with_the_name() {
    let lab = cluster(&[V4]).await;
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let made = create(&lab, "web", &spec("NodePort", &json!({"ports": ports}))).await;
    let old = node_ports(&made["spec"]);
    // Another order, another number, one more.
    let ports =
        json!([{"name": "b", "port": 8081}, {"name": "c", "port": 82}, {"name": "a", "port": 80}]);
    let got = replace(&lab, "web", &spec("NodePort", &json!({"ports": ports})))
        .await
        .expect(200);
    let new = node_ports(&got["spec"]);
    assert_eq!((new[0], new[2]), (old[1], old[0]));
    assert!(new[1] > 0 && !old.contains(&new[1]));
    // What is left out goes.
    let got = replace(
        &lab,
        "web",
        &spec("NodePort", &json!({"ports": [{"name": "c", "port": 82}]})),
    )
    .await;
    assert_eq!(node_ports(&got.expect(200)["spec"]), [new[1]]);
    let wanted = json!({"ports": [{"port": 80, "nodePort": old[0]}]});
    create(&lab, "other", &spec("NodePort", &wanted)).await;
    // A strategic patch finds the entry by its port number.
    let got = strategic(
        &lab,
        "web",
        &json!({"ports": [{"port": 82, "targetPort": 8082}]}),
    )
    .await;
    assert_eq!(node_ports(&got.expect(200)["spec"]), [new[1]]);
}

#[tokio::test]
async fn a10_s13_load_balancers_without_ports_of_the_node() {
    for ranges in [&[V4][..], &[V6, V4]] {
        let lab = cluster(ranges).await;
        let without = json!({"allocateLoadBalancerNodePorts": false});
        let made = create(&lab, "web", &spec("LoadBalancer", &without)).await;
        assert_eq!(node_ports(&made["spec"]), [0]);
        // It stays so over updates, and a port that is asked for is given.
        patch(&lab, "web", &json!({"sessionAffinity": "ClientIP"}))
            .await
            .expect(200);
        assert_eq!(node_ports(&stored(&lab, "web").await), [0]);
        let asked = json!({"ports": [{"port": 80, "nodePort": 30080}], "allocateLoadBalancerNodePorts": false});
        create(&lab, "asked", &spec("LoadBalancer", &asked)).await;
        assert_eq!(node_ports(&stored(&lab, "asked").await), [30_080]);

        // Ports that are there are kept until the client leaves them out.
        let made = create(&lab, "old", &spec("LoadBalancer", &json!({}))).await;
        assert_eq!(made["spec"]["allocateLoadBalancerNodePorts"], true);
        let had = node_ports(&made["spec"]);
        assert!(had[0] > 0);
        let kept = patch(&lab, "old", &without).await.expect(200);
        assert_eq!(node_ports(&kept["spec"]), had);
        let mut object = kept.clone();
        object["spec"]["ports"][0]["nodePort"] = json!(0);
        let cleared = lab.put(&super::path("old"), &object).await.expect(200);
        assert_eq!(node_ports(&cleared["spec"]), [0]);
        let wanted = json!({"ports": [{"port": 80, "nodePort": had[0]}]});
        create(&lab, "other", &spec("NodePort", &wanted)).await;
        // Allocation again gives one.
        let again = patch(&lab, "old", &json!({"allocateLoadBalancerNodePorts": true})).await;
        assert!(node_ports(&again.expect(200)["spec"])[0] > 0);
        // A manifest that never had ports clears them, too.
        let got = replace(&lab, "old", &spec("LoadBalancer", &without))
            .await
            .expect(200);
        assert_eq!(node_ports(&got["spec"]), [0]);
    }
}
