//! The flags of `portolan cleanup`.

use std::path::PathBuf;

use clap::Args;

use super::ReportOutput;

#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    /// Only print what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
    /// Before that, end this node's BGP sessions for good: routers that keep its paths for the
    /// next agent (graceful restart) forget them. The file says which API server knows of them
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// This node's name in the cluster, for --kubeconfig [default: the machine's host name]
    #[arg(
        long,
        alias = "hostname-override",
        env = "NODE_NAME",
        value_name = "NAME"
    )]
    pub(crate) node_name: Option<String>,
}
