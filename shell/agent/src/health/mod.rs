//! What load balancers and the node's keeper ask an agent over HTTP: one port for
//! each Service with a health check port (P14), and `/healthz` and `/livez` of the
//! proxy itself (P15), as kube-proxy answers them.

mod answer;
mod serve;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portolan_kernel::netns::NetNs;
use portolan_plan::NodePlan;
use tokio_util::sync::CancellationToken;

use answer::Balanced;

/// After so long without a commit that was due, the node is not healthy.
const STALE: Duration = Duration::from_secs(60);

/// What the answers are made of.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// When the kernel last held the plan; none before it did for the first time.
    synced: Option<jiff::Timestamp>,
    /// Since when commits fail.
    failing_since: Option<Instant>,
    /// The cluster autoscaler is about to delete the node.
    leaving: bool,
    balanced: BTreeMap<u16, Balanced>,
}

impl Facts {
    /// Whether packets go where they should.
    fn is_healthy(&self) -> bool {
        let failing = self.failing_since.is_some_and(|at| at.elapsed() >= STALE);
        self.synced.is_some() && !failing
    }
}

type Shared = Arc<Mutex<Facts>>;

/// Whose health is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The proxy's own (P15).
    Proxy,
    /// A Service's, at its health check port (P14).
    Service(u16),
}

/// The servers of one node. They end with this handle.
pub(crate) struct Health {
    netns: NetNs,
    facts: Shared,
    /// The Services' health check ports.
    listening: BTreeMap<u16, CancellationToken>,
    /// The proxy's own server.
    own: CancellationToken,
}

impl Health {
    /// Serves `/healthz` and `/livez` there; a port that is taken is told and left.
    pub(crate) fn start(netns: &NetNs, healthz: Option<SocketAddr>) -> Self {
        let health = Self {
            netns: netns.clone(),
            facts: Shared::default(),
            listening: BTreeMap::new(),
            own: CancellationToken::new(),
        };
        if let Some(at) = healthz {
            health.listen(at, Door::Proxy, &health.own);
        }
        health
    }

    /// The kernel holds this plan.
    pub(crate) fn holds(&mut self, plan: &NodePlan) {
        let wanted: BTreeMap<u16, Balanced> = plan
            .health
            .values()
            .map(|health| (health.port, Balanced::from(health)))
            .collect();
        {
            let mut facts = self.facts();
            facts.synced = Some(jiff::Timestamp::now());
            facts.failing_since = None;
            facts.leaving = plan.view.leaving;
            facts.balanced.clone_from(&wanted);
        }
        self.listening.retain(|port, stop| {
            let kept = wanted.contains_key(port);
            if !kept {
                stop.cancel();
            }
            kept
        });
        for port in wanted.keys() {
            if !self.listening.contains_key(port) {
                let stop = CancellationToken::new();
                let every = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port);
                self.listen(every, Door::Service(*port), &stop);
                self.listening.insert(*port, stop);
            }
        }
    }

    /// The kernel refused.
    pub(crate) fn failed(&self) {
        self.facts().failing_since.get_or_insert_with(Instant::now);
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        // The facts are whole between any two statements on them.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens there; an unspecified address is every address of the node.
    fn listen(&self, at: SocketAddr, door: Door, stop: &CancellationToken) {
        let every = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let one = [at.ip()];
        let addresses = if at.ip().is_unspecified() {
            every.as_slice()
        } else {
            one.as_slice()
        };
        for address in addresses.iter().map(|ip| SocketAddr::new(*ip, at.port())) {
            let bound = self.netns.run(|| serve::bind(address));
            let listener = match bound {
                Ok(Ok(listener)) => listener,
                Ok(Err(error)) => {
                    tracing::warn!(%address, %error, "health checks are not answered");
                    continue;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%address, error, "health checks are not answered");
                    continue;
                }
            };
            let serving = serve::run(listener, door, Arc::clone(&self.facts), stop.clone());
            tokio::spawn(serving);
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.own.cancel();
        for stop in self.listening.values() {
            stop.cancel();
        }
    }
}
