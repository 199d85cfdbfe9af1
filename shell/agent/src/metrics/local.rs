//! Ports of Services that a Local policy leaves without an endpoint on this node,
//! while there are some elsewhere: kept up with the plan, change by change.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::{Family, ServiceKey, Text};
use portolan_plan::{Decision, Frontend, NodePlan, Policy, Reason, Touched, Verdict};

/// A port of a Service, which has a frontend at each of its addresses.
type Port = (ServiceKey, Text);

/// Those ports, each with how many of its frontends are so.
#[derive(Debug, Default)]
pub(super) struct Unserved(BTreeMap<(Policy, Family), BTreeMap<Port, usize>>);

impl Unserved {
    /// Counts a plan from scratch.
    pub(super) fn of(plan: &NodePlan) -> Self {
        let mut all = Self::default();
        for (frontend, decision) in &plan.frontends {
            all.count(frontend, decision, true);
        }
        all
    }

    /// Follows a round of planning.
    pub(super) fn follow(&mut self, plan: &NodePlan, touched: &Touched) {
        for (frontend, before) in &touched.frontends {
            if let Some(before) = before {
                self.count(frontend, before, false);
            }
            if let Some(after) = plan.frontends.get(frontend) {
                self.count(frontend, after, true);
            }
        }
    }

    /// How many ports of Services there are.
    pub(super) fn ports(&self, policy: Policy, family: Family) -> usize {
        self.0.get(&(policy, family)).map_or(0, BTreeMap::len)
    }

    fn count(&mut self, frontend: &Frontend, decision: &Decision, into: bool) {
        for policy in policies(decision) {
            let ports = self.0.entry((policy, frontend.family())).or_default();
            let port = (decision.service.clone(), decision.port_name.clone());
            let count = ports.get(&port).copied().unwrap_or(0);
            match if into {
                count + 1
            } else {
                count.saturating_sub(1)
            } {
                0 => ports.remove(&port),
                count => ports.insert(port, count),
            };
        }
    }
}

/// The policies that leave a decision without an endpoint.
fn policies(decision: &Decision) -> BTreeSet<Policy> {
    let verdicts = std::iter::once(&decision.verdict).chain(&decision.outside);
    verdicts
        .filter_map(|verdict| match verdict {
            Verdict::Drop(Reason::NoLocalEndpoints(policy)) => Some(*policy),
            Verdict::Drop(_) | Verdict::Forward(_) | Verdict::Reject(_) | Verdict::Here(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use portolan_model::Protocol;
    use portolan_plan::{NodeView, Place};

    use super::*;

    fn frontend(place: Place) -> Frontend {
        Frontend {
            place,
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    fn decision(outside: Option<Verdict>) -> Arc<Decision> {
        Arc::new(Decision {
            service: ServiceKey::new("default", "web"),
            port_name: "http".into(),
            verdict: Verdict::Reject(Reason::NoEndpoints),
            outside,
            sources: None,
            excluded: Vec::new(),
        })
    }

    #[test]
    fn a_port_counts_once_whatever_its_addresses() {
        let none = Verdict::Drop(Reason::NoLocalEndpoints(Policy::External));
        let outer = |octet| Place::External(IpAddr::from([192, 0, 2, octet]));
        let places = [outer(1), outer(2), Place::NodePort(Family::V4)].map(frontend);
        let mut plan = NodePlan::empty(NodeView::default());
        let mut unserved = Unserved::default();
        let mut set = |plan: &mut NodePlan, to: Option<Arc<Decision>>| {
            let mut touched = Touched::default();
            for place in places {
                let before = match &to {
                    Some(to) => plan.frontends.insert(place, Arc::clone(to)),
                    None => plan.frontends.remove(&place),
                };
                touched.frontends.insert(place, before);
            }
            unserved.follow(plan, &touched);
            [
                unserved.ports(Policy::External, Family::V4),
                unserved.ports(Policy::External, Family::V6),
                unserved.ports(Policy::Internal, Family::V4),
            ]
        };
        assert_eq!(
            set(&mut plan, Some(decision(Some(none.clone())))),
            [1, 0, 0]
        );
        assert_eq!(set(&mut plan, Some(decision(None))), [0, 0, 0]);
        assert_eq!(set(&mut plan, Some(decision(Some(none)))), [1, 0, 0]);
        let anew = Unserved::of(&plan);
        assert_eq!(anew.ports(Policy::External, Family::V4), 1);
        assert_eq!(set(&mut plan, None), [0, 0, 0]);
    }
}
