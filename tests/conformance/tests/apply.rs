//! Declaring what one wants, with both kubectls: client-side apply, server-side
//! apply with its conflicts, diff, patches, and the verbs that are patches.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portolan_conformance::{Lab, tools};

const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      containers:
        - {name: nginx, image: 'nginx:1.27', ports: [{containerPort: 80}]}
";

/// What a line prints on both outputs, and its exit code.
fn says(lab: &Lab, line: &str) -> Result<(String, i32)> {
    let line = format!("{line} 2>&1");
    let out = lab.shell(lab.data_dir(), &line).output()?;
    let code = out.status.code().context("killed by a signal")?;
    Ok((String::from_utf8_lossy(&out.stdout).into_owned(), code))
}

fn write(lab: &Lab, file: &str, text: &str) -> Result<()> {
    fs::write(lab.data_dir().join(file), text)?;
    Ok(())
}

fn field(lab: &Lab, object: &str, path: &str) -> Result<String> {
    lab.run(&format!("kubectl get {object} -o jsonpath='{{{path}}}'"))
}

/// Server-side apply as one kubectl shows it.
fn server_side(lab: &Lab, kubectl: &Path, name: &str) -> Result<()> {
    let kubectl = kubectl.display();
    let deployment = format!("deployment/{name}");
    let shown = format!("deployment.apps/{name}");
    let config = WEB.replace("NAME", name);
    write(lab, "web.yaml", &config)?;
    let apply = format!("{kubectl} apply --server-side -f web.yaml");
    assert_eq!(
        says(lab, &apply)?,
        (format!("{shown} serverside-applied\n"), 0)
    );
    let before = field(lab, &deployment, ".metadata.resourceVersion")?;
    assert_eq!(says(lab, &apply)?.1, 0);
    let after = field(lab, &deployment, ".metadata.managedFields[0].manager")?;
    assert_eq!(after, "kubectl");
    // Somebody else takes a field.
    lab.run(&format!("kubectl scale {deployment} --replicas=0"))?;
    let (text, code) = says(lab, &apply)?;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(
            "conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
        ),
        "{text}"
    );
    let forced = format!("{apply} --force-conflicts");
    assert_eq!(
        says(lab, &forced)?,
        (format!("{shown} serverside-applied\n"), 0)
    );
    assert_eq!(field(lab, &deployment, ".spec.replicas")?, "1");
    // What is no longer said goes, what was never said stays.
    write(
        lab,
        "web.yaml",
        &config.replace(", ports: [{containerPort: 80}]", ""),
    )?;
    says(lab, &apply)?;
    let container = ".spec.template.spec.containers[0]";
    assert_eq!(field(lab, &deployment, &format!("{container}.ports"))?, "");
    assert_eq!(
        field(
            lab,
            &deployment,
            &format!("{container}.terminationMessagePath")
        )?,
        "/dev/termination-log"
    );
    assert_ne!(
        before,
        field(lab, &deployment, ".metadata.resourceVersion")?
    );
    // A field that the kind does not have.
    write(
        lab,
        "odd.yaml",
        &config.replace("replicas: 1", "replicaz: 1"),
    )?;
    let (text, code) = says(
        lab,
        &format!("{kubectl} apply --server-side --validate=false -f odd.yaml"),
    )?;
    assert_eq!(code, 1);
    assert!(
        text.contains(".spec.replicaz: field not declared in schema"),
        "{text}"
    );
    Ok(())
}

/// Client-side apply, diff, and the change to server-side apply.
fn client_side(lab: &Lab, kubectl: &Path, name: &str) -> Result<()> {
    let kubectl = kubectl.display();
    let deployment = format!("deployment/{name}");
    let shown = format!("deployment.apps/{name}");
    let config = WEB.replace("NAME", name);
    write(lab, "web.yaml", &config)?;
    let apply = format!("{kubectl} apply -f web.yaml");
    assert_eq!(says(lab, &apply)?, (format!("{shown} created\n"), 0));
    assert_eq!(says(lab, &apply)?, (format!("{shown} unchanged\n"), 0));
    assert_eq!(says(lab, &format!("{kubectl} diff -f web.yaml"))?.1, 0);
    let changed = config.replace("nginx:1.27", "nginx:1.28");
    write(lab, "web.yaml", &changed)?;
    let (text, code) = says(lab, &format!("{kubectl} diff -f web.yaml"))?;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("-      - image: nginx:1.27\n")
            && text.contains("+      - image: nginx:1.28\n"),
        "{text}"
    );
    let (text, code) = says(lab, &format!("{apply} --dry-run=server"))?;
    assert_eq!(
        (text.as_str(), code),
        (format!("{shown} configured (server dry run)\n").as_str(), 0)
    );
    let image = ".spec.template.spec.containers[0].image";
    assert_eq!(
        field(lab, &deployment, image)?,
        "nginx:1.27",
        "nothing is stored"
    );
    assert_eq!(says(lab, &apply)?, (format!("{shown} configured\n"), 0));
    assert_eq!(field(lab, &deployment, image)?, "nginx:1.28");
    // Removed from the file, removed from the object.
    write(
        lab,
        "web.yaml",
        &changed.replace(", ports: [{containerPort: 80}]", ""),
    )?;
    says(lab, &apply)?;
    assert_eq!(
        field(lab, &deployment, ".spec.template.spec.containers[0].ports")?,
        ""
    );
    // One's own earlier way is no conflict.
    write(lab, "web.yaml", &config)?;
    let (text, code) = says(lab, &format!("{kubectl} apply --server-side -f web.yaml"))?;
    assert_eq!(
        (text.as_str(), code),
        (format!("{shown} serverside-applied\n").as_str(), 0)
    );
    assert_eq!(field(lab, &deployment, image)?, "nginx:1.27");
    Ok(())
}

/// Patches of the three types, and the verbs that are patches.
fn patches(lab: &Lab, kubectl: &Path, name: &str) -> Result<()> {
    let kubectl = kubectl.display();
    let deployment = format!("deployment/{name}");
    let run = |line: &str| says(lab, &format!("{kubectl} {line}"));
    let patched = format!("deployment.apps/{name} patched\n");
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"nginx","env":[{"name":"A","value":"1"}]}]}}}}"#;
    let (text, code) = run(&format!("patch {deployment} -p '{strategic}'"))?;
    assert_eq!((text.as_str(), code), (patched.as_str(), 0));
    let containers = ".spec.template.spec.containers";
    assert_eq!(
        field(lab, &deployment, &format!("{containers}[0].image"))?,
        "nginx:1.27"
    );
    let merge = r#"{"metadata":{"annotations":{"a":"b"}}}"#;
    assert_eq!(
        run(&format!("patch {deployment} --type=merge -p '{merge}'"))?.0,
        patched
    );
    let json = r#"[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":0}]"#;
    assert_eq!(
        run(&format!("patch {deployment} --type=json -p '{json}'"))?.0,
        patched
    );
    let (text, code) = run(&format!("patch {deployment} --type=json -p '{json}'"))?;
    assert_eq!(code, 1);
    // 1.32 adds what the server said.
    assert!(text.starts_with("The request is invalid"), "{text}");
    run(&format!("label {deployment} tier=front"))?;
    let (text, code) = run(&format!("label {deployment} tier=back"))?;
    assert!(code == 1 && text.contains("already has a value"), "{text}");
    assert_eq!(
        run(&format!("label {deployment} tier=back --overwrite"))?.1,
        0
    );
    run(&format!("annotate {deployment} note=x"))?;
    run(&format!("set image {deployment} nginx=nginx:1.28"))?;
    run(&format!("set env {deployment} A- B=2"))?;
    let seen = lab.run(&format!(
        "kubectl get {deployment} -o jsonpath='{{.metadata.labels.tier}} {{.metadata.annotations.note}} {{{containers}[0].image}} {{{containers}[0].env[*].name}}'"
    ))?;
    assert_eq!(seen, "back x nginx:1.28 B");
    let edited = says(
        lab,
        &format!("KUBE_EDITOR=\"sed -i s/nginx:1.28/nginx:1.29/\" {kubectl} edit {deployment}"),
    )?;
    assert_eq!(edited, (format!("deployment.apps/{name} edited\n"), 0));
    let read = lab.run(&format!(
        "kubectl get {deployment} -o yaml | grep -v resourceVersion"
    ))?;
    write(lab, "read.yaml", &read)?;
    assert_eq!(
        replaced(lab, &format!("{kubectl} replace -f read.yaml"))?,
        (format!("deployment.apps/{name} replaced\n"), 0)
    );
    Ok(())
}

/// What `kubectl replace` of a file without a version prints in the end: it
/// reads the version itself and writes with it, so a status that a controller
/// writes in between is a conflict, as in Kubernetes, and one tries again.
fn replaced(lab: &Lab, line: &str) -> Result<(String, i32)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = says(lab, line)?;
        let conflict = said.0.starts_with("Error from server (Conflict): ");
        if !conflict || Instant::now() > deadline {
            return Ok(said);
        }
    }
}

#[test]
fn what_is_declared_comes_about_with_both_kubectls() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    for (number, kubectl) in [tools::kubectl()?, tools::old_kubectl()?]
        .iter()
        .enumerate()
    {
        server_side(&lab, kubectl, &format!("server-{number}"))?;
        client_side(&lab, kubectl, &format!("client-{number}"))?;
        patches(&lab, kubectl, &format!("client-{number}"))?;
    }
    strict(&lab)?;
    lab.stop()?;
    Ok(())
}

/// Fields that are unknown or there twice are named by their path.
fn strict(lab: &Lab) -> Result<()> {
    let odd = WEB
        .replace("NAME", "odd")
        .replace("  replicas: 1\n", "  replicas: 1\n  colour: red\n");
    write(lab, "odd.yaml", &odd)?;
    let (text, code) = says(lab, "kubectl apply -f odd.yaml")?;
    assert_eq!(code, 1, "{text}");
    for part in ["strict decoding error:", "unknown field \"spec.colour\""] {
        assert!(text.contains(part), "{text}");
    }
    let (text, code) = says(lab, "kubectl create --validate=warn -f odd.yaml")?;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("Warning: unknown field \"spec.colour\""),
        "{text}"
    );
    Ok(())
}
