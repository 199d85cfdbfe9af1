//! Nodes, a pod and a client on one bridge, each in a network namespace; the API
//! server listens at the bridge's own address.
//!
//! ```text
//!  node-1  node-2  node-3  pod  client (a router, too)
//!     └──────┴───────┴──────┴──────┘
//!            bridge (10.99.0.254)
//! ```

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use http::Method;
use ipnet::{IpNet, Ipv4Net};
use portolan_benches::api::Api;
use portolan_kernel::link::{LinkIndex, Links, VethEnd};
use portolan_kernel::netns::NetNs;
use portolan_kernel::sysctl;
use serde_json::json;

/// Where the API server is.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);
/// Where the pod is.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 50);
/// Where the client is.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const PREFIX: u8 = 24;

/// One namespace on the bridge.
pub(crate) struct Place {
    pub(crate) netns: NetNs,
    /// Its end at the bridge.
    port: LinkIndex,
}

/// All of them.
pub(crate) struct Town {
    pub(crate) nodes: Vec<Place>,
    pub(crate) pod: Place,
    pub(crate) client: Place,
    hub: Links,
    bridge: LinkIndex,
}

/// The name of a node, counted from zero.
pub(crate) fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

/// The address of a node, counted from zero.
pub(crate) fn address(node: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::new(10, 99, 0, u8::try_from(node + 1)?))
}

impl Town {
    /// Makes them, in a namespace of the process's own.
    ///
    /// # Errors
    /// If the kernel refuses any part.
    pub(crate) async fn build(nodes: usize) -> Result<Self> {
        let hub = Links::open(&NetNs::current()?)?;
        hub.set_up(hub.index("lo").await?, true).await?;
        clear(&hub, "bridge").await?;
        let bridge = hub.add_bridge("bridge").await?;
        hub.add_address(bridge, net(HUB)?).await?;
        let mut places = Vec::new();
        for node in 0..nodes {
            places.push(attach(&hub, bridge, &name(node), address(node)?).await?);
            let place = places.last().context("a node")?;
            sysctl::set(&place.netns, "net.ipv4.ip_forward", "1")?;
        }
        Ok(Self {
            nodes: places,
            pod: attach(&hub, bridge, "pod", POD).await?,
            client: attach(&hub, bridge, "client", CLIENT).await?,
            hub,
            bridge,
        })
    }

    /// The Node objects.
    ///
    /// # Errors
    /// If the server refuses them.
    pub(crate) async fn register(&self, api: &Api) -> Result<()> {
        for node in 0..self.nodes.len() {
            let (name, address) = (name(node), address(node)?.to_string());
            let object = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}],
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            });
            let all = "/api/v1/nodes";
            api.send(0, Method::POST, all, &object).await?;
            let status = format!("{all}/{name}/status");
            api.send(0, Method::PUT, &status, &object).await?;
        }
        Ok(())
    }

    /// Pulls a node's plug, or puts it in again: neighbours see their own links up.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(crate) async fn plug(&self, node: usize, is_in: bool) -> Result<()> {
        let place = self.nodes.get(node).context("a node")?;
        let master = is_in.then_some(self.bridge);
        Ok(self.hub.set_master(place.port, master).await?)
    }
}

fn net(address: Ipv4Addr) -> Result<IpNet> {
    Ok(IpNet::V4(Ipv4Net::new(address, PREFIX)?))
}

/// Takes away what is left of an earlier town.
async fn clear(hub: &Links, name: &str) -> Result<()> {
    if hub.find(name).await?.is_none() {
        return Ok(());
    }
    match hub.delete(name).await {
        // It went with its other end meanwhile.
        Err(_) if hub.find(name).await?.is_none() => Ok(()),
        answer => Ok(answer?),
    }
}

async fn attach(hub: &Links, bridge: LinkIndex, name: &str, at: Ipv4Addr) -> Result<Place> {
    clear(hub, name).await?;
    let netns = NetNs::create()?;
    let links = Links::open(&netns)?;
    let end = |name| VethEnd { name, mac: None };
    let port = hub.add_veth(end(name), end("eth0"), &links, None).await?;
    hub.set_master(port, Some(bridge)).await?;
    links
        .add_address(links.index("eth0").await?, net(at)?)
        .await?;
    Ok(Place { netns, port })
}

/// An address of the pool, counted from zero.
pub(crate) fn pool_address(number: usize) -> Result<IpAddr> {
    let offset = u32::try_from(number)?;
    let first = Ipv4Addr::new(10, 64, 0, 0);
    Ok(Ipv4Addr::from_bits(first.to_bits() + offset).into())
}
