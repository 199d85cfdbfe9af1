//! The server as a process.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kube::config::{KubeConfigOptions, Kubeconfig};
use portolan_apiserver::{Config, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Where the server keeps its state: this program is the server then.
pub(crate) const SERVE: &str = "PORTOLAN_CRASH_SERVE";

/// The server: listens on a free port, writes a kubeconfig and says so.
pub(crate) async fn serve(folder: PathBuf) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::open(Config {
        data_dir: folder.clone(),
        // Small, so that they run full.
        service_cidrs: vec![
            "10.96.0.0/26".parse().unwrap(),
            "fd00::/122".parse().unwrap(),
        ],
        dns_ips: Vec::new(),
        node_ports: 30_000..=30_063,
        ..Config::default()
    })
    .await
    .unwrap();
    let kubeconfig = server.kubeconfig(&format!("https://{address}"));
    std::fs::write(folder.join("kubeconfig"), kubeconfig).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "ready").unwrap();
    out.flush().unwrap();
    server
        .serve(listener, CancellationToken::new())
        .await
        .unwrap();
}

/// A running server; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) client: kube::Client,
}

impl Process {
    pub(crate) async fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(SERVE, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(
            line, "ready\n",
            "the server does not start on what the last one left"
        );
        let kubeconfig = Kubeconfig::read_from(folder.join("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        Self {
            child,
            client: kube::Client::try_from(config).unwrap(),
        }
    }

    /// SIGKILL, and wait for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
