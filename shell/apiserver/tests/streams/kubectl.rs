//! Both kubectls: 1.32 over WebSocket, 1.20 over SPDY/3.1.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::backend::{Fake, pattern};
use crate::common::{DEADLINE, Lab};
use crate::raw::start;
use crate::remote::until;

/// A kubectl and where it finds the server.
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

fn program(variable: &str, version: &str) -> PathBuf {
    let below = format!("../../target/tools/kubectl-{version}/usr/bin/kubectl");
    let usual = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(below);
    let program = std::env::var_os(variable).map_or(usual, PathBuf::from);
    assert!(
        program.is_file(),
        "{} is not there: `cargo xtask setup` makes it ({variable} names another)",
        program.display()
    );
    program
}

fn new(lab: &Lab) -> Kubectl {
    with(lab, program("PORTOLAN_KUBECTL", "1.32"))
}

fn old(lab: &Lab) -> Kubectl {
    with(lab, program("PORTOLAN_KUBECTL_OLD", "1.20"))
}

fn with(lab: &Lab, program: PathBuf) -> Kubectl {
    let kubeconfig = lab.dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, lab.server.kubeconfig(&lab.url)).unwrap();
    Kubectl {
        program,
        kubeconfig,
    }
}

impl Kubectl {
    fn start(&self, arguments: &[&str]) -> Child {
        Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_file_name("cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn run(&self, arguments: &[&str], input: Vec<u8>) -> Output {
        let mut child = self.start(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let writing = async move {
            // A command may go before it has read everything.
            drop(stdin.write_all(&input).await);
        };
        let both = async { tokio::join!(writing, child.wait_with_output()) };
        let ((), output) = tokio::time::timeout(DEADLINE, both)
            .await
            .expect("kubectl hangs");
        output.unwrap()
    }

    /// Run, and give stdout, stderr and the exit code.
    async fn texts(&self, arguments: &[&str]) -> (String, String, i32) {
        let output = self.run(arguments, Vec::new()).await;
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
            output.status.code().unwrap(),
        )
    }
}

async fn exec(kubectl: &Kubectl) {
    let (stdout, stderr, code) = kubectl.texts(&["exec", "web", "--", "echo", "a b"]).await;
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("a b\n", "", 0));
    let (stdout, stderr, code) = kubectl.texts(&["exec", "web", "--", "fail", "7"]).await;
    assert_eq!(stdout, "out\n");
    assert_eq!(stderr, "oops\ncommand terminated with exit code 7\n");
    assert_eq!(code, 7);
    let (_, stderr, code) = kubectl.texts(&["exec", "web", "--", "missing"]).await;
    assert_eq!(
        stderr,
        "error: Internal error occurred: error executing command in container: exec: \"missing\": executable file not found in $PATH\n"
    );
    assert_eq!(code, 1);
}

async fn data(kubectl: &Kubectl) {
    let sent: Vec<u8> = (0..4 << 20).map(pattern).collect();
    let output = kubectl
        .run(&["exec", "-i", "web", "--", "cat"], sent.clone())
        .await;
    assert!(output.status.success());
    assert!(
        output.stdout == sent,
        "{} bytes came back",
        output.stdout.len()
    );
    let output = kubectl
        .run(&["exec", "-i", "web", "--", "count"], sent)
        .await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4194304 true\n");
    let output = kubectl
        .run(&["exec", "web", "--", "flood", "9000001"], Vec::new())
        .await;
    assert_eq!(output.stdout.len(), 9_000_001);
    let right = output
        .stdout
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte == pattern(at));
    assert!(right);
    // A command that leaves its input unread.
    let much = vec![b'x'; 8 << 20];
    let output = kubectl
        .run(&["exec", "-i", "web", "--", "first"], much)
        .await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "xxxx");
    assert!(output.status.success());
}

async fn attach(kubectl: &Kubectl, fake: &Fake) {
    let mut child = kubectl.start(&["attach", "-i", "web"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let talk = async {
        // kubectl 1.20 has told its own hint on stderr by then.
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "attached");
        stdin.write_all(b"hello\n").await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "hello");
        fake.end_container.notify_one();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "bye");
        assert_eq!(lines.next_line().await.unwrap(), None);
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(DEADLINE, talk)
        .await
        .expect("attach hangs");
    assert!(status.success());
}

/// A running port-forward and its local ports.
async fn forward(kubectl: &Kubectl, ports: &[&str]) -> (Child, Vec<u16>) {
    let arguments = [
        &["port-forward", "--address", "127.0.0.1", "pod/web"],
        ports,
    ]
    .concat();
    let mut child = kubectl.start(&arguments);
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let mut local = Vec::new();
    while local.len() < ports.len() {
        let line = tokio::time::timeout(DEADLINE, lines.next_line())
            .await
            .unwrap();
        let line = line.unwrap().expect("port-forward ended");
        let rest = line.strip_prefix("Forwarding from 127.0.0.1:").unwrap();
        local.push(rest.split(' ').next().unwrap().parse().unwrap());
    }
    (child, local)
}

async fn echo(port: u16, bytes: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let sent: Vec<u8> = (0..bytes).map(pattern).collect();
    let mut received = Vec::new();
    let (mut read, mut write) = stream.split();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        // The other side sees the end, and still answers.
        write.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(writing, read.read_to_end(&mut received)) };
    let ((), read) = tokio::time::timeout(DEADLINE, both)
        .await
        .expect("echo hangs");
    read.unwrap();
    assert!(received == sent, "{} of {bytes} came back", received.len());
}

async fn forwards(kubectl: &Kubectl) {
    let (child, ports) = forward(kubectl, &[":7", ":80"]).await;
    let echoes = (1..=8).map(|number| echo(ports[0], number * 100_000));
    futures::future::join_all(echoes).await;
    let mut stream = TcpStream::connect(("127.0.0.1", ports[1])).await.unwrap();
    let request = b"GET /fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 418 "), "{answer}");
    drop(child);
}

#[tokio::test]
async fn the_new_kubectl_runs_commands() {
    let (lab, fake) = start().await;
    let kubectl = new(&lab);
    exec(&kubectl).await;
    data(&kubectl).await;
    attach(&kubectl, &fake).await;
    let (_, stderr, _) = kubectl
        .texts(&["exec", "two", "-c", "gone", "--", "echo"])
        .await;
    assert_eq!(
        stderr,
        "error: Internal error occurred: unable to upgrade connection: container not found (\"gone\")\n"
    );
}

#[tokio::test]
async fn the_old_kubectl_runs_commands() {
    let (lab, fake) = start().await;
    let kubectl = old(&lab);
    exec(&kubectl).await;
    data(&kubectl).await;
    attach(&kubectl, &fake).await;
    let (_, stderr, _) = kubectl
        .texts(&["exec", "two", "-c", "gone", "--", "echo"])
        .await;
    assert_eq!(
        stderr,
        "error: unable to upgrade connection: container not found (\"gone\")\n"
    );
}

#[tokio::test]
async fn a_kubectl_that_is_stopped_takes_its_command_along() {
    let (lab, fake) = start().await;
    for (count, kubectl) in [new(&lab), old(&lab)].iter().enumerate() {
        let child = kubectl.start(&["exec", "-i", "web", "--", "wait"]);
        until("the start", || {
            fake.running.load(std::sync::atomic::Ordering::SeqCst) == 1
        })
        .await;
        drop(child);
        until("the kill", || {
            fake.killed.load(std::sync::atomic::Ordering::SeqCst) == count + 1
        })
        .await;
    }
}

#[tokio::test]
async fn both_kubectls_forward_ports() {
    let (lab, _) = start().await;
    forwards(&new(&lab)).await;
    forwards(&old(&lab)).await;
}

/// One connection that fails says why, and the others do not notice. (The new
/// kubectl ends itself on the first error.)
#[tokio::test]
async fn an_error_of_one_connection_is_its_own() {
    let (lab, _) = start().await;
    for (kubectl, goes_on) in [(old(&lab), true), (new(&lab), false)] {
        let (mut child, ports) = forward(&kubectl, &[":7", ":81"]).await;
        let mut stream = TcpStream::connect(("127.0.0.1", ports[1])).await.unwrap();
        let mut nothing = Vec::new();
        let reading = stream.read_to_end(&mut nothing);
        drop(
            tokio::time::timeout(DEADLINE, reading)
                .await
                .expect("no end"),
        );
        assert!(nothing.is_empty());
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = tokio::time::timeout(DEADLINE, errors.next_line())
            .await
            .unwrap();
        let line = line.unwrap().unwrap();
        assert!(
            line.contains("error forwarding port 81 to pod web, uid : failed to connect to localhost:81 inside namespace"),
            "{line}"
        );
        if goes_on {
            echo(ports[0], 1000).await;
        }
    }
}

#[tokio::test]
async fn raw_requests_reach_pods() {
    let (lab, _) = start().await;
    let path = "/api/v1/namespaces/default/pods/http:web:80/proxy/x?y=z";
    for kubectl in [new(&lab), old(&lab)] {
        let (stdout, stderr, code) = kubectl.texts(&["get", "--raw", path]).await;
        assert_eq!((stderr.as_str(), code), ("", 0));
        let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(told["target"], "/x?y=z");
    }
}
