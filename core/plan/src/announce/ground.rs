//! What all Services have in common: nodes, links, pools, announcements and peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::Family;
use portolan_model::workloads::{
    BalancerNode, Bfd, BfdProfile, BgpAnnouncement, Community, CommunityNames, L2Announcement,
    Meta, ObjectKey, Peer, Pool, Speaker, SpeakerLink,
};

use serde_json::Value;

use super::{LEFT_OUT, Mute};
use crate::load_balancer::{Unfit, able};

/// The objects of a cluster that decide who announces what.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// All nodes.
    pub nodes: Vec<&'a BalancerNode>,
    /// The agents whose Leases are fresh.
    pub speakers: Vec<&'a Speaker>,
    /// All pools, of both kinds.
    pub pools: Vec<&'a Pool>,
    /// Announcements on links, of both kinds.
    pub l2: Vec<&'a L2Announcement>,
    /// Announcements to peers, of both kinds.
    pub bgp: Vec<&'a BgpAnnouncement>,
    /// Routers, of both kinds.
    pub peers: Vec<&'a Peer>,
    /// Names of communities.
    pub communities: Vec<&'a CommunityNames>,
    /// Times of BFD that peers of MetalLB name.
    pub profiles: Vec<&'a BfdProfile>,
}

/// A node, as far as it does not depend on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may stand in for any Service (L4).
    pub able: Result<(), Unfit>,
    /// Its links, where an agent of it announces; none where there is no such agent.
    pub links: Option<Vec<SpeakerLink>>,
}

impl Standing {
    /// Whether it may announce anything.
    pub(super) fn speaks(&self) -> Result<&[SpeakerLink], Mute> {
        self.able.map_err(Mute::Unfit)?;
        self.links.as_deref().ok_or(Mute::NoAgent)
    }
}

/// An announcement on links, with the nodes that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answerers {
    pub(super) of: L2Announcement,
    pub(super) nodes: BTreeSet<Arc<str>>,
}

/// An announcement to peers, with those of each node that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tellers {
    pub(super) of: BgpAnnouncement,
    /// Its communities, all that are understood.
    pub(super) communities: BTreeSet<Community>,
    pub(super) nodes: BTreeMap<Arc<str>, BTreeSet<ObjectKey>>,
}

/// What announcements come to for a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) pool: Pool,
    /// The announcements about it, as places in the lists of the ground.
    pub(super) l2: Vec<usize>,
    pub(super) bgp: Vec<usize>,
}

/// What all Services have in common, found out once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    pub(super) nodes: BTreeMap<Arc<str>, Standing>,
    pub(super) sources: Vec<Source>,
    pub(super) l2: Vec<Answerers>,
    pub(super) bgp: Vec<Tellers>,
    /// The peers of each node.
    peers: BTreeMap<ObjectKey, (Peer, BTreeSet<Arc<str>>)>,
    /// What in announcements cannot be honoured.
    faults: BTreeMap<ObjectKey, Vec<String>>,
}

impl Ground {
    /// Of these facts, whose order does not matter.
    pub fn of(facts: &Facts<'_>) -> Self {
        let names: BTreeMap<&str, Arc<str>> = facts
            .nodes
            .iter()
            .map(|node| {
                (
                    node.meta.key.name.as_str(),
                    node.meta.key.name.as_str().into(),
                )
            })
            .collect();
        let name = |node: &BalancerNode| names.get(node.meta.key.name.as_str()).map(Arc::clone);
        let mut ground = Self::default();
        for node in &facts.nodes {
            let speaks = |one: &&&Speaker| one.node == node.meta.key.name;
            let links = facts.speakers.iter().find(speaks);
            let standing = Standing {
                able: able(node, facts.nodes.len() == 1),
                links: links.map(|one| one.links.clone()),
            };
            ground.nodes.extend(name(node).map(|name| (name, standing)));
        }
        for peer in &facts.peers {
            let nodes = facts.nodes.iter();
            let takes = nodes.filter(|node| peer.takes_node(&node.meta.labels));
            let nodes = takes.filter_map(|node| name(node)).collect();
            let key = peer.meta.key.clone();
            let mut peer = (*peer).clone();
            (peer.meta, peer.status) = (bare(&peer.meta), Value::Null);
            peer.bfd = peer.bfd.or(profile(&peer, &facts.profiles));
            ground.peers.insert(key, (peer, nodes));
        }
        ground.announcements(facts, &name);
        ground.sources(facts);
        ground
    }

    fn announcements(
        &mut self,
        facts: &Facts<'_>,
        name: &impl Fn(&BalancerNode) -> Option<Arc<str>>,
    ) {
        let mut l2 = facts.l2.clone();
        l2.sort_by_key(|one| &one.meta.key);
        for of in l2 {
            let nodes = facts.nodes.iter();
            let takes = nodes.filter(|node| of.scope.takes_node(&node.meta.labels));
            self.l2.push(Answerers {
                nodes: takes.filter_map(|node| name(node)).collect(),
                of: L2Announcement {
                    meta: bare(&of.meta),
                    status: Value::Null,
                    ..of.clone()
                },
            });
        }
        let mut bgp = facts.bgp.clone();
        bgp.sort_by_key(|one| &one.meta.key);
        for of in bgp {
            let nodes = facts.nodes.iter();
            let takes = nodes.filter(|node| of.scope.takes_node(&node.meta.labels));
            let nodes = takes.filter_map(|node| name(node));
            let nodes = nodes.map(|node| (Arc::clone(&node), self.peers_for(of, &node)));
            let nodes = nodes.collect();
            let (communities, faults) = resolve(of, &facts.communities);
            if !faults.is_empty() {
                self.faults.insert(of.meta.key.clone(), faults);
            }
            self.bgp.push(Tellers {
                of: BgpAnnouncement {
                    meta: bare(&of.meta),
                    status: Value::Null,
                    ..of.clone()
                },
                communities,
                nodes,
            });
        }
    }

    /// The peers of a node that an announcement is for. MetalLB's is for the peers
    /// beside it, ours for peers of both kinds.
    fn peers_for(&self, of: &BgpAnnouncement, node: &Arc<str>) -> BTreeSet<ObjectKey> {
        let namespace = &of.meta.key.namespace;
        let peers = self.peers.iter().filter(|(key, (peer, nodes))| {
            let beside = namespace.is_empty() || key.namespace == *namespace;
            let named = of.peers.is_empty() || of.peers.contains(&key.name);
            beside && named && peer.faults.is_empty() && nodes.contains(node)
        });
        peers.map(|(key, _)| key.clone()).collect()
    }

    fn sources(&mut self, facts: &Facts<'_>) {
        let mut pools = facts.pools.clone();
        pools.sort_by_key(|pool| &pool.meta.key);
        for pool in pools {
            let l2 = self.l2.iter().enumerate();
            let l2 = l2.filter(|(_, one)| one.of.scope.takes_pool(pool));
            let bgp = self.bgp.iter().enumerate();
            let bgp = bgp.filter(|(_, one)| one.of.scope.takes_pool(pool));
            let mut pool = pool.clone();
            (pool.meta, pool.status) = (bare(&pool.meta), Value::Null);
            self.sources.push(Source {
                pool,
                l2: l2.map(|(at, _)| at).collect(),
                bgp: bgp.map(|(at, _)| at).collect(),
            });
        }
    }

    /// The pool that an address is of. Where pools overlap, it is the first one that
    /// announcements are about.
    pub(super) fn source(&self, address: IpAddr) -> Option<&Source> {
        let sources = self.sources.iter();
        let mut of = sources.filter(|source| source.pool.covers(address));
        let first = of.next()?;
        let is_said = |source: &&Source| !source.l2.is_empty() || !source.bgp.is_empty();
        if is_said(&first) {
            return Some(first);
        }
        of.find(is_said).or(Some(first))
    }

    /// Whether a peer is told of addresses of this one's family.
    pub(super) fn carries(&self, peer: &ObjectKey, address: IpAddr) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|(peer, _)| peer.carries(Family::of(address)))
    }

    /// The peers that a node speaks with.
    pub fn peers_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Peer> {
        let peers = self.peers.values();
        let of = peers.filter(move |(peer, nodes)| peer.faults.is_empty() && nodes.contains(node));
        of.map(|(peer, _)| peer)
    }

    /// All peers, and the nodes that should have a session with each: none with one that
    /// has faults.
    pub fn peers(&self) -> impl Iterator<Item = (&Peer, impl Iterator<Item = &str>)> {
        self.peers.values().map(|(peer, nodes)| {
            let nodes = nodes.iter().map(AsRef::as_ref);
            (peer, nodes.filter(|_| peer.faults.is_empty()))
        })
    }

    /// The nodes that should have a session with a peer.
    pub fn nodes_of(&self, peer: &ObjectKey) -> impl Iterator<Item = &str> {
        let peer = self.peers.get(peer).into_iter();
        let peer = peer.filter(|(peer, _)| peer.faults.is_empty());
        peer.flat_map(|(_, nodes)| nodes.iter().map(AsRef::as_ref))
    }

    /// What in an announcement cannot be honoured.
    pub fn faults(&self, announcement: &ObjectKey) -> &[String] {
        self.faults.get(announcement).map_or(&[], Vec::as_slice)
    }

    /// The nodes, by name, and how each stands.
    pub fn standing(&self) -> impl Iterator<Item = (&str, &Standing)> {
        let nodes = self.nodes.iter();
        nodes.map(|(name, standing)| (name.as_ref(), standing))
    }
}

/// The times that a peer of MetalLB names; they are beside it.
fn profile(peer: &Peer, profiles: &[&BfdProfile]) -> Option<Bfd> {
    let name = peer.bfd_profile.as_deref()?;
    let key = ObjectKey::new(&peer.meta.key.namespace, name);
    let found = profiles.iter().find(|one| one.meta.key == key);
    found.map(|one| one.bfd)
}

/// What counts of an object's metadata here: another version or status alone must not
/// have every Service looked at again.
fn bare(meta: &Meta) -> Meta {
    Meta {
        version: 0,
        generation: 0,
        annotations: BTreeMap::new(),
        ..meta.clone()
    }
}

/// The communities of an announcement, and the names that nobody explains.
fn resolve(of: &BgpAnnouncement, names: &[&CommunityNames]) -> (BTreeSet<Community>, Vec<String>) {
    let (mut known, mut faults) = (BTreeSet::new(), Vec::new());
    let beside = |one: &&&CommunityNames| one.meta.key.namespace == of.meta.key.namespace;
    for community in &of.communities {
        let Community::Named(name) = community else {
            known.insert(community.clone());
            continue;
        };
        let mut named = names.iter().filter(beside);
        match named.find_map(|one| one.names.get(name)) {
            Some(found @ (Community::Standard(_) | Community::Large(_))) => {
                known.insert(found.clone());
            }
            Some(Community::Named(_)) | None => {
                faults.push(format!(
                    "community {name:?} is none, and no Community names it"
                ));
            }
        }
    }
    (known, faults)
}

/// Whether a link is one where everybody may be asked for an address, unless it is
/// named.
pub(super) fn is_usual(link: &SpeakerLink) -> bool {
    !LEFT_OUT.iter().any(|start| link.name.starts_with(start))
}
