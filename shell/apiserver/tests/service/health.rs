//! Health check ports and the status of load balancers.

use super::{
    SERVICES, V4, V6, causes, cluster, create, create_dry, patch, path, refused, remove, replace,
    service, spec, stored,
};
use crate::common::Lab;
use serde_json::{Value, json};

async fn local(lab: &Lab, name: &str, port: i64) -> Value {
    let fields = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": port});
    create(lab, name, &spec("LoadBalancer", &fields)).await
}

#[tokio::test]
async fn s16_a11_where_there_is_one() {
    for ranges in [&[V4][..], &[V6], &[V4, V6]] {
        let lab = cluster(ranges).await;
        let fields = json!({"externalTrafficPolicy": "Local"});
        let made = create(&lab, "web", &spec("LoadBalancer", &fields)).await;
        let port = made["spec"]["healthCheckNodePort"].as_i64().unwrap();
        assert!((30_000..=32_767).contains(&port));
        assert_ne!(made["spec"]["ports"][0]["nodePort"], port);
        // S30: a manifest without it keeps it.
        let again = replace(&lab, "web", &spec("LoadBalancer", &fields)).await;
        assert_eq!(again.expect(200), made);
        // It is nobody else's while it is in use, and anybody's afterwards.
        let wanted = spec(
            "NodePort",
            &json!({"ports": [{"port": 80, "nodePort": port}]}),
        );
        let got = lab.post(SERVICES, &service("other", &wanted)).await;
        refused(
            &got,
            &[&format!(
                "FieldValueInvalid spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
            )],
        );
        let got = patch(&lab, "web", &json!({"externalTrafficPolicy": "Cluster"})).await;
        assert!(got.expect(200)["spec"]["healthCheckNodePort"].is_null());
        create(&lab, "other", &wanted).await;
        // Back to Local gives another.
        let got = patch(&lab, "web", &fields).await.expect(200);
        assert!(got["spec"]["healthCheckNodePort"].as_i64().unwrap() > 0);
        let other = spec("NodePort", &fields);
        assert!(create(&lab, "node", &other).await["spec"]["healthCheckNodePort"].is_null());
    }
}

#[tokio::test]
async fn s16_where_it_may_not_be() {
    let lab = cluster(&[V4]).await;
    let want = "FieldValueInvalid spec.healthCheckNodePort: Invalid value: 30500: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let fields = json!({"healthCheckNodePort": 30500});
        let got = lab
            .post(SERVICES, &service("web", &spec(kind, &fields)))
            .await;
        refused(&got, &[want]);
        create(&lab, "web", &spec(kind, &json!({}))).await;
        refused(&patch(&lab, "web", &fields).await, &[want]);
        refused(&replace(&lab, "web", &spec(kind, &fields)).await, &[want]);
        remove(&lab, "web").await;
    }
}

#[tokio::test]
async fn s16_it_does_not_change() {
    let lab = cluster(&[V4]).await;
    local(&lab, "web", 30_500).await;
    local(&lab, "other", 30_501).await;
    let want = "FieldValueForbidden spec.healthCheckNodePort: Forbidden: field is immutable";
    // Whoever has the wanted one, and wherever it is.
    for wanted in [30_501, 30_502, 80] {
        let got = patch(&lab, "web", &json!({"healthCheckNodePort": wanted})).await;
        refused(&got, &[want]);
    }
    assert_eq!(stored(&lab, "web").await["healthCheckNodePort"], 30_500);
}

#[tokio::test]
async fn s16_a7_a_bad_one_is_an_internal_error() {
    let lab = cluster(&[V4]).await;
    local(&lab, "held", 30_500).await;
    create(&lab, "web", &spec("LoadBalancer", &json!({}))).await;
    let range = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    for (wanted, why) in [
        (30_500, "provided port is already allocated"),
        (29_999, range),
        (-1, range),
    ] {
        let fields = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": wanted});
        let text = format!(
            "Internal error occurred: failed to allocate requested HealthCheck NodePort {wanted}: {why}"
        );
        for got in [
            lab.post(SERVICES, &service("bad", &spec("LoadBalancer", &fields)))
                .await,
            patch(&lab, "web", &fields).await,
        ] {
            let status = got.expect(500);
            assert_eq!(status["reason"], "InternalError");
            assert_eq!(status["message"], text.as_str());
        }
    }
    let dry = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30_501});
    create_dry(&lab, "dry", &spec("LoadBalancer", &dry))
        .await
        .expect(201);
    local(&lab, "taken", 30_501).await;
}

#[tokio::test]
async fn s27_the_status_of_a_load_balancer() {
    let lab = cluster(&[V4, V6]).await;
    create(&lab, "web", &spec("LoadBalancer", &json!({}))).await;
    let status = format!("{}/status", path("web"));
    let ingress = |entries: Value| json!({"status": {"loadBalancer": {"ingress": entries}}});
    let good = json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1", "ipMode": "Proxy"}, {"hostname": "lb.example"}]);
    let got = lab.merge(&status, &ingress(good)).await.expect(200);
    assert_eq!(got["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
    let at = "status.loadBalancer.ingress[0]";
    for (entry, want) in [
        (
            json!({"ip": "lb"}),
            format!(
                "FieldValueInvalid {at}.ip: Invalid value: \"lb\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            ),
        ),
        (
            json!({"ip": "192.0.2.1", "ipMode": "Far"}),
            format!(
                "FieldValueNotSupported {at}.ipMode: Unsupported value: \"Far\": supported values: \"Proxy\", \"VIP\""
            ),
        ),
        (
            json!({"hostname": "lb", "ipMode": "VIP"}),
            format!(
                "FieldValueForbidden {at}.ipMode: Forbidden: may not be specified when `ip` is not set"
            ),
        ),
        (
            json!({"hostname": "192.0.2.1"}),
            format!(
                "FieldValueInvalid {at}.hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"
            ),
        ),
    ] {
        refused(
            &lab.merge(&status, &ingress(json!([entry]))).await,
            &[&want],
        );
    }
    // The status goes with the type, and a spec does not change it.
    let body = json!({"status": {"loadBalancer": {}}, "spec": {"sessionAffinity": "ClientIP"}});
    let got = lab.merge(&path("web"), &body).await.expect(200);
    assert_eq!(
        got["status"]["loadBalancer"]["ingress"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let got = patch(&lab, "web", &json!({"type": "NodePort"}))
        .await
        .expect(200);
    assert_eq!(got["status"], json!({"loadBalancer": {}}));
    let got = lab
        .merge(&status, &ingress(json!([{"ip": "192.0.2.1"}])))
        .await
        .expect(422);
    assert_eq!(
        causes(&got),
        [
            "FieldValueForbidden status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        ]
    );
}
