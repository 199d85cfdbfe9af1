//! The cluster by address: who is where, and which node judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::{Cluster, Pod, PodKey, Text};
use portolan_plan::NodePlan;
use portolan_plan::policy::dns;

/// The cluster and the plans of its nodes, with an index of the pods' addresses.
pub struct World<'w> {
    /// The facts.
    pub cluster: &'w Cluster,
    plans: &'w [NodePlan],
    pods: BTreeMap<IpAddr, Vec<Arc<Pod>>>,
}

/// Who is at an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A pod with an address of its own.
    Pod(PodKey),
    /// Who answers for the cluster's names, on each node.
    Names,
    /// A node.
    Node(Text),
    /// Nobody that the cluster knows.
    Address(IpAddr),
}

impl Who {
    /// A pod; without a name, who answers for names.
    pub(super) fn of(pod: &PodKey) -> Self {
        if pod.name.is_empty() {
            Self::Names
        } else {
            Self::Pod(pod.clone())
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Names => f.write_str("the cluster's DNS"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl<'w> World<'w> {
    /// Indexes the pods. It costs what there are of them.
    pub fn new(cluster: &'w Cluster, plans: &'w [NodePlan]) -> Self {
        Self::index(cluster, plans, |_| true)
    }

    /// The same, for questions about these addresses only.
    pub fn about(
        cluster: &'w Cluster,
        plans: &'w [NodePlan],
        addresses: &BTreeSet<IpAddr>,
    ) -> Self {
        Self::index(cluster, plans, |address| addresses.contains(address))
    }

    fn index(
        cluster: &'w Cluster,
        plans: &'w [NodePlan],
        wanted: impl Fn(&IpAddr) -> bool,
    ) -> Self {
        let mut pods: BTreeMap<IpAddr, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in cluster.pods() {
            for address in pod.addresses.iter().filter(|address| wanted(address)) {
                pods.entry(*address).or_default().push(Arc::clone(pod));
            }
        }
        for plan in plans {
            let names = Arc::new(dns(&plan.view));
            for address in &names.addresses {
                let here = pods.entry(*address).or_default();
                if here.iter().all(|pod| pod.key != names.key) {
                    here.push(Arc::clone(&names));
                }
            }
        }
        for here in pods.values_mut() {
            here.sort_by(|one, other| one.key.cmp(&other.key));
        }
        Self {
            cluster,
            plans,
            pods,
        }
    }

    /// The pods at an address by name, hostNetwork ones among them.
    pub(super) fn all_at(&self, address: IpAddr) -> &[Arc<Pod>] {
        self.pods.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The pods at an address that policies know: hostNetwork pods are their nodes
    /// (N13).
    pub fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        let own = |pod: &&Arc<Pod>| !pod.host_network;
        self.all_at(address).iter().filter(own)
    }

    /// Who answers for names, as the pod that policies know (N21), if nodes do.
    pub fn names(&self) -> Option<Pod> {
        let found = self.plans.iter().map(|plan| dns(&plan.view));
        found.into_iter().find(|dns| !dns.addresses.is_empty())
    }

    /// The plan of a node.
    pub fn plan(&self, node: &str) -> Option<&'w NodePlan> {
        self.plans.iter().find(|plan| *plan.view.node == *node)
    }

    /// The plan of the node that judges for a pod's address: the one that it is on.
    pub fn judge_of(&self, address: IpAddr) -> Option<&'w NodePlan> {
        let mut nodes = self.pods_at(address).filter_map(|pod| pod.node.as_deref());
        nodes.find_map(|node| self.plan(node))
    }

    /// The node that has an address.
    pub fn node_at(&self, address: IpAddr) -> Option<&'w NodePlan> {
        let own = |plan: &&NodePlan| plan.view.is_node_address(address);
        self.plans.iter().find(own)
    }

    /// Who is at an address.
    pub fn who(&self, address: IpAddr) -> Who {
        let pod = self.pods_at(address).next();
        match pod {
            Some(pod) => Who::of(&pod.key),
            None => self.node_at(address).map_or(Who::Address(address), |plan| {
                Who::Node(plan.view.node.clone())
            }),
        }
    }
}
