//! What load balancers and the node's keeper ask an agent over HTTP: one port for
//! each Service with a health check port (P14), and `/healthz` and `/livez` of the
//! proxy itself (P15), and `/metrics`, as kube-proxy answers them.

mod answer;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portolan_kernel::netns::NetNs;
use portolan_model::ServiceKey;
use portolan_plan::{Health as PlannedHealth, NodePlan};
use tokio_util::sync::CancellationToken;

use crate::drops::{Board, Drops};
use crate::metrics::Metrics;
use crate::node::NodeConfig;
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

/// How a socket is made in a namespace.
type Bind = fn(&NetNs, SocketAddr) -> io::Result<TcpListener>;

fn bind(netns: &NetNs, address: SocketAddr) -> io::Result<TcpListener> {
    netns
        .run(|| serve::bind(address))
        .map_err(io::Error::other)?
}

type Shared = Arc<Mutex<Facts>>;

/// Whose health is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The proxy's own (P15).
    Proxy,
    /// A Service's, at its health check port (P14).
    Service(u16),
    /// Nobody's: what is counted.
    Metrics,
}

/// What answers are made of.
#[derive(Clone)]
struct Answers {
    facts: Shared,
    metrics: Metrics,
    /// What policies drop, if that is told.
    drops: Option<Arc<Board>>,
}

/// The servers of one node. They end with this handle.
pub(crate) struct Health {
    netns: NetNs,
    bind: Bind,
    answers: Answers,
    /// Where the proxy's own health and metrics are told, if anywhere.
    own: Vec<(SocketAddr, Door)>,
    /// Which Service wants which port.
    claims: BTreeSet<(u16, ServiceKey)>,
    /// What is bound.
    listening: BTreeMap<SocketAddr, CancellationToken>,
}

impl Health {
    /// Serves the proxy's own addresses. A port that is taken is told and left,
    /// until the plan is next compared in whole.
    pub(crate) fn start(config: &NodeConfig, metrics: &Metrics, drops: &Drops) -> Self {
        let mut health = Self::new(&config.netns, bind, metrics);
        health.answers.drops.clone_from(&drops.board);
        let healthz = config.healthz.map(|at| (at, Door::Proxy));
        let metrics = config.metrics.map(|at| (at, Door::Metrics));
        health.own = healthz.into_iter().chain(metrics).collect();
        health.listen_own();
        health
    }

    fn new(netns: &NetNs, bind: Bind, metrics: &Metrics) -> Self {
        Self {
            netns: netns.clone(),
            bind,
            answers: Answers {
                facts: Shared::default(),
                metrics: metrics.clone(),
                drops: None,
            },
            own: Vec::new(),
            claims: BTreeSet::new(),
            listening: BTreeMap::new(),
        }
    }

    /// The kernel holds this plan, which was compared in whole. What could not be
    /// bound is tried again.
    pub(crate) fn holds(&mut self, plan: &NodePlan) {
        let claims = plan
            .health
            .values()
            .map(|health| (health.port, health.service.clone()));
        let before = std::mem::replace(&mut self.claims, claims.collect());
        let ports = before.iter().chain(&self.claims).map(|(port, _)| *port);
        let ports: BTreeSet<u16> = ports.collect();
        self.answer_at(plan, &ports);
        self.listen_own();
    }

    /// The kernel holds this plan, in which these differ from before.
    pub(crate) fn changed(
        &mut self,
        plan: &NodePlan,
        touched: &BTreeMap<ServiceKey, Option<PlannedHealth>>,
    ) {
        let mut ports = BTreeSet::new();
        for (service, before) in touched {
            if let Some(before) = before {
                self.claims.remove(&(before.port, service.clone()));
                ports.insert(before.port);
            }
            if let Some(now) = plan.health.get(service) {
                self.claims.insert((now.port, service.clone()));
                ports.insert(now.port);
            }
        }
        self.answer_at(plan, &ports);
    }

    /// Answers at these ports as the plan says, or not any more.
    fn answer_at(&mut self, plan: &NodePlan, ports: &BTreeSet<u16>) {
        {
            let mut facts = self.facts();
            facts.synced = Some(jiff::Timestamp::now());
            facts.failing_since = None;
            facts.leaving = plan.view.leaving;
            for port in ports {
                match claimant(&self.claims, *port).and_then(|key| plan.health.get(key)) {
                    Some(health) => facts.balanced.insert(*port, Balanced::from(health)),
                    None => facts.balanced.remove(port),
                };
            }
        }
        for port in ports {
            if claimant(&self.claims, *port).is_some() {
                let every = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port);
                self.listen(every, Door::Service(*port));
            } else {
                self.hush(*port);
            }
        }
    }

    /// The kernel refused.
    pub(crate) fn failed(&self) {
        self.facts().failing_since.get_or_insert_with(Instant::now);
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        // The facts are whole between any two statements on them.
        self.answers
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn listen_own(&mut self) {
        for (at, door) in self.own.clone() {
            self.listen(at, door);
        }
    }

    /// Listens there, where it does not yet.
    fn listen(&mut self, at: SocketAddr, door: Door) {
        for address in addresses(at) {
            if self.listening.contains_key(&address) {
                continue;
            }
            let listener = match (self.bind)(&self.netns, address) {
                Ok(listener) => listener,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%address, error, "nothing is answered there");
                    continue;
                }
            };
            let stop = CancellationToken::new();
            let serving = serve::run(listener, door, self.answers.clone(), stop.clone());
            tokio::spawn(serving);
            self.listening.insert(address, stop);
        }
    }

    fn hush(&mut self, port: u16) {
        let every = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        for address in addresses(every) {
            if let Some(stop) = self.listening.remove(&address) {
                stop.cancel();
            }
        }
    }
}

/// Where sockets are for an address: an unspecified one is every address of the
/// node, of both families.
fn addresses(at: SocketAddr) -> Vec<SocketAddr> {
    let every = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    if at.ip().is_unspecified() {
        every.map(|ip| SocketAddr::new(ip, at.port())).into()
    } else {
        vec![at]
    }
}

/// Whose a port is: the first by name, while two Services claim it.
fn claimant(claims: &BTreeSet<(u16, ServiceKey)>, port: u16) -> Option<&ServiceKey> {
    let from = (port, ServiceKey::new("", ""));
    let mut at = claims.range(from..).take_while(|(found, _)| *found == port);
    at.next().map(|(_, service)| service)
}

impl Drop for Health {
    fn drop(&mut self) {
        for stop in self.listening.values() {
            stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portolan_plan::NodeView;

    use super::*;

    fn services(plan: &mut NodePlan, of: &[(&str, u16)]) {
        plan.health = of
            .iter()
            .map(|(name, port)| {
                let service = ServiceKey::new("shop", name);
                let health = PlannedHealth {
                    port: *port,
                    service: service.clone(),
                    local_endpoints: 1,
                };
                (service, health)
            })
            .collect();
    }

    /// On this machine's loopback, whatever is asked for.
    fn bind_here(_: &NetNs, address: SocketAddr) -> io::Result<TcpListener> {
        let here: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        serve::bind(SocketAddr::new(here, address.port()))
    }

    fn free() -> (TcpListener, u16) {
        let netns = NetNs::current().unwrap();
        let socket = bind_here(&netns, SocketAddr::from(([0; 4], 0))).unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    fn is_bound(health: &Health, port: u16) -> bool {
        health
            .listening
            .contains_key(&SocketAddr::from(([0; 4], port)))
    }

    #[tokio::test]
    async fn p14_a_change_opens_and_closes_only_its_ports() {
        let mut health = Health::new(&NetNs::current().unwrap(), bind_here, &Metrics::new());
        let mut plan = NodePlan::empty(NodeView::default());
        let (one, two) = (free().1, free().1);
        services(&mut plan, &[("a", one), ("b", two)]);
        let touched = plan.health.keys().map(|key| (key.clone(), None));
        health.changed(&plan, &touched.collect());
        assert!(is_bound(&health, one) && is_bound(&health, two));

        // `a` takes over the port of `b`, of which nothing is told yet.
        let a = ServiceKey::new("shop", "a");
        let before = plan.health.get(&a).cloned();
        services(&mut plan, &[("a", two), ("b", two)]);
        health.changed(&plan, &[(a.clone(), before)].into());
        assert!(!is_bound(&health, one) && is_bound(&health, two));
        assert_eq!(claimant(&health.claims, two), Some(&a));
        // And goes: the port is the other's again.
        let before = plan.health.get(&a).cloned();
        services(&mut plan, &[("b", two)]);
        health.changed(&plan, &[(a, before)].into());
        assert!(is_bound(&health, two));
        let b = ServiceKey::new("shop", "b");
        assert_eq!(claimant(&health.claims, two), Some(&b));
    }

    #[tokio::test]
    async fn p14_a_port_that_was_taken_is_tried_again() {
        let (taken, port) = free();
        let mut health = Health::new(&NetNs::current().unwrap(), bind_here, &Metrics::new());
        let mut plan = NodePlan::empty(NodeView::default());
        services(&mut plan, &[("a", port)]);
        health.holds(&plan);
        assert!(!is_bound(&health, port));
        drop(taken);
        health.holds(&plan);
        assert!(is_bound(&health, port));
        services(&mut plan, &[]);
        health.holds(&plan);
        assert!(!is_bound(&health, port));
    }
}
