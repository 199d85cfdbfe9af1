//! The names' plane: the zones that this node's DNS server answers from, and
//! the addresses at which it listens.
//!
//! Zones are published after the kernel has taken the same change: a name that
//! resolves also connects. While the kernel refuses, names that need it wait
//! ([`Withheld`]); the first zones of a start do so for a short time only, since
//! nothing is answered before them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use portolan_dns::{Name, Zone, Zones};
use portolan_kernel::link::{LinkError, Links};
use portolan_kernel::netns::{NetNs, NetNsError};
use portolan_model::{Cluster, Family, ServiceKey};
use portolan_plan::{DNS_PORT, NodePlan, NodeView, Touched, of_family};
use portolan_render::zone;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::NodeConfig;
use super::withheld::{Due, Withheld};
use crate::dns::{
    BindError, ClientPods, Clients, Completion, DnsConfig, DnsGuard, DnsServer, DnsSockets,
    DnsStats, HandOver, Keeper, Kept, SharedFront, Upstream,
};

/// The link that carries the DNS addresses: they are the node's own, on no wire.
pub(crate) const LOOPBACK: &str = "lo";

/// The most changes whose way into answers is timed at once.
const MOST_TRIGGERS: usize = 4096;

/// How long the first names wait for a kernel that refuses: shorter than the queries
/// that wait for the names.
const FIRST: Duration = Duration::from_secs(3);

/// Why names are not answered.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The node's links cannot be changed.
    #[error("put a DNS address on the node's loopback link")]
    Link(#[source] LinkError),
    /// The node's namespace cannot be entered.
    #[error("enter the node's namespace")]
    NetNs(#[source] NetNsError),
    /// The sockets cannot be bound.
    #[error("bind the DNS sockets")]
    Bind(#[source] BindError),
    /// The server cannot start.
    #[error("start the DNS server")]
    Start(#[source] io::Error),
}

/// The zones and who serves them.
pub(crate) struct Names {
    netns: NetNs,
    links: Links,
    upstream: Option<Arc<dyn Upstream>>,
    front: SharedFront,
    zones: Option<Zones>,
    withheld: Withheld,
    /// When the first names would have been published, had the kernel taken their plan.
    waiting: Option<Instant>,
    published: Arc<ArcSwap<Zones>>,
    ready: watch::Sender<bool>,
    serving: Option<Serving>,
    /// Where clients are, and the rest of their search lists, if these are completed.
    completed: Option<(Arc<ClientPods>, Vec<Name>)>,
    /// Clients follow the plan already.
    followed: bool,
    guard: DnsGuard,
    /// Networks that are answered beside the node and its pods.
    allowed: Vec<IpNet>,
    stats: Arc<DnsStats>,
    keeper: Option<Keeper>,
    hand_over: HandOver,
    /// What is served before the cluster has been listed.
    early: Option<Early>,
    /// When changes were asked for that no answer tells yet.
    triggers: Vec<SystemTime>,
}

/// What an earlier agent has left of the names.
struct Early {
    view: NodeView,
    kept: Option<Kept>,
}

/// A running server and where it listens.
struct Serving {
    addresses: Vec<IpAddr>,
    stop: CancellationToken,
    server: DnsServer,
}

/// Where the cluster's names are answered: the addresses of kube-system/kube-dns.
pub(crate) fn service_addresses(cluster: &Cluster) -> Vec<IpAddr> {
    let key = ServiceKey::new("kube-system", "kube-dns");
    cluster
        .service(&key)
        .map(|service| service.cluster_ips.clone())
        .unwrap_or_default()
}

impl Names {
    /// Opens the node's links; nothing is answered yet.
    pub(crate) fn open(config: &NodeConfig, stats: Arc<DnsStats>) -> Result<Self, NamesError> {
        let (mut keeper, mut kept) = (None, None);
        let answers = config.cluster_dns || !config.given.dns_addresses.is_empty();
        if let Some(keep) = config.dns_keep.as_ref().filter(|_| answers) {
            let (opened, found) = Keeper::open(keep, &config.given, &stats);
            (keeper, kept) = (Some(opened), found);
        }
        let view = config.given.clone();
        Ok(Self {
            keeper,
            hand_over: config.dns_hand_over.clone(),
            early: answers.then_some(Early { view, kept }),
            netns: config.netns.clone(),
            links: Links::open(&config.netns).map_err(NamesError::Link)?,
            upstream: config.upstream.clone(),
            front: Arc::clone(&config.front),
            zones: None,
            withheld: Withheld::default(),
            waiting: None,
            published: Arc::new(ArcSwap::from_pointee(frame(&config.given))),
            ready: watch::Sender::new(false),
            serving: None,
            completed: config
                .completed_search
                .clone()
                .map(|search| (Arc::default(), search)),
            followed: false,
            guard: config.dns_guard.clone(),
            allowed: config.dns_allowed.clone(),
            stats,
            triggers: Vec::new(),
        })
    }

    /// Answers before the cluster has been listed, where an earlier agent answered: from
    /// the names it kept, or by letting queries wait.
    pub(crate) async fn resume(&mut self) -> Result<(), NamesError> {
        let Some(Early { mut view, kept }) = self.early.take() else {
            return Ok(());
        };
        if view.dns_addresses.is_empty() {
            view.dns_addresses = match &kept {
                Some(kept) => kept.addresses.clone(),
                None => self.answered_before().await?,
            };
        }
        let clients = match kept {
            Some(kept) => {
                self.published.store(Arc::new(kept.zones));
                self.ready.send_replace(true);
                kept.clients
            }
            None => answered(&view, &self.allowed),
        };
        self.guard.clients.store(Arc::new(clients));
        self.serve(&view).await
    }

    /// The addresses that an earlier agent has put on the node for answering.
    async fn answered_before(&self) -> Result<Vec<IpAddr>, NamesError> {
        let Some(loopback) = self.links.find(LOOPBACK).await.map_err(NamesError::Link)? else {
            return Ok(Vec::new());
        };
        let marked = self.links.answering_addresses(loopback.index).await;
        let marked = marked.map_err(NamesError::Link)?;
        Ok(marked.into_iter().map(|net| net.addr()).collect())
    }

    /// Keeps the last names, and ends.
    pub(crate) async fn stop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
        if let Some(old) = self.serving.take() {
            old.server.leave(&self.hand_over).await;
        }
    }

    /// Somebody asked at this time for a change of endpoints that have names; the next
    /// publication tells it. A backlog keeps the oldest.
    pub(crate) fn triggered(&mut self, at: SystemTime) {
        if self.triggers.len() < MOST_TRIGGERS {
            self.triggers.push(at);
        }
    }

    /// Whether names wait for the kernel.
    pub(crate) fn are_withheld(&self) -> bool {
        !self.withheld.is_empty() || (self.zones.is_none() && self.waiting.is_some())
    }

    /// Publishes what a round of planning touched, as far as the kernel holds the plan or
    /// need not, and serves it at the plan's addresses.
    pub(crate) async fn publish(
        &mut self,
        plan: &NodePlan,
        touched: &Touched,
        holds: bool,
    ) -> Result<(), NamesError> {
        if let Some((clients, _)) = &self.completed {
            clients.follow(plan, self.followed.then_some(touched));
            self.followed = true;
        }
        let due = if self.zones.is_some() {
            self.withheld.sift(plan, touched, holds)
        } else if holds || self.has_waited() {
            Due::All
        } else {
            Due::Nothing
        };
        match &due {
            Due::Round(touched) => self.change(plan, touched),
            Due::These(touched) => self.change(plan, touched),
            Due::All => {
                let serials = self.zones.iter().flat_map(Zones::iter).map(Zone::serial);
                let last = serials.max();
                let serial = last.map_or_else(first_serial, |last| last.wrapping_add(1));
                self.zones = Some(zone::image(plan, serial));
                self.stats.kept_names(None);
                self.told(plan);
            }
            Due::Nothing => {}
        }
        let clients = answered(&plan.view, &self.allowed);
        if **self.guard.clients.load() != clients {
            self.guard.clients.store(Arc::new(clients));
        }
        self.serve(&plan.view).await
    }

    /// Publishes what was touched.
    fn change(&mut self, plan: &NodePlan, touched: &Touched) {
        let changed = !touched.names.is_empty()
            || !touched.namespaces.is_empty()
            || !touched.pods.is_empty()
            || touched.view.is_some();
        if let Some(zones) = self.zones.as_mut().filter(|_| changed) {
            zone::delta(plan, touched, zones);
        }
        self.told(plan);
    }

    /// Whether the first names have waited long enough for the kernel.
    fn has_waited(&mut self) -> bool {
        self.waiting.get_or_insert_with(Instant::now).elapsed() >= FIRST
    }

    /// The zones are what is answered from now on.
    fn told(&mut self, plan: &NodePlan) {
        let Some(zones) = &self.zones else { return };
        self.published.store(Arc::new(zones.clone()));
        self.ready.send_replace(true);
        let now = SystemTime::now();
        for at in self.triggers.drain(..) {
            if let Ok(took) = now.duration_since(at) {
                self.stats.programmed(took);
            }
        }
        if let Some(keeper) = &self.keeper {
            keeper.keep(Kept {
                zones: zones.clone(),
                addresses: plan.view.dns_addresses.clone(),
                clients: answered(&plan.view, &self.allowed),
            });
        }
    }

    /// Moves the server to the view's addresses.
    async fn serve(&mut self, view: &NodeView) -> Result<(), NamesError> {
        let addresses = &*view.dns_addresses;
        if self
            .serving
            .as_ref()
            .is_some_and(|s| s.addresses == addresses)
            || addresses.is_empty()
        {
            return Ok(());
        }
        let loopback = self.links.index(LOOPBACK).await.map_err(NamesError::Link)?;
        for address in addresses {
            self.links
                .add_answering_address(loopback, IpNet::from(*address))
                .await
                .map_err(NamesError::Link)?;
        }
        let at: Vec<SocketAddr> = addresses
            .iter()
            .map(|a| SocketAddr::new(*a, DNS_PORT))
            .collect();
        if let Some(old) = self.serving.take() {
            old.stop.cancel();
            old.server.stopped().await;
            for address in old.addresses.iter().filter(|a| !addresses.contains(a)) {
                self.links
                    .del_address(loopback, IpNet::from(*address))
                    .await
                    .map_err(NamesError::Link)?;
            }
        }
        let sockets = self
            .netns
            .run(|| DnsSockets::bind(&at))
            .map_err(NamesError::NetNs)?
            .map_err(NamesError::Bind)?;
        let stop = CancellationToken::new();
        let config = DnsConfig {
            sockets,
            zones: Arc::clone(&self.published),
            ready: self.ready.subscribe(),
            upstream: self.upstream.clone(),
            front: Arc::clone(&self.front),
            completion: self.completed.as_ref().and_then(|(clients, search)| {
                Completion::new(Arc::clone(clients), &view.cluster_domain, search)
            }),
            guard: self.guard.clone(),
            stats: Arc::clone(&self.stats),
        };
        let server = DnsServer::start(config, &stop).map_err(NamesError::Start)?;
        self.serving = Some(Serving {
            addresses: addresses.to_vec(),
            stop,
            server,
        });
        Ok(())
    }
}

/// Who is answered, if the node knows its pods by their addresses.
fn answered(view: &NodeView, allowed: &[IpNet]) -> Clients {
    if view.pod_ranges().is_empty() {
        return Clients::Everybody;
    }
    let loopback = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let own = view.node_addresses.iter().chain(&view.dns_addresses);
    let own = own.copied().chain(loopback).map(IpNet::from);
    // Of a family without ranges pods cannot be told from others.
    let unknown = |range: &IpNet| {
        let family = Family::of(range.addr());
        of_family(view.pod_ranges(), family).next().is_none()
    };
    let whole = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    let whole = whole.into_iter().filter_map(|any| IpNet::new(any, 0).ok());
    let ranges = view.pod_ranges().iter().chain(allowed).copied();
    let ranges = ranges.chain(whole.filter(unknown));
    Clients::Within(ranges.chain(own).collect())
}

/// The zones before anything is known of the cluster: what lies in none of them need
/// not wait for it.
pub(crate) fn frame(view: &NodeView) -> Zones {
    zone::image(&NodePlan::empty(view.clone()), first_serial())
}

/// SOA serials grow over restarts too: seconds since 1970, as far as they fit (RFC 1982).
pub(crate) fn first_serial() -> u32 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    u32::try_from(seconds % (u64::from(u32::MAX) + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(pods: &[&str]) -> NodeView {
        NodeView {
            cluster_pod_cidrs: pods.iter().map(|range| range.parse().unwrap()).collect(),
            node_addresses: ["172.18.0.2", "fd00:18::2"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            dns_addresses: vec!["10.96.0.10".parse().unwrap()],
            ..NodeView::default()
        }
    }

    fn answers(view: &NodeView, client: &str) -> bool {
        let allowed: [IpNet; 2] = ["203.0.113.0/24", "2001:db8:5::/48"].map(|r| r.parse().unwrap());
        answered(view, &allowed).allow(client.parse().unwrap())
    }

    #[test]
    fn d19_the_node_its_pods_and_allowed_networks_are_answered_and_nobody_else() {
        let view = view(&["10.244.0.0/16", "fd00:10:244::/56"]);
        for client in [
            "10.244.3.4",
            "fd00:10:244::7",
            "172.18.0.2",
            "fd00:18::2",
            "10.96.0.10",
            "127.0.0.1",
            "::1",
            "203.0.113.9",
            "2001:db8:5::9",
        ] {
            assert!(answers(&view, client), "{client}");
        }
        for stranger in [
            "172.18.0.3",
            "10.245.0.1",
            "198.51.100.1",
            "2001:db8:6::1",
            "fd00:18::3",
            "::",
        ] {
            assert!(!answers(&view, stranger), "{stranger}");
        }
    }

    #[test]
    fn of_a_family_whose_pods_cannot_be_told_everybody_is_answered() {
        let four = view(&["10.244.0.0/16"]);
        assert!(answers(&four, "10.244.3.4") && !answers(&four, "10.245.0.1"));
        assert!(answers(&four, "2001:db8:6::1"));
        let six = view(&["fd00:10:244::/56"]);
        assert!(answers(&six, "fd00:10:244::7") && !answers(&six, "2001:db8:6::1"));
        assert!(answers(&six, "198.51.100.1"));
        let none = view(&[]);
        assert_eq!(answered(&none, &[]), Clients::Everybody);
    }
}
