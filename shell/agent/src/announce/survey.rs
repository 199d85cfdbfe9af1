//! The links of the node where addresses can be answered for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use portolan_announce::l2::Mac;
use portolan_kernel::link::{Link, LinkError, LinkIndex, Links};
use portolan_kernel::netns::NetNs;
use portolan_plan::announce::LEFT_OUT;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the links are looked at.
const INTERVAL: Duration = Duration::from_secs(3);
/// More links than these are not told to others: they must fit into an annotation.
const MOST_LINKS: usize = 64;

/// A link where addresses can be answered for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) index: LinkIndex,
    pub(super) mac: Mac,
    /// The node's addresses on it.
    pub(super) addresses: Vec<IpNet>,
}

/// Looks at the links again and again, and says when they are otherwise.
pub(super) async fn run(
    netns: NetNs,
    found: watch::Sender<Vec<Found>>,
    shutdown: CancellationToken,
) {
    loop {
        match look(&netns).await {
            Ok(now) => {
                found.send_if_modified(|known| {
                    let other = *known != now;
                    known.clone_from(&now);
                    other
                });
            }
            Err(error) => tracing::warn!(%error, "the node's links are not known"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn look(netns: &NetNs) -> Result<Vec<Found>, LinkError> {
    let links = Links::open(netns)?;
    let mut addresses: BTreeMap<LinkIndex, Vec<IpNet>> = BTreeMap::new();
    for (link, net) in links.all_addresses().await? {
        addresses.entry(link).or_default().push(net);
    }
    let all = links.list().await?;
    Ok(usable(all, addresses))
}

/// The links that have neighbours who may ask: those that are up, have a hardware
/// address, and are no part of a bridge or bond, which is asked in their place. Of
/// those of containers, the ones that have a subnet: each other one that comes and goes
/// would be news for everybody.
fn usable(links: Vec<Link>, mut addresses: BTreeMap<LinkIndex, Vec<IpNet>>) -> Vec<Found> {
    let mut found: Vec<Found> = links
        .into_iter()
        .filter(|link| link.up && link.master.is_none())
        .filter_map(|link| {
            let mac = Mac(link.mac?);
            let addresses = addresses.remove(&link.index).unwrap_or_default();
            let left_out = LEFT_OUT.iter().any(|start| link.name.starts_with(start));
            let useful = mac.is_station() && (!left_out || addresses.iter().any(is_subnet));
            useful.then_some(Found {
                name: link.name,
                index: link.index,
                mac,
                addresses,
            })
        })
        .collect();
    found.sort_by_key(|link| (link.addresses.is_empty(), link.name.clone()));
    found.truncate(MOST_LINKS);
    found.sort();
    found
}

/// Whether an address comes with a subnet that others may be in.
fn is_subnet(net: &IpNet) -> bool {
    let of_link = match net.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !of_link && net.prefix_len() < net.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l8_links_without_neighbours_are_left_out() {
        let link = |index: u32, name: &str| Link {
            index: LinkIndex(index),
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            master: None,
        };
        let port = Link {
            master: Some(LinkIndex(2)),
            ..link(3, "eth1")
        };
        let off = Link {
            up: false,
            ..link(4, "eth2")
        };
        let loopback = Link {
            mac: Some([0; 6]),
            ..link(1, "lo")
        };
        let tunnel = Link {
            mac: None,
            ..link(5, "wg0")
        };
        let links = vec![
            loopback,
            link(2, "br0"),
            port,
            off,
            tunnel,
            link(6, "veth12"),
            link(7, "docker0"),
            link(8, "eth3"),
            link(9, "veth34"),
        ];
        let net: IpNet = "192.0.2.1/24".parse().unwrap();
        // A pod's, with the gateway's addresses.
        let gateway = [
            "169.254.1.1/32",
            "fe80::1/128",
            "fe80::ecee:eeff:feee:eeee/64",
        ];
        let gateway = gateway.map(|text| text.parse().unwrap()).into();
        let addresses = [
            (LinkIndex(2), vec![net]),
            (LinkIndex(7), vec![net]),
            (LinkIndex(9), gateway),
        ];
        let found = usable(links, addresses.into());
        let names: Vec<&str> = found.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["br0", "docker0", "eth3"]);
        assert_eq!(found[0].addresses, [net]);
    }
}
