//! `portolan doctor` against faults that are planted alone (case C17): it names
//! the object, the field and the change, and the change mends it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portolan_conformance::Lab;
use serde_json::Value;

/// How long a fault may take to be seen, and a mending to work.
const SOON: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: nginx
          image: nginx:1.27
          ports: [{name: http, containerPort: 80}]
          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

/// A fault, and what must be said of it.
struct Fault {
    plant: &'static str,
    object: &'static str,
    field: &'static str,
    says: &'static str,
    /// What mends it where the doctor has no command of its own.
    by_hand: Option<&'static str>,
}

/// The faults of C17 but for policies, which join with them. A port's name in
/// the wrong case is refused by every API server: it is tested as values.
const FAULTS: [Fault; 8] = [
    Fault {
        plant: r#"kubectl patch service web -p '{"spec":{"selector":{"app":"wbe"}}}'"#,
        object: "service/web",
        field: "spec.selector.app",
        says: "no pod has app=wbe; 1 pod has app=web",
        by_hand: None,
    },
    Fault {
        plant: r#"kubectl patch deployment web --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe/httpGet/port","value":8080}]'"#,
        object: "deployment/web",
        field: "spec.template.spec.containers[0].readinessProbe.httpGet.port",
        says: "the readiness probe of container nginx",
        by_hand: None,
    },
    Fault {
        plant: r#"kubectl patch deployment web --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe","value":{"exec":{"command":["false"]},"periodSeconds":1}}]'"#,
        object: "deployment/web",
        field: "spec.template.spec.containers[0].readinessProbe.exec.command",
        says: "never passes: the command `false`",
        by_hand: Some(
            r#"kubectl patch deployment web --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe/exec/command","value":["true"]}]'"#,
        ),
    },
    Fault {
        plant: r#"kubectl patch service web --type=json -p '[{"op":"replace","path":"/spec/ports/0/targetPort","value":8080}]'"#,
        object: "service/web",
        field: "spec.ports[0].targetPort",
        says: "connection refused; container nginx lists port 80/TCP",
        by_hand: None,
    },
    Fault {
        plant: r#"kubectl patch service web --type=json -p '[{"op":"replace","path":"/spec/ports/0/targetPort","value":"htpp"}]'"#,
        object: "service/web",
        field: "spec.ports[0].targetPort",
        says: r#"has a port named "htpp" for TCP; container nginx names its port 80 "http""#,
        by_hand: None,
    },
    Fault {
        plant: r#"kubectl patch service web -p '{"spec":{"type":"LoadBalancer","loadBalancerClass":"example.com/lb"}}'"#,
        object: "service/web",
        field: "status.loadBalancer",
        says: "EXTERNAL-IP is <pending>",
        by_hand: None,
    },
    Fault {
        plant: r#"kubectl patch service web -p '{"spec":{"internalTrafficPolicy":"Local"}}'"#,
        object: "service/web",
        field: "spec.internalTrafficPolicy",
        says: "has no ready endpoint",
        by_hand: None,
    },
    Fault {
        plant: "kubectl scale deployment web --replicas=0",
        object: "deployment/web",
        field: "spec.replicas",
        says: "deployment/web is scaled to 0",
        by_hand: None,
    },
];

/// What the doctor says, and its exit code.
fn ask(lab: &Lab, words: &str) -> Result<(i32, String)> {
    let mut doctor: Command = lab.shell(lab.data_dir(), &format!("portolan doctor {words} 2>&1"));
    let out = doctor.output().context("run portolan doctor")?;
    let code = out.status.code().context("portolan doctor was killed")?;
    Ok((code, String::from_utf8_lossy(&out.stdout).into_owned()))
}

fn report(lab: &Lab) -> Result<(i32, Value)> {
    let (code, text) = ask(lab, "service/web -o json")?;
    let report = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok((code, report))
}

/// The findings above a note, of all steps.
fn findings(report: &Value) -> Vec<&Value> {
    let steps = report["steps"].as_array().into_iter().flatten();
    let all = steps.flat_map(|step| step["findings"].as_array().into_iter().flatten());
    all.filter(|finding| finding["severity"] != "note")
        .collect()
}

/// Asks until `holds`, and returns the report.
fn until(lab: &Lab, what: &str, holds: impl Fn(i32, &Value) -> bool) -> Result<Value> {
    let end = Instant::now() + SOON;
    loop {
        let (code, report) = report(lab)?;
        if holds(code, &report) {
            return Ok(report);
        }
        if Instant::now() >= end {
            bail!("{what} is not seen after {SOON:?}; last, with code {code}: {report:#}");
        }
        std::thread::sleep(LOOK);
    }
}

fn is_healthy(code: i32, report: &Value) -> bool {
    code == 0 && report["healthy"] == true && findings(report).is_empty()
}

/// Plants a fault, asks, does as it says, and asks again.
fn heal(lab: &Lab, fault: &Fault) -> Result<()> {
    lab.run(fault.plant)?;
    let seen = until(lab, fault.says, |code, report| {
        let [only] = findings(report)[..] else {
            return false;
        };
        let says = only["message"].as_str().unwrap_or_default();
        code == 1 && report["healthy"] == false && says.contains(fault.says)
    })?;
    let finding = findings(&seen)[0];
    ensure!(finding["severity"] == "fault", "{finding:#}");
    ensure!(finding["object"] == fault.object, "{finding:#}");
    ensure!(finding["field"] == fault.field, "{finding:#}");
    ensure!(
        finding["mend"]
            .as_str()
            .is_some_and(|mend| !mend.is_empty()),
        "{finding:#}"
    );
    let command = match (finding["command"].as_str(), fault.by_hand) {
        (Some(command), None) => command,
        (None, Some(command)) => command,
        (told, known) => bail!("told {told:?}, known {known:?}: {finding:#}"),
    };
    lab.run(command)?;
    until(lab, "health", is_healthy)?;
    Ok(())
}

#[test]
fn c17_each_fault_is_named_and_mended_as_the_doctor_says() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    let file = lab.data_dir().join("web.yaml");
    fs::write(&file, MANIFEST)?;
    lab.run(&format!("kubectl apply -f {}", file.display()))?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    until(&lab, "health", is_healthy)?;
    for fault in &FAULTS {
        heal(&lab, fault).with_context(|| fault.plant)?;
    }
    let (code, text) = ask(&lab, "svc web")?;
    ensure!(code == 0 && text.contains("Nothing is wrong."), "{text}");
    ensure!(
        text.contains("2 of 2 nodes say that their kernel holds the plan"),
        "{text}"
    );
    nodes_are_proxied(&lab)
}

/// What the doctor asks nodes, as kubectl asks it.
fn nodes_are_proxied(lab: &Lab) -> Result<()> {
    let raw = |rest: &str| lab.run(&format!("kubectl get --raw /api/v1/nodes/{rest} 2>&1"));
    let well = raw("node-2:10256/proxy/healthz")?;
    ensure!(well.contains("\"nodeEligible\":true"), "{well}");
    let said = |rest: &str| raw(rest).err().map(|error| format!("{error:#}"));
    let unknown = said("node-9:10256/proxy/healthz").unwrap_or_default();
    ensure!(unknown.contains("nodes \"node-9\" not found"), "{unknown}");
    let refused = said("node-2:10257/proxy/healthz").unwrap_or_default();
    ensure!(
        refused.contains(
            "error trying to reach service: dial tcp 172.18.0.3:10257: connect: connection refused"
        ),
        "{refused}"
    );
    Ok(())
}

#[test]
fn c17_a_name_in_the_wrong_namespace_is_found_elsewhere() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    lab.run("kubectl create namespace production")?;
    lab.run("kubectl create service clusterip api-server -n production --tcp=80")?;
    let (code, text) = ask(&lab, "service/api-server")?;
    ensure!(code == 1, "{text}");
    let wanted = "Error from server (NotFound): services \"api-server\" not found\n\
        a Service api-server is in namespace production: from other namespaces its name is api-server.production, \
        and this examines it: portolan doctor service/api-server -n production\n";
    ensure!(text == wanted, "{text}");
    let (_, text) = ask(&lab, "api-server.prod")?;
    ensure!(
        text.contains("there is no namespace prod; did you mean production?"),
        "{text}"
    );
    let (_, text) = ask(&lab, "api-server.production")?;
    ensure!(
        text.starts_with("service/api-server in namespace production: ClusterIP "),
        "{text}"
    );
    let (code, text) = ask(&lab, "-A")?;
    let row = text.lines().find(|line| line.contains("api-server"));
    let row = row.with_context(|| text.clone())?;
    ensure!(
        code == 1 && row.contains("fault") && row.contains("no pod has app=api-server"),
        "{text}"
    );
    Ok(())
}
