//! What a forwarder is told: who is asked for what, and how.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use portolan_dns::Name;
use portolan_dns::upstream::{HealthLimits, Limits, Policy};

/// What all routes share, and the routes.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardSettings {
    /// For which names whom to ask. The closest domain around a name decides.
    pub routes: Vec<RouteSettings>,
    /// What is kept of replies.
    pub cache: Limits,
    /// How long a client waits for a new reply while there is one that has expired
    /// (RFC 8767 §5); zero: not at all.
    pub stale_after: Duration,
    /// How many different questions may be under way.
    pub most_in_flight: usize,
}

impl Default for ForwardSettings {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            cache: Limits::default(),
            stale_after: Duration::from_millis(1800),
            most_in_flight: 1000,
        }
    }
}

/// Who is asked for the names of a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSettings {
    /// The domain; the root stands for everything.
    pub domain: Name,
    /// Domains below it that are not forwarded at all.
    pub except: Vec<Name>,
    /// The servers.
    pub servers: Vec<ServerSettings>,
    /// Which of them first.
    pub policy: Policy,
    /// How long one has the field for itself before the next one is asked too.
    pub race_after: Duration,
    /// How long one has for a reply.
    pub attempt: Duration,
    /// When one is given up for a while.
    pub health: HealthLimits,
    /// Never over UDP.
    pub force_tcp: bool,
    /// The case of letters in questions is random, and must come back.
    pub random_case: bool,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

impl RouteSettings {
    /// The usual way to ask these servers for the names of a domain.
    pub fn new(domain: Name, servers: Vec<ServerSettings>) -> Self {
        Self {
            domain,
            except: Vec::new(),
            servers,
            policy: Policy::Random,
            race_after: Duration::from_millis(300),
            attempt: Duration::from_millis(1500),
            health: HealthLimits::default(),
            force_tcp: false,
            random_case: false,
            idle: Duration::from_secs(10),
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerSettings {
    /// Where it is.
    pub address: SocketAddr,
    /// How it proves who it is, if it is asked over TLS (RFC 7858).
    pub tls: Option<TlsSettings>,
}

impl ServerSettings {
    /// A server that is asked in the clear.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

impl fmt::Display for ServerSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tls {
            Some(_) => write!(out, "tls://{}", self.address),
            None => self.address.fmt(out),
        }
    }
}

/// How a server is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TlsSettings {
    /// The name in its certificate; without one its address.
    pub name: Option<String>,
    /// A file with the authorities (PEM) that may vouch for it; without one those
    /// of the machine.
    pub authorities: Option<PathBuf>,
}
