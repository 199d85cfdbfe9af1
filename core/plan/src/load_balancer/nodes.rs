//! Without pools: the nodes' own addresses (L4, L12), as k3s' ServiceLB gives them.
//!
//! A Service has a port of a node's address, and no other Service has it too. Who
//! came first keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::workloads::{BalancedPort, BalancedService, BalancerNode, ObjectKey};
use portolan_model::{Family, Protocol};

use super::pools::Assigned;
use super::refusal::{EXCLUDED, Refusal, Unfit};

/// What an answer depends on beside the Service.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// All nodes, ordered by name.
    pub nodes: &'a [&'a BalancerNode],
    /// The nodes of the Service's ready endpoints.
    pub ready_on: &'a BTreeSet<&'a str>,
    /// Where the API server listens.
    pub api_servers: &'a BTreeSet<(IpAddr, u16)>,
}

/// A port of an address.
pub(super) type Place = (IpAddr, BalancedPort);

/// Who has which ports of which node addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct HostPorts {
    holders: BTreeMap<Place, ObjectKey>,
    held: BTreeMap<ObjectKey, Vec<Place>>,
}

impl HostPorts {
    /// A Service gives its ports back.
    pub(super) fn release(&mut self, key: &ObjectKey) {
        for place in self.held.remove(key).unwrap_or_default() {
            self.holders.remove(&place);
        }
    }

    /// The ports that a Service has.
    pub(super) fn held(&self, key: &ObjectKey) -> BTreeSet<Place> {
        self.held.get(key).into_iter().flatten().copied().collect()
    }

    fn hold(&mut self, service: &BalancedService, addresses: &[IpAddr]) {
        let mut places = Vec::with_capacity(addresses.len() * service.ports.len());
        for address in addresses {
            places.extend(service.ports.iter().map(|port| (*address, *port)));
        }
        let key = &service.meta.key;
        for place in &places {
            self.holders.insert(*place, key.clone());
        }
        if !places.is_empty() {
            self.held.insert(key.clone(), places);
        }
    }

    /// Gives a Service the addresses of all nodes that may stand in for it and where
    /// nobody has its ports.
    pub(super) fn assign(&mut self, service: &BalancedService, places: &Places<'_>) -> Assigned {
        self.release(&service.meta.key);
        let assigned = self.look(service, places);
        self.hold(service, &assigned.addresses);
        assigned
    }

    /// Lets a Service have the addresses of its status, as far as it may: before
    /// anybody is given some, all must have what they had.
    pub(super) fn adopt(&mut self, service: &BalancedService, places: &Places<'_>) {
        self.release(&service.meta.key);
        let mut addresses = self.look(service, places).addresses;
        addresses.retain(|address| service.ingress.contains(address));
        self.hold(service, &addresses);
    }

    fn look(&self, service: &BalancedService, places: &Places<'_>) -> Assigned {
        let (fit, unfit) = sort_out(service, places);
        if fit.is_empty() {
            return Assigned {
                addresses: Vec::new(),
                missing: vec![Refusal::NoNode(unfit)],
            };
        }
        let mut assigned = Assigned::default();
        for family in service.wanted_families() {
            let addresses = addresses(&fit, *family);
            if addresses.is_empty() {
                assigned.missing.push(Refusal::FamilyOfNodes(*family));
            }
            for (address, node) in addresses {
                let taken = service.ports.iter().find_map(|port| {
                    let by = self.holder(places, node, (address, *port))?;
                    Some((*port, by))
                });
                match taken {
                    None => assigned.addresses.push(address),
                    Some(taken) => note(&mut assigned.missing, &node.meta.key.name, taken),
                }
            }
        }
        assigned
    }

    /// Who has a port of an address.
    fn holder(&self, places: &Places<'_>, node: &BalancerNode, place: Place) -> Option<String> {
        let (address, port) = place;
        if port.protocol == Protocol::Tcp {
            if node.kubelet_port == Some(port.port) {
                return Some("the kubelet".to_owned());
            }
            if places.api_servers.contains(&(address, port.port)) {
                return Some("the API server".to_owned());
            }
        }
        self.holders.get(&place).map(ObjectKey::to_string)
    }
}

/// Notes that a port is taken on a node; on several nodes it is one reason.
fn note(missing: &mut Vec<Refusal>, node: &str, (port, by): (BalancedPort, String)) {
    for known in missing.iter_mut() {
        if let Refusal::Port {
            port: of,
            nodes,
            by: who,
        } = known
            && (*of, who.as_str()) == (port, by.as_str())
        {
            // The other address of the same node.
            if !nodes.iter().any(|one| one == node) {
                nodes.push(node.to_owned());
            }
            return;
        }
    }
    let nodes = vec![node.to_owned()];
    missing.push(Refusal::Port { port, nodes, by });
}

/// Whether each node may stand in for a Service, and why not (L4).
pub fn fitness<'a>(
    service: &BalancedService,
    places: &Places<'a>,
) -> Vec<(&'a BalancerNode, Result<(), Unfit>)> {
    // Nobody else can do it for a single node.
    let alone = places.nodes.len() == 1;
    let families = service.wanted_families();
    let judge = |node: &BalancerNode| {
        let mut addresses = node.external.iter().chain(&node.internal);
        able(node, alone)?;
        if service.local && !places.ready_on.contains(node.meta.key.name.as_str()) {
            Err(Unfit::NoEndpoint)
        } else if !addresses.any(|address| families.contains(&Family::of(*address))) {
            Err(Unfit::NoAddress)
        } else {
            Ok(())
        }
    };
    let nodes = places.nodes.iter();
    nodes.map(|node| (*node, judge(node))).collect()
}

/// Whether a node may stand in for any Service; `alone` is whether it is the only one.
pub(crate) fn able(node: &BalancerNode, alone: bool) -> Result<(), Unfit> {
    if !node.ready {
        Err(Unfit::NotReady)
    } else if node.network_unavailable {
        Err(Unfit::Network)
    } else if node.meta.labels.contains_key(EXCLUDED) && !alone {
        Err(Unfit::Excluded)
    } else {
        Ok(())
    }
}

/// The nodes that may stand in for a Service, and why the others may not.
fn sort_out<'a>(
    service: &BalancedService,
    places: &Places<'a>,
) -> (Vec<&'a BalancerNode>, Vec<(String, Unfit)>) {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for (node, judged) in fitness(service, places) {
        match judged {
            Ok(()) => fit.push(node),
            Err(why) => unfit.push((node.meta.key.name.clone(), why)),
        }
    }
    (fit, unfit)
}

/// The addresses of a family, ordered: external ones if any node has one, as with
/// ServiceLB, else internal ones.
fn addresses<'a>(nodes: &[&'a BalancerNode], family: Family) -> BTreeMap<IpAddr, &'a BalancerNode> {
    let of = |list: fn(&BalancerNode) -> &Vec<IpAddr>| -> BTreeMap<IpAddr, &'a BalancerNode> {
        let all = nodes
            .iter()
            .flat_map(|node| list(node).iter().map(|ip| (*ip, *node)));
        all.filter(|(ip, _)| Family::of(*ip) == family).collect()
    };
    let external = of(|node| &node.external);
    if external.is_empty() {
        of(|node| &node.internal)
    } else {
        external
    }
}
