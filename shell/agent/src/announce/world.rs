//! What the loop knows, and which addresses a piece of news touches.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_client as at;
use portolan_client::{Client, Regarding, Resource};
use portolan_model::workloads::{
    BalancerNode, BfdProfile, BgpAnnouncement, CommunityNames, L2Announcement, Object, ObjectKey,
    Peer, Pool, SPEAKER, Speaker,
};
use portolan_plan::announce::{Announcing, Facts, Ground, Reports, Touched, reports};
use portolan_plan::workloads::Store;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bgp::{Own, says_gone};
use super::fresh::Fresh;
use super::heart::Members;
use super::kept::{Services, Slice, Slices, Told};
use crate::cluster::absorb::absorb;
use crate::cluster::feed::{Feed, News};

/// All kinds but Leases.
pub(super) const WATCHED: [&Resource; 13] = [
    &at::SERVICES,
    &at::ENDPOINT_SLICES,
    &at::NODES,
    &at::ADDRESS_POOLS,
    &at::IP_ADDRESS_POOLS,
    &at::L2_ANNOUNCEMENTS,
    &at::L2_ADVERTISEMENTS,
    &at::BGP_ANNOUNCEMENTS,
    &at::BGP_ADVERTISEMENTS,
    &at::BGP_PEERS,
    &at::METALLB_BGP_PEERS,
    &at::COMMUNITIES,
    &at::BFD_PROFILES,
];

/// What the loop is told. Ours and MetalLB's kinds come apart.
pub(super) enum Message {
    Service(News<Told>),
    Slice(News<Slice>),
    Node(News<BalancerNode>),
    Speaker(News<Speaker>),
    Pool(News<Pool>),
    MetalPool(News<Pool>),
    L2(News<L2Announcement>),
    MetalL2(News<L2Announcement>),
    Bgp(News<BgpAnnouncement>),
    MetalBgp(News<BgpAnnouncement>),
    Peer(News<Peer>),
    MetalPeer(News<Peer>),
    Community(News<CommunityNames>),
    Profile(News<BfdProfile>),
}

/// Starts all watches. They end when the loop does.
pub(super) fn start(client: &Client, namespace: &str, inbox: &mpsc::Sender<Message>) {
    let feed = |resource: &Resource| Feed::of(client, resource, inbox);
    feed(&at::SERVICES).start(Message::Service);
    feed(&at::ENDPOINT_SLICES).start(Message::Slice);
    feed(&at::NODES).start(Message::Node);
    let mut leases = feed(&at::LEASES);
    leases.params.namespace = Some(namespace.to_owned());
    leases.params.labels = Some(SPEAKER.to_owned());
    leases.start(Message::Speaker);
    let custom = |resource: &Resource| {
        let mut feed = feed(resource);
        feed.params.optional = true;
        feed
    };
    custom(&at::ADDRESS_POOLS).start(Message::Pool);
    custom(&at::IP_ADDRESS_POOLS).start(Message::MetalPool);
    custom(&at::L2_ANNOUNCEMENTS).start(Message::L2);
    custom(&at::L2_ADVERTISEMENTS).start(Message::MetalL2);
    custom(&at::BGP_ANNOUNCEMENTS).start(Message::Bgp);
    custom(&at::BGP_ADVERTISEMENTS).start(Message::MetalBgp);
    custom(&at::BGP_PEERS).start(Message::Peer);
    custom(&at::METALLB_BGP_PEERS).start(Message::MetalPeer);
    custom(&at::COMMUNITIES).start(Message::Community);
    custom(&at::BFD_PROFILES).start(Message::Profile);
}

/// All stores, and what follows from them.
pub(super) struct World {
    node: String,
    services: Services,
    slices: Slices,
    nodes: Store<BalancerNode>,
    speakers: Store<Speaker>,
    pools: [Store<Pool>; 2],
    l2: [Store<L2Announcement>; 2],
    bgp: [Store<BgpAnnouncement>; 2],
    peers: [Store<Peer>; 2],
    communities: Store<CommunityNames>,
    profiles: Store<BfdProfile>,
    /// The agents that count.
    fresh: Fresh,
    /// Whether something that all Services have in common may be otherwise.
    uneven: bool,
    /// Peers whose status says that the agent of this node is gone.
    stale: BTreeSet<ObjectKey>,
    /// Services to look at.
    dirty: BTreeSet<ObjectKey>,
    /// What is to be said on objects, but for how much they cover.
    reports: Reports,
    /// What this node announces.
    pub(super) announcing: Announcing,
}

impl World {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            services: Services::default(),
            slices: Slices::default(),
            nodes: Store::default(),
            speakers: Store::default(),
            pools: Default::default(),
            l2: Default::default(),
            bgp: Default::default(),
            peers: Default::default(),
            communities: Store::default(),
            profiles: Store::default(),
            fresh: Fresh::default(),
            uneven: true,
            stale: BTreeSet::new(),
            dirty: BTreeSet::new(),
            reports: Reports::new(),
            announcing: Announcing::new(node),
        }
    }

    /// Whether every kind has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.services.is_listed()
            && self.slices.is_listed()
            && self.nodes.is_listed()
            && self.speakers.is_listed()
            && self.pools.iter().all(Store::is_listed)
            && self.l2.iter().all(Store::is_listed)
            && self.bgp.iter().all(Store::is_listed)
            && self.peers.iter().all(Store::is_listed)
            && self.communities.is_listed()
            && self.profiles.is_listed()
    }

    /// Takes news in.
    pub(super) fn take(&mut self, message: Message, now: Instant) {
        let other = match message {
            Message::Service(news) => {
                self.dirty.extend(self.services.take(news));
                false
            }
            Message::Slice(news) => {
                // Only where the endpoints are decides about anything, and only for Local.
                let services = self.slices.take(news).into_iter();
                let services = services.filter(|key| self.services.is_local(key));
                self.dirty.extend(services);
                false
            }
            Message::Node(news) => moved(&mut self.nodes, news),
            Message::Speaker(news) => self.of_speakers(news, now),
            Message::Pool(news) => moved(&mut self.pools[0], news),
            Message::MetalPool(news) => moved(&mut self.pools[1], news),
            Message::L2(news) => moved(&mut self.l2[0], news),
            Message::MetalL2(news) => moved(&mut self.l2[1], news),
            Message::Bgp(news) => moved(&mut self.bgp[0], news),
            Message::MetalBgp(news) => moved(&mut self.bgp[1], news),
            Message::Peer(news) => {
                let other = moved(&mut self.peers[0], news);
                let gone = |peer: &&Arc<Peer>| says_gone(&peer.status, &self.node);
                let stale = self.peers[0].all().filter(gone);
                self.stale = stale.map(|peer| peer.meta.key.clone()).collect();
                other
            }
            Message::MetalPeer(news) => moved(&mut self.peers[1], news),
            Message::Community(news) => moved(&mut self.communities, news),
            Message::Profile(news) => moved(&mut self.profiles, news),
        };
        self.uneven |= other;
    }

    /// A Lease that changed is fresh; its own times are not trusted.
    fn of_speakers(&mut self, news: News<Speaker>, now: Instant) -> bool {
        let mut other = false;
        let mut own = None;
        for seen in absorb(&mut self.speakers, news) {
            let Some(key) = seen.key().cloned() else {
                continue;
            };
            let Some(speaker) = seen.now else {
                self.fresh.gone(&key);
                other = true;
                continue;
            };
            let duration = Duration::from_secs(speaker.seconds);
            other |= self.fresh.heard(key.clone(), duration, now);
            let before = seen.before.as_deref();
            other |= !before.is_some_and(|before| before.says_as(&speaker));
            if speaker.node == self.node {
                own = Some((key, duration));
            }
        }
        if let Some((key, duration)) = own {
            other |= !self.fresh.witness(&key, duration, now).is_empty();
        }
        other
    }

    /// The agents whose Leases are fresh.
    fn speakers(&self) -> impl Iterator<Item = &Arc<Speaker>> {
        let speakers = self.speakers.all();
        speakers.filter(|one| !one.node.is_empty() && self.fresh.counts(&one.meta.key))
    }

    /// Whether this node is among those that announce.
    pub(super) fn is_among_speakers(&self) -> bool {
        self.speakers().any(|one| one.node == self.node)
    }

    /// Looks at all that may be otherwise. Answers with what it touched.
    pub(super) fn settle(&mut self) -> Touched {
        if std::mem::take(&mut self.uneven) {
            let facts = self.facts();
            let ground = Ground::of(&facts);
            self.reports = reports(&facts, &ground);
            if self.announcing.set_ground(ground) {
                self.dirty.extend(self.services.keys().cloned());
            }
        }
        let mut touched = Touched::default();
        for key in std::mem::take(&mut self.dirty) {
            touched.extend(self.look(&key));
        }
        touched
    }

    fn look(&mut self, key: &ObjectKey) -> Touched {
        let Some(service) = self.services.get(key) else {
            return self.announcing.forget(key);
        };
        let ready_on = match service.local {
            true => self.slices.ready_on(key),
            false => BTreeSet::new(),
        };
        self.announcing.converge(&service, &ready_on)
    }

    fn facts(&self) -> Facts<'_> {
        fn both<T: Object>(stores: &[Store<T>; 2]) -> Vec<&T> {
            let all = stores.iter().flat_map(Store::all);
            all.map(AsRef::as_ref).collect()
        }
        Facts {
            nodes: self.nodes.all().map(AsRef::as_ref).collect(),
            speakers: self.speakers().map(AsRef::as_ref).collect(),
            pools: both(&self.pools),
            l2: both(&self.l2),
            bgp: both(&self.bgp),
            peers: both(&self.peers),
            communities: self.communities.all().map(AsRef::as_ref).collect(),
            profiles: self.profiles.all().map(AsRef::as_ref).collect(),
        }
    }

    /// What is to be said on the objects. The first by name of the agents that announce
    /// says it; the others have nothing to say.
    pub(super) fn reports(&self) -> Reports {
        let first = self.speakers().map(|one| one.node.as_str()).min();
        if first != Some(self.node.as_str()) {
            return Reports::new();
        }
        let mut reports = self.reports.clone();
        for (about, report) in &mut reports {
            report.covers = self.announcing.covers(about);
        }
        reports
    }

    /// Peers whose status says that the agent of this node is gone.
    pub(super) fn stale(&self) -> &BTreeSet<ObjectKey> {
        &self.stale
    }

    /// The other agents that count, and where they hear heartbeats.
    pub(super) fn members(&self) -> Members {
        let others = self.speakers().filter(|one| one.node != self.node);
        let others = others.filter_map(|one| Some((one.node.clone(), one.heartbeats_at?)));
        others.collect()
    }

    /// This node and its internal addresses, once it has any.
    pub(super) fn own(&self) -> Option<Own> {
        let node = self.nodes.get(&ObjectKey::new("", &self.node))?;
        let addresses = node.internal.clone();
        (!addresses.is_empty()).then(|| Own {
            node: self.node.clone(),
            addresses,
        })
    }

    /// The Services of an address, as events are about them.
    pub(super) fn services_of(&self, address: IpAddr) -> Vec<Regarding> {
        let keys = self.announcing.services(address);
        let services = keys.filter_map(|key| Some((key, self.services.uid(key)?)));
        let services = services.map(|(key, uid)| Regarding {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.to_owned(),
            field_path: String::new(),
        });
        services.collect()
    }
}

/// Takes news of a kind in. Whether something is otherwise.
fn moved<T: Object + PartialEq>(store: &mut Store<T>, news: News<T>) -> bool {
    let first = !store.is_listed();
    !absorb(store, news).is_empty() || first
}
