//! What may be typed after `portolan doctor`.

use clap::{ArgAction, Args};

use super::{Connection, ReportOutput};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// service/NAME, service NAME, or a name as clients use it [default: all Services]
    #[arg(value_name = "SERVICE")]
    pub(crate) resources: Vec<String>,
    /// All Services of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Try whether something listens at the pods' ports
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) connect: bool,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub(crate) cluster_domain: String,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}
