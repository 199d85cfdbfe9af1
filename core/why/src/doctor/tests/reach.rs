//! Faults in what lets clients in: load balancers and policies.

use serde_json::{Value, json};

use super::super::testbed::Bed;
use super::{patch, told};

#[test]
fn c17_a_load_balancer_without_a_pool() {
    let mut bed = Bed::healthy();
    bed.service["spec"]["type"] = "LoadBalancer".into();
    let (told_of, command) = told(&bed);
    assert_eq!(
        told_of,
        "fault service/web status.loadBalancer: EXTERNAL-IP is <pending>: no load balancer controller gave it one: none runs, or its pool is empty"
    );
    assert_eq!(command, patch(r#"{"spec":{"type":"NodePort"}}"#));
    bed.service["spec"]["loadBalancerClass"] = "example.com/lb".into();
    bed.events = vec![
        json!({"reason": "AllocationFailed", "message": "no addresses left", "type": "Warning",
        "involvedObject": {"kind": "Service", "namespace": "shop", "name": "web"}}),
    ];
    let told_of = told(&bed).0;
    assert!(told_of.ends_with("no controller of the class \"example.com/lb\" gave it one (AllocationFailed: no addresses left)"), "{told_of}");
    bed.service["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}});
    assert_eq!(bed.examine().findings().count(), 0);
}

#[test]
fn c17_a_load_balancer_says_itself_what_is_wrong_with_the_pool() {
    let mut bed = Bed::healthy();
    bed.service["spec"]["type"] = "LoadBalancer".into();
    let condition = |status: &str, reason: &str, message: &str| json!([{"type": "portolan.dev/AddressAssigned", "status": status, "reason": reason, "message": message}]);
    let full = "pool lab exhausted: 16 of 16 used";
    bed.service["status"] = json!({"conditions": condition("False", "PoolExhausted", full)});
    let (told_of, command) = told(&bed);
    assert_eq!(
        told_of,
        "fault service/web status.loadBalancer: EXTERNAL-IP is <pending>: pool lab exhausted: 16 of 16 used"
    );
    assert_eq!(command, patch(r#"{"spec":{"type":"NodePort"}}"#));
    let some = "port 80/TCP on node-1 taken by default/other";
    bed.service["status"] = json!({
        "loadBalancer": {"ingress": [{"ip": "172.18.0.3"}]},
        "conditions": condition("True", "PortTaken", some),
    });
    let examined = bed.examine();
    let found: Vec<_> = examined.findings().collect();
    assert!(
        found.len() == 1 && found[0].message.ends_with(some),
        "{found:?}"
    );
    bed.service["status"]["conditions"] = condition("True", "Assigned", "");
    assert_eq!(bed.examine().findings().count(), 0);
}

/// A NetworkPolicy that lets nobody in is named, with its field and what mends it.
#[test]
fn c17_n4_n9_a_policy_that_blocks() {
    let fix = |name: &str, patch: &str| {
        Some(format!(
            "kubectl patch networkpolicy {name} -n shop --type=json -p '{patch}'"
        ))
    };
    let web = json!({"matchLabels": {"app": "web"}});
    let blocked = |spec: Value| told(&Bed::healthy().with_policy("guard", spec));
    assert_eq!(
        blocked(json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        (
            "fault networkpolicy/guard spec.ingress: it isolates 2 of 2 endpoints and has no rule for what comes in: nobody but their own nodes reaches them at 80/TCP".into(),
            fix("guard", r#"[{"op":"add","path":"/spec/ingress","value":[{"ports":[{"port":80,"protocol":"TCP"}]}]}]"#)
        )
    );
    // The Service's port in place of the pods' own.
    assert_eq!(
        blocked(json!({"podSelector": web, "ingress": [{"ports": [{"port": 8080}]}]})),
        (
            "fault networkpolicy/guard spec.ingress[0].ports: it lets nobody reach 2 of 2 endpoints at 80/TCP: spec.ingress[0] allows 8080/TCP; not 80/TCP".into(),
            fix("guard", r#"[{"op":"add","path":"/spec/ingress/0/ports/-","value":{"port":80,"protocol":"TCP"}}]"#)
        )
    );
    let typo = json!({"podSelector": web, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "wbe"}}}]}]});
    assert_eq!(
        blocked(typo),
        (
            "fault networkpolicy/guard spec.ingress[0].from[0].podSelector: it lets nobody reach 2 of 2 endpoints at 80/TCP: spec.ingress[0] asks for app=wbe; pod shop/web-abc-2 has app=web".into(),
            fix("guard", r#"[{"op":"add","path":"/spec/ingress/0/from/0/podSelector/matchLabels/app","value":"web"}]"#)
        )
    );
}

/// Keeping out some, or those behind other Services, is what policies are for.
#[test]
fn c17_a_policy_that_lets_somebody_in_is_no_fault() {
    for spec in [
        json!({"podSelector": {"matchLabels": {"app": "db"}}}),
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
        json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}]}),
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]}),
    ] {
        let checkup = Bed::healthy().with_policy("guard", spec.clone()).examine();
        assert_eq!(checkup.findings().count(), 0, "{spec}: {checkup:#?}");
        assert_eq!(mark(&checkup, Step::Access), Mark::Ok);
    }
    // One of two endpoints is shut.
    let mut bed = Bed::healthy();
    bed.pods[0]["metadata"]["labels"]["old"] = "yes".into();
    let bed = bed.with_policy(
        "old",
        json!({"podSelector": {"matchLabels": {"old": "yes"}}}),
    );
    assert_eq!(mark(&bed.examine(), Step::Access), Mark::Warning);
}
