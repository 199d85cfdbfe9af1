//! Which remembered clients must be forgotten (P13).
//!
//! The kernel remembers which endpoint a client had. When an endpoint is no
//! longer among a frontend's, or a Service no longer asks for affinity, what is
//! remembered of it must go, so that its clients choose anew.

use std::net::{IpAddr, SocketAddr};

use portolan_model::{Family, Protocol};

use crate::frontend::{Frontend, Place, Verdict};
use crate::node::{NodePlan, Touched};

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
    let address = remembered.to.ip();
    let places = [
        Place::ClusterIp(address),
        Place::External(address),
        Place::NodePort(Family::of(address)),
    ];
    let decision = places.into_iter().find_map(|place| {
        plan.frontends.get(&Frontend {
            place,
            protocol: remembered.protocol,
            port: remembered.to.port(),
        })
    });
    let Some(decision) = decision else {
        return true;
    };
    let view = &plan.view;
    let outside = !view.is_pod(remembered.client) && !view.is_node_address(remembered.client);
    match decision.for_client(outside) {
        Verdict::Forward(forward) if forward.affinity.is_some() => {
            let mut targets = forward.targets.iter();
            !targets
                .any(|target| SocketAddr::new(target.address, target.port) == remembered.endpoint)
        }
        Verdict::Forward(_) | Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => true,
    }
}

impl Touched {
    /// Whether clients may have to be forgotten.
    pub fn may_forget(&self) -> bool {
        let before = self.frontends.values().flatten();
        self.view.is_some()
            || before
                .into_iter()
                .any(|decision| decision.affinity().is_some())
    }
}
