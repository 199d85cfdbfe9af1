//! Load balancers in the lab: an address answers on the nodes' network, what cannot be
//! honoured is told, and a lab that was killed announces again.

use std::time::Duration;

use anyhow::{Result, ensure};
use portolan_conformance::Lab;

const SOON: Duration = Duration::from_secs(60);

const OBJECTS: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: AddressPool
metadata: {name: lan}
spec: {addresses: [172.18.0.240-172.18.0.241, \"fd00:172:18::f0-fd00:172:18::f1\"]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata:
  name: beside
  annotations: {portolan.dev/network: outside}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
    - {name: curl, image: curlimages/curl, command: [sleep, infinity]}
";

/// MetalLB's definition, as far as it matters here.
const METAL: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: l2advertisements.metallb.io}
spec:
  group: metallb.io
  scope: Namespaced
  names: {plural: l2advertisements, kind: L2Advertisement}
  versions:
    - name: v1beta1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

const ADVERTISEMENT: &str = "\
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: old}
spec: {ipAddressPools: [gone]}
";

fn apply(lab: &Lab, objects: &str) -> Result<String> {
    lab.run(&format!("echo '{objects}' | kubectl apply -f -"))
}

/// The machine beside the nodes reaches both addresses.
fn until_reached(lab: &Lab) -> Result<()> {
    for at in ["172.18.0.240", "[fd00:172:18::f0]"] {
        let ask = format!(
            "kubectl exec beside -- curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://{at} || true"
        );
        lab.until(SOON, &ask, |code| code.ends_with("200"))?;
    }
    Ok(())
}

#[test]
fn l8_c17_the_lab_announces_and_tells_what_it_cannot() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    lab.run("kubectl create deployment web --image=nginx --port=80")?;
    apply(&lab, OBJECTS)?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    until_reached(&lab)?;
    let said = lab.run("portolan lb status -A -n nowhere")?;
    ensure!(said.contains("172.18.0.240,fd00:172:18::f0"), "{said}");

    apply(&lab, METAL)?;
    lab.until(
        SOON,
        &format!("echo '{ADVERTISEMENT}' | kubectl apply -f - || true"),
        |text| text.contains("l2advertisement.metallb.io/old"),
    )?;
    let told = "kubectl get events --field-selector involvedObject.kind=L2Advertisement,reason=PoolNotFound -o jsonpath='{.items[0].message}' || true";
    lab.until(SOON, told, |text| {
        text == "spec.ipAddressPools: there is no pool \"gone\""
    })?;
    lab.run("kubectl delete crd l2advertisements.metallb.io")?;

    let doctor = "portolan doctor service/web 2>&1 || true";
    lab.until(SOON, doctor, |text| text.contains("Nothing is wrong."))?;
    let pool = |addresses: &str| {
        format!(
            "kubectl patch addresspool lan --type=merge -p '{{\"spec\":{{\"addresses\":[{addresses}]}}}}'"
        )
    };
    lab.run(&pool("\"192.0.2.0/28\",\"2001:db8::/120\""))?;
    lab.until(SOON, doctor, |text| {
        text.contains("fault: addresspool/lan spec.addresses")
            && text.contains("no link has a subnet with this address")
    })?;
    lab.run(&pool(
        "\"172.18.0.240-172.18.0.241\",\"fd00:172:18::f0-fd00:172:18::f1\"",
    ))?;
    until_reached(&lab)?;
    let status = lab.stop()?;
    ensure!(status.success(), "portolan up ended with {status}");
    Ok(())
}

#[test]
fn l8_a_lab_that_was_killed_announces_again() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    lab.run("kubectl create deployment web --image=nginx --port=80")?;
    apply(&lab, OBJECTS)?;
    until_reached(&lab)?;
    let lab = lab.kill_and_restart(2, &[])?;
    until_reached(&lab)?;
    Ok(())
}
