//! Which tracked flows must end, because their packets go where no Service sends
//! them any more (P17).
//!
//! The kernel chooses an endpoint for the first packet of a flow and keeps to it.
//! TCP ends by itself when the endpoint does (P18); a UDP client with a fixed
//! port does not notice, and its packets keep the entry alive for ever. So each
//! entry of UDP or SCTP that knocks at a frontend is judged by where its answers
//! would come from:
//!
//! ```text
//!  answers from an endpoint that serves, whatever policy and hints say    stays
//!  answers from somewhere else: it was an endpoint once                   ends
//!  answers from the frontend itself: it began before there were rules     ends
//!  its frontend is gone, and it goes where the frontend led               ends
//!  to an address of the Service ranges that nothing is known of,
//!    and yet translated                                                   ends
//!  everything else is somebody else's                                     stays
//! ```
//!
//! This is kube-proxy's rule (its `conntrack` package, with Services without
//! endpoints and deleted Services, kubernetes/kubernetes#139629 and #141371), held
//! tighter in two places: an endpoint is an address and a port, so that a flow does
//! not stay at a target port that nobody serves; and a node port counts only on
//! the addresses where node ports are open, since any other flow to a port of
//! that number is not ours.
//!
//! Judging is level-triggered: it asks what is and not what changed. A [`Scope`]
//! only bounds how many frontends are asked about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_model::{Cluster, Dirty, Family, Protocol};

use crate::frontend::{Decision, Frontend, Place, Verdict};
use crate::node::{NodePlan, Touched, endpoints};
use crate::services::{Owner, claims};
use crate::usable::serving;
use crate::view::NodeView;

/// The protocols whose flows do not end with their endpoint.
const LASTING: [Protocol; 2] = [Protocol::Udp, Protocol::Sctp];

/// A tracked flow, as far as it is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where its first packet was sent to.
    pub to: SocketAddr,
    /// Where its answers come from; somewhere else than `to` if it is translated.
    pub answers_from: SocketAddr,
    /// Whether it is tracked in a zone of its own, as virtual switches do.
    pub zoned: bool,
}

/// Why a flow must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// It leads to what is no serving endpoint of its frontend.
    NotServing(Frontend),
    /// It began before its frontend was translated.
    NotTranslated(Frontend),
    /// Its frontend is gone.
    NoFrontend,
}

/// Which frontends' flows are judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    everything: bool,
    frontends: BTreeSet<Frontend>,
    /// Frontends that are gone, each with where it led.
    gone: BTreeMap<Frontend, BTreeSet<SocketAddr>>,
}

/// What all flows have in common that are in a scope and of one protocol: a
/// kernel that knows how to filter need not tell of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Their protocol.
    pub protocol: Protocol,
    /// Their family, if they have the same.
    pub family: Option<Family>,
    /// Where they go to, if they go to the same address.
    pub address: Option<IpAddr>,
    /// The port they go to, if it is the same.
    pub port: Option<u16>,
}

impl Scope {
    /// Every frontend that there is.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// What a round of planning may have made stale. Endpoints that only come
    /// make nothing stale.
    pub fn of(plan: &NodePlan, cluster: &Cluster, dirty: &Dirty, touched: &Touched) -> Self {
        let mut scope = Self {
            everything: touched.view.is_some(),
            ..Self::default()
        };
        for (frontend, before) in &touched.frontends {
            scope.consider(plan, cluster, *frontend, before.as_ref());
        }
        // Decisions do not tell of every endpoint whether it serves.
        let services = dirty.services.iter().filter_map(|key| cluster.service(key));
        let services = services.filter(|service| {
            let mut ports = service.ports.iter();
            ports.any(|port| LASTING.contains(&port.protocol))
        });
        for frontend in services.flat_map(|service| claims(service)) {
            if !touched.frontends.contains_key(&frontend) {
                scope.consider(plan, cluster, frontend, plan.frontends.get(&frontend));
            }
        }
        scope
    }

    /// Takes a frontend in, unless none of its flows can be stale by now that was
    /// not before.
    fn consider(
        &mut self,
        plan: &NodePlan,
        cluster: &Cluster,
        frontend: Frontend,
        before: Option<&Arc<Decision>>,
    ) {
        if !LASTING.contains(&frontend.protocol) {
            return;
        }
        let was_open = before.is_some_and(|before| is_open(frontend, before));
        let mut led_to = before
            .into_iter()
            .flat_map(|before| led_to(&plan.view, &frontend, before));
        let Some(now) = plan.frontends.get(&frontend) else {
            self.gone.entry(frontend).or_default().extend(led_to);
            return;
        };
        let serving = serving_at(plan, cluster, frontend, now);
        if !was_open || !led_to.all(|endpoint| serving.contains(&endpoint)) {
            self.frontends.insert(frontend);
        }
    }

    /// Takes in another scope.
    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.frontends.extend(other.frontends);
        for (frontend, led_to) in other.gone {
            self.gone.entry(frontend).or_default().extend(led_to);
        }
    }

    /// What to ask the kernel for; nothing when no flow can be in the scope.
    pub fn questions(&self, plan: &NodePlan) -> Vec<Question> {
        let of = |protocol: Protocol| {
            if self.everything {
                let any = plan.frontends.iter().any(|(frontend, decision)| {
                    frontend.protocol == protocol && !is_here(&decision.verdict)
                });
                return any.then_some(Question {
                    protocol,
                    family: None,
                    address: None,
                    port: None,
                });
            }
            let knocks = || {
                let all = self.frontends.iter().chain(self.gone.keys());
                all.filter(move |frontend| frontend.protocol == protocol)
            };
            knocks().next()?;
            Some(Question {
                protocol,
                family: same(knocks().map(Frontend::family)),
                address: same(knocks().map(|frontend| address(frontend.place))).flatten(),
                port: same(knocks().map(|frontend| frontend.port)),
            })
        };
        LASTING.into_iter().filter_map(of).collect()
    }

    /// Whether the scope asks for the node's own addresses: where node ports are
    /// open on whatever address the node has, its Node object does not tell.
    pub fn needs_own_addresses(&self, plan: &NodePlan) -> bool {
        plan.view.opens_node_ports_anywhere()
            && (self.everything
                || self
                    .frontends
                    .iter()
                    .chain(self.gone.keys())
                    .any(|frontend| address(frontend.place).is_none()))
    }
}

/// The one address of a place.
fn address(place: Place) -> Option<IpAddr> {
    match place {
        Place::ClusterIp(address) | Place::External(address) => Some(address),
        Place::NodePort(_) => None,
    }
}

fn same<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

fn is_here(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Here(_))
}

/// Whether anybody's packets were translated.
fn is_open(frontend: Frontend, decision: &Decision) -> bool {
    frontend
        .lanes(decision)
        .any(|(_, verdict)| matches!(verdict, Verdict::Forward(_)))
}

/// Every endpoint that flows of a frontend may have gone to by a decision, and by
/// those before it: a policy may have turned away from endpoints that served on.
fn led_to<'a>(
    view: &'a NodeView,
    frontend: &'a Frontend,
    decision: &'a Decision,
) -> impl Iterator<Item = SocketAddr> + 'a {
    endpoints(frontend, decision)
        .filter(|target| !view.is_service_address(target.address))
        .map(|target| SocketAddr::new(target.address, target.port))
}

/// Who serves at a frontend, whatever the decision makes of them.
fn serving_at(
    plan: &NodePlan,
    cluster: &Cluster,
    frontend: Frontend,
    decision: &Decision,
) -> BTreeSet<SocketAddr> {
    let Some(service) = cluster.service(&decision.service) else {
        return BTreeSet::new();
    };
    let mut ports = service.ports.iter();
    ports
        .find(|port| port.name == decision.port_name && port.protocol == frontend.protocol)
        .map(|port| serving(cluster, &plan.view, service, port, frontend.family()))
        .unwrap_or_default()
}

/// Judges flows one by one.
#[derive(Debug)]
pub struct Judge<'a> {
    plan: &'a NodePlan,
    cluster: &'a Cluster,
    scope: &'a Scope,
    own_addresses: &'a BTreeSet<IpAddr>,
    /// Who serves, for the frontends that flows were seen at.
    serving: BTreeMap<Frontend, BTreeSet<SocketAddr>>,
}

impl<'a> Judge<'a> {
    /// A judge of the flows in a scope. The plan must be of this cluster;
    /// `own_addresses` are the node's, where [`Scope::needs_own_addresses`].
    pub fn new(
        plan: &'a NodePlan,
        cluster: &'a Cluster,
        scope: &'a Scope,
        own_addresses: &'a BTreeSet<IpAddr>,
    ) -> Self {
        Self {
            plan,
            cluster,
            scope,
            own_addresses,
            serving: BTreeMap::new(),
        }
    }

    /// Whether a flow must end, and why.
    pub fn judge(&mut self, flow: &Flow) -> Option<Stale> {
        if !LASTING.contains(&flow.protocol) {
            return None;
        }
        let (plan, scope) = (self.plan, self.scope);
        let own = self.own_addresses.contains(&flow.to.ip());
        for frontend in Frontend::candidates(&plan.view, flow.to, flow.protocol, own) {
            if let Some(decision) = plan.frontends.get(&frontend) {
                let asked = scope.everything || scope.frontends.contains(&frontend);
                return asked.then(|| self.at(frontend, decision, flow)).flatten();
            }
            if let Some(led_to) = scope.gone.get(&frontend)
                && led_to.contains(&flow.answers_from)
            {
                return Some(Stale::NoFrontend);
            }
        }
        let astray = scope.everything && is_translated(flow) && self.nobody_has(flow.to.ip());
        astray.then_some(Stale::NoFrontend)
    }

    fn at(&mut self, frontend: Frontend, decision: &Decision, flow: &Flow) -> Option<Stale> {
        if is_here(&decision.verdict) {
            return None;
        }
        let (plan, cluster) = (self.plan, self.cluster);
        let serving = self
            .serving
            .entry(frontend)
            .or_insert_with(|| serving_at(plan, cluster, frontend, decision));
        if serving.contains(&flow.answers_from) {
            None
        } else if is_translated(flow) {
            Some(Stale::NotServing(frontend))
        } else {
            // A switch below us tracks the same packets in a zone of its own, and
            // never translates them.
            (!flow.zoned).then_some(Stale::NotTranslated(frontend))
        }
    }

    /// Whether an address is for Services, and neither another proxy's nor one
    /// where names are answered.
    fn nobody_has(&self, address: IpAddr) -> bool {
        let view = &self.plan.view;
        let others = matches!(self.plan.owners.get(&address), Some(Owner::OtherProxy(..)));
        view.is_service_address(address) && !view.dns_addresses.contains(&address) && !others
    }
}

fn is_translated(flow: &Flow) -> bool {
    flow.to != flow.answers_from
}

#[cfg(test)]
mod tests;
