//! `kubectl rollout`, new and old, for all three kinds that have it: what it
//! prints, and that it ends.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_conformance::{Lab, tools};

const SOON: Duration = Duration::from_secs(90);

/// One kubectl, a lab, and the workload that it works on.
struct Rollout<'a> {
    lab: &'a Lab,
    kubectl: String,
    /// Such as `deployment/web-132`.
    what: String,
    name: String,
}

impl<'a> Rollout<'a> {
    fn new(lab: &'a Lab, kind: &str, version: &str, program: PathBuf) -> Self {
        let name = format!("web-{version}");
        Self {
            lab,
            kubectl: program.display().to_string(),
            what: format!("{kind}/{name}"),
            name,
        }
    }

    fn run(&self, arguments: &str) -> Result<String> {
        self.lab.run(&format!("{} {arguments} 2>&1", self.kubectl))
    }

    /// What kubectl says when it fails, which it must.
    fn refused(&self, arguments: &str) -> Result<String> {
        let kubectl = &self.kubectl;
        self.lab.run(&format!(
            "if out=$({kubectl} {arguments} 2>&1); then echo \"no error: $out\"; exit 1; fi; echo \"$out\""
        ))
    }

    /// Runs `kubectl rollout VERB` on the workload.
    fn rollout(&self, verb: &str, flags: &str) -> Result<String> {
        self.run(&format!("rollout {verb} {} {flags}", self.what))
    }

    /// Waits as a user does, and returns the last line.
    fn status(&self) -> Result<String> {
        let text = self.rollout("status", &format!("--timeout={}s", SOON.as_secs()))?;
        Ok(text.lines().last().unwrap_or("").to_owned())
    }

    /// The numbers and causes of `kubectl rollout history`.
    fn history(&self) -> Result<Vec<(String, String)>> {
        let text = self.rollout("history", "")?;
        let mut lines = text.lines();
        let heading = lines.next().unwrap_or("");
        ensure!(heading.contains(&self.name), "{text}");
        let columns = lines.next().unwrap_or("");
        ensure!(
            columns.split_whitespace().eq(["REVISION", "CHANGE-CAUSE"]),
            "{text}"
        );
        let revisions = lines
            .filter_map(|line| line.trim().split_once(char::is_whitespace))
            .map(|(number, cause)| (number.to_owned(), cause.trim().to_owned()))
            .collect();
        Ok(revisions)
    }

    fn numbers(&self) -> Result<Vec<String>> {
        Ok(self
            .history()?
            .into_iter()
            .map(|(number, _)| number)
            .collect())
    }

    fn apply(&self, manifest: &str) -> Result<()> {
        let line = format!("{} apply -f - <<'END'\n{manifest}\nEND", self.kubectl);
        self.lab.run(&line).map(|_| ())
    }

    fn image(&self) -> Result<String> {
        let path = "jsonpath={.spec.template.spec.containers[0].image}";
        self.run(&format!("get {} -o '{path}'", self.what))
    }
}

/// A manifest of any of the three kinds.
fn manifest(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
{spec}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {{name: c, image: 'nginx:1.27'}}
"
    )
}

fn both(lab: &Lab, kind: &str, check: impl Fn(&Rollout<'_>) -> Result<()>) -> Result<()> {
    for (version, program) in [("132", tools::kubectl()?), ("120", tools::old_kubectl()?)] {
        let rollout = Rollout::new(lab, kind, version, program);
        check(&rollout).with_context(|| format!("kubectl {version}"))?;
    }
    Ok(())
}

/// What all three kinds have in common: history, undo, restart.
fn back_and_forth(rollout: &Rollout<'_>, done: &str) -> Result<()> {
    let what = &rollout.what;
    ensure!(rollout.status()?.contains(done), "{}", rollout.status()?);
    assert_eq!(rollout.numbers()?, ["1"]);
    rollout.run(&format!(
        "annotate {what} kubernetes.io/change-cause='a new image'"
    ))?;
    rollout.run(&format!("set image {what} c=nginx:1.28"))?;
    ensure!(rollout.status()?.contains(done));
    let history = rollout.history()?;
    assert_eq!(
        history.last(),
        Some(&("2".to_owned(), "a new image".to_owned()))
    );
    let first = rollout.rollout("history", "--revision=1")?;
    ensure!(first.contains("with revision #1"), "{first}");
    ensure!(first.contains("nginx:1.27"), "{first}");

    let undone = rollout.rollout("undo", "")?;
    ensure!(undone.contains("rolled back"), "{undone}");
    ensure!(rollout.status()?.contains(done));
    assert_eq!(rollout.image()?, "nginx:1.27");
    assert_eq!(rollout.numbers()?, ["2", "3"], "the first became the third");
    rollout.rollout("undo", "--to-revision=2")?;
    ensure!(rollout.status()?.contains(done));
    assert_eq!(rollout.image()?, "nginx:1.28");
    let missing = rollout.refused(&format!("rollout undo {what} --to-revision=77"))?;
    ensure!(
        missing.contains("unable to find specified revision 77"),
        "{missing}"
    );

    let restarted = rollout.rollout("restart", "")?;
    ensure!(restarted.contains("restarted"), "{restarted}");
    ensure!(rollout.status()?.contains(done));
    assert_eq!(rollout.numbers()?, ["3", "4", "5"]);
    Ok(())
}

#[test]
fn a_deployment_rolls_back_and_forth_and_pauses() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    both(&lab, "deployment", |rollout| {
        rollout.apply(&manifest("Deployment", &rollout.name, "  replicas: 2"))?;
        back_and_forth(rollout, "successfully rolled out")?;
        let what = &rollout.what;
        let paused = rollout.rollout("pause", "")?;
        ensure!(paused.contains("paused"), "{paused}");
        rollout.run(&format!("set image {what} c=nginx:1.29"))?;
        let refused = rollout.refused(&format!("rollout undo {what}"))?;
        ensure!(
            refused.contains("cannot rollback a paused deployment"),
            "{refused}"
        );
        assert_eq!(
            rollout.numbers()?.len(),
            3,
            "no revision while it is paused"
        );
        let resumed = rollout.rollout("resume", "")?;
        ensure!(resumed.contains("resumed"), "{resumed}");
        ensure!(rollout.status()?.contains("successfully rolled out"));
        assert_eq!(rollout.numbers()?.len(), 4);
        Ok(())
    })
}

#[test]
fn a_deployment_that_does_not_progress_fails_its_status() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    both(&lab, "deployment", |rollout| {
        rollout.apply(&manifest("Deployment", &rollout.name, "  replicas: 1"))?;
        ensure!(rollout.status()?.contains("successfully rolled out"));
        let what = &rollout.what;
        let never = r#"{"spec": {"progressDeadlineSeconds": 2, "template": {"spec": {"containers":
            [{"name": "c", "readinessProbe": {"tcpSocket": {"port": 9}}}]}}}}"#;
        rollout.run(&format!("patch {what} -p '{never}'"))?;
        let failed = rollout.refused(&format!("rollout status {what} --timeout=60s"))?;
        ensure!(
            failed.contains("exceeded its progress deadline"),
            "{failed}"
        );
        // A busy machine may need longer than that to go back.
        let patient = r#"{"spec": {"progressDeadlineSeconds": 600}}"#;
        rollout.run(&format!("patch {what} -p '{patient}'"))?;
        rollout.rollout("undo", "")?;
        ensure!(rollout.status()?.contains("successfully rolled out"));
        Ok(())
    })
}

#[test]
fn a_stateful_set_rolls_back_and_forth() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    both(&lab, "statefulset", |rollout| {
        let spec = format!("  replicas: 2\n  serviceName: {}", rollout.name);
        rollout.apply(&manifest("StatefulSet", &rollout.name, &spec))?;
        back_and_forth(
            rollout,
            "partitioned roll out complete: 2 new pods have been updated...",
        )?;
        let refused = rollout.refused(&format!("rollout pause {}", rollout.what))?;
        ensure!(refused.contains("pausing is not supported"), "{refused}");
        Ok(())
    })
}

#[test]
fn a_daemon_set_rolls_back_and_forth() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    both(&lab, "daemonset", |rollout| {
        rollout.apply(&manifest("DaemonSet", &rollout.name, ""))?;
        back_and_forth(rollout, "successfully rolled out")?;
        let pods = rollout.run(&format!(
            "get pods -l app={} -o 'jsonpath={{.items[*].spec.nodeName}}'",
            rollout.name
        ))?;
        let mut nodes: Vec<&str> = pods.split_whitespace().collect();
        nodes.sort();
        nodes.dedup();
        assert_eq!(nodes.len(), 2, "{pods}");
        Ok(())
    })
}
