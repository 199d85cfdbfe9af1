//! Whose search list is completed, and with what (CoreDNS' autopath).
//!
//! A pod's search list begins with its namespace, which follows from its address: the
//! agent knows the pods of its own node. Nothing else of a pod is kept.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use portolan_dns::{Name, next_names};
use portolan_model::Text;
use portolan_plan::{NodePlan, Touched};

/// In which namespaces addresses are. One that is in several tells nothing of who asks:
/// it is a node's, of pods in its network.
#[derive(Debug, Default)]
pub struct ClientPods(RwLock<BTreeSet<(IpAddr, Text)>>);

impl ClientPods {
    /// Takes over what a round of planning touched; all of a plan if nothing was taken
    /// over so far.
    pub(crate) fn follow(&self, plan: &NodePlan, touched: Option<&Touched>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_own = |address: &IpAddr| plan.view.node_addresses.contains(address);
        let Some(touched) = touched.filter(|touched| touched.view.is_none()) else {
            let pods = plan.pods.iter().filter(|(_, address)| !is_own(address));
            *known = pods
                .map(|(namespace, address)| (*address, namespace.clone()))
                .collect();
            return;
        };
        for ((namespace, address), existed) in &touched.pods {
            if *existed || is_own(address) {
                known.remove(&(*address, namespace.clone()));
            } else {
                known.insert((*address, namespace.clone()));
            }
        }
    }

    /// The namespace of the pods at an address, if they are of one.
    fn namespace(&self, address: IpAddr) -> Option<Text> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut at = known
            .range((address, Text::from(""))..)
            .take_while(|(other, _)| *other == address);
        match (at.next(), at.next()) {
            (Some((_, namespace)), None) => Some(Text::clone(namespace)),
            (Some(_) | None, _) => None,
        }
    }
}

/// Completion of search lists.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Whose they are.
    clients: Arc<ClientPods>,
    /// `svc.<domain>`.
    services: Name,
    /// The domains after the client's own: `svc.<domain>`, `<domain>`, and those that
    /// the machine gives to pods.
    further: Vec<Name>,
}

impl Completion {
    /// For clients of a cluster with this domain, whose pods have these further domains
    /// in their search lists. None if the domain is no name.
    pub fn new(clients: Arc<ClientPods>, domain: &str, search: &[Name]) -> Option<Self> {
        let domain = Name::parse(domain).ok()?;
        let services = domain.child("svc").ok()?;
        let own = [services.clone(), domain];
        Some(Self {
            clients,
            services,
            further: own.into_iter().chain(search.iter().cloned()).collect(),
        })
    }

    /// What a client would ask for next if what it asks for does not exist.
    pub(super) fn next_names(&self, query: &[u8], client: IpAddr) -> Option<Vec<Name>> {
        let namespace = self.clients.namespace(client)?;
        let first = self.services.child(namespace.as_bytes()).ok()?;
        next_names(query, &first, &self.further)
    }
}
