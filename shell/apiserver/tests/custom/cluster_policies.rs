//! ClusterNetworkPolicies, as the server's own definition has them.

use crate::DEFINITIONS;
use crate::common::Lab;
use serde_json::{Value, json};

const POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

async fn lab() -> Lab {
    Lab::start_with(|config| {
        config.definitions = portolan_api::shipped::definitions().unwrap();
    })
    .await
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
}

fn spec() -> Value {
    json!({
        "tier": "Admin", "priority": 0,
        "subject": {"pods": {"podSelector": {"matchLabels": {"app": "web"}}}},
        "ingress": [{
            "name": "monitoring", "action": "Accept",
            "from": [{"namespaces": {"matchLabels": {"team": "monitoring"}}}],
            "protocols": [
                {"tcp": {"destinationPort": {"number": 80}}},
                {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
                {"destinationNamedPort": "metrics"},
            ],
        }],
        "egress": [
            {"action": "Pass", "to": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}]},
            {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
        ],
    })
}

/// As kubectl lists them, with a status of whoever enforces them.
#[tokio::test]
async fn n19_they_are_served_from_the_first_request() {
    let lab = lab().await;
    lab.post(POLICIES, &policy("one", &spec()))
        .await
        .expect(201);
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Enforced", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({"status": {"conditions": [condition]}});
    let changed = lab.merge(&format!("{POLICIES}/one/status"), &status).await;
    let changed = changed.expect(200);
    assert_eq!(changed["status"]["conditions"][0]["reason"], "Enforced");
    let definition = format!("{DEFINITIONS}/clusternetworkpolicies.policy.networking.k8s.io");
    let found = lab.get(&definition).await.expect(200);
    assert_eq!(found["spec"]["names"]["shortNames"], json!(["cnp"]));
    let columns = found["spec"]["versions"][0]["additionalPrinterColumns"].clone();
    let columns = columns.as_array().cloned().unwrap_or_default();
    let names: Vec<&Value> = columns.iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Tier", "Priority", "Age"]);
}

/// What is put where, and what is said about it.
fn wrongs() -> Vec<(&'static str, Value, &'static str)> {
    let number = |number: i32| json!([{"tcp": {"destinationPort": {"number": number}}}]);
    let range = json!([{"udp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}]);
    let many: Vec<Value> = (0..26).map(|_| spec()["egress"][0].clone()).collect();
    let port = "spec.ingress[0].protocols[0].tcp.destinationPort.number: Invalid value";
    let two = json!({"namespaces": {}, "pods": {"podSelector": {}}});
    let selector = "spec.subject.pods.podSelector: Required value";
    let action = "spec.egress[0].action: Unsupported value";
    let cidr = "Invalid CIDR format provided";
    let tcp = "spec.ingress[0].protocols[0].tcp: Invalid value";
    vec![
        ("/tier", json!("Platform"), "spec.tier: Unsupported value"),
        ("/priority", json!(1001), "spec.priority: Invalid value"),
        ("/priority", json!(-1), "spec.priority: Invalid value"),
        ("/subject", json!({}), "spec.subject: Invalid value"),
        ("/subject", two, "spec.subject: Too many"),
        ("/subject/pods", json!({}), selector),
        ("/egress", json!(many), "spec.egress: Too many"),
        ("/egress/0/action", json!("Allow"), action),
        (
            "/egress/0/to",
            json!([]),
            "spec.egress[0].to: Invalid value",
        ),
        ("/egress/0/to/0", json!({}), "spec.egress[0].to[0]: Invalid"),
        ("/egress/1/to/0/networks/0", json!("10.0.0.0/33"), cidr),
        (
            "/ingress/0/name",
            json!("n".repeat(101)),
            "spec.ingress[0].name: Too long",
        ),
        ("/ingress/0/protocols", number(0), port),
        ("/ingress/0/protocols", number(65536), port),
        (
            "/ingress/0/protocols",
            range,
            "Start port must be less than End port",
        ),
        ("/ingress/0/protocols/0", json!({"tcp": {}}), tcp),
    ]
}

/// Each of these is refused, and says where.
#[tokio::test]
async fn n19_n20_what_is_not_valid_is_refused() {
    let lab = lab().await;
    for (path, value, field) in wrongs() {
        let mut wrong = spec();
        *wrong.pointer_mut(path).unwrap() = value.clone();
        let refused = lab.post(POLICIES, &policy("wrong", &wrong)).await;
        let refused = refused.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(field), "{path} {value}: {message}");
    }
    let mut named = spec();
    named["egress"][1]["protocols"] = json!([{"destinationNamedPort": "web"}]);
    let refused = lab
        .post(POLICIES, &policy("wrong", &named))
        .await
        .expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("networks peer cannot be set with namedPorts"),
        "{message}"
    );
}

/// A definition that somebody else brought stays as it is.
#[tokio::test]
async fn another_definition_of_the_same_kind_stays() {
    let mut theirs = portolan_api::shipped::definitions()
        .unwrap()
        .into_iter()
        .find(|one| one["spec"]["names"]["kind"] == "ClusterNetworkPolicy")
        .unwrap();
    theirs["metadata"]["labels"] = Value::Null;
    theirs["spec"]["versions"][0]["additionalPrinterColumns"] = json!([]);
    let first = Lab::start_with(|config| config.definitions = vec![theirs]).await;
    let again = Lab::start_in_with(first.stop().await, |config| {
        config.definitions = portolan_api::shipped::definitions().unwrap();
    })
    .await;
    let path = format!("{DEFINITIONS}/clusternetworkpolicies.policy.networking.k8s.io");
    let found = again.get(&path).await.expect(200);
    let columns = found["spec"]["versions"][0]["additionalPrinterColumns"].to_string();
    assert!(!columns.contains("Priority"), "{columns}");
}
