//! The lab's network: the outside world, the nodes, and the wire between them.
//!
//! ```text
//!  lab's own namespace = "outside": API server, clients that are in no cluster
//!  ┌──────────────────────────────────────────────┐
//!  │ fabric0  172.18.0.1/24  fd00:172:18::1/64    │   no route leads out of here
//!  └──┬───────────────┬───────────────┬───────────┘
//!   node-1          node-2          node-3             veth, eth0 inside
//!   172.18.0.2      172.18.0.3      172.18.0.4
//!   pods: routed veths, see pod_net
//! ```
//!
//! Routes in a node: the node network is a neighbour; the pod ranges of the
//! other nodes lie behind those nodes; everything else, the Service ranges among
//! it, goes to the outside, which refuses what it does not know with an ICMP
//! error. That last route is what a cluster's default gateway is: without a
//! route, a connection from the node to a ClusterIP would fail before the output
//! hook could translate it, and with it the packet has the node's own address
//! before translation. A packet that nothing translates leaves the node once and
//! ends outside; it can not come back.
//!
//! The outside has no route to pods or Services: it reaches NodePorts, as the
//! world outside a cluster does. It does answer pods, though, as that world does
//! behind a router: packets from the API server's port, and ICMP errors, find
//! the pods through a routing table of their own. [`Fabric::answer_from`] adds
//! other servers of the outside.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use portolan_kernel::{
    link::{LinkError, LinkIndex, Links, Mac, VethEnd},
    netns::{NetNs, NetNsError},
    route::{Route, RouteKind, Rule, RuleTraffic},
    sysctl::{self, SysctlError},
};

use crate::addresses;

/// The bridge that the nodes are plugged into.
pub const BRIDGE: &str = "fabric0";

/// The device of a node on the node network.
pub const NODE_DEVICE: &str = "eth0";

/// The API server's port on the node network.
pub const API_PORT: u16 = 6443;

/// The table in which the outside finds the way back to pods.
const ANSWERS_TABLE: u8 = 100;

/// Before the usual tables, which would say that there is no way.
const ANSWERS_PRIORITY: u32 = 1000;

/// What every namespace of the lab wants, in this order. The kernel copies some
/// of these from the host, so nothing is left to chance.
const FORWARDING: [(&str, &str); 10] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.conf.default.forwarding", "1"),
    // Replies may leave by another device than requests came in by.
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    // "There is a better way" would be a lie after translation.
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    // Addresses are unique by construction: usable at once.
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
];

/// The lab's network. Dropping the last handles of it takes it away.
#[derive(Clone, Debug)]
pub struct Fabric {
    outside: Links,
    nodes: Arc<[NodeNet]>,
}

/// One node's network.
#[derive(Clone, Debug)]
pub struct NodeNet {
    /// `node-1`, …
    pub name: String,
    /// Counted from 1.
    pub number: u8,
    /// The node's namespace.
    pub netns: NetNs,
    /// Links, addresses and routes of the node.
    pub links: Links,
    /// The node's addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// The node's pod ranges, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// More nodes than the address plan has room for, or none.
    #[error("a lab has 1 to {} nodes, not {nodes}", addresses::MAX_NODES)]
    Nodes {
        /// How many were asked for.
        nodes: u8,
    },
    /// A namespace could not be made.
    #[error("cannot make the network namespace of {place}")]
    Namespace {
        /// A node, or the outside.
        place: String,
        /// Why not.
        #[source]
        cause: NetNsError,
    },
    /// A sysctl was refused.
    #[error("cannot set up forwarding in {place}")]
    Sysctl {
        /// A node, or the outside.
        place: String,
        /// Which one, and why.
        #[source]
        cause: SysctlError,
    },
    /// A link, address or route was refused.
    #[error("cannot wire up {place}")]
    Wire {
        /// A node, or the outside.
        place: String,
        /// Which one, and why.
        #[source]
        cause: LinkError,
    },
}

/// Turns a failure into one that says where.
fn at<'a>(place: &'a str) -> impl Fn(LinkError) -> FabricError + 'a {
    move |cause| FabricError::Wire {
        place: place.to_owned(),
        cause,
    }
}

impl Fabric {
    /// Builds the network of a lab with nodes 1 to `nodes` around the calling
    /// thread's namespace, which becomes the outside. Call it in a lab only.
    pub async fn create(nodes: u8) -> Result<Self, FabricError> {
        if nodes == 0 || nodes > addresses::MAX_NODES {
            return Err(FabricError::Nodes { nodes });
        }
        let place = "the outside";
        let outside = NetNs::current().map_err(|cause| FabricError::Namespace {
            place: place.to_owned(),
            cause,
        })?;
        forward(place, &outside)?;
        let links = Links::open(&outside).map_err(at(place))?;
        let bridge = links.add_bridge(BRIDGE).await.map_err(at(place))?;
        // A bridge takes the lowest address of its ports until it has its own.
        links.set_mac(bridge, mac(0)).await.map_err(at(place))?;
        for address in addresses::outside() {
            links
                .add_address(bridge, address)
                .await
                .map_err(at(place))?;
        }
        let build = (1..=nodes).map(|number| NodeNet::create(number, nodes, &links, bridge));
        let nodes = futures::future::try_join_all(build).await?;
        for node in &nodes {
            for (pods, via) in node.pod_cidrs.iter().zip(&node.ips) {
                let route = Route::new(*pods, RouteKind::Via(*via)).in_table(ANSWERS_TABLE);
                links.replace_route(&route).await.map_err(at(place))?;
            }
        }
        let fabric = Self {
            outside: links,
            nodes: nodes.into(),
        };
        fabric.answer_from(RuleTraffic::Icmp).await?;
        fabric
            .answer_from(RuleTraffic::FromTcpPort(API_PORT))
            .await?;
        Ok(fabric)
    }

    /// Lets a server of the outside answer pods, as the API server may.
    pub async fn answer_from(&self, traffic: RuleTraffic) -> Result<(), FabricError> {
        for ipv6 in [false, true] {
            let rule = Rule {
                ipv6,
                traffic,
                table: ANSWERS_TABLE,
                priority: ANSWERS_PRIORITY,
            };
            self.outside
                .add_rule(&rule)
                .await
                .map_err(at("the outside"))?;
        }
        Ok(())
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[NodeNet] {
        &self.nodes
    }

    /// The namespace of everything that is not a node or pod.
    pub fn outside(&self) -> &NetNs {
        self.outside.netns()
    }

    /// Links of the outside, for tests that add clients there.
    pub fn outside_links(&self) -> &Links {
        &self.outside
    }
}

impl NodeNet {
    async fn create(
        number: u8,
        nodes: u8,
        outside: &Links,
        bridge: LinkIndex,
    ) -> Result<Self, FabricError> {
        let name = addresses::node_name(number);
        let netns = NetNs::create().map_err(|cause| FabricError::Namespace {
            place: name.clone(),
            cause,
        })?;
        forward(&name, &netns)?;
        let links = Links::open(&netns).map_err(at(&name))?;
        let here = VethEnd {
            name: &name,
            mac: None,
        };
        let there = VethEnd {
            name: NODE_DEVICE,
            mac: Some(mac(number)),
        };
        let port = outside
            .add_veth(here, there, &links, None)
            .await
            .map_err(at(&name))?;
        outside
            .set_master(port, Some(bridge))
            .await
            .map_err(at(&name))?;
        let node = Self {
            ips: addresses::node(number).map(|net| net.addr()).into(),
            pod_cidrs: addresses::pods_of(number).into(),
            name,
            number,
            netns,
            links,
        };
        node.address_and_route(nodes)
            .await
            .map_err(at(&node.name))?;
        Ok(node)
    }

    /// The node's own addresses, and the ways to everybody else's.
    async fn address_and_route(&self, nodes: u8) -> Result<(), LinkError> {
        let device = self.links.index(NODE_DEVICE).await?;
        for address in addresses::node(self.number) {
            self.links.add_address(device, address).await?;
        }
        for (own, gateway) in addresses::node(self.number)
            .iter()
            .zip(addresses::outside())
        {
            // Also what Services need: their addresses are translated on the
            // node, but only where a route leads somewhere.
            let default = addresses::everything(gateway.addr());
            let mut routes = vec![Route::new(default, RouteKind::Via(gateway.addr()))];
            let family = |net: &IpNet| net.addr().is_ipv4() == own.addr().is_ipv4();
            for other in (1..=nodes).filter(|other| *other != self.number) {
                let via = addresses::node(other).into_iter().find(|net| family(net));
                let pods = addresses::pods_of(other)
                    .into_iter()
                    .find(|net| family(net));
                if let (Some(via), Some(pods)) = (via, pods) {
                    routes.push(Route::new(pods, RouteKind::Via(via.addr())));
                }
            }
            // An address of the node's own range that no pod has goes nowhere,
            // not around between the node and its default route.
            for range in self.pod_cidrs.iter().filter(|net| family(net)) {
                routes.push(Route::new(*range, RouteKind::Unreachable));
            }
            for route in routes {
                let refused = route.kind == RouteKind::Unreachable;
                let route = if refused {
                    route
                } else {
                    route.with_source(own.addr())
                };
                self.links.replace_route(&route).await?;
            }
        }
        Ok(())
    }

    /// The node's address in the family of `ip`.
    pub(crate) fn own_ip(&self, ip: IpAddr) -> Option<IpAddr> {
        self.ips
            .iter()
            .copied()
            .find(|own| own.is_ipv4() == ip.is_ipv4())
    }
}

fn forward(place: &str, netns: &NetNs) -> Result<(), FabricError> {
    sysctl::set_all(netns, &FORWARDING).map_err(|cause| FabricError::Sysctl {
        place: place.to_owned(),
        cause,
    })
}

/// A fixed hardware address on the node network, locally administered: an ARP
/// table of the lab can be read.
fn mac(number: u8) -> Mac {
    [0x02, 0x42, 172, 18, 0, number + 1]
}
