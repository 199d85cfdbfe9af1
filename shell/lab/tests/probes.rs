//! Probes against servers that answer well, ill, late and not at all.
#![expect(unsafe_code, reason = "namespaces are entered between fork and exec")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use portolan_kernel::netns::NetNs;
use portolan_lab::{
    container::Launcher,
    probe::{Answer, Asker, Handler, check},
};
use support::{block_on, in_lab};

/// A server in `netns` that gives `answer` to everybody; an empty one keeps silent.
fn server(netns: &NetNs, answer: &'static str) -> SocketAddr {
    let listener = netns.run(|| TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("inside").expect("a listener");
    let at = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut asked = [0; 1024];
            if answer.is_empty() {
                silent.push(stream);
            } else if stream.read(&mut asked).is_ok() {
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        }
    });
    at
}

async fn ask(netns: &NetNs, at: SocketAddr, http: bool) -> Answer {
    let asker = Asker {
        netns: netns.clone(),
        ip: at.ip(),
        launcher: Launcher::new(PathBuf::from("/proc/self/exe")),
        pid: 0,
        env: Arc::default(),
        user: None,
    };
    let (host, port) = (None, at.port());
    let handler = if http {
        Handler::Http {
            https: false,
            host,
            port,
            path: "/h".into(),
            headers: vec![],
        }
    } else {
        Handler::Tcp { host, port }
    };
    check(&asker, &handler, Duration::from_millis(500)).await
}

#[test]
fn c16_answers_are_judged_as_kubelet_does() {
    in_lab("c16_answers_are_judged_as_kubelet_does", || {
        block_on(async {
            let netns = NetNs::create().expect("a namespace");
            let ok = server(&netns, "HTTP/1.1 204 No Content\r\n\r\n");
            assert_eq!(ask(&netns, ok, true).await, Answer::Success);
            assert_eq!(ask(&netns, ok, false).await, Answer::Success);
            let moved = server(
                &netns,
                "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
            );
            assert_eq!(ask(&netns, moved, true).await, Answer::Success);
            let ill = server(
                &netns,
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            );
            let message = "HTTP probe failed with statuscode: 503".to_owned();
            assert_eq!(ask(&netns, ill, true).await, Answer::Failure(message));
            let mute = server(&netns, "");
            let message = format!(
                "Get \"http://{mute}/h\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            );
            assert_eq!(ask(&netns, mute, true).await, Answer::Failure(message));
            // Nobody listens on a port that was just given back.
            let gone = netns.run(|| TcpListener::bind("127.0.0.1:0")?.local_addr());
            let gone = gone.expect("inside").expect("an address");
            let message = format!("dial tcp {gone}: connect: connection refused");
            assert_eq!(
                ask(&netns, gone, false).await,
                Answer::Failure(message.clone())
            );
            let message = format!("Get \"http://{gone}/h\": {message}");
            assert_eq!(ask(&netns, gone, true).await, Answer::Failure(message));
        });
    });
}
