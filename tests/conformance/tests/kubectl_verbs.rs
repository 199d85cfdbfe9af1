//! Every verb of kubectl that touches the API server, typed with both versions:
//! what is said must be what Kubernetes makes kubectl say.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_conformance::{Lab, tools};

/// The commands and what they must say.
const VERBS: &str = include_str!("../kubectl/verbs.txt");

/// How long a row with `until` is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

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
      terminationGracePeriodSeconds: 1
      containers:
        - {name: nginx, image: 'nginx:1.27', ports: [{containerPort: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

/// One command of the list.
#[derive(Debug, Default)]
struct Row {
    /// `both`, `new` or `old`.
    who: String,
    arguments: String,
    code: i32,
    /// Asked again until it is said, for at most [`PATIENCE`].
    until: bool,
    /// What is said contains these, in this order.
    parts: Vec<String>,
}

fn rows() -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for line in VERBS.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(part) = line.strip_prefix("    ") {
            let row = rows.last_mut().context("a part belongs to a command")?;
            row.parts.push(part.to_owned());
            continue;
        }
        let (head, arguments) = line.split_once(": ").with_context(|| line.to_owned())?;
        let (who, how) = head.split_once(' ').unwrap_or((head, "0"));
        let until = how == "until";
        let code = if until { "0" } else { how };
        ensure!(["both", "new", "old"].contains(&who), "{line}");
        rows.push(Row {
            who: who.to_owned(),
            arguments: arguments.to_owned(),
            code: code.parse().with_context(|| line.to_owned())?,
            until,
            parts: Vec::new(),
        });
    }
    Ok(rows)
}

/// Types one row, again and again if it waits for something.
fn settled(lab: &Lab, program: &str, namespace: &str, row: &Row) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = typed(lab, program, namespace, row);
        if outcome.is_ok() || !row.until || Instant::now() > deadline {
            return outcome;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Types one row; an error says what was said.
fn typed(lab: &Lab, program: &str, namespace: &str, row: &Row) -> Result<()> {
    let Row {
        arguments,
        code,
        parts,
        ..
    } = row;
    let file = lab.data_dir().join("verbs.yaml").display().to_string();
    let arguments = arguments.replace("FILE", &file);
    let out = lab
        .shell(
            lab.data_dir(),
            &format!("exec 2>&1; timeout 90 {program} -n {namespace} {arguments}"),
        )
        .output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(
        out.status.code() == Some(*code),
        "ended with {}, not {code}:\n{said}",
        out.status
    );
    let mut rest: &str = &said;
    for part in parts {
        let at = rest
            .find(part.as_str())
            .with_context(|| format!("no {part:?} (in order) in:\n{said}"))?;
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    Ok(())
}

fn type_all(lab: &Lab, who: &str, program: &str) -> Result<()> {
    lab.run(&format!("kubectl create namespace {who}"))?;
    let mut wrong = Vec::new();
    for row in rows()? {
        if row.who != "both" && row.who != who {
            continue;
        }
        if let Err(error) = settled(lab, program, who, &row) {
            wrong.push(format!("$ kubectl {}\n{error:#}", row.arguments));
        }
    }
    lab.run(&format!("kubectl delete namespace {who} --timeout=60s"))?;
    ensure!(wrong.is_empty(), "{program}:\n{}", wrong.join("\n\n"));
    Ok(())
}

#[test]
fn every_verb_says_what_kubernetes_makes_it_say() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    fs::write(lab.data_dir().join("verbs.yaml"), MANIFEST)?;
    let new = tools::kubectl()?.display().to_string();
    let old = tools::old_kubectl()?.display().to_string();
    let both = [type_all(&lab, "new", &new), type_all(&lab, "old", &old)];
    let wrong: Vec<String> = both
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}
