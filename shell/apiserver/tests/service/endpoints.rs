//! Endpoints and EndpointSlices: shapes and faults, on create and on update.

use super::{V4, causes, cluster, refused};
use crate::common::Lab;
use serde_json::{Value, json};

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn endpoints(subset: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": [subset]})
}

fn slice(fields: &Value) -> Value {
    let mut slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web"}, "addressType": "IPv4", "endpoints": [], "ports": []});
    super::merge(&mut slice, fields);
    slice
}

/// Refused as a new object and as a change of a good one.
async fn wrong(lab: &Lab, collection: &str, good: &Value, bad: &Value, want: &[&str]) {
    refused(&lab.post(collection, bad).await, want);
    lab.post(collection, good).await.expect(201);
    let path = format!("{collection}/web");
    refused(&lab.put(&path, bad).await, want);
    lab.delete(&path).await.expect(200);
}

#[tokio::test]
async fn e18_a_put_to_missing_endpoints_makes_them() {
    let lab = cluster(&[V4]).await;
    let good = endpoints(&json!({"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}));
    let path = format!("{ENDPOINTS}/web");
    let made = lab.put(&path, &good).await.expect(201);
    assert_eq!(made["subsets"][0]["ports"][0]["protocol"], "TCP");
    lab.put(&path, &good).await.expect(200);
    let mut gone = good.clone();
    gone["metadata"] = json!({"name": "other", "uid": "7a6f0e66-6a2c-4a0e-9f0b-0b5a4ad8f0a1"});
    lab.put(&format!("{ENDPOINTS}/other"), &gone)
        .await
        .expect(409);
    // No other kind is made so.
    let slice_path = format!("{SLICES}/web");
    lab.put(&slice_path, &slice(&json!({}))).await.expect(404);
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"}, "spec": {"podSelector": {}}});
    lab.put(
        "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/web",
        &policy,
    )
    .await
    .expect(404);
    let labels = json!({"app": "web"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    lab.put(
        "/apis/apps/v1/namespaces/default/deployments/web",
        &deployment,
    )
    .await
    .expect(404);
}

#[tokio::test]
async fn e18_s29_faults_of_endpoints() {
    let lab = cluster(&[V4]).await;
    let good = endpoints(&json!({"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}));
    let address =
        |ip: &str| endpoints(&json!({"addresses": [{"ip": ip}], "ports": [{"port": 80}]}));
    let ports =
        |ports: Value| endpoints(&json!({"addresses": [{"ip": "192.0.2.1"}], "ports": ports}));
    let at = "subsets[0].addresses[0].ip: Invalid value:";
    let cases = [
        (
            endpoints(&json!({"ports": [{"port": 80}]})),
            vec!["FieldValueRequired subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`".to_owned()],
        ),
        (
            address("x"),
            vec![
                format!("FieldValueInvalid {at} \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
                format!("FieldValueInvalid {at} \"x\": must be a valid IP address"),
            ],
        ),
        (
            address("192.000.2.1"),
            vec![format!("FieldValueInvalid {at} \"192.000.2.1\": must not have leading 0s")],
        ),
        (
            address("::ffff:192.0.2.1"),
            vec![format!("FieldValueInvalid {at} \"::ffff:192.0.2.1\": must not be an IPv4-mapped IPv6 address")],
        ),
        (
            address("127.0.0.1"),
            vec![format!("FieldValueInvalid {at} \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)")],
        ),
        (
            ports(json!([{"port": 80}, {"port": 81, "name": "b"}])),
            vec!["FieldValueRequired subsets[0].ports[0].name: Required value".to_owned()],
        ),
        (
            ports(json!([{"port": 0}])),
            vec!["FieldValueInvalid subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive".to_owned()],
        ),
        (
            ports(json!([{"port": 80, "protocol": "ICMP"}])),
            vec!["FieldValueNotSupported subsets[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"".to_owned()],
        ),
    ];
    for (bad, want) in cases {
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        wrong(&lab, ENDPOINTS, &good, &bad, &want).await;
    }
}

#[tokio::test]
async fn e4_s29_faults_of_slices() {
    let lab = cluster(&[V4]).await;
    let good = slice(&json!({}));
    let address = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    let cases = [
        (
            address("2001:db8::1"),
            "FieldValueInvalid endpoints[0].addresses: Invalid value: \"2001:db8::1\": must be an IPv4 address",
        ),
        (
            address("192.0.02.1"),
            "FieldValueInvalid endpoints[0].addresses[0]: Invalid value: \"192.0.02.1\": must not have leading 0s",
        ),
        (
            json!({"endpoints": [{"addresses": []}]}),
            "FieldValueRequired endpoints[0].addresses: Required value: must contain at least 1 address",
        ),
        (
            json!({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}),
            "FieldValueDuplicate ports[1].name: Duplicate value: \"a\"",
        ),
    ];
    for (fields, want) in cases {
        wrong(&lab, SLICES, &good, &slice(&fields), &[want]).await;
    }
    lab.post(SLICES, &good).await.expect(201);
    let other = slice(&json!({"addressType": "IPv6"}));
    let got = lab.put(&format!("{SLICES}/web"), &other).await.expect(422);
    assert_eq!(
        causes(&got),
        ["FieldValueInvalid addressType: Invalid value: \"IPv6\": field is immutable"]
    );
}

#[tokio::test]
async fn e10_slices_take_odd_ports_and_drop_the_old_topology() {
    let lab = cluster(&[V4]).await;
    let many: Vec<Value> = (0..1000)
        .map(|number| json!({"name": format!("p{number}"), "port": number}))
        .collect();
    let fields = json!({
        "endpoints": [{"addresses": ["192.0.2.1"], "deprecatedTopology": {"a": "b"}}],
        "ports": [{"name": "low", "port": 0}, {"name": "high", "port": 65536}],
    });
    let made = lab.post(SLICES, &slice(&fields)).await.expect(201);
    assert!(made["endpoints"][0]["deprecatedTopology"].is_null());
    assert_eq!(made["ports"][1]["port"], 65536);
    let got = lab
        .put(&format!("{SLICES}/web"), &slice(&json!({"ports": many})))
        .await;
    assert_eq!(got.expect(200)["ports"].as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn e2_labels_raise_the_generation_and_annotations_do_not() {
    let lab = cluster(&[V4]).await;
    let made = lab.post(SLICES, &slice(&json!({}))).await.expect(201);
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{SLICES}/web");
    for (body, want) in [
        (json!({"metadata": {"annotations": {"a": "b"}}}), 1),
        (json!({"metadata": {"labels": {"a": "b"}}}), 2),
        (json!({"endpoints": [{"addresses": ["192.0.2.1"]}]}), 3),
    ] {
        let got = lab.merge(&path, &body).await.expect(200);
        assert_eq!(got["metadata"]["generation"], want, "{body}");
    }
    // Its deletion answers with a Status.
    let gone = lab.delete(&path).await.expect(200);
    assert_eq!(
        (&gone["kind"], &gone["status"]),
        (&json!("Status"), &json!("Success"))
    );
}
