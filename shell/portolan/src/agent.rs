//! `portolan agent`: the node's loop against any cluster.

use std::process::ExitCode;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use portolan_agent::node::{self, NodeConfig};
use portolan_kernel::netns::NetNs;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::AgentArgs;

/// Runs until TERM or Ctrl-C; what is in the kernel stays there.
pub(crate) fn run(args: AgentArgs) -> Result<ExitCode> {
    portolan_kernel::memory::share_one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn work(args: AgentArgs) -> Result<()> {
    let path = &args.kubeconfig;
    let read = Kubeconfig::read_from(path)
        .with_context(|| format!("read kubeconfig {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("kubeconfig {}", path.display()))?;
    let config = NodeConfig {
        node_name: args.node_name,
        netns: NetNs::current()?,
        kube: kube::Client::try_from(config)?,
        cluster_domain: args.cluster_domain,
        service_cidrs: args.service_cidr,
        cluster_cidrs: args.cluster_cidr,
        dns_addresses: Vec::new(),
        upstream: None,
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        stop.cancel();
    });
    node::run(config, shutdown).await?;
    Ok(())
}
