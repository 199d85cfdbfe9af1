//! What is told of the objects that announcing reads: how much they cover, and what in
//! them cannot be honoured.
//!
//! Announcements of our own have a status for it. About all others an event is told,
//! which names the field.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use portolan_api::value::{at, int_at, list_at, str_at};
use portolan_model::workloads::{Community, CommunityNames, Meta, ObjectKey, Peer, Pool, Scope};
use serde_json::{Value, json};

use super::{Facts, Ground};

/// The condition that says whether all of an announcement can be honoured.
const READY: &str = "Ready";

/// The kinds of objects that something is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// portolan.dev/v1alpha1 L2Announcement
    L2Announcement,
    /// metallb.io/v1beta1 L2Advertisement
    L2Advertisement,
    /// portolan.dev/v1alpha1 BGPAnnouncement
    BgpAnnouncement,
    /// metallb.io/v1beta1 BGPAdvertisement
    BgpAdvertisement,
    /// portolan.dev/v1alpha1 BGPPeer
    BgpPeer,
    /// metallb.io/v1beta2 BGPPeer
    MetalBgpPeer,
    /// metallb.io/v1beta1 Community
    Community,
    /// metallb.io/v1beta1 BFDProfile
    BfdProfile,
}

impl Subject {
    /// The field of `status` that says how much an announcement of our own covers; none
    /// where there is no such status.
    fn counted(self) -> Option<&'static str> {
        match self {
            Self::L2Announcement => Some("announced"),
            Self::BgpAnnouncement => Some("prefixes"),
            Self::L2Advertisement
            | Self::BgpAdvertisement
            | Self::BgpPeer
            | Self::MetalBgpPeer
            | Self::Community
            | Self::BfdProfile => None,
        }
    }
}

/// Something in an object that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In one word, as conditions and events have it.
    pub reason: &'static str,
    /// The field, and what is the matter with it.
    pub message: String,
}

/// An object, by its kind and key.
pub type About = (Subject, ObjectKey);
/// What is to be told of all objects.
pub type Reports = BTreeMap<About, Report>;

/// What is to be told of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its kind.
    pub subject: Subject,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// How many addresses or prefixes are announced because of it.
    pub covers: usize,
    /// What cannot be honoured.
    pub faults: Vec<Fault>,
    /// `status` as it was last read.
    pub known: Value,
}

impl Report {
    /// Whether it is told by a status, and not by events.
    pub fn has_status(&self) -> bool {
        self.subject.counted().is_some()
    }

    /// Reason and message, if something cannot be honoured.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let first = self.faults.first()?;
        let all: Vec<&str> = self.faults.iter().map(|one| one.message.as_str()).collect();
        Some((first.reason, all.join("; ")))
    }

    /// What of the status is to be written; none where it has none, or is so already.
    pub fn status(&self, now: Timestamp) -> Option<Value> {
        let counted = self.subject.counted()?;
        let (status, reason, message) = match self.fault() {
            None => ("True", "Valid", String::new()),
            Some((reason, message)) => ("False", reason, message),
        };
        let covers = i64::try_from(self.covers).unwrap_or(i64::MAX);
        let mut conditions = list_at(&self.known, "conditions").iter();
        let known = conditions.find(|one| str_at(one, "type") == READY);
        let is = |field, wanted: &str| known.is_some_and(|known| str_at(known, field) == wanted);
        let same = int_at(&self.known, counted) == Some(covers)
            && is("status", status)
            && is("reason", reason)
            && is("message", &message)
            && known.and_then(|known| int_at(known, "observedGeneration")) == Some(self.generation);
        if same {
            return None;
        }
        let since = match known.filter(|known| str_at(known, "status") == status) {
            Some(known) => at(known, "lastTransitionTime").clone(),
            None => now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
        };
        Some(json!({
            counted: covers,
            "conditions": [{
                "type": READY, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since, "observedGeneration": self.generation,
            }],
        }))
    }
}

/// What is to be told of all objects, but for how much each covers. `ground` is of the
/// same facts.
pub fn reports(facts: &Facts<'_>, ground: &Ground) -> Reports {
    use Subject::{BgpAdvertisement, BgpAnnouncement, L2Advertisement, L2Announcement};
    let look = Look { facts, ground };
    let mut all = Reports::new();
    for one in &facts.l2 {
        let subject = of([L2Announcement, L2Advertisement], &one.meta);
        let mut faults = look.scope(&one.scope, &one.meta);
        faults.extend(look.interfaces(&one.scope, &one.interfaces));
        add(&mut all, subject, (&one.meta, &one.status), faults);
    }
    for one in &facts.bgp {
        let subject = of([BgpAnnouncement, BgpAdvertisement], &one.meta);
        let mut faults = look.scope(&one.scope, &one.meta);
        faults.extend(look.peers(&one.meta, &one.peers));
        let unknown = ground.faults(&one.meta.key).iter();
        faults.extend(unknown.map(|text| fault("CommunityUnknown", "communities", text)));
        add(&mut all, subject, (&one.meta, &one.status), faults);
    }
    for one in &facts.peers {
        let subject = of([Subject::BgpPeer, Subject::MetalBgpPeer], &one.meta);
        add(&mut all, subject, (&one.meta, &Value::Null), look.peer(one));
    }
    for one in &facts.communities {
        let about = (&one.meta, &Value::Null);
        add(&mut all, Subject::Community, about, unreadable(one));
    }
    for one in &facts.profiles {
        let notes = one.notes.iter().map(|note| noted("NotHonoured", note));
        let about = (&one.meta, &Value::Null);
        add(&mut all, Subject::BfdProfile, about, notes.collect());
    }
    all
}

/// Notes what is to be told of an object, if anything is.
fn add(all: &mut Reports, subject: Subject, (meta, known): (&Meta, &Value), faults: Vec<Fault>) {
    let report = Report {
        subject,
        uid: meta.uid.clone(),
        generation: meta.generation,
        covers: 0,
        faults,
        known: known.clone(),
    };
    if report.has_status() || !report.faults.is_empty() {
        all.insert((subject, meta.key.clone()), report);
    }
}

/// Which of two kinds: ours are of the cluster, MetalLB's live in a namespace.
fn of([own, metal]: [Subject; 2], meta: &Meta) -> Subject {
    if is_own(meta) { own } else { metal }
}

fn is_own(meta: &Meta) -> bool {
    meta.key.namespace.is_empty()
}

/// Communities that a Community object names, and that are none.
fn unreadable(names: &CommunityNames) -> Vec<Fault> {
    let wrong = names.names.iter().filter_map(|(name, value)| match value {
        Community::Named(text) => {
            let text = format!("{name:?} stands for {text:?}, which is no community");
            Some(fault("NotHonoured", "communities", &text))
        }
        Community::Standard(_) | Community::Large(_) => None,
    });
    wrong.collect()
}

fn fault(reason: &'static str, field: &str, text: &str) -> Fault {
    Fault {
        reason,
        message: format!("spec.{field}: {text}"),
    }
}

/// What was found at intake, where the text begins with the field.
fn noted(reason: &'static str, text: &str) -> Fault {
    Fault {
        reason,
        message: format!("spec.{text}"),
    }
}

struct Look<'a> {
    facts: &'a Facts<'a>,
    ground: &'a Ground,
}

impl Look<'_> {
    /// Pools and nodes that are not there.
    fn scope(&self, scope: &Scope, meta: &Meta) -> Vec<Fault> {
        let [names, selector, nodes] = match is_own(meta) {
            true => ["pools", "poolSelector", "nodeSelector"],
            false => ["ipAddressPools", "ipAddressPoolSelectors", "nodeSelectors"],
        };
        let beside = |pool: &&&Pool| scope.is_beside(pool);
        let mut found = Vec::new();
        for name in scope.pools() {
            let mut pools = self.facts.pools.iter().filter(beside);
            if !pools.any(|pool| pool.name() == name) {
                found.push(fault(
                    "PoolNotFound",
                    names,
                    &format!("there is no pool {name:?}"),
                ));
            }
        }
        let mut pools = self.facts.pools.iter().filter(beside);
        if scope.selects_pools() && !pools.any(|pool| scope.selects_pool(pool)) {
            found.push(fault("NoPoolSelected", selector, "no pool has such labels"));
        }
        let mut all = self.facts.nodes.iter();
        if !all.any(|node| scope.takes_node(&node.meta.labels)) && !self.facts.nodes.is_empty() {
            found.push(fault("NoNodeSelected", nodes, "no node has such labels"));
        }
        found
    }

    /// Interfaces that no node has of those that it is for and that announce.
    fn interfaces(&self, scope: &Scope, wanted: &BTreeSet<String>) -> Vec<Fault> {
        let nodes = self.facts.nodes.iter();
        let nodes = nodes.filter(|node| scope.takes_node(&node.meta.labels));
        let links = nodes.filter_map(|node| {
            let mut standing = self.ground.standing();
            let found = standing.find(|(name, _)| *name == node.meta.key.name);
            found.and_then(|(_, standing)| standing.links.as_deref())
        });
        let links: Vec<_> = links.collect();
        if links.is_empty() {
            return Vec::new();
        }
        let has = |name: &&String| {
            links
                .iter()
                .copied()
                .flatten()
                .any(|link| link.name == **name)
        };
        let missing = wanted.iter().filter(|name| !has(name));
        let faults = missing.map(|name| {
            let text = format!(
                "none of its nodes has {name:?} up, with a hardware address, and in no bridge or bond"
            );
            fault("InterfaceNotFound", "interfaces", &text)
        });
        faults.collect()
    }

    /// Peers that are not there.
    fn peers(&self, of: &Meta, wanted: &BTreeSet<String>) -> Vec<Fault> {
        let peers = self.facts.peers.iter().map(|peer| &peer.meta.key);
        let beside = peers.filter(|key| is_own(of) || key.namespace == of.key.namespace);
        let names: BTreeSet<&str> = beside.map(|key| key.name.as_str()).collect();
        if names.is_empty() && wanted.is_empty() {
            return vec![fault("PeerNotFound", "peers", "there is no BGPPeer at all")];
        }
        let missing = wanted.iter().filter(|name| !names.contains(name.as_str()));
        let faults = missing.map(|name| {
            let text = format!("there is no BGPPeer {name:?}");
            fault("PeerNotFound", "peers", &text)
        });
        faults.collect()
    }

    fn peer(&self, peer: &Peer) -> Vec<Fault> {
        let faults = peer.faults.iter().map(|text| noted("InvalidPeer", text));
        let notes = peer.notes.iter().map(|text| noted("NotHonoured", text));
        let mut found: Vec<Fault> = faults.chain(notes).collect();
        let mut profiles = self.facts.profiles.iter().map(|one| &one.meta.key);
        if let Some(name) = &peer.bfd_profile {
            let key = ObjectKey::new(&peer.meta.key.namespace, name);
            if !profiles.any(|one| *one == key) {
                let text = format!("there is no BFDProfile {name:?}");
                found.push(fault("ProfileNotFound", "bfdProfile", &text));
            }
        }
        let mut nodes = self.facts.nodes.iter();
        if !nodes.any(|node| peer.takes_node(&node.meta.labels)) && !self.facts.nodes.is_empty() {
            let field = match peer.is_own() {
                true => "nodeSelector",
                false => "nodeSelectors",
            };
            found.push(fault("NoNodeSelected", field, "no node has such labels"));
        }
        found
    }
}
