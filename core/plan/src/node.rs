//! The plan of one node: from scratch, and again after a change.
//!
//! [`node`] folds the per-key functions over everything, [`renode`] calls the
//! same ones for what is dirty and says what it touched, so the two cannot
//! drift apart: `renode` in any order of changes ends where `node` would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use portolan_model::{Cluster, Dirty, Family, Protocol, Service, ServiceKey, Text, by_turns};

use crate::frontend::{Decision, Frontend, Outlying, Place, Shape, Target, Verdict};
use crate::health::{Health, health};
use crate::names::{Names, names};
use crate::policy::{Policies, TouchedPolicies};
use crate::services::{Owner, claims, decide, owner};
use crate::view::NodeView;

/// What should be on one node, with the reasons. A clone is cheap and shares
/// everything, so readers take snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// The view the plan was made with.
    pub view: Arc<NodeView>,
    /// What happens at each address and port.
    pub frontends: OrdMap<Frontend, Arc<Decision>>,
    /// Whose each allocated cluster address is.
    pub owners: OrdMap<IpAddr, Owner>,
    /// Local endpoint addresses that may meet themselves behind a Service
    /// (P8), each with the number of forwards that use it.
    pub hairpins: OrdMap<IpAddr, u32>,
    /// Outer addresses in use, each with the number of its frontends.
    pub externals: OrdMap<IpAddr, u32>,
    /// Endpoints of connections that are no pods, each with the number of
    /// frontends that have it (P18).
    pub outlying: OrdMap<Outlying, u32>,
    /// The shapes of forwards in use, each with how many have it.
    pub shapes: OrdMap<Shape, u32>,
    /// The timeouts of session affinity in use, by family and seconds, each
    /// with how many frontends have it.
    pub timeouts: OrdMap<(Family, u32), u32>,
    /// What health check ports answer.
    pub health: OrdMap<ServiceKey, Health>,
    /// What each Service's name stands for.
    pub names: OrdMap<ServiceKey, Arc<Names>>,
    /// The namespaces in which names may be asked for.
    pub namespaces: OrdSet<Text>,
    /// Where pods are known to be: these addresses in these namespaces (D15).
    pub pods: OrdSet<(Text, IpAddr)>,
    /// Which pods of this node are isolated, and from whom (N1).
    pub policies: Policies,
    /// Each Service as it was when it was last planned: the frontends and addresses
    /// that it asked for have to be looked at again when it changes.
    asked: OrdMap<ServiceKey, Arc<Service>>,
}

/// How many Services are planned at a time from scratch: what a round says that it
/// touched is as large as its part of the plan.
const AT_ONCE: usize = 4096;

/// What a round of planning changed: for each key its previous value, whose
/// new one is in the plan. A key whose value stayed the same is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// The previous view, if it changed.
    pub view: Option<Arc<NodeView>>,
    /// Previous decisions.
    pub frontends: BTreeMap<Frontend, Option<Arc<Decision>>>,
    /// Previous owners of cluster addresses.
    pub owners: BTreeMap<IpAddr, Option<Owner>>,
    /// Previous use counts of hairpin addresses that came or went.
    pub hairpins: BTreeMap<IpAddr, Option<u32>>,
    /// Previous use counts of outer addresses that came or went.
    pub externals: BTreeMap<IpAddr, Option<u32>>,
    /// Previous use counts of outlying endpoints that came or went.
    pub outlying: BTreeMap<Outlying, Option<u32>>,
    /// Previous use counts of shapes that came or went.
    pub shapes: BTreeMap<Shape, Option<u32>>,
    /// Previous use counts of timeouts that came or went.
    pub timeouts: BTreeMap<(Family, u32), Option<u32>>,
    /// Previous answers of health check ports.
    pub health: BTreeMap<ServiceKey, Option<Health>>,
    /// Previous meanings of names.
    pub names: BTreeMap<ServiceKey, Option<Arc<Names>>>,
    /// Namespaces that came or went, and whether they existed before.
    pub namespaces: BTreeMap<Text, bool>,
    /// Places of pods that came or went, and whether one was there before.
    pub pods: BTreeMap<(Text, IpAddr), bool>,
    /// What changed in policies.
    pub policies: TouchedPolicies,
}

impl Touched {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The plan of a node from scratch.
pub fn node(cluster: &Cluster, view: &NodeView) -> NodePlan {
    let mut plan = NodePlan::empty(view.clone());
    let places = Dirty {
        namespaces: cluster.namespaces().cloned().collect(),
        pods: cluster.pod_places().cloned().collect(),
        selected: cluster.pods().map(|pod| pod.key.clone()).collect(),
        ..Dirty::default()
    };
    renode(&mut plan, cluster, view, &places);
    let mut keys = cluster.services().map(|service| service.key.clone());
    loop {
        let some = Dirty {
            services: keys.by_ref().take(AT_ONCE).collect(),
            ..Dirty::default()
        };
        if some.is_empty() {
            return plan;
        }
        renode(&mut plan, cluster, view, &some);
    }
}

/// Plans again what is dirty. A view that differs from the plan's makes
/// everything dirty that depends on it.
pub fn renode(plan: &mut NodePlan, cluster: &Cluster, view: &NodeView, dirty: &Dirty) -> Touched {
    let mut touched = Touched::default();
    let mut frontends = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    if *plan.view != *view {
        let before = std::mem::replace(&mut plan.view, Arc::new(view.clone()));
        if !before.decides_like(view) {
            // Also those of which nothing came so far: the view may allow them now.
            frontends.extend(plan.asked.values().flat_map(|service| claims(service)));
        }
        touched.view = Some(before);
    }
    for key in by_turns(&dirty.services) {
        plan.ask_again(cluster, key, &mut frontends, &mut addresses);
        plan.name_again(cluster, key, &mut touched);
        plan.health_again(cluster, view, key, &mut touched);
    }
    for frontend in by_turns(frontends) {
        plan.decide_again(cluster, view, frontend, &mut touched);
    }
    for address in by_turns(addresses) {
        plan.own_again(cluster, address, &mut touched);
    }
    for namespace in &dirty.namespaces {
        plan.namespace_again(cluster, namespace, &mut touched);
    }
    for place in &dirty.pods {
        plan.pod_again(cluster, place, &mut touched);
    }
    let views = (touched.view.as_deref(), view);
    touched.policies = plan.policies.again(cluster, views, dirty);
    plan.settle(touched)
}

/// Reading.
impl NodePlan {
    /// The frontend at which a packet to this address and port knocks. `own`
    /// tells whether the address is one of the node's.
    pub fn find(
        &self,
        to: SocketAddr,
        protocol: Protocol,
        own: bool,
    ) -> Option<(Frontend, &Arc<Decision>)> {
        Frontend::candidates(&self.view, to, protocol, own).find_map(|frontend| {
            let decision = self.frontends.get(&frontend)?;
            Some((frontend, decision))
        })
    }
}

/// The per-key steps.
impl NodePlan {
    /// A plan for a cluster in which nothing is known.
    pub fn empty(view: NodeView) -> Self {
        Self {
            view: Arc::new(view),
            frontends: OrdMap::new(),
            owners: OrdMap::new(),
            hairpins: OrdMap::new(),
            externals: OrdMap::new(),
            outlying: OrdMap::new(),
            shapes: OrdMap::new(),
            timeouts: OrdMap::new(),
            health: OrdMap::new(),
            names: OrdMap::new(),
            namespaces: OrdSet::new(),
            pods: OrdSet::new(),
            policies: Policies::default(),
            asked: OrdMap::new(),
        }
    }

    /// Collects what a Service asked for before and asks for now.
    fn ask_again(
        &mut self,
        cluster: &Cluster,
        key: &ServiceKey,
        frontends: &mut BTreeSet<Frontend>,
        addresses: &mut BTreeSet<IpAddr>,
    ) {
        let after = cluster.service(key);
        let before = match after {
            Some(after) => self.asked.insert(after.key.clone(), Arc::clone(after)),
            None => self.asked.remove(key),
        };
        let before = before.filter(|before| after.is_none_or(|after| !Arc::ptr_eq(before, after)));
        for service in before.iter().chain(after) {
            frontends.extend(claims(service));
            addresses.extend(&service.cluster_ips);
        }
    }

    fn decide_again(
        &mut self,
        cluster: &Cluster,
        view: &NodeView,
        frontend: Frontend,
        touched: &mut Touched,
    ) {
        let after = decide(cluster, view, frontend).map(Arc::new);
        let before = match &after {
            Some(after)
                if self.frontends.get(&frontend) == Some(after) && touched.view.is_none() =>
            {
                return;
            }
            Some(after) => self.frontends.insert(frontend, Arc::clone(after)),
            None => self.frontends.remove(&frontend),
        };
        let old_view = touched.view.clone();
        if let Some(before) = &before {
            let view = old_view.as_deref().unwrap_or(view);
            self.count(view, (frontend, before), false, touched);
        }
        if let Some(after) = &after {
            self.count(view, (frontend, after), true, touched);
        }
        if before != after {
            touched.frontends.insert(frontend, before);
        }
    }

    /// Counts a decision's shapes, hairpins and outer address in or out.
    fn count(
        &mut self,
        view: &NodeView,
        (frontend, decision): (Frontend, &Decision),
        into: bool,
        touched: &mut Touched,
    ) {
        for shape in frontend.shapes(decision) {
            step(&mut self.shapes, &mut touched.shapes, shape, into);
        }
        if let Some(seconds) = decision.affinity() {
            let timeout = (frontend.family(), seconds);
            step(&mut self.timeouts, &mut touched.timeouts, timeout, into);
        }
        if let Place::External(address) = frontend.place {
            step(&mut self.externals, &mut touched.externals, address, into);
        }
        for address in hairpins(view, frontend, decision) {
            step(&mut self.hairpins, &mut touched.hairpins, address, into);
        }
        for endpoint in outlying(view, frontend, decision) {
            step(&mut self.outlying, &mut touched.outlying, endpoint, into);
        }
    }

    fn own_again(&mut self, cluster: &Cluster, address: IpAddr, touched: &mut Touched) {
        let after = owner(cluster, address);
        if self.owners.get(&address) == after.as_ref() {
            return;
        }
        let before = match after {
            Some(after) => self.owners.insert(address, after),
            None => self.owners.remove(&address),
        };
        touched.owners.insert(address, before);
    }

    fn name_again(&mut self, cluster: &Cluster, key: &ServiceKey, touched: &mut Touched) {
        let after = names(cluster, key);
        if self.names.get(key).map(|before| &**before) == after.as_ref() {
            return;
        }
        let before = match after {
            Some(after) => self.names.insert(key.clone(), Arc::new(after)),
            None => self.names.remove(key),
        };
        touched.names.insert(key.clone(), before);
    }

    fn health_again(
        &mut self,
        cluster: &Cluster,
        view: &NodeView,
        key: &ServiceKey,
        touched: &mut Touched,
    ) {
        let service = cluster.service(key);
        let after = service.and_then(|service| health(cluster, view, service));
        if self.health.get(key) == after.as_ref() {
            return;
        }
        let before = match after {
            Some(after) => self.health.insert(key.clone(), after),
            None => self.health.remove(key),
        };
        touched.health.insert(key.clone(), before);
    }

    fn namespace_again(&mut self, cluster: &Cluster, namespace: &Text, touched: &mut Touched) {
        let before = self.namespaces.contains(namespace);
        let after = cluster.has_namespace(namespace);
        if before == after {
            return;
        }
        if after {
            self.namespaces.insert(namespace.clone());
        } else {
            self.namespaces.remove(namespace);
        }
        touched.namespaces.insert(namespace.clone(), before);
    }

    fn pod_again(&mut self, cluster: &Cluster, place: &(Text, IpAddr), touched: &mut Touched) {
        let before = self.pods.contains(place);
        let after = cluster.has_pod_at(place);
        if before == after {
            return;
        }
        if after {
            self.pods.insert(place.clone());
        } else {
            self.pods.remove(place);
        }
        touched.pods.insert(place.clone(), before);
    }

    /// Keeps in the report only what is different from before.
    fn settle(&self, mut touched: Touched) -> Touched {
        keep_comings(&self.shapes, &mut touched.shapes);
        keep_comings(&self.timeouts, &mut touched.timeouts);
        keep_comings(&self.hairpins, &mut touched.hairpins);
        keep_comings(&self.externals, &mut touched.externals);
        keep_comings(&self.outlying, &mut touched.outlying);
        touched
    }
}

/// The addresses on this node that a decision forwards to. The node's own
/// addresses are not among them: what the node sends to itself would be
/// masqueraded to no purpose.
fn hairpins(view: &NodeView, frontend: Frontend, decision: &Decision) -> BTreeSet<IpAddr> {
    let targets = frontend
        .lanes(decision)
        .flat_map(|(_, verdict)| match verdict {
            Verdict::Forward(forward) => forward.targets.as_slice(),
            Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => &[],
        });
    let meets_itself = |target: &&Target| target.local && !view.is_node_address(target.address);
    targets
        .filter(meets_itself)
        .map(|target| target.address)
        .collect()
}

/// The endpoints of a decision that are no pods, also those that it does not
/// choose: their connections live on. A UDP client is not reset.
fn outlying(view: &NodeView, frontend: Frontend, decision: &Decision) -> BTreeSet<Outlying> {
    if frontend.protocol == Protocol::Udp {
        return BTreeSet::new();
    }
    endpoints(&frontend, decision)
        .filter(|target| {
            !view.is_pod_address(target.address) && !view.is_service_address(target.address)
        })
        .map(|target| Outlying {
            address: target.address,
            protocol: frontend.protocol,
            port: target.port,
        })
        .collect()
}

/// Every endpoint that a decision knows of, used or not, some of them twice.
pub(crate) fn endpoints<'a>(
    frontend: &'a Frontend,
    decision: &'a Decision,
) -> impl Iterator<Item = &'a Target> {
    let targets = frontend
        .lanes(decision)
        .flat_map(|(_, verdict)| match verdict {
            Verdict::Forward(forward) => forward.targets.as_slice(),
            Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => &[],
        });
    let excluded = decision.excluded.iter().map(|(target, _)| target);
    targets.chain(excluded)
}

/// Adds one to a use count or takes one off, and keeps what it was at first.
fn step<K: Ord + Copy>(
    counts: &mut OrdMap<K, u32>,
    touched: &mut BTreeMap<K, Option<u32>>,
    key: K,
    up: bool,
) {
    let before = tally(counts, key, up);
    touched.entry(key).or_insert(before);
}

/// Adds one to a count or takes one off; returns what it was. There is no zero.
pub(crate) fn tally<K: Ord + Copy>(counts: &mut OrdMap<K, u32>, key: K, up: bool) -> Option<u32> {
    let before = counts.get(&key).copied();
    let count = before.unwrap_or(0);
    match if up {
        count.saturating_add(1)
    } else {
        count.saturating_sub(1)
    } {
        0 => counts.remove(&key),
        count => counts.insert(key, count),
    };
    before
}

/// Keeps of the touched keys those that came into use or went out of it.
fn keep_comings<K: Ord + Copy>(counts: &OrdMap<K, u32>, touched: &mut BTreeMap<K, Option<u32>>) {
    touched.retain(|key, before| before.is_some() != counts.contains_key(key));
}
