//! `portolan dns`, as users type it.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_conformance::{Lab, tools};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

fn typed(words: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(tools::portolan()?)
        .arg("dns")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn d22_a_corefile_becomes_a_configuration() -> Result<()> {
    let corefile = ".:53 {\n    errors\n    kubernetes cluster.local in-addr.arpa {\n        pods insecure\n        fallthrough in-addr.arpa\n    }\n    template ANY ANY\n    forward . 192.0.2.53\n    cache 30\n}\n";
    let (code, file, notes) = texts(&typed(&["import", "-"], corefile)?);
    assert_eq!(code, 0, "{notes}");
    assert_eq!(
        notes,
        "-: not converted: line 7: template ANY ANY: there is nothing like it\n"
    );
    for part in [
        "apiVersion: dns.portolan.dev/v1alpha1",
        "kind: DNSConfiguration",
        "192.0.2.53",
        "pods: Insecure",
    ] {
        assert!(file.contains(part), "{part} in {file}");
    }
    let (code, said, notes) = texts(&typed(&["check", "-"], &file)?);
    assert_eq!((code, said.as_str()), (0, "-: fine\n"), "{notes}");

    let broken = file.replace("pods: Insecure", "pods: Some");
    let (code, said, notes) = texts(&typed(&["check", "-"], &broken)?);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(
        notes.contains("kubernetes.pods: Unsupported value: \"Some\""),
        "{notes}"
    );
    let (code, said, notes) = texts(&typed(&["import", "-"], ".:53 {\n errors\n")?);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(notes.contains("line 1"), "{notes}");
    Ok(())
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A port of the loopback that nobody has.
fn free() -> Result<SocketAddr> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

#[test]
fn d3_d22_the_names_of_a_lab_are_answered_outside_of_it() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let file = lab.data_dir().join("dns.yaml");
    let head = "apiVersion: dns.portolan.dev/v1alpha1\nkind: DNSConfiguration\n";
    let off = "health: {address: ''}\nready: {address: ''}\nmetrics: {address: ''}\n";
    let hosts = |last: u8| {
        format!("hosts: {{entries: [{{address: 192.0.2.{last}, names: [db.example.com]}}]}}\n")
    };
    std::fs::write(&file, format!("{head}forward: []\n{off}{}", hosts(1)))?;
    let listen = free()?;
    let server = Command::new(tools::portolan()?)
        .args(["dns", "serve", "--zone-from-kubeconfig"])
        .arg(lab.data_dir().join("kubeconfig"))
        .args(["--listen", &listen.to_string(), "--config"])
        .arg(&file)
        .spawn()?;
    let mut server = Server(server);
    let until = |words: &str, right: &str| -> Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            let output = Command::new("dig")
                .args([
                    "@127.0.0.1",
                    "-p",
                    &listen.port().to_string(),
                    "+short",
                    "+tries=1",
                ])
                .args(words.split(' '))
                .output()
                .context("dig, of bind9-dnsutils")?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said == right {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{words}: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("kubernetes.default.svc.cluster.local", "10.96.0.1\n")?;
    until("+tcp db.example.com", "192.0.2.1\n")?;
    std::fs::write(&file, format!("{head}forward: []\n{off}{}", hosts(2)))?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.0.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP)?;
    until("db.example.com", "192.0.2.2\n")?;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let ended = server.0.wait()?;
    assert!(ended.success(), "{ended}");
    Ok(())
}
