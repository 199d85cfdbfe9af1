//! Taking over from a kube-proxy on the same node.
//!
//! Both sets of rules can be in the kernel at once: ours are asked first, and what
//! they have translated nobody translates again. So kube-proxy's go after ours are
//! in place, each table in one transaction, and no packet meets neither.
//!
//! This is the one place where we touch tables that are not ours, and only when we
//! are told to; otherwise what is found is told. What kube-proxy made through
//! iptables' older kernel side, or in IPVS, is left to commands that are printed.

mod chains;
mod legacy;

use std::collections::BTreeSet;
use std::time::Duration;

use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::{Nft, OpenError};
use portolan_nft::{Batch, Family, Name, Op, TableId};
use tokio::time::Instant;

use super::plane::PlaneError;

/// The table of kube-proxy's mode `nftables`.
const TABLE: &str = "kube-proxy";
/// The tables in which iptables-nft keeps chains of kube-proxy.
const IPTABLES: [&str; 3] = ["nat", "filter", "mangle"];
/// The link of kube-proxy's mode `ipvs`.
const IPVS_LINK: &str = "kube-ipvs0:";
/// Where the kernel tells of links.
const LINKS: &str = "/proc/thread-self/net/dev";
/// How often it is looked for; a kube-proxy that runs makes its rules again.
const AGAIN: Duration = Duration::from_secs(30);
/// Where the kernel tells which tables of the older kind are in use.
const LEGACY: [(&str, &str); 2] = [
    ("iptables", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
];

/// Watches for kube-proxy's rules in a namespace.
pub(crate) struct KubeProxy {
    netns: NetNs,
    nft: Nft,
    node: String,
    /// Whether its rules are removed.
    replace: bool,
    looked: Option<Instant>,
    /// What was told last.
    told: BTreeSet<String>,
    /// Its rules were removed before.
    removed: bool,
}

/// What takes a part of kube-proxy away, and what that is.
struct Part {
    what: String,
    removal: Batch,
}

impl KubeProxy {
    /// Nothing is looked for yet.
    pub(crate) fn open(netns: &NetNs, node: &str, replace: bool) -> Result<Self, OpenError> {
        Ok(Self {
            netns: netns.clone(),
            nft: Nft::open(netns)?,
            node: node.to_owned(),
            replace,
            looked: None,
            told: BTreeSet::new(),
            removed: false,
        })
    }

    /// Looks for kube-proxy's rules now and then; called when ours are in place.
    pub(crate) fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        let first = self.looked.replace(Instant::now()).is_none();
        if first && self.replace {
            self.tell_commands();
        }
        if let Err(error) = self.take_over() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(node = %self.node, error, "kube-proxy's rules are not seen or not removed");
            // Somebody changed them meanwhile, perhaps: soon once more.
            self.looked = None;
        }
    }

    fn take_over(&mut self) -> Result<(), PlaneError> {
        let found = find(&mut self.nft)?;
        let what: BTreeSet<String> = found.iter().map(|part| part.what.clone()).collect();
        if what.is_empty() {
            self.told = what;
            return Ok(());
        }
        let list = what.iter().cloned().collect::<Vec<_>>().join(", ");
        if !self.replace {
            if self.told != what {
                tracing::warn!(node = %self.node, found = %list, "kube-proxy's rules are here beside ours, which come first: stop kube-proxy, and start with --replace-kube-proxy to remove them");
            }
            self.told = what;
            return Ok(());
        }
        for part in &found {
            self.nft.commit(&part.removal).map_err(PlaneError::Commit)?;
        }
        if self.removed {
            tracing::warn!(node = %self.node, removed = %list, "kube-proxy has made its rules again: stop it, for example by kubectl -n kube-system delete daemonset kube-proxy");
        } else {
            tracing::warn!(node = %self.node, removed = %list, "kube-proxy's rules were removed");
        }
        self.removed = true;
        Ok(())
    }

    /// What we cannot remove, and how to.
    fn tell_commands(&self) {
        let read = || LEGACY.map(|(program, path)| (program, std::fs::read_to_string(path)));
        let names = self.netns.run(read);
        let names = names.into_iter().flatten();
        for command in names.filter_map(|(program, names)| legacy::command(program, &names.ok()?)) {
            tracing::warn!(node = %self.node, "iptables-legacy is in use here; if kube-proxy used it, remove its rules by: {command}");
        }
        let links = self.netns.run(|| std::fs::read_to_string(LINKS));
        if links.is_ok_and(|links| links.is_ok_and(|links| links.contains(IPVS_LINK))) {
            tracing::warn!(node = %self.node, "kube-proxy's IPVS services are left alone; remove them by: kube-proxy --cleanup");
        }
    }
}

/// Everything of kube-proxy in nftables, each table by itself.
fn find(nft: &mut Nft) -> Result<Vec<Part>, PlaneError> {
    let mut parts = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        let foreign = nft.foreign(family).map_err(PlaneError::Read)?;
        let whole = TableId::new(family, TABLE);
        if foreign.chains.contains_key(&whole) {
            let mut removal = Batch::new();
            removal.push(&whole, Op::DeleteTable);
            let what = format!("table {whole}");
            parts.push(Part { what, removal });
        }
        for table in IPTABLES.map(|name| TableId::new(family, name)) {
            let chains = foreign.chains.get(&table);
            let Some(chains) = chains.filter(|chains| chains::is_here(&table, chains)) else {
                continue;
            };
            let leads = nft.leads(&table).map_err(PlaneError::Read)?;
            let removal = chains::removal(&table, chains, &leads);
            if !removal.is_empty() {
                let what = format!("{} in table {table}", summary(&removal));
                parts.push(Part { what, removal });
            }
        }
    }
    Ok(parts)
}

/// How many chains a removal is about, with the name of the first.
fn summary(removal: &Batch) -> String {
    let chains: Vec<&Name> = removal
        .steps
        .iter()
        .filter_map(|step| {
            if let Op::DeleteChain { chain } = &step.op {
                Some(chain)
            } else {
                None
            }
        })
        .collect();
    match chains.as_slice() {
        [] => "rules".to_owned(),
        [one] => format!("chain {one}"),
        [first, rest @ ..] => format!("chain {first} and {} more", rest.len()),
    }
}
