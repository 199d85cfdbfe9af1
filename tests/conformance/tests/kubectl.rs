//! Both kubectls against the embedded API server: what people type every day.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use portolan_conformance::{Lab, tools};

const SOON: Duration = Duration::from_secs(60);

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: nginx
          image: nginx:1.27
          ports: [{containerPort: 80, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

/// Runs one kubectl in a lab.
struct Kubectl<'a> {
    lab: &'a Lab,
    program: String,
}

impl<'a> Kubectl<'a> {
    fn new(lab: &'a Lab, program: &Path) -> Self {
        Self {
            lab,
            program: program.display().to_string(),
        }
    }

    fn run(&self, arguments: &str) -> Result<String> {
        self.lab.run(&self.line(arguments))
    }

    fn line(&self, arguments: &str) -> String {
        format!("{} {arguments} 2>&1", self.program)
    }

    fn until(&self, arguments: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        self.lab.until(SOON, &self.line(arguments), holds)
    }
}

/// The round that every version must manage.
fn a_day_with(kubectl: &Kubectl<'_>) -> Result<()> {
    let file = kubectl.lab.data_dir().join("day.yaml");
    fs::write(&file, MANIFEST)?;
    let file = file.display();
    let shown = kubectl.run(&format!("apply -f {file}"))?;
    assert_eq!(shown, "deployment.apps/web created\nservice/web created\n");
    assert_eq!(
        kubectl.run(&format!("apply -f {file}"))?,
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    kubectl.run("rollout status deployment/web --timeout=60s")?;
    let pods = kubectl.run("get pods -l app=web -o wide")?;
    assert!(pods.starts_with("NAME "), "{pods}");
    assert_eq!(
        pods.lines().filter(|l| l.contains(" Running ")).count(),
        2,
        "{pods}"
    );
    let described = kubectl.run("describe service web")?;
    assert!(
        described.contains("TargetPort:") && described.contains("http/TCP"),
        "{described}"
    );
    kubectl.run("describe deployment web")?;
    let pod = kubectl.run("get pods -l app=web -o jsonpath='{.items[0].metadata.name}'")?;
    assert!(
        kubectl
            .run(&format!("describe pod {pod}"))?
            .contains("Started container"),
        "events of {pod}"
    );
    assert!(kubectl.run(&format!("logs {pod}"))?.lines().count() > 0);
    assert_eq!(
        kubectl.run("scale deployment web --replicas=3")?,
        "deployment.apps/web scaled\n"
    );
    kubectl.until(
        "get endpoints web -o jsonpath='{.subsets[0].addresses[*].ip}'",
        // Before them stands the warning that Endpoints are deprecated.
        |shown| {
            let ips = shown.lines().last().unwrap_or_default();
            ips.split_whitespace().count() == 3
        },
    )?;
    change_with(kubectl)?;
    edit_with(kubectl)?;
    kubectl.run("delete service again")?;
    kubectl.run(&format!("delete -f {file}"))?;
    kubectl.until("get pods -l app=web -o name", |names| {
        names.trim().is_empty()
    })?;
    Ok(())
}

/// Labels, a new image, a second Service.
fn change_with(kubectl: &Kubectl<'_>) -> Result<()> {
    kubectl.run("label deployment web tier=front")?;
    assert!(
        kubectl
            .run("get deployments --show-labels")?
            .contains("app=web,tier=front")
    );
    kubectl.run("annotate deployment web note=seen")?;
    kubectl.run("set image deployment/web nginx=nginx:1.28")?;
    kubectl.run("rollout status deployment/web --timeout=60s")?;
    kubectl.run("expose deployment web --name=again --port=8080 --target-port=80")?;
    assert!(kubectl.run("get service again")?.contains("8080/TCP"));
    assert!(
        kubectl
            .run("get service again -o yaml")?
            .contains("targetPort: 80")
    );
    Ok(())
}

/// A ConfigMap, made and edited.
fn edit_with(kubectl: &Kubectl<'_>) -> Result<()> {
    kubectl.run("create configmap settings --from-literal=a=b")?;
    assert_eq!(
        kubectl.run("get configmap settings -o jsonpath='{.data.a}'")?,
        "b"
    );
    let edit = format!(
        "EDITOR='sed -i s/a:\\ b/a:\\ c/' {}",
        kubectl.line("edit configmap settings")
    );
    assert!(
        kubectl
            .lab
            .run(&edit)?
            .contains("configmap/settings edited")
    );
    assert_eq!(
        kubectl.run("get configmap settings -o jsonpath='{.data.a}'")?,
        "c"
    );
    kubectl.run("delete configmap settings")?;
    Ok(())
}

#[test]
fn kubectl_1_32_and_1_20_manage_a_day() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    a_day_with(&Kubectl::new(&lab, &tools::kubectl()?)).context("kubectl 1.32")?;
    a_day_with(&Kubectl::new(&lab, &tools::old_kubectl()?)).context("kubectl 1.20")?;
    Ok(())
}

#[test]
fn kubectl_sees_changes_as_they_happen() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let kubectl = Kubectl::new(&lab, &tools::kubectl()?);
    let log = lab.data_dir().join("watch.txt");
    let line = format!(
        "timeout 20 {} get configmaps -w > {} 2>&1",
        kubectl.program,
        log.display()
    );
    let mut watch = lab.shell(lab.data_dir(), &line).spawn()?;
    lab.until(SOON, &format!("cat {}", log.display()), |t| {
        t.contains("NAME")
    })?;
    kubectl.run("create configmap first --from-literal=a=b")?;
    kubectl.run("create configmap second")?;
    let seen = lab.until(SOON, &format!("cat {}", log.display()), |t| {
        t.contains("second")
    })?;
    assert!(seen.contains("first"), "{seen}");
    watch.kill()?;
    watch.wait()?;
    Ok(())
}

#[test]
fn kubectl_prints_warnings_and_errors_as_from_kubernetes() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let says = |line: &str| lab.run(&format!("{line} 2>&1; true"));
    let unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\nspec: {foo: 1}\n";
    let file = lab.data_dir().join("odd.yaml");
    fs::write(&file, unknown)?;
    let shown = says(&format!("kubectl apply -f {}", file.display()))?;
    assert!(shown.contains("unknown field \"spec\""), "{shown}");
    let shown = says(&format!(
        "kubectl apply --validate=warn -f {}",
        file.display()
    ))?;
    assert!(
        shown.contains("Warning: unknown field \"spec\"")
            && shown.contains("configmap/odd created"),
        "{shown}"
    );
    let shown = says("kubectl get pods nothing")?;
    assert_eq!(
        shown,
        "Error from server (NotFound): pods \"nothing\" not found\n"
    );
    let shown = says("kubectl create service clusterip Web --tcp=80")?;
    assert!(
        shown.contains("Service \"Web\" is invalid: metadata.name: Invalid value: \"Web\""),
        "{shown}"
    );
    let shown = says("kubectl get gizmos")?;
    assert_eq!(
        shown,
        "error: the server doesn't have a resource type \"gizmos\"\n"
    );
    let shown = says("kubectl create configmap x -n nowhere")?;
    assert!(
        shown.contains("namespaces \"nowhere\" not found"),
        "{shown}"
    );
    let url = says("grep -o 'https://[0-9.:]*' $KUBECONFIG")?;
    let code = says(&format!(
        "curl -sk -o /dev/null -w '%{{http_code}}' {}/api/v1/pods",
        url.trim()
    ))?;
    assert_eq!(code, "401");
    Ok(())
}
