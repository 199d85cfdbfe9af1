//! The echo application in a real pod: served, probed, drained, and asked by
//! its own client mode from another pod.
#![expect(unsafe_code, reason = "namespaces are entered between fork and exec")]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use portolan_kernel::netns::NetNs;
use portolan_lab::{
    container::{ContainerSpec, DEFAULT_PATH, Exit, Launched, Launcher, PROGRAM, Report},
    probe::{Answer, Asker, Handler, check},
};
use serde_json::Value;
use support::{Folder, PATIENCE, block_on, eventually, in_lab};
use tokio::io::AsyncReadExt;

/// A pod's network that has nothing but its loopback, where everybody is.
struct Place {
    folder: Folder,
    netns: NetNs,
    launcher: Launcher,
}

impl Place {
    fn new(name: &str) -> Self {
        Self {
            folder: Folder::new(name),
            netns: NetNs::create().expect("a namespace"),
            launcher: Launcher::new(PathBuf::from(env!("CARGO_BIN_EXE_lab-program"))),
        }
    }

    fn launch(&self, pod: &str, args: &[&str]) -> Launched {
        let root = self.folder.0.join(pod);
        std::fs::create_dir_all(&root).expect("a root");
        let argv = [PROGRAM, "echo"].iter().chain(args);
        let env = [
            ("PATH", DEFAULT_PATH),
            ("PORTOLAN_POD_NAME", pod),
            ("PORTOLAN_POD_NAMESPACE", "shop"),
            ("PORTOLAN_NODE_NAME", "node-1"),
        ];
        let hosts = "127.0.0.1\tlocalhost web\n::1\tlocalhost\n".to_owned();
        let spec = ContainerSpec {
            hostname: pod.to_owned(),
            argv: argv.map(|arg| (*arg).to_owned()).collect(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            root,
            files: BTreeMap::from([
                ("/etc/hosts".into(), hosts),
                ("/etc/nsswitch.conf".into(), "hosts: files\n".into()),
            ]),
            ..ContainerSpec::default()
        };
        self.launcher.launch(&spec, &self.netns).expect("launched")
    }

    async fn asks(&self, path: &str, ip: IpAddr) -> Answer {
        let asker = Asker {
            netns: self.netns.clone(),
            ip,
            launcher: self.launcher.clone(),
            pid: 0,
            env: Arc::default(),
            user: None,
        };
        let handler = Handler::Http {
            https: false,
            host: None,
            port: 8080,
            path: path.to_owned(),
            headers: vec![],
        };
        check(&asker, &handler, Duration::from_secs(5)).await
    }

    async fn up(&self) {
        eventually("the server listens", async || {
            (self.asks("/", Ipv4Addr::LOCALHOST.into()).await == Answer::Success).then_some(())
        })
        .await;
    }

    /// One line for one line over TCP; an HTTP request is as good as a line.
    fn says(&self, port: u16, line: &str) -> String {
        self.netns
            .run(|| {
                let mut stream =
                    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
                stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
                stream.write_all(line.as_bytes()).expect("written");
                let mut answer = String::new();
                BufReader::new(stream)
                    .read_line(&mut answer)
                    .expect("an answer");
                answer
            })
            .expect("in the pod's network")
    }
}

/// The client mode's summary and its exit.
async fn summary(launched: Launched) -> (Value, Exit) {
    let Launched {
        mut stdout,
        mut stderr,
        mut reports,
        signals,
        ..
    } = launched;
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.expect("text");
    stderr.read_to_string(&mut text).await.expect("text");
    let mut exit = None;
    while let Some(report) = reports.next().await {
        if let Report::Exited(how) = report {
            exit = Some(how);
        }
    }
    drop(signals);
    let last = text.lines().last().unwrap_or_default();
    let summary = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}\n{text}"));
    (summary, exit.expect("an end"))
}

#[test]
fn c16_health_follows_orders_and_lines_are_answered() {
    in_lab("c16_health_follows_orders_and_lines_are_answered", || {
        block_on(async {
            let place = Place::new("health");
            let server = place.launch("web-0", &["--port=8080", "--tcp=7000", "--udp=7000"]);
            place.up().await;
            for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                assert_eq!(place.asks("/healthz", ip).await, Answer::Success, "{ip}");
            }
            let status = place.says(8080, "POST /healthz/fail HTTP/1.1\r\nhost: web\r\n\r\n");
            assert_eq!(status, "HTTP/1.1 200 OK\r\n");
            let failing = Answer::Failure("HTTP probe failed with statuscode: 503".to_owned());
            assert_eq!(
                place.asks("/healthz", Ipv4Addr::LOCALHOST.into()).await,
                failing
            );
            place.says(8080, "POST /healthz/ok HTTP/1.1\r\nhost: web\r\n\r\n");
            assert_eq!(
                place.asks("/healthz", Ipv4Addr::LOCALHOST.into()).await,
                Answer::Success
            );
            let line = place.says(7000, "hello\n");
            assert!(
                line.starts_with("pod=web-0 namespace=shop node=node-1 client=127.0.0.1:"),
                "{line}"
            );
            assert!(line.ends_with("said=\"hello\"\n"), "{line}");
            let datagram = place.netns.run(|| {
                let socket = UdpSocket::bind("[::1]:0").expect("a socket");
                socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
                socket.send_to(b"hi", "[::1]:7000").expect("sent");
                let mut answer = [0; 512];
                let length = socket.recv(&mut answer).expect("an answer");
                String::from_utf8_lossy(&answer[..length]).into_owned()
            });
            let datagram = datagram.expect("in the pod's network");
            assert!(
                datagram.contains("client=[::1]:") && datagram.ends_with("said=\"hi\"\n"),
                "{datagram}"
            );
            drop(server);
        });
    });
}

#[test]
fn c16_stopping_loses_no_request() {
    in_lab("c16_stopping_loses_no_request", || {
        block_on(async {
            let place = Place::new("drain");
            let mut server = place.launch("web-0", &["--drain=1s"]);
            place.up().await;
            // The client ends within the drain: every request must be answered,
            // on connections that are kept and on new ones.
            let kept = [
                "client",
                "--url=http://web:8080/slow?ms=20",
                "--count=40",
                "--interval=10ms",
                "--concurrency=4",
            ];
            let fresh = [&kept[..], &["--new-connection", "--quiet"]].concat();
            let clients = [place.launch("a", &kept), place.launch("b", &fresh)];
            let [a, b] = clients.map(summary);
            let stop = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                server.signals.send(Signal::SIGTERM).await;
            };
            let (a, b, ()) = tokio::join!(a, b, stop);
            for (summary, exit) in [a, b] {
                assert_eq!(summary["ok"], 40, "{summary}");
                assert_eq!(summary["pods"]["web-0"], 40, "{summary}");
                assert_eq!(exit.code, 0);
            }
            let mut last = None;
            while let Some(report) = server.reports.next().await {
                last = Some(report);
            }
            assert_eq!(
                last,
                Some(Report::Exited(Exit {
                    code: 0,
                    signal: None
                }))
            );
        });
    });
}

#[test]
fn a_client_counts_what_fails() {
    in_lab("a_client_counts_what_fails", || {
        block_on(async {
            let place = Place::new("fails");
            let args = ["client", "--url=http://web:9", "--count=3"];
            let (summary, exit) = summary(place.launch("a", &args)).await;
            assert_eq!(
                (&summary["ok"], &summary["failed"]),
                (&0.into(), &3.into()),
                "{summary}"
            );
            assert!(
                summary["errors"].to_string().contains("Connection refused"),
                "{summary}"
            );
            assert_eq!(exit.code, 1);
        });
    });
}
