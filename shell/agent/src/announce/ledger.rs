//! For which addresses this node answers, and on which links: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_announce::election::leader;
use portolan_plan::announce::{Announcing, Candidates};

use super::heart::Alive;

/// What a link's task is to do: own these addresses from now on, or no longer.
pub(super) type Orders = BTreeMap<Arc<str>, Vec<(IpAddr, bool)>>;

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// What each link's task is to do.
    pub(super) orders: Orders,
    /// Addresses that this node did not answer for before.
    pub(super) taken: Vec<IpAddr>,
    /// Addresses that it no longer answers for.
    pub(super) given_up: Vec<IpAddr>,
}

/// Who answers for what, as this node sees it.
#[derive(Debug)]
pub(super) struct Ledger {
    node: String,
    alive: Alive,
    /// The links on which this node answers for an address.
    owned: BTreeMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Whether all addresses are to be looked at, whatever was touched.
    all: bool,
}

impl Ledger {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            alive: Alive::default(),
            owned: BTreeMap::new(),
            all: false,
        }
    }

    /// These nodes are alive now.
    pub(super) fn set_alive(&mut self, alive: Alive) {
        self.all |= self.alive != alive;
        self.alive = alive;
    }

    /// The tasks of these links are new: they are told with the next look what they
    /// own.
    pub(super) fn begin(&mut self, links: &BTreeSet<String>) {
        for owned in self.owned.values_mut() {
            owned.retain(|link| !links.contains(link.as_ref()));
        }
        self.all |= !links.is_empty();
    }

    /// Looks at addresses: who answers for each of them?
    pub(super) fn settle(
        &mut self,
        announcing: &Announcing,
        mut touched: BTreeSet<IpAddr>,
    ) -> Moves {
        if std::mem::take(&mut self.all) {
            touched.extend(announcing.addresses());
            touched.extend(self.owned.keys());
        }
        let mut moves = Moves::default();
        for address in touched {
            let candidates = announcing.candidates(address);
            let links = match self.leads(address, &candidates) {
                true => candidates.get(self.node.as_str()).cloned(),
                false => None,
            };
            let links = links.unwrap_or_default();
            self.answer(address, links, &mut moves);
        }
        moves
    }

    fn leads(&self, address: IpAddr, candidates: &Candidates) -> bool {
        let fit = candidates.keys().map(AsRef::as_ref);
        let mut fit = fit.filter(|name| self.alive.names.contains(*name));
        leader(address, fit.by_ref()) == Some(self.node.as_str())
    }

    fn answer(&mut self, address: IpAddr, links: BTreeSet<Arc<str>>, moves: &mut Moves) {
        let before = self.owned.remove(&address).unwrap_or_default();
        for link in before.difference(&links) {
            let orders = moves.orders.entry(Arc::clone(link)).or_default();
            orders.push((address, false));
        }
        for link in links.difference(&before) {
            let orders = moves.orders.entry(Arc::clone(link)).or_default();
            orders.push((address, true));
        }
        if before.is_empty() && !links.is_empty() {
            moves.taken.push(address);
        }
        if !before.is_empty() && links.is_empty() {
            moves.given_up.push(address);
        }
        if !links.is_empty() {
            self.owned.insert(address, links);
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::workloads::{BalancedService, BalancerNode, Object, Pool, Speaker};
    use portolan_plan::announce::{Facts, Ground};
    use serde_json::json;

    use super::*;

    const NODES: [&str; 3] = ["n1", "n2", "n3"];

    /// Three nodes on one link, and so many Services, as a node sees them.
    fn announcing(node: &str, services: u8) -> Announcing {
        let object = |name: &str| {
            json!({
                "metadata": {"name": name, "annotations": {
                    "portolan.dev/links": r#"[{"name": "eth0", "addresses": ["192.0.2.1/24"]}]"#,
                }},
                "spec": {"holderIdentity": name, "addresses": ["192.0.2.128/25"]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            })
        };
        let nodes = NODES.map(|name| BalancerNode::read(&object(name)));
        let speakers = NODES.map(|name| Speaker::read(&object(name)));
        let pool = Pool::read(&object("home"));
        let mut announcing = Announcing::new(node);
        announcing.set_ground(Ground::of(&Facts {
            nodes: nodes.iter().collect(),
            speakers: speakers.iter().collect(),
            pools: vec![&pool],
            ..Facts::default()
        }));
        for n in 0..services {
            let ip = format!("192.0.2.{}", 130 + n);
            let service = BalancedService::read(&json!({
                "metadata": {"name": format!("s{n}"), "namespace": "default"},
                "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
            }));
            announcing.converge(&service, &BTreeSet::new());
        }
        announcing
    }

    fn alive(names: &[&str]) -> Alive {
        Alive {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The addresses that a node takes and gives up when these nodes are alive.
    fn look(ledger: &mut Ledger, on: &Announcing, names: &[&str]) -> (Vec<IpAddr>, Vec<IpAddr>) {
        ledger.set_alive(alive(names));
        let moves = ledger.settle(on, BTreeSet::new());
        let orders = moves.orders.values().flatten();
        let gone = orders.filter(|(_, own)| !own).map(|(ip, _)| *ip).collect();
        (moves.taken, gone)
    }

    #[test]
    fn l9_each_address_has_one_answerer_and_moves_only_when_that_goes() {
        let mut ledgers = NODES.map(Ledger::new);
        let views = NODES.map(|node| announcing(node, 60));
        let mut owner: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (n, (ledger, on)) in ledgers.iter_mut().zip(&views).enumerate() {
            let (taken, gone) = look(ledger, on, &NODES);
            assert!(gone.is_empty() && !taken.is_empty());
            for address in taken {
                assert_eq!(owner.insert(address, n), None, "two answer for {address}");
            }
        }
        assert_eq!(owner.len(), 60);
        // n2 dies: what it had moves, and nothing else.
        let mut moved = 0;
        for (n, (ledger, on)) in ledgers.iter_mut().zip(&views).enumerate() {
            let (taken, gone) = look(ledger, on, &["n1", "n3"]);
            assert_eq!(gone.is_empty(), n != 1);
            assert!(taken.iter().all(|address| owner[address] == 1));
            moved += taken.len();
        }
        assert_eq!(moved, owner.values().filter(|n| **n == 1).count());
    }

    #[test]
    fn l8_who_is_not_alive_answers_for_nothing() {
        let mut ledger = Ledger::new("n1");
        let on = announcing("n1", 10);
        let touched: BTreeSet<IpAddr> = on.addresses().collect();
        assert_eq!(ledger.settle(&on, touched), Moves::default());
        let (taken, _) = look(&mut ledger, &on, &["n1"]);
        assert_eq!(taken.len(), 10);
        // Again nothing to do, until the links' tasks begin anew.
        assert_eq!(look(&mut ledger, &on, &["n1"]), (vec![], vec![]));
        ledger.begin(&["eth0".to_owned()].into());
        let moves = ledger.settle(&on, BTreeSet::new());
        assert_eq!(moves.orders.values().flatten().count(), 10);
        let (_, gone) = look(&mut ledger, &on, &[]);
        assert_eq!(gone.len(), 10);
    }

    #[test]
    fn l8_an_address_that_is_gone_is_released() {
        let mut ledger = Ledger::new("n1");
        let mut on = announcing("n1", 2);
        look(&mut ledger, &on, &["n1"]);
        let key = portolan_model::workloads::ObjectKey::new("default", "s1");
        let touched = on.forget(&key);
        let moves = ledger.settle(&on, touched.addresses);
        let wanted = ("192.0.2.131".parse().unwrap(), false);
        assert_eq!(
            moves.orders.values().flatten().collect::<Vec<_>>(),
            [&wanted]
        );
    }
}
