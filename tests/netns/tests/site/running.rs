//! The agent of the town's first node, which can be stopped and started again.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use portolan_agent::dns::DnsGuard;
use portolan_agent::node::{self, NodeConfig, NodeError};
use portolan_kernel::nft::Nft;
use portolan_netns::sender::PAUSE;
use portolan_netns::talk::PATIENCE;
use portolan_netns::world::{World, lab_view};
use portolan_nft::Ruleset;
use portolan_plan::NodeView;
use portolan_render::nft::tables;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Api;

/// An agent, with what it is started with.
pub(crate) struct Running {
    pub(crate) config: NodeConfig,
    agent: Option<(JoinHandle<Result<(), NodeError>>, CancellationToken)>,
}

impl Running {
    /// An agent that does not run yet.
    pub(crate) fn new(world: &World, api: &Api) -> Self {
        let net = &world.nodes[0].net;
        let config = NodeConfig {
            given: NodeView {
                node: net.name.as_str().into(),
                ..lab_view()
            },
            netns: net.netns.clone(),
            kube: api.kube.clone(),
            policies: false,
            gate: Default::default(),
            policy_log: false,
            cluster_dns: true,
            upstream: None,
            front: Default::default(),
            completed_search: None,
            dns_told: None,
            announce_told: None,
            dns_guard: DnsGuard::default(),
            dns_allowed: Vec::new(),
            dns_keep: None,
            dns_hand_over: Default::default(),
            healthz: Some(node::HEALTHZ),
            metrics: Some(node::METRICS),
            reply_path: Default::default(),
            replace_kube_proxy: false,
        };
        Self {
            config,
            agent: None,
        }
    }

    pub(crate) fn start(&mut self) {
        let stop = CancellationToken::new();
        let agent = tokio::spawn(node::run(self.config.clone(), stop.clone()));
        self.agent = Some((agent, stop));
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        let (agent, stop) = self.agent.take().context("no agent runs")?;
        stop.cancel();
        Ok(timeout(PATIENCE, agent).await???)
    }
}

/// Our tables, as the kernel holds them.
pub(crate) fn held(kernel: &mut Nft) -> Result<Ruleset> {
    let mut found = Ruleset::new();
    for id in tables() {
        if let Some(table) = kernel.read(&id)? {
            found = found.with(id, table);
        }
    }
    Ok(found)
}

/// What the agent tells at its metrics port, as one number.
pub(crate) fn metric(world: &World, line: &str) -> Result<Option<f64>> {
    let ask = || -> Result<String> {
        let mut stream = TcpStream::connect(node::METRICS)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = tokio::task::block_in_place(|| world.nodes[0].net.netns.run(ask))??;
    let value = text.lines().find_map(|found| found.strip_prefix(line));
    Ok(value.map(|value| value.trim().parse()).transpose()?)
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so().await? {
        ensure!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
