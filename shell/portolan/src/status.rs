//! `portolan status`: the nodes, what runs on them, and what is wrong.

use anyhow::Result;
use serde::Serialize;

use crate::cli::{ReportOutput, StatusArgs};
use crate::connect::{Call, Session};
use crate::observed::Observed;
use crate::out;
use crate::verbs::get::print_value;

/// The report, as data.
#[derive(Debug, Serialize)]
struct Report {
    server: String,
    nodes: Vec<NodeReport>,
    services: usize,
    frontends: usize,
    problems: Vec<String>,
}

/// One node.
#[derive(Debug, Serialize)]
struct NodeReport {
    name: String,
    ready: bool,
    addresses: Vec<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    pods: usize,
    #[serde(rename = "readyPods")]
    ready_pods: usize,
}

/// Runs the command.
pub(crate) async fn run(args: StatusArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let report = report(&session).await?;
    if let Some(output) = args.output {
        return print_value(
            &serde_json::to_value(&report)?,
            output == ReportOutput::Yaml,
        );
    }
    print(&report);
    Ok(())
}

async fn report(session: &Session) -> Result<Report> {
    let version = session.call(&Call::get("/version")).await?.body;
    let observed = Observed::read(session).await?;
    let mut nodes: Vec<NodeReport> = observed
        .nodes
        .iter()
        .map(|node| {
            let name = node.metadata.name.clone();
            let here: Vec<_> = observed
                .pods
                .iter()
                .filter(|p| p.spec.node_name == name)
                .collect();
            let ready = node
                .status
                .conditions
                .iter()
                .any(|c| c.condition_type == "Ready" && c.status == "True");
            let internal = node
                .status
                .addresses
                .iter()
                .filter(|a| a.address_type == "InternalIP");
            NodeReport {
                ready,
                addresses: internal.map(|a| a.address.clone()).collect(),
                pod_cidrs: node.spec.pod_cidrs.clone(),
                pods: here.len(),
                ready_pods: here.iter().filter(|p| p.is_ready()).count(),
                name,
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let frontends = nodes
        .first()
        .map_or(0, |n| observed.plan(&n.name).frontends.len());
    Ok(Report {
        server: version["gitVersion"]
            .as_str()
            .unwrap_or("unknown")
            .to_owned(),
        nodes,
        services: observed.cluster.services().count(),
        frontends,
        problems: observed.problems.iter().map(ToString::to_string).collect(),
    })
}

fn print(report: &Report) {
    out::line(format_args!(
        "API server {}: {} services, {} addresses and ports",
        report.server, report.services, report.frontends
    ));
    out::line("");
    let head = ["NODE", "STATUS", "PODS READY", "ADDRESSES", "POD RANGES"].map(str::to_owned);
    let rows: Vec<Vec<String>> = report
        .nodes
        .iter()
        .map(|n| {
            vec![
                n.name.clone(),
                if n.ready { "Ready" } else { "NotReady" }.to_owned(),
                format!("{}/{}", n.ready_pods, n.pods),
                n.addresses.join(","),
                n.pod_cidrs.join(","),
            ]
        })
        .collect();
    out::raw(out::table(&head, &rows).as_bytes());
    out::line("");
    if report.problems.is_empty() {
        out::line(out::styled(out::GOOD, "No object has a problem."));
    }
    for problem in &report.problems {
        out::line(format_args!(
            "{} {problem}",
            out::styled(out::BAD, "problem:")
        ));
    }
}
