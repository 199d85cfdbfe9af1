//! What to run, as data that travels from the lab process to the keeper.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::user::User;

/// `PATH` of a container that sets none; the last entry is the lab's own program.
pub const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/.portolan";

/// A folder or file of the lab that the container sees at another place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Path in the lab's mount namespace.
    pub source: PathBuf,
    /// Absolute path in the container; missing folders are made.
    pub target: PathBuf,
    /// Whether the container may not write there.
    pub read_only: bool,
}

/// Everything the keeper needs to know about one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The UTS host name.
    pub hostname: String,
    /// Program and arguments; a program without a slash is looked up in `PATH`.
    pub argv: Vec<String>,
    /// The whole environment, in order.
    pub env: Vec<(String, String)>,
    /// `workingDir`; `/` if empty.
    pub cwd: String,
    /// An empty folder of the lab over which the root file system is built.
    pub root: PathBuf,
    /// Files by absolute path in the container, such as `/etc/hosts`.
    pub files: BTreeMap<PathBuf, String>,
    /// Volumes, in mount order.
    pub binds: Vec<Bind>,
    /// Host folders that the container must not see: the lab's own state.
    pub hide: Vec<PathBuf>,
    /// Capabilities beyond the usual set, without the prefix `CAP_`.
    pub add_capabilities: Vec<String>,
    /// Capabilities to take from the usual set; `ALL` takes every one.
    pub drop_capabilities: Vec<String>,
    /// `securityContext.privileged`: every capability that the lab has.
    pub privileged: bool,
    /// Whether somebody may write to it.
    pub stdin: bool,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Who it runs as; root without one.
    pub user: Option<User>,
    /// `readOnlyRootFilesystem`: only volumes can be written to.
    pub read_only_root: bool,
}
