//! Which chains of iptables are kube-proxy's, and what goes with them: pure.
//!
//! The names are those that `kube-proxy --cleanup` removes, in its modes `iptables`
//! and `ipvs`. KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-IPTABLES-HINT and
//! KUBE-KUBELET-CANARY are kubelet's and stay.

use std::collections::{BTreeMap, BTreeSet};

use portolan_nft::netlink::Lead;
use portolan_nft::{Batch, Name, Op, TableId};

/// Chains of the table `nat`.
const NAT: &[&str] = &[
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    POSTROUTING,
    MARK,
    CANARY,
    "KUBE-LOAD-BALANCER",
    "KUBE-NODE-PORT",
];
/// Beginnings of the names of a Service's and an endpoint's chain there.
pub(super) const NAT_OF_SERVICES: &[&str] = &[
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-SEP-",
    "KUBE-FW-",
    "KUBE-EXT-",
    "KUBE-XLB-",
];
/// Chains of the table `filter`.
const FILTER: &[&str] = &[
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
    CANARY,
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];
/// The chain by which kube-proxy notices that tables were flushed.
const CANARY: &str = "KUBE-PROXY-CANARY";
/// The chain that marks what is to be masqueraded; others lead there too.
const MARK: &str = "KUBE-MARK-MASQ";
/// The chain that masquerades what is marked.
const POSTROUTING: &str = "KUBE-POSTROUTING";

/// The names of all chains that are not of one Service or endpoint, each once.
pub(super) fn names() -> BTreeSet<&'static str> {
    NAT.iter().chain(FILTER).copied().collect()
}

/// Whether a chain of one of iptables' tables is kube-proxy's.
pub(super) fn is_its_own(table: &str, chain: &str) -> bool {
    match table {
        "nat" => {
            let mut beginnings = NAT_OF_SERVICES.iter();
            NAT.contains(&chain) || beginnings.any(|beginning| chain.starts_with(beginning))
        }
        "filter" => FILTER.contains(&chain),
        "mangle" => chain == CANARY,
        _ => false,
    }
}

/// Whether a table has any of these chains.
pub(super) fn is_here(table: &TableId, chains: &BTreeMap<Name, bool>) -> bool {
    chains.keys().any(|chain| is_its_own(&table.name, chain))
}

/// What takes kube-proxy's chains out of a table: rules that lead to them from a
/// chain at a hook go first, then the chains.
///
/// A chain to which somebody else's own chain leads stays, with all that it needs:
/// CNI plugins let host ports be masqueraded by KUBE-MARK-MASQ.
pub(super) fn removal(table: &TableId, chains: &BTreeMap<Name, bool>, leads: &[Lead]) -> Batch {
    let own = |chain: &Name| is_its_own(&table.name, chain);
    let hooked = |chain: &Name| chains.get(chain).copied().unwrap_or(false);
    let mut kept: BTreeSet<&Name> = BTreeSet::new();
    let from_others = |lead: &&Lead| !own(&lead.chain) && !hooked(&lead.chain);
    let mut needed: Vec<&Name> = leads.iter().filter(from_others).map(|l| &l.to).collect();
    while let Some(chain) = needed.pop() {
        if !own(chain) || !kept.insert(chain) {
            continue;
        }
        let onward = leads.iter().filter(|lead| lead.chain == *chain);
        needed.extend(onward.map(|lead| &lead.to));
        if &**chain == MARK {
            needed.extend(chains.keys().filter(|chain| &***chain == POSTROUTING));
        }
    }
    let goes = |chain: &Name| own(chain) && !kept.contains(chain);
    let mut batch = Batch::new();
    for lead in leads.iter().filter(|l| goes(&l.to) && !own(&l.chain)) {
        let (chain, handle) = (lead.chain.clone(), lead.handle);
        batch.push(table, Op::DeleteRule { chain, handle });
    }
    let gone = || chains.keys().filter(|chain| goes(chain)).cloned();
    for chain in gone() {
        batch.push(table, Op::FlushChain { chain });
    }
    for chain in gone() {
        batch.push(table, Op::DeleteChain { chain });
    }
    batch
}

#[cfg(test)]
mod tests {
    use portolan_nft::Family;

    use super::*;

    fn lead(chain: &str, handle: u64, to: &str) -> Lead {
        Lead {
            chain: chain.into(),
            handle,
            to: to.into(),
        }
    }

    /// What is done, in short words.
    fn done(table: &str, chains: &[(&str, bool)], leads: &[Lead]) -> Vec<String> {
        let table = TableId::new(Family::Ip, table);
        let chains = chains
            .iter()
            .map(|(name, hooked)| (Name::from(*name), *hooked));
        let batch = removal(&table, &chains.collect(), leads);
        let say = |op: &Op| {
            if let Op::DeleteRule { chain, handle } = op {
                format!("-D {chain} {handle}")
            } else if let Op::FlushChain { chain } = op {
                format!("-F {chain}")
            } else if let Op::DeleteChain { chain } = op {
                format!("-X {chain}")
            } else {
                panic!("{op:?}")
            }
        };
        batch.steps.iter().map(|step| say(&step.op)).collect()
    }

    #[test]
    fn what_is_kube_proxys_goes_and_what_is_kubelets_stays() {
        let chains = [
            ("PREROUTING", true),
            ("DOCKER", false),
            ("KUBE-SERVICES", false),
            ("KUBE-SVC-ABC", false),
            ("KUBE-KUBELET-CANARY", false),
            ("KUBE-MARK-DROP", false),
        ];
        let leads = [
            lead("PREROUTING", 1, "DOCKER"),
            lead("PREROUTING", 2, "KUBE-SERVICES"),
            lead("KUBE-SERVICES", 3, "KUBE-SVC-ABC"),
        ];
        let expected = [
            "-D PREROUTING 2",
            "-F KUBE-SERVICES",
            "-F KUBE-SVC-ABC",
            "-X KUBE-SERVICES",
            "-X KUBE-SVC-ABC",
        ];
        assert_eq!(done("nat", &chains, &leads), expected);
        let filter = [
            ("INPUT", true),
            ("KUBE-FIREWALL", false),
            ("KUBE-FORWARD", false),
            // A chain of this name would be somebody else's here.
            ("KUBE-SVC-ABC", false),
        ];
        let leads = [
            lead("INPUT", 4, "KUBE-FIREWALL"),
            lead("INPUT", 5, "KUBE-FORWARD"),
        ];
        let expected = ["-D INPUT 5", "-F KUBE-FORWARD", "-X KUBE-FORWARD"];
        assert_eq!(done("filter", &filter, &leads), expected);
        assert_eq!(
            done("raw", &[("KUBE-SERVICES", false)], &[]),
            [""; 0],
            "kube-proxy has no chains there"
        );
    }

    #[test]
    fn what_others_need_stays_with_what_it_needs() {
        let chains = [
            ("POSTROUTING", true),
            ("CNI-HOSTPORT-SETMARK", false),
            ("KUBE-MARK-MASQ", false),
            ("KUBE-POSTROUTING", false),
            ("KUBE-SEP-X", false),
        ];
        let leads = [
            lead("CNI-HOSTPORT-SETMARK", 1, "KUBE-MARK-MASQ"),
            lead("KUBE-SEP-X", 2, "KUBE-MARK-MASQ"),
            lead("POSTROUTING", 3, "KUBE-POSTROUTING"),
        ];
        let expected = ["-F KUBE-SEP-X", "-X KUBE-SEP-X"];
        assert_eq!(done("nat", &chains, &leads), expected);
    }
}
