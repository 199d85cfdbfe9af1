//! An agent of a node, a process of its own.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_benches::cluster;
use portolan_kernel::netns::NetNs;

/// Where it tells what it counts.
const METRICS: u16 = 10_249;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long anything may take that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// An agent; dropping it kills it, as a node's end would.
pub(crate) struct Agent {
    child: Child,
    netns: NetNs,
}

impl Agent {
    /// Starts one.
    ///
    /// # Errors
    /// If there is no program.
    pub(crate) fn start(netns: &NetNs, node: &str, config: &Path, announce: bool) -> Result<Self> {
        let portolan = env::current_exe()?.with_file_name("portolan");
        let mut command = Command::new(&portolan);
        command.args(["agent", "--node-name", node, "--kubeconfig"]);
        command.arg(config);
        for range in cluster::SERVICE_CIDRS {
            command.args(["--service-cidr", range]);
        }
        if announce {
            command.arg("--announce");
        }
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "error");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = netns.run(|| command.spawn())?;
        let child = child.with_context(|| {
            let path = portolan.display();
            format!("start {path}: `cargo build --release` makes it")
        })?;
        Ok(Self {
            child,
            netns: netns.clone(),
        })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The metric whose line begins like this, if it is told.
    ///
    /// # Errors
    /// If the agent does not answer.
    pub(crate) fn metric(&self, line: &str) -> Result<Option<f64>> {
        let ask = || -> Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let request = "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = self.netns.run(ask)??;
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        Ok(value.map(|value| value.trim().parse()).transpose()?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            // Its exit status is that of a kill and says nothing.
            drop(self.child.wait());
        }
    }
}

/// Looks every so often until it is so.
///
/// # Errors
/// If that takes too long; `what` says what was waited for.
pub(crate) async fn until(
    what: &str,
    pause: Duration,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !is_so()? {
        ensure!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
