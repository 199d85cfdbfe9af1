//! The cluster whose names are asked for, and a server for them on the loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use portolan_agent::dns::{DnsConfig, DnsGuard, DnsServer, DnsSockets, Upstream};
use portolan_benches::cluster;
use portolan_dns::Zones;
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_model::{Change, Cluster, Fact, Family, Kind, Labels, Namespace, Pod, PodKey};
use portolan_plan::{NodeView, PodNames};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Services with an address of their own.
pub(crate) const SERVICES: usize = 10_000;

/// 10 000 Services with 5 endpoints each, and a name for each of the 50 000 pods.
pub(crate) fn facts() -> Result<Cluster> {
    let mut facts = cluster::facts(Family::V4, SERVICES)?;
    let namespace = Namespace {
        name: "default".into(),
        labels: Labels::default(),
    };
    facts.apply(Change::Upsert(Fact::Namespace(namespace)));
    let pods = (0..SERVICES).flat_map(|number| {
        (0..cluster::ENDPOINTS).map(move |slot| {
            let name = format!("svc-{number}-7d9f6c5b4-{slot:05}");
            let address = cluster::endpoint_ip(Family::V4, number, slot, 0);
            Fact::Pod(Pod::at(PodKey::new("default", &name), Some(address)).into())
        })
    });
    facts.apply(Change::Replace(Kind::Pod, pods.collect()));
    Ok(facts)
}

/// The view of a node that knows pods by name.
pub(crate) fn view(facts: &Cluster) -> NodeView {
    NodeView {
        pod_names: PodNames::Verified,
        ..cluster::view(facts)
    }
}

/// The loopback of this namespace up.
pub(crate) fn loopback(runtime: &Runtime) -> Result<()> {
    let links = Links::open(&NetNs::current()?)?;
    runtime.block_on(async {
        let loopback = links.index("lo").await?;
        links.set_up(loopback, true).await
    })?;
    Ok(())
}

/// A running server.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) zones: Arc<ArcSwap<Zones>>,
    _server: DnsServer,
    stop: CancellationToken,
    _ready: watch::Sender<bool>,
}

impl Served {
    /// Serves these names on a free port; must be called inside a runtime.
    pub(crate) fn start(zones: Zones) -> Result<Self> {
        Self::start_with(zones, None)
    }

    /// The same, with somebody who is asked for all other names.
    pub(crate) fn start_with(zones: Zones, upstream: Option<Arc<dyn Upstream>>) -> Result<Self> {
        let sockets = DnsSockets::bind(&[([127, 0, 0, 1], 0).into()])?;
        let address = sockets.udp.first().context("a socket")?.local_addr()?;
        let zones = Arc::new(ArcSwap::from_pointee(zones));
        let (ready, seen) = watch::channel(true);
        let stop = CancellationToken::new();
        let config = DnsConfig {
            sockets,
            zones: Arc::clone(&zones),
            ready: seen,
            upstream,
            front: Default::default(),
            completion: None,
            guard: DnsGuard::default(),
            stats: Arc::default(),
        };
        Ok(Self {
            address,
            zones,
            _server: DnsServer::start(config, &stop)?,
            stop,
            _ready: ready,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
