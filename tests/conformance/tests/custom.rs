//! Both kubectls with definitions such as operators bring along: what people
//! type about custom resources.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use portolan_conformance::{Lab, tools};

const SOON: Duration = Duration::from_secs(60);

const BACKUPS: &str = "\
apiVersion: storage.example.com/v1
kind: Backup
metadata: {name: nightly}
spec: {schedule: '0 3 * * *', targets: [{name: far, port: 443}]}
";

/// One kubectl in a lab.
struct Kubectl<'a> {
    lab: &'a Lab,
    program: String,
}

impl Kubectl<'_> {
    /// A file of the lab with this text.
    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.lab.data_dir().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn line(&self, arguments: &str) -> String {
        format!("({} {arguments}) 2>&1", self.program)
    }

    fn run(&self, arguments: &str) -> Result<String> {
        self.lab.run(&self.line(arguments))
    }

    fn until(&self, arguments: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        self.lab.until(SOON, &self.line(arguments), holds)
    }
}

/// Definitions that the API server's own tests have, too.
const BACKUPS_DEFINITION: &str =
    include_str!("../../../shell/apiserver/tests/custom/definitions/backups.yaml");
const CERTIFICATES_DEFINITION: &str =
    include_str!("../../../shell/apiserver/tests/custom/definitions/certificates.yaml");

fn with(program: &Path, check: impl Fn(&Kubectl<'_>) -> Result<()>) -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let kubectl = Kubectl {
        lab: &lab,
        program: program.display().to_string(),
    };
    check(&kubectl)
}

/// The round that every version must manage.
fn a_round(kubectl: &Kubectl<'_>) -> Result<()> {
    let crd = kubectl.file("backups.yaml", BACKUPS_DEFINITION)?;
    let shown = kubectl.run(&format!("apply -f {}", crd.display()))?;
    assert!(
        shown.contains(
            "customresourcedefinition.apiextensions.k8s.io/backups.storage.example.com created"
        ),
        "{shown}"
    );
    kubectl
        .run("wait --for=condition=established --timeout=60s crd/backups.storage.example.com")?;
    let file = kubectl.lab.data_dir().join("backup.yaml");
    fs::write(&file, BACKUPS)?;
    let file = file.display();
    let shown = kubectl.until(&format!("apply -f {file}"), |shown| {
        !shown.contains("no matches for kind")
    })?;
    assert_eq!(shown, "backup.storage.example.com/nightly created\n");
    assert_eq!(
        kubectl.run(&format!("apply -f {file}"))?,
        "backup.storage.example.com/nightly unchanged\n"
    );
    what_is_shown(kubectl)?;
    let patched =
        kubectl.run("patch backup nightly --type=merge -p '{\"spec\":{\"copies\":2}}'")?;
    assert_eq!(patched, "backup.storage.example.com/nightly patched\n");
    let scaled = kubectl.run("scale backup/nightly --replicas=3")?;
    assert_eq!(scaled, "backup.storage.example.com/nightly scaled\n");
    assert_eq!(
        kubectl.run("get backup nightly -o jsonpath='{.spec.copies}'")?,
        "3"
    );
    let refused =
        kubectl.run("patch backup nightly --type=merge -p '{\"spec\":{\"copies\":99}}' || true")?;
    assert!(
        refused.contains("* spec.copies: Invalid value: 99: spec.copies in body should be less than or equal to 10"),
        "{refused}"
    );
    kubectl.run("create namespace far")?;
    kubectl.run(&format!("apply -n far -f {file}"))?;
    kubectl.run("delete namespace far --timeout=60s")?;
    let left = kubectl.run("get backups -A -o name")?;
    assert_eq!(left, "backup.storage.example.com/nightly\n");
    kubectl.run("delete crd backups.storage.example.com --timeout=60s")?;
    // With what it has cached, kubectl asks for a kind that is gone.
    kubectl.until("get backups || true", |shown| {
        shown.contains("the server could not find the requested resource")
            || shown.contains("the server doesn't have a resource type \"backups\"")
    })?;
    Ok(())
}

/// Tables, categories and explanations.
fn what_is_shown(kubectl: &Kubectl<'_>) -> Result<()> {
    let listed = kubectl.run("get bk")?;
    let header: Vec<&str> = listed
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(header, ["NAME", "SCHEDULE", "COPIES", "READY", "AGE"]);
    assert!(listed.contains("nightly   0 3 * * *   1"), "{listed}");
    let wide = kubectl.run("get backups -o wide")?;
    assert!(wide.contains("CLASS") && wide.contains("fast"), "{wide}");
    assert!(
        kubectl
            .run("get all")?
            .contains("backup.storage.example.com/nightly")
    );
    let crds = kubectl.run("get crd")?;
    assert!(
        crds.starts_with("NAME ") && crds.contains("CREATED AT"),
        "{crds}"
    );
    let explained = kubectl.run("explain backup.spec.schedule")?;
    assert!(
        explained.contains("When it runs, as cron writes it."),
        "{explained}"
    );
    Ok(())
}

#[test]
fn kubectl_works_with_custom_resources() -> Result<()> {
    with(&tools::kubectl()?, |kubectl| {
        a_round(kubectl)?;
        let crd = kubectl.file("certificates.yaml", CERTIFICATES_DEFINITION)?;
        kubectl.run(&format!("apply --server-side -f {}", crd.display()))?;
        kubectl.run(
            "wait --for=condition=established --timeout=60s crd/certificates.pki.example.com",
        )?;
        let file = kubectl.lab.data_dir().join("certificate.yaml");
        fs::write(
            &file,
            "apiVersion: pki.example.com/v1alpha1\nkind: Certificate\nmetadata: {name: a}\nspec: {dnsNames: [a.example]}\n",
        )?;
        let shown = kubectl.until(
            &format!("apply --server-side -f {}", file.display()),
            |shown| !shown.contains("no matches for kind"),
        )?;
        assert_eq!(
            shown,
            "Warning: pki.example.com/v1alpha1 Certificate goes away; use v1\ncertificate.pki.example.com/a serverside-applied\n"
        );
        let kind = kubectl
            .run("get certificates.v1beta1.pki.example.com a -o jsonpath='{.apiVersion}'")?;
        assert_eq!(kind, "pki.example.com/v1beta1");
        let unknown = "patch cert a --type=merge -p '{\"spec\":{\"extra\":1}}'";
        let warned = kubectl.run(unknown)?;
        assert!(
            warned.contains("Warning: unknown field \"spec.extra\""),
            "{warned}"
        );
        Ok(())
    })
}

#[test]
fn the_old_kubectl_works_with_custom_resources() -> Result<()> {
    with(&tools::old_kubectl()?, a_round)
}
