//! Bad input: one line that says what to do, and exit code 1.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use portolan_conformance::{Lab, tools};

/// Runs portolan, which must end by itself; returns its exit code and what it said on standard error.
fn portolan(arguments: &[&str]) -> Result<(i32, String)> {
    let out = Command::new("timeout")
        .args(["--signal=TERM", "30"])
        .arg(tools::portolan()?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    Ok((
        out.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    ))
}

fn one_line(said: &(i32, String), parts: &[&str]) {
    assert_eq!(said.0, 1, "{}", said.1);
    assert_eq!(said.1.trim_end().lines().count(), 1, "one line: {}", said.1);
    for part in parts {
        assert!(said.1.contains(part), "{part:?} in {}", said.1);
    }
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = held.local_addr()?.port().to_string();
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data").display().to_string();
    let said = portolan(&[
        "up",
        "--data-dir",
        &data,
        "--listen",
        &format!("127.0.0.1:{port}"),
    ])?;
    one_line(&said, &[&port, "in use", "--listen"]);
    Ok(())
}

#[test]
fn a_data_dir_that_cannot_be_used_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("a-file");
    fs::write(&file, "not a folder")?;
    let data = file.display().to_string();
    let said = portolan(&["up", "--data-dir", &data, "--listen", "127.0.0.1:0"])?;
    one_line(&said, &[&data, "--data-dir"]);
    if !nix::unistd::geteuid().is_root() {
        let closed = dir.path().join("closed");
        fs::create_dir(&closed)?;
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000))?;
        let data = closed.join("data").display().to_string();
        let said = portolan(&["up", "--data-dir", &data, "--listen", "127.0.0.1:0"])?;
        one_line(&said, &[&data, "--data-dir"]);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[test]
fn a_second_up_on_the_same_data_dir_is_refused_and_the_first_goes_on() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let data = lab.data_dir().display().to_string();
    let listen = format!("127.0.0.1:{}", tools::free_port()?);
    let said = portolan(&["up", "--data-dir", &data, "--listen", &listen])?;
    one_line(&said, &["another lab", "--data-dir"]);
    lab.until(
        Duration::from_secs(30),
        "kubectl get nodes --no-headers",
        |t| t.contains(" Ready "),
    )?;
    Ok(())
}

#[test]
fn malformed_manifests_are_refused_with_line_and_column() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let config = lab.kubeconfig().display().to_string();
    let file = lab.data_dir().join("bad.yaml");
    let path = file.display().to_string();
    for (text, parts) in [
        ("apiVersion: v1\nkind: [\n", &["bad.yaml", "line"][..]),
        (
            "apiVersion: v1\nkind: Gizmo\nmetadata: {name: a}\n",
            &["Gizmo", "v1"],
        ),
        ("kind: Pod\nmetadata: {name: a}\n", &["apiVersion"]),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: UPPER}\nspec: {containers: []}\n",
            &["metadata.name", "spec.containers"],
        ),
    ] {
        fs::write(&file, text)?;
        let said = portolan(&["apply", "--kubeconfig", &config, "-f", &path])?;
        assert_eq!(said.0, 1, "{}", said.1);
        for part in parts {
            assert!(said.1.contains(part), "{part:?} in {}", said.1);
        }
    }
    let said = portolan(&["apply", "--kubeconfig", &config, "-f", "/nowhere.yaml"])?;
    one_line(&said, &["/nowhere.yaml"]);
    let said = portolan(&["get", "pods", "--kubeconfig", "/nowhere"])?;
    one_line(&said, &["/nowhere"]);
    Ok(())
}

#[test]
fn refused_user_namespaces_are_explained() -> Result<()> {
    // A user namespace in which no more may be made, as some containers are.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let out = Command::new("unshare")
        .args(["-Urm", "--", "sh", "-c", script, "sh"])
        .arg(tools::portolan()?)
        .args(["demo"])
        .stdin(Stdio::null())
        .output()?;
    let said = (
        out.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    );
    one_line(&said, &["user namespaces"]);
    Ok(())
}

#[test]
fn verbs_that_reach_into_pods_refuse_what_cannot_be() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let config = lab.kubeconfig().display().to_string();
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = held.local_addr()?.port().to_string();
    lab.run("kubectl run serve --image=nginx --port=80")?;
    lab.run("kubectl wait --for=condition=Ready pod/serve --timeout=60s")?;
    let forward = format!("{port}:80");
    for (words, parts) in [
        (
            &["exec", "nobody", "--", "ls"][..],
            &["NotFound", "nobody"][..],
        ),
        (
            &["exec", "gizmo/x", "--", "ls"],
            &["doesn't have a resource type \"gizmo\""],
        ),
        (
            &["exec", "svc/kubernetes", "--", "ls"],
            &["selects no pods"],
        ),
        (
            &["run", "x", "--image", "nginx", "--rm"],
            &["--rm", "attached"],
        ),
        (
            &["run", "x", "--image", "nginx", "--env", "A"],
            &["invalid env: A"],
        ),
        (
            &["run", "x", "--image", "nginx", "--labels", "A"],
            &["unexpected label spec: A"],
        ),
        (&["run", "UPPER", "--image", "nginx"], &["metadata.name"]),
        (
            &["port-forward", "serve", &forward],
            &["unable to listen on port", &port, "in use"],
        ),
        (
            &["port-forward", "serve", "8080:grpc"],
            &["named port 'grpc'"],
        ),
        (&["expose", "pod", "nobody", "--port", "80"], &["NotFound"]),
        (
            &["expose", "pod", "serve", "--port", "80", "--type", "Odd"],
            &["spec.type", "Odd"],
        ),
        (&["describe", "pod", "nobody"], &["NotFound"]),
    ] {
        let mut arguments = words.to_vec();
        arguments.splice(1..1, ["--kubeconfig", &config]);
        let said = portolan(&arguments)?;
        one_line(&said, parts);
    }
    Ok(())
}
