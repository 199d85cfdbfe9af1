//! Exec and attach with kube's client (v5.channel.k8s.io).

use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use portolan_apiserver::{ContainerTarget, Streams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::backend::pattern;
use crate::common::{DEADLINE, Lab};
use crate::raw::{WEB, start, upgrade};

fn pods(lab: &Lab) -> Api<Pod> {
    Api::namespaced(lab.client.clone(), "default")
}

/// Wait for a condition.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    tokio::time::timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what} did not happen"));
}

async fn output(process: &mut AttachedProcess) -> String {
    let mut all = String::new();
    let mut stdout = process.stdout().unwrap();
    let reading = stdout.read_to_string(&mut all);
    tokio::time::timeout(DEADLINE, reading)
        .await
        .unwrap()
        .unwrap();
    all
}

#[tokio::test]
async fn a_command_runs_where_it_should() {
    let (lab, fake) = start().await;
    let parameters = AttachParams::default().container("main");
    let mut process = pods(&lab)
        .exec("web", ["echo", "a b", "c"], &parameters)
        .await
        .unwrap();
    let status = process.take_status().unwrap();
    assert_eq!(output(&mut process).await, "a b c\n");
    assert_eq!(status.await.unwrap().status.as_deref(), Some("Success"));
    process.join().await.unwrap();
    let request = fake.execs.lock().unwrap().pop().unwrap();
    let uid = request.target.uid.clone();
    assert_eq!(uid.len(), 36);
    let expected = ContainerTarget {
        namespace: "default".to_owned(),
        pod: "web".to_owned(),
        uid,
        node: "n1".to_owned(),
        container: "main".to_owned(),
    };
    assert_eq!(request.target, expected);
    let streams = Streams {
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };
    assert_eq!(request.streams, streams);
    until("the end", || fake.running.load(Ordering::SeqCst) == 0).await;
    assert_eq!(fake.killed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_exit_code_is_in_the_status() {
    let (lab, _) = start().await;
    let mut process = pods(&lab)
        .exec("web", ["fail", "7"], &AttachParams::default())
        .await
        .unwrap();
    let status = process.take_status().unwrap();
    let mut errors = String::new();
    let mut stderr = process.stderr().unwrap();
    assert_eq!(output(&mut process).await, "out\n");
    stderr.read_to_string(&mut errors).await.unwrap();
    assert_eq!(errors, "oops\n");
    let status = status.await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("ExitCode"));
    assert_eq!(causes[0].message.as_deref(), Some("7"));
}

/// Both directions carry more than all buffers together, at the same time.
#[tokio::test]
async fn much_data_goes_both_ways() {
    const BYTES: usize = 12 << 20;
    let (lab, _) = start().await;
    let parameters = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods(&lab).exec("web", ["cat"], &parameters).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let sent: Vec<u8> = (0..BYTES).map(pattern).collect();
    let writing = async {
        stdin.write_all(&sent).await.unwrap();
        // The end of the input is told, and nothing else ends (v5).
        stdin.shutdown().await.unwrap();
        drop(stdin);
    };
    let mut received = Vec::new();
    let reading = stdout.read_to_end(&mut received);
    let ((), read) = tokio::time::timeout(DEADLINE, async { tokio::join!(writing, reading) })
        .await
        .unwrap();
    assert_eq!(read.unwrap(), BYTES);
    assert!(received == sent);
}

/// A client that does not read stops the command, not the server's memory.
#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let (lab, fake) = start().await;
    let bytes = 24 << 20;
    let command = ["flood".to_owned(), bytes.to_string()];
    let parameters = AttachParams::default()
        .stderr(false)
        .max_stdout_buf_size(4096);
    let mut process = pods(&lab).exec("web", command, &parameters).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(fake.running.load(Ordering::SeqCst), 1, "it was buffered");
    let mut received = Vec::new();
    let mut stdout = process.stdout().unwrap();
    let reading = stdout.read_to_end(&mut received);
    tokio::time::timeout(DEADLINE, reading)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received.len(), bytes);
    let right = received
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte == pattern(at));
    assert!(right);
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let (lab, fake) = start().await;
    let parameters = AttachParams::interactive_tty();
    let mut process = pods(&lab)
        .exec("web", ["sizes", "2"], &parameters)
        .await
        .unwrap();
    let mut sizes = process.terminal_size().unwrap();
    for (width, height) in [(80, 24), (132, 50)] {
        let size = TerminalSize { width, height };
        futures::SinkExt::send(&mut sizes, size).await.unwrap();
    }
    assert_eq!(output(&mut process).await, "80x24\r\n132x50\r\n");
    let streams = fake.execs.lock().unwrap().pop().unwrap().streams;
    assert!(streams.tty && !streams.stderr);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_command_along() {
    let (lab, fake) = start().await;
    let parameters = AttachParams::default().stdin(true);
    let process = pods(&lab).exec("web", ["wait"], &parameters).await.unwrap();
    until("the start", || fake.running.load(Ordering::SeqCst) == 1).await;
    process.abort();
    drop(process);
    until("the kill", || fake.killed.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_hold_the_end_up() {
    let (lab, _) = start().await;
    let parameters = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods(&lab)
        .exec("web", ["first"], &parameters)
        .await
        .unwrap();
    let mut stdin = process.stdin().unwrap();
    let writing = async move {
        let much = vec![b'x'; 1 << 20];
        while stdin.write_all(&much).await.is_ok() {}
    };
    let writing = tokio::spawn(writing);
    assert_eq!(output(&mut process).await, "xxxx");
    writing.abort();
}

#[tokio::test]
async fn an_attached_client_sees_the_container_end() {
    let (lab, fake) = start().await;
    let parameters = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods(&lab).attach("web", &parameters).await.unwrap();
    let status = process.take_status().unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    stdin.write_all(b"hello\n").await.unwrap();
    let mut start = [0; 15];
    stdout.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"attached\nhello\n");
    fake.end_container.notify_one();
    let mut rest = String::new();
    let reading = stdout.read_to_string(&mut rest);
    tokio::time::timeout(DEADLINE, reading)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "bye\n");
    // The code of the container is in the pod's status, not here.
    assert_eq!(status.await.unwrap().status.as_deref(), Some("Success"));
}

/// v5 clients are told on the error channel, as the API server that translates
/// for them does.
#[tokio::test]
async fn what_cannot_run_is_said_on_the_error_channel() {
    let (lab, _) = start().await;
    for (pod, container, expected) in [
        (
            "two",
            "gone",
            "Internal error occurred: unable to upgrade connection: container not found (\"gone\")",
        ),
        (
            "web",
            "main",
            "Internal error occurred: error executing command in container: exec: \"missing\": executable file not found in $PATH",
        ),
    ] {
        let parameters = AttachParams::default().container(container);
        let mut process = pods(&lab)
            .exec(pod, ["missing"], &parameters)
            .await
            .unwrap();
        let status = process.take_status().unwrap().await.unwrap();
        assert_eq!(status.message.as_deref(), Some(expected));
        assert_eq!(status.code, Some(500));
    }
}

#[tokio::test]
async fn an_ending_server_ends_its_sessions() {
    let (lab, fake) = start().await;
    let parameters = AttachParams::default().stdin(true).stderr(false);
    let process = pods(&lab).exec("web", ["wait"], &parameters).await.unwrap();
    let path = format!("{WEB}/exec?stdin=1&command=wait");
    let mut socket = upgrade(&lab, &path, "v4.channel.k8s.io")
        .await
        .websocket()
        .await;
    let path = format!("{WEB}/portforward?ports=7");
    let mut forward = upgrade(&lab, &path, "v4.channel.k8s.io")
        .await
        .websocket()
        .await;
    until("the start", || fake.running.load(Ordering::SeqCst) == 2).await;
    lab.stop().await;
    assert_eq!(fake.killed.load(Ordering::SeqCst), 2);
    for socket in [&mut socket, &mut forward] {
        while socket.next().await.is_some() {}
    }
    drop(process);
}
