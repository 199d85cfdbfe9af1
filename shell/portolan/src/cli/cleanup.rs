//! The flags of `portolan cleanup`.

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
}
