//! Every test: the workspace's own as the current user, then, when root, the
//! lab and the demo once more as an unprivileged user, so that rootless faults
//! show.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kubectl::RESOLVED;
use crate::run::{check, is_root, output, run, say};

/// `nobody` of Debian: a user with no rights at all.
const UNPRIVILEGED: &str = "65534";

/// Packages whose tests start labs or make namespaces, and so behave differently
/// without root. (The tests of portolan-lab run themselves again as nobody.)
const NAMESPACE_PACKAGES: [&str; 3] = ["portolan-netns", "portolan-conformance", "portolan-peers"];

/// Tests of those packages that only speak HTTP to a lab: who runs them makes no
/// difference, and their interpreters' files are not copied.
const ROOT_OR_NOT: [&str; 2] = ["python", "javascript"];

/// Runs all tests; unless told otherwise also without root.
pub(crate) fn every_test(root: &Path, only_current_user: bool) -> Result<()> {
    check(root, &["cargo", "build", "--workspace", "--quiet"])?;
    let product = root.join("target/debug/portolan");
    let mut tests = Command::new("cargo");
    tests
        .args(["test", "--workspace", "--quiet", "--no-fail-fast"])
        .current_dir(root);
    environment(&mut tests, root, &product)?;
    say("cargo test --workspace");
    run(tests, "cargo test --workspace")?;
    demo(root, &product, None)?;
    if only_current_user || !is_root() {
        return Ok(());
    }
    without_root(root, &product)
}

/// Where tests find the product, the kubectls and the examples.
fn environment(command: &mut Command, root: &Path, product: &Path) -> Result<()> {
    let tools = root.join("target/tools");
    command.env("PORTOLAN_BIN", product);
    command.env(
        "PORTOLAN_KUBECTL",
        tools.join("kubectl-1.32/usr/bin/kubectl"),
    );
    command.env(
        "PORTOLAN_KUBECTL_OLD",
        tools.join("kubectl-1.20/usr/bin/kubectl"),
    );
    command.env("PORTOLAN_PYTHON", tools.join("python/bin/python"));
    command.env(
        "PORTOLAN_CLIENT_NODE",
        tools.join("javascript/node_modules/@kubernetes/client-node/dist/index.js"),
    );
    command.env("PORTOLAN_ROOT", root);
    Ok(())
}

/// Copies what is needed to a place that anybody may read, and runs it as nobody.
fn without_root(root: &Path, product: &Path) -> Result<()> {
    say("once more without root");
    let place = std::env::temp_dir().join(format!("portolan-without-root-{}", std::process::id()));
    let result = without_root_in(root, product, &place);
    fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
    result
}

fn without_root_in(root: &Path, product: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place.join("target/tools"))?;
    let copied = place.join("portolan");
    fs::copy(product, &copied)?;
    let from = [
        root.join("target/tools/kubectl-1.32"),
        root.join("target/tools/kubectl-1.20"),
        root.join("target/tools").join(RESOLVED),
        root.join("target/tools/bird2"),
        root.join("target/tools/frr"),
        root.join("examples"),
    ];
    let into = [
        "target/tools/kubectl-1.32",
        "target/tools/kubectl-1.20",
        "target/tools/systemd-resolved",
        "target/tools/bird2",
        "target/tools/frr",
        "examples",
    ];
    for (from, into) in from.iter().zip(into) {
        let (from, into) = (
            from.display().to_string(),
            place.join(into).display().to_string(),
        );
        check(root, &["cp", "-r", &from, &into])?;
    }
    let home = place.join("home");
    fs::create_dir_all(&home)?;
    for executable in namespace_tests(root)? {
        let name = executable
            .file_name()
            .context("a test has a name")?
            .to_owned();
        fs::copy(&executable, place.join(&name))?;
    }
    let owner = format!("{UNPRIVILEGED}:{UNPRIVILEGED}");
    check(root, &["chown", "-R", &owner, &place.display().to_string()])?;
    fs::set_permissions(place, fs::Permissions::from_mode(0o755))?;
    for executable in namespace_tests(root)? {
        let name = executable
            .file_name()
            .context("a test has a name")?
            .to_owned();
        let program = place.join(&name);
        let mut test = as_nobody(place);
        test.arg(&program).arg("--quiet");
        environment(&mut test, place, &copied)?;
        run(test, &format!("{} without root", name.display()))?;
    }
    demo(root, &copied, Some(place))
}

/// `setpriv` to the unprivileged user, with a home of its own.
fn as_nobody(place: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            UNPRIVILEGED,
            "--regid",
            UNPRIVILEGED,
            "--clear-groups",
            "--",
        ])
        .current_dir(place)
        .env("HOME", place.join("home"))
        .env("TMPDIR", place.join("home"))
        .env_remove("XDG_RUNTIME_DIR");
    command
}

/// The demo's exit code is a test: 0 only if every step held.
fn demo(root: &Path, product: &Path, place: Option<&Path>) -> Result<()> {
    let who = if place.is_some() {
        "without root"
    } else {
        "as the current user"
    };
    say(&format!("portolan demo, {who}"));
    let mut command = match place {
        Some(place) => {
            let mut c = as_nobody(place);
            c.arg(product);
            c
        }
        None => {
            let mut c = Command::new(product);
            c.current_dir(root);
            c
        }
    };
    command.arg("demo");
    run(command, &format!("portolan demo {who}"))
}

/// The test executables of the packages that make namespaces.
fn namespace_tests(root: &Path) -> Result<Vec<PathBuf>> {
    let mut words = vec![
        "cargo",
        "test",
        "--no-run",
        "--quiet",
        "--message-format",
        "json",
    ];
    for package in NAMESPACE_PACKAGES {
        words.extend(["-p", package]);
    }
    let text = output(root, &words)?;
    let mut found = Vec::new();
    for line in text.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if message["profile"]["test"] == true
            && !ROOT_OR_NOT.contains(&name)
            && let Some(path) = message["executable"].as_str()
        {
            found.push(PathBuf::from(path));
        }
    }
    found.sort();
    Ok(found)
}
