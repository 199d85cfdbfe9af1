//! A client, a node and a pod, each in a namespace of its own:
//!
//! ```text
//!  client ──veth── node ──veth── pod
//!  (a pod, too)    (rules)       (five addresses)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::IpNet;
use portolan_kernel::link::{LinkIndex, Links, VethEnd};
use portolan_kernel::netns::NetNs;
use portolan_kernel::route::{Route, RouteKind};
use portolan_kernel::sysctl;
use portolan_model::Family;

/// How many addresses the client has: many, so that no tuple of a connection comes
/// again while connection tracking still remembers the one before.
pub const CLIENTS: u8 = 64;
/// How many addresses the pod has: one per endpoint.
pub const PODS: u8 = 5;

const CLIENT_NET: u8 = 1;
const POD_NET: u8 = 2;
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

/// The namespaces.
pub struct Wires {
    /// Who sends.
    pub client: NetNs,
    /// Where the rules are.
    pub node: NetNs,
    /// Who serves.
    pub pod: NetNs,
}

fn address(family: Family, net: u8, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 255, net, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x240, 0, net.into(), 0, 0, 0, number.into()).into(),
    }
}

fn range(family: Family, net: u8) -> Result<IpNet> {
    let length = match family {
        Family::V4 => 24,
        Family::V6 => 64,
    };
    Ok(IpNet::new(address(family, net, 0), length)?)
}

/// The client's addresses.
pub fn clients(family: Family) -> Vec<IpAddr> {
    let numbers = 1..=CLIENTS;
    numbers.map(|n| address(family, CLIENT_NET, n)).collect()
}

/// The pod's addresses.
pub fn pods(family: Family) -> Vec<IpAddr> {
    let numbers = 1..=PODS;
    numbers.map(|n| address(family, POD_NET, n)).collect()
}

impl Wires {
    /// Makes them, with links, addresses and routes of both families.
    ///
    /// # Errors
    /// If the kernel refuses any part.
    pub async fn lay() -> Result<Self> {
        let wires = Self {
            client: NetNs::create()?,
            node: NetNs::create()?,
            pod: NetNs::create()?,
        };
        let forwarding = [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ];
        sysctl::set_all(&wires.node, &forwarding)?;
        // Connections wait here until they are taken.
        sysctl::set(&wires.pod, "net.core.somaxconn", "8192")?;
        let node = Links::open(&wires.node)?;
        attach(&node, &wires.client, ("client", CLIENT_NET), clients).await?;
        attach(&node, &wires.pod, ("pod", POD_NET), pods).await?;
        Ok(wires)
    }
}

/// Connects a namespace to the node.
async fn attach(
    node: &Links,
    there: &NetNs,
    (name, net): (&str, u8),
    addresses: fn(Family) -> Vec<IpAddr>,
) -> Result<()> {
    let end = |name| VethEnd { name, mac: None };
    let links = Links::open(there)?;
    let here = node.add_veth(end(name), end("eth0"), &links, None).await?;
    let link: LinkIndex = links.index("eth0").await?;
    for (family, gateway) in Family::BOTH.into_iter().zip(GATEWAYS) {
        let length = if family == Family::V4 { 32 } else { 64 };
        node.add_address(here, IpNet::new(gateway, length)?).await?;
        for address in addresses(family) {
            links.add_address(link, IpNet::from(address)).await?;
        }
        let route = Route::new(range(family, net)?, RouteKind::Link(here));
        node.add_route(&route).await?;
        let everywhere: IpNet = match family {
            Family::V4 => IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)?,
            Family::V6 => IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)?,
        };
        let route = Route::new(everywhere, RouteKind::OnLink(gateway, link));
        links.add_route(&route).await?;
    }
    Ok(())
}
