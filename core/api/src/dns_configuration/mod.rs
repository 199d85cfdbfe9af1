//! The configuration file of the DNS server: what is read of it, strictly, with
//! every fault told by its field; and the same made of a Corefile.
//!
//! Names and addresses are checked here as far as they are text. Files that the
//! configuration names are not looked at: that is for whoever uses it.

mod corefile;
mod duration;
mod read;
mod reader;
mod show;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

pub use corefile::{Imported, NotConverted, import};
pub use duration::{parse as parse_duration, show as show_duration};
pub use read::{ConfigurationError, read};

/// The version of the file that is read and written.
pub const API_VERSION: &str = "dns.portolan.dev/v1alpha1";
/// The kind of the file.
pub const KIND: &str = "DNSConfiguration";
/// Where the resolvers of a machine are named.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Everything that the file can say. What it does not say is as in
/// [`DnsConfiguration::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfiguration {
    /// The names of the cluster.
    pub kubernetes: Kubernetes,
    /// Completion of search lists by the server; none without.
    pub autopath: Option<Autopath>,
    /// Who is asked for other names.
    pub forward: Vec<Forward>,
    /// How many different questions to others may be under way.
    pub max_concurrent: usize,
    /// What is kept of replies; nothing is kept without.
    pub cache: Option<Cache>,
    /// The addresses in replies of others come in turn, as the cluster's own always do.
    pub rotate: bool,
    /// Names that are written down.
    pub hosts: Hosts,
    /// Names that are answered as if another had been asked for, in order.
    pub rewrite: Vec<Rewrite>,
    /// One of so many queries is logged; none without a value.
    pub log_one_in: Option<NonZeroU32>,
    /// Where a server that runs alone tells how it is.
    pub places: Places,
}

/// The names of the cluster. What is not said is left to the program's flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kubernetes {
    /// The cluster's domain, without the final dot.
    pub domain: Option<String>,
    /// Which pods have names.
    pub pods: Option<Pods>,
    /// For how long clients may keep names.
    pub ttl: Option<Duration>,
    /// Whether the endpoints of each zone have names of their own.
    pub zonal: Option<bool>,
}

/// Completion of search lists by the server, in place of its clients: CoreDNS'
/// `autopath @kubernetes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autopath {
    /// The file whose search list pods have after the cluster's own domains.
    pub resolv_conf: String,
}

impl Default for Autopath {
    fn default() -> Self {
        Self {
            resolv_conf: RESOLV_CONF.to_owned(),
        }
    }
}

/// Which pods have names (D15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// None.
    Disabled,
    /// Every address.
    Insecure,
    /// Those that exist.
    Verified,
}

/// Who is asked for the names of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The domain and all below it; `.` is everything.
    pub domain: String,
    /// Domains below it that are not forwarded.
    pub except: Vec<String>,
    /// The servers, in order.
    pub servers: Vec<Upstream>,
    /// Which of them first.
    pub policy: Policy,
    /// How servers over TLS are known.
    pub tls: Tls,
    /// Never over UDP.
    pub force_tcp: bool,
    /// The case of letters in questions is random, and must come back.
    pub randomize_case: bool,
    /// Failures in a row after which a server is not asked for a while; 0: never.
    pub max_failures: u32,
    /// How soon a server that is down is looked for.
    pub health_check_interval: Duration,
    /// How long one server has the field for itself.
    pub race_after: Duration,
    /// How long one server has for a reply.
    pub timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            domain: ".".to_owned(),
            except: Vec::new(),
            servers: Vec::new(),
            policy: Policy::Random,
            tls: Tls::default(),
            force_tcp: false,
            randomize_case: false,
            max_failures: 2,
            health_check_interval: Duration::from_millis(500),
            race_after: Duration::from_millis(300),
            timeout: Duration::from_millis(1500),
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A server.
    Server {
        /// Where it is.
        address: SocketAddr,
        /// Over TLS.
        tls: bool,
    },
    /// The servers that a resolv.conf(5) names.
    File(String),
}

/// Which of several servers first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Any.
    Random,
    /// Each in turn.
    RoundRobin,
    /// As listed.
    Sequential,
}

/// How servers over TLS are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// The name in their certificate; without one their address.
    pub server_name: Option<String>,
    /// A file with authorities (PEM); without one those of the machine.
    pub certificate_authorities: Option<String>,
}

/// What is kept of replies from others, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// How many replies.
    pub max_entries: usize,
    /// How much memory they take.
    pub max_bytes: usize,
    /// The least and the most that a TTL of records counts for.
    pub positive: (Duration, Duration),
    /// The same where there are none.
    pub negative: (Duration, Duration),
    /// For how long a failure is kept.
    pub failure_ttl: Duration,
    /// Asking again for popular names before they expire.
    pub prefetch: Option<Prefetch>,
    /// Giving what has expired where nothing else is to be had.
    pub serve_stale: Option<ServeStale>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_bytes: 16 << 20,
            positive: (Duration::ZERO, Duration::from_secs(3600)),
            negative: (Duration::ZERO, Duration::from_secs(1800)),
            failure_ttl: Duration::from_secs(5),
            prefetch: None,
            serve_stale: Some(ServeStale::default()),
        }
    }
}

/// Which names are asked for again before they expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefetch {
    /// Those asked for so often
    pub queries: u32,
    /// without a longer pause,
    pub pause: Duration,
    /// once so little of their time is left.
    pub percent: u8,
}

impl Default for Prefetch {
    fn default() -> Self {
        Self {
            queries: 2,
            pause: Duration::from_secs(60),
            percent: 10,
        }
    }
}

/// How long after it expired a reply is given, if nobody replies (RFC 8767).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeStale {
    /// For how long after it expired.
    pub max_age: Duration,
    /// How long a client waits for a new one first.
    pub answer_after: Duration,
    /// The TTL it is given with.
    pub ttl: Duration,
}

impl Default for ServeStale {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(3600),
            answer_after: Duration::from_millis(1800),
            ttl: Duration::from_secs(30),
        }
    }
}

/// Names that are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// In this file.
    pub entries: Vec<HostEntry>,
    /// In others, written as hosts(5).
    pub files: Vec<String>,
    /// For how long clients may keep them.
    pub ttl: Duration,
    /// Addresses lead back to names too.
    pub reverse: bool,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            files: Vec::new(),
            ttl: Duration::from_secs(3600),
            reverse: true,
        }
    }
}

/// One address and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// The address.
    pub address: IpAddr,
    /// Its names, the first one of which it leads back to.
    pub names: Vec<String>,
}

/// One rule from name to name, with CoreDNS' meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// What of a name it looks at.
    pub kind: RewriteKind,
    /// What it looks for.
    pub from: String,
    /// What takes its place.
    pub to: String,
    /// Later rules are tried too.
    pub proceed: bool,
    /// How names in replies are turned back, where that does not follow from the
    /// rule itself.
    pub answers: Vec<RewriteAnswer>,
}

/// What of a name a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteKind {
    /// All of it.
    Exact,
    /// Its beginning.
    Prefix,
    /// Its end.
    Suffix,
    /// Any part.
    Substring,
    /// A regular expression.
    Regex,
}

/// An expression for names in replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteAnswer {
    /// For names in the data of records, not for their owners.
    pub value: bool,
    /// The expression.
    pub from: String,
    /// What takes the name's place.
    pub to: String,
}

/// Where a server that runs alone tells how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `/health`.
    pub health: Option<SocketAddr>,
    /// How long names are still answered after the order to stop.
    pub lameduck: Duration,
    /// `/ready`.
    pub ready: Option<SocketAddr>,
    /// `/metrics`.
    pub metrics: Option<SocketAddr>,
}

impl Default for Places {
    fn default() -> Self {
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            health: Some(at(8080)),
            lameduck: Duration::ZERO,
            ready: Some(at(8181)),
            metrics: Some(at(9153)),
        }
    }
}

impl Default for DnsConfiguration {
    /// Everything outside the cluster goes to the machine's resolvers.
    fn default() -> Self {
        Self {
            kubernetes: Kubernetes::default(),
            autopath: None,
            forward: vec![Forward {
                servers: vec![Upstream::File(RESOLV_CONF.to_owned())],
                ..Forward::default()
            }],
            max_concurrent: 1000,
            rotate: false,
            cache: Some(Cache::default()),
            hosts: Hosts::default(),
            rewrite: Vec::new(),
            log_one_in: None,
            places: Places::default(),
        }
    }
}

#[cfg(test)]
mod tests;
