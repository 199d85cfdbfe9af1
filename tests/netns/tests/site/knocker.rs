//! A client that connects again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_kernel::netns::NetNs;
use portolan_netns::sender::PAUSE;
use portolan_netns::talk::{PATIENCE, connect};
use tokio::time::{Instant, timeout};

/// A new connection has so long: less than TCP waits before it tries again.
pub(crate) const SOON: Duration = Duration::from_millis(900);

/// Connects again and again until it is stopped; each attempt must succeed soon.
pub(crate) struct Knocker {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Knocker {
    pub(crate) fn start(ns: &NetNs, ports: std::ops::Range<u16>, to: SocketAddr) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ns, stopped, counted) = (ns.clone(), Arc::clone(&stop), Arc::clone(&count));
        let task = tokio::spawn(async move {
            for port in ports {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let open = timeout(SOON, connect(&ns, port, to)).await;
                open.with_context(|| format!("no answer from {to}"))??
                    .with_context(|| format!("refused by {to}"))?;
                AtomicUsize::fetch_add(&counted, 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            anyhow::bail!("there are no more ports to knock from")
        });
        Self { stop, count, task }
    }

    /// Waits until it has connected so often again.
    pub(crate) async fn go_on(&self, times: usize) -> Result<()> {
        let wanted = self.count.load(Ordering::Relaxed) + times;
        let end = Instant::now() + PATIENCE;
        while self.count.load(Ordering::Relaxed) < wanted && !self.task.is_finished() {
            ensure!(Instant::now() < end, "too few connections");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(crate) async fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.count.load(Ordering::Relaxed))
    }
}
