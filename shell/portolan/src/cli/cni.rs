//! `portolan cni`: the plugin, and how it gets onto a node.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portolan_agent::gate_socket::SOCKET;

pub(crate) const EXAMPLES: &str = "Examples:\n  \
    portolan cni install                         put the plugin behind the node's CNI plugins\n  \
    portolan cni uninstall\n\n\
    Without a command it is the plugin itself, as a container runtime calls it: CNI_COMMAND and the \
    other variables say what to do, and the configuration comes from standard input. ADD returns \
    once the policies that select the pod are in the kernel.\n\n\
    The plugin's configuration:\n  \
    {\"type\": \"portolan-cni\", \"socket\": \"/run/portolan/agent.sock\", \"timeoutSeconds\": 30, \"whenAway\": \"fail\"}";

#[derive(Debug, Args)]
pub(crate) struct CniArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CniCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CniCommand {
    /// Put the plugin into the folder of plugins, and behind those of the configuration
    Install(InstallArgs),
    /// Take the plugin out of the configuration, and then away
    Uninstall(FolderArgs),
}

/// Where CNI is on a node.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The folder of plugins
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIRECTORY")]
    pub(crate) bin_dir: PathBuf,
    /// The folder of configurations
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIRECTORY")]
    pub(crate) conf_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) folders: FolderArgs,
    /// Which configuration list [default: the first by name, as runtimes choose]
    #[arg(long, value_name = "FILE")]
    pub(crate) conf: Option<PathBuf>,
    /// Where the agent listens (its --cni-socket)
    #[arg(long, default_value = SOCKET, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// How many seconds a pod's network waits for its policies before the runtime is told to try again
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=200), value_name = "SECONDS")]
    pub(crate) timeout: u16,
    /// What becomes of new pods while no agent runs
    #[arg(long, default_value = "fail", value_name = "WORD")]
    pub(crate) when_away: WhenAway,
}

/// What becomes of new pods while no agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum WhenAway {
    /// They do not start; kubelet tries again
    #[default]
    Fail,
    /// They start, open until an agent knows them
    Pass,
}

impl WhenAway {
    /// As the configuration spells it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Pass => "pass",
        }
    }
}
