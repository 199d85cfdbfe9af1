//! What `up` and `demo` do once they are inside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use portolan_lab::broker::Broker;

use super::cluster::{Lab, Settings};
use super::steps::Step;
use crate::cli::{DemoArgs, UpArgs};
use crate::out;
use crate::verbs::{apply, manifests};

/// `portolan up`: starts the lab, applies what was given, and stays until told to end.
pub(crate) async fn run(
    args: UpArgs,
    data_dir: PathBuf,
    holder: u32,
    broker: Broker,
) -> Result<()> {
    // What cannot be read is better known before anything starts.
    let objects = if args.apply.is_empty() {
        Vec::new()
    } else {
        manifests::read(&args.apply)?
    };
    let settings = Settings {
        nodes: args.nodes,
        ranges: args.ranges.resolve(&super::cluster::used())?,
        data_dir,
        listen: args.listen,
        cluster_domain: args.cluster_domain.clone(),
        publish: args.publish,
        preserve_client_ip: args.preserve_client_ip,
        holder,
    };
    let plural = if args.nodes == 1 { "" } else { "s" };
    let step = Step::begin(format!(
        "Start an API server and {} lab node{plural}",
        args.nodes
    ));
    let lab = Lab::start(settings, &broker).await?;
    step.done();
    for line in apply::apply_all(&lab.session, objects).await? {
        out::line(line);
    }
    tell(&args, &lab);
    lab.until_stopped(&broker).await?;
    let step = Step::begin("Stop");
    lab.stop().await;
    step.done();
    Ok(())
}

/// How to use what is running.
fn tell(args: &UpArgs, lab: &Lab) {
    let config = lab.kubeconfig.display();
    out::line("");
    out::line(out::styled(out::GOOD, "The lab is up."));
    out::line(format_args!("  export KUBECONFIG={config}"));
    out::line("  kubectl get nodes          # or: portolan get nodes");
    if args.publish {
        out::line("  NodePorts are open on 127.0.0.1: portolan service NAME --url");
    }
    out::line(out::styled(
        out::DIM,
        "Ctrl-C ends it and removes everything but its state.",
    ));
}

/// `portolan demo`.
pub(crate) async fn demo(
    args: DemoArgs,
    data_dir: PathBuf,
    holder: u32,
    broker: Broker,
) -> Result<()> {
    let begin = Instant::now();
    out::line(out::styled(
        out::HEAD,
        "Portolan: a Kubernetes Service, from manifest to packet",
    ));
    out::line("");
    let step = Step::begin(format!(
        "Start an API server and a lab of {} nodes",
        args.nodes
    ));
    let settings = Settings {
        nodes: args.nodes,
        ranges: args.ranges.resolve(&super::cluster::used())?,
        data_dir,
        // Any free port: the demo must run beside a lab.
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        cluster_domain: "cluster.local".to_owned(),
        publish: false,
        preserve_client_ip: false,
        holder,
    };
    let lab = Lab::start(settings, &broker).await?;
    step.done();
    out::line("");
    let shown = tokio::select! {
        shown = super::demo::run(&lab.session, &lab.nodes) => shown,
        stopped = lab.until_stopped(&broker) => stopped.and_then(|()| Err(anyhow::anyhow!("interrupted"))),
    };
    let step = Step::begin("Clean up");
    lab.stop().await;
    step.done();
    shown?;
    out::line("");
    let took = begin.elapsed().as_secs_f64();
    out::line(out::styled(
        out::GOOD,
        format_args!("Every step held, in {took:.1} s."),
    ));
    out::line("Keep a lab running with `portolan up --nodes 3 --publish`.");
    Ok(())
}
