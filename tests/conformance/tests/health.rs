//! What load balancers ask the nodes: health check ports, `/healthz`, `/livez`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_conformance::Lab;

const SOON: Duration = Duration::from_secs(60);

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32100
  selector: {app: web}
  ports: [{port: 80}]
";

/// What a node answers at a port, status code last.
fn ask(node: &str, at: &str) -> String {
    format!("kubectl exec client -- curl -s -m 5 -i -w '%{{http_code}}' http://{node}:{at}")
}

#[test]
fn p14_p15_nodes_say_how_they_are() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    lab.run("kubectl run client --image=host --restart=Never --command -- sleep infinity")?;
    lab.run("kubectl create deployment web --image=nginx --port=80")?;
    lab.run(&format!("echo '{SERVICE}' | kubectl apply -f -"))?;
    lab.run("kubectl wait --for=condition=Ready pod/client --timeout=60s")?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    let addresses = "kubectl get nodes -o jsonpath='{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}'";
    let said = lab.run(addresses)?;
    let nodes: Vec<&str> = said.split(' ').filter(|ip| ip.contains('.')).collect();
    ensure!(nodes.len() == 2, "{said}");
    let host = lab.run("kubectl get pods -l app=web -o jsonpath='{.items[0].status.hostIP}'")?;
    let other = nodes
        .iter()
        .find(|ip| **ip != host)
        .context("another node")?;
    let with = lab.until(SOON, &ask(&host, "32100/"), |text| text.ends_with("200"))?;
    for part in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 1",
        "\"localEndpoints\":1",
        "\"name\":\"web\"",
        "\"serviceProxyHealthy\":true",
    ] {
        ensure!(
            with.to_lowercase().contains(&part.to_lowercase()),
            "{part}: {with}"
        );
    }
    lab.until(SOON, &ask(other, "32100/"), |text| {
        text.ends_with("503") && text.contains("\"localEndpoints\":0")
    })?;
    lab.run("kubectl scale deployment web --replicas=0")?;
    lab.until(SOON, &ask(&host, "32100/"), |text| text.ends_with("503"))?;
    lab.until(SOON, &ask(&host, "10256/healthz"), |text| {
        text.ends_with("200")
    })?;
    let name = lab.run(&format!("kubectl get nodes -o jsonpath='{{.items[?(@.status.addresses[0].address==\"{host}\")].metadata.name}}'"))?;
    lab.run(&format!(
        "kubectl taint node {name} ToBeDeletedByClusterAutoscaler=now:NoSchedule"
    ))?;
    let gone = lab.until(SOON, &ask(&host, "10256/healthz"), |text| {
        text.ends_with("503")
    })?;
    ensure!(gone.contains("\"nodeEligible\":false"), "{gone}");
    ensure!(lab.run(&ask(&host, "10256/livez"))?.ends_with("200"));
    // A Service that needs no such port leaves it.
    lab.run("kubectl delete service web")?;
    lab.until(SOON, &format!("{} || true", ask(other, "32100/")), |text| {
        text.ends_with("000")
    })?;
    Ok(())
}
