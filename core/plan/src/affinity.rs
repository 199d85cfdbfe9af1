//! Which remembered clients must be forgotten (P13).
//!
//! The kernel remembers which endpoint a client had. When an endpoint is no
//! longer among a frontend's, or a Service no longer asks for affinity, what is
//! remembered of it must go, so that its clients choose anew.

use std::net::{IpAddr, SocketAddr};

use portolan_model::Protocol;

use crate::frontend::{Decision, Forward, Frontend, Place, Verdict};
use crate::node::{NodePlan, Touched};
use crate::view::Detector;

/// What is remembered of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The client.
    pub client: IpAddr,
    /// Where it knocked.
    pub to: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// The endpoint that it had.
    pub endpoint: SocketAddr,
}

/// Whether what is remembered must be forgotten.
pub fn is_stale(plan: &NodePlan, remembered: &Remembered) -> bool {
    // What was learnt at a node port was to an address of the node.
    let found = plan.find(remembered.to, remembered.protocol, true);
    let Some((_, decision)) = found else {
        return true;
    };
    let view = &plan.view;
    let keeps = |outside| {
        let stays = sticky(decision.for_client(outside));
        stays.is_some_and(|forward| has(forward, remembered.endpoint))
    };
    let client = remembered.client;
    match view.detector {
        Detector::ClusterCidr | Detector::NodeCidr => {
            !keeps(!view.is_pod_address(client) && !view.is_node_address(client))
        }
        // The link that the client came by is not remembered: either will do.
        Detector::Bridge(_) | Detector::Prefix(_) => !keeps(false) && !keeps(true),
    }
}

/// The forward whose clients stay.
fn sticky(verdict: &Verdict) -> Option<&Forward> {
    match verdict {
        Verdict::Forward(forward) => forward.affinity.is_some().then_some(forward),
        Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => None,
    }
}

fn has(forward: &Forward, endpoint: SocketAddr) -> bool {
    let mut targets = forward.targets.iter();
    targets.any(|target| SocketAddr::new(target.address, target.port) == endpoint)
}

impl Touched {
    /// Whether clients may have to be forgotten: one of them may have an endpoint
    /// that is none any more. Looking at all that is remembered costs as much.
    pub fn may_forget(&self, plan: &NodePlan) -> bool {
        self.view.is_some()
            || self.frontends.iter().any(|(frontend, before)| {
                let now = plan.frontends.get(frontend);
                match before.as_deref() {
                    Some(before) => loses(before, now.map(|now| &**now)),
                    None => hides(plan, *frontend),
                }
            })
    }
}

/// Whether a frontend that comes takes packets from one whose clients stay: an
/// address of the node that is an outer one too is no place for node ports.
fn hides(plan: &NodePlan, frontend: Frontend) -> bool {
    let (Place::ClusterIp(address) | Place::External(address)) = frontend.place else {
        return false;
    };
    let to = SocketAddr::new(address, frontend.port);
    let mut others = Frontend::candidates(&plan.view, to, frontend.protocol, true);
    others.any(|other| {
        let decision = plan.frontends.get(&other).filter(|_| other != frontend);
        decision.is_some_and(|decision| decision.affinity().is_some())
    })
}

/// Whether somebody's endpoint went, or the memory of it.
fn loses(before: &Decision, now: Option<&Decision>) -> bool {
    [false, true].into_iter().any(|outside| {
        let Some(before) = sticky(before.for_client(outside)) else {
            return false;
        };
        let Some(now) = now.and_then(|now| sticky(now.for_client(outside))) else {
            return true;
        };
        let mut endpoints = before.targets.iter();
        endpoints.any(|target| !has(now, SocketAddr::new(target.address, target.port)))
    })
}
