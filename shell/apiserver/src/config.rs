//! What the server is told at start, and why it may refuse to start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

/// Settings of one server; [`Config::default`] is the lab's address plan.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the state file, the certificate authority and the keys.
    pub data_dir: PathBuf,
    /// Domain under which Services have names; part of the certificate.
    pub cluster_domain: String,
    /// Ranges of ClusterIPs, the primary family first (A4).
    pub service_cidrs: Vec<IpNet>,
    /// Range of NodePorts and health check ports (A3, A11).
    pub node_ports: RangeInclusive<u16>,
    /// Where pods and nodes reach this server: the endpoints of default/kubernetes.
    pub advertise: Vec<SocketAddr>,
    /// More names or addresses for the server certificate.
    pub extra_sans: Vec<String>,
    /// Addresses of kube-system/kube-dns, one per family, inside `service_cidrs`.
    pub dns_ips: Vec<IpAddr>,
    /// CustomResourceDefinitions that are served from the first request on, as they
    /// are here: an older one of the same name is replaced.
    pub definitions: Vec<Value>,
    /// How often a watch that allows bookmarks gets one.
    pub bookmark_interval: Duration,
    /// How long Events are kept.
    pub event_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("portolan-data"),
            cluster_domain: "cluster.local".to_owned(),
            service_cidrs: vec![
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16)),
                IpNet::V6(Ipv6Net::new_assert(
                    Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0),
                    112,
                )),
            ],
            node_ports: 30_000..=32_767,
            advertise: vec![SocketAddr::from((Ipv4Addr::new(172, 18, 0, 1), 6443))],
            extra_sans: Vec::new(),
            dns_ips: vec![
                IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa)),
            ],
            definitions: Vec::new(),
            bookmark_interval: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
        }
    }
}

/// Why a server could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be made, read or written.
    #[error("cannot use data directory {}: make it a folder that you may read and write, or choose another with --data-dir", path.display())]
    DataDir {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another server has the state file open.
    #[error("data directory {} is in use by another portolan: stop that one, or choose another with --data-dir", path.display())]
    InUse {
        /// The state file.
        path: PathBuf,
    },
    /// The state file is not one of ours or is damaged.
    #[error("cannot read the state in {}: move the file away to start empty", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A certificate or key could not be made or read.
    #[error("cannot {doing}")]
    Identity {
        /// What was attempted, with its operands.
        doing: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// A namespace or Service that must always exist could not be written.
    #[error("cannot write {what}: {why}")]
    Bootstrap {
        /// The object.
        what: String,
        /// The answer of the server's own API.
        why: String,
    },
}

/// Why serving ended other than by the shutdown signal.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener cannot be used.
    #[error("cannot listen on {address}")]
    Listener {
        /// The local address, as far as known.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
