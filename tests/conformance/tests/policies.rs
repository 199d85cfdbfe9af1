//! Policies as people type them: what both kubectls are told about invalid ones, and
//! ClusterNetworkPolicies in a lab.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use portolan_conformance::{Lab, tools};

const SOON: Duration = Duration::from_secs(60);

/// A NetworkPolicy with this spec.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: wrong}}\nspec: {spec}\n"
    )
}

/// Specs, and what is said about them.
const WRONG: [(&str, &str); 6] = [
    (
        "{podSelector: {}, policyTypes: [Outgress]}",
        "spec.policyTypes[0]: Unsupported value: \"Outgress\": supported values: \"Egress\", \"Ingress\"",
    ),
    (
        "{podSelector: {}, ingress: [{from: [{}]}]}",
        "spec.ingress[0].from[0]: Required value: must specify a peer",
    ),
    (
        "{podSelector: {}, egress: [{to: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
        "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer",
    ),
    (
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
        "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
    ),
    (
        "{podSelector: {}, ingress: [{ports: [{port: http, endPort: 90}]}]}",
        "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
    ),
    (
        "{podSelector: {matchLabels: {app: 'a b'}}}",
        "spec.podSelector.matchLabels: Invalid value: \"a b\": a valid label must be",
    ),
];

fn told(program: &Path) -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let program = program.display();
    for (spec, message) in WRONG {
        fs::write(lab.data_dir().join("wrong.yaml"), policy(spec))?;
        let file = lab.data_dir().join("wrong.yaml");
        let line = format!("{program} create -f {} 2>&1 || true", file.display());
        let said = lab.run(&line)?;
        let wanted = format!("The NetworkPolicy \"wrong\" is invalid: {message}");
        assert!(said.starts_with(&wanted), "{spec}: {said}");
    }
    Ok(())
}

#[test]
fn n7_n8_n9_n20_invalid_policies_by_kubectl() -> Result<()> {
    told(&tools::kubectl()?)
}

#[test]
fn n7_n8_n9_n20_invalid_policies_by_old_kubectl() -> Result<()> {
    told(&tools::old_kubectl()?)
}

const GUARD: &str = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: TIER
  priority: 10
  subject: {pods: {podSelector: {matchLabels: {app: api-server}}}}
  ingress:
    - name: frontend
      action: Accept
      from: [{pods: {podSelector: {matchLabels: {app: frontend}}}}]
      protocols: [{tcp: {destinationPort: {number: 8080}}}]
    - action: Deny
      from: [{namespaces: {}}]
";

const OPEN: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: production}
spec: {podSelector: {matchLabels: {app: api-server}}, ingress: [{}]}
";

/// The lab's agents watch them: what an Admin policy denies stays denied whatever a
/// NetworkPolicy allows, and what a Baseline policy denies does not.
#[test]
fn n19_cluster_policies_hold_in_the_lab() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    let shop = tools::root().join("examples/c13-network-policy/shop.yaml");
    lab.run(&format!("kubectl apply -f {}", shop.display()))?;
    lab.run("kubectl wait -n production --for=condition=Ready pod --all --timeout=60s")?;
    let call = |pod: &str| {
        format!(
            "kubectl exec -n production {pod} -- curl -sS -m 2 http://api/hostname 2>&1 || true"
        )
    };
    let file = |name: &str, text: &str| -> Result<String> {
        let path = lab.data_dir().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let reached = |said: &str| said.trim() == "api-server";
    let denied = |said: &str| said.contains("timed out");
    lab.until(SOON, &call("other"), reached)?;
    let open = file("open.yaml", OPEN)?;
    let admin = file("admin.yaml", &GUARD.replace("TIER", "Admin"))?;
    lab.run(&format!("kubectl apply -f {open} -f {admin}"))?;
    let listed = lab.run("kubectl get cnp --no-headers")?;
    let columns: Vec<&str> = listed.split_whitespace().take(3).collect();
    assert_eq!(columns, ["guard", "Admin", "10"]);
    lab.until(SOON, &call("other"), denied)?;
    lab.until(SOON, &call("frontend"), reached)?;
    let baseline = file("baseline.yaml", &GUARD.replace("TIER", "Baseline"))?;
    lab.run(&format!("kubectl apply -f {baseline}"))?;
    lab.until(SOON, &call("other"), reached)?;
    lab.run(&format!("kubectl delete -f {open}"))?;
    lab.until(SOON, &call("other"), denied)?;
    lab.until(SOON, &call("frontend"), reached)?;
    lab.run("kubectl delete cnp guard")?;
    lab.until(SOON, &call("other"), reached)?;
    Ok(())
}
