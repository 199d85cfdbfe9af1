//! What a node says of itself to the others: an annotation of a Lease.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_api::value::str_at;
use portolan_model::Family;
use serde_json::{Value, json};

/// The annotation, and the label by which these Leases are found.
pub(super) const KEY: &str = "portolan.dev/reply-path";

/// How the names of these Leases begin; the node's name follows.
const NAME: &str = "portolan-reply-path-";

/// The name of a node's Lease.
pub(super) fn lease_name(node: &str) -> String {
    format!("{NAME}{node}")
}

/// What one node says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// Its links that have an Ethernet address and addresses.
    pub(super) links: Vec<SaidLink>,
    /// The ranges of its pods.
    pub(super) ranges: Vec<IpNet>,
    /// To which nodes it sends answers back, by family.
    pub(super) returns: BTreeSet<(Family, String)>,
}

/// One link of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SaidLink {
    /// Its Ethernet address.
    pub(super) ether: [u8; 6],
    /// Its addresses, in order.
    pub(super) addresses: Vec<IpAddr>,
}

impl Said {
    /// Every address of the node.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.links
            .iter()
            .flat_map(|link| link.addresses.iter().copied())
    }

    /// Its Ethernet addresses, in order.
    pub(super) fn ethers(&self) -> Vec<[u8; 6]> {
        let all: BTreeSet<_> = self.links.iter().map(|link| link.ether).collect();
        all.into_iter().collect()
    }

    /// Its ranges of a family.
    pub(super) fn ranges_of(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        let of = move |range: &&IpNet| Family::of(range.addr()) == family;
        self.ranges.iter().filter(of)
    }

    /// As the annotation has it.
    pub(super) fn text(&self) -> String {
        let links = self.links.iter().map(|link| {
            let octets = link.ether.map(|octet| format!("{octet:02x}"));
            json!({"mac": octets.join(":"), "addresses": link.addresses})
        });
        let returns = |family| {
            let of = self.returns.iter().filter(move |(of, _)| *of == family);
            of.map(|(_, node)| node.as_str()).collect::<Vec<_>>()
        };
        json!({
            "links": links.collect::<Vec<_>>(),
            "podCIDRs": self.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "returns": {"IPv4": returns(Family::V4), "IPv6": returns(Family::V6)},
        })
        .to_string()
    }

    /// From the annotation; none if it cannot be read. What is odd in it is left out.
    pub(super) fn read(text: &str) -> Option<Self> {
        let all: Value = serde_json::from_str(text).ok()?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let texts = |value: &Value| {
            let all = list(value);
            all.iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        let link = |value: &Value| {
            let addresses = texts(&value["addresses"]);
            Some(SaidLink {
                ether: ether(str_at(value, "mac"))?,
                addresses: addresses.iter().filter_map(|ip| ip.parse().ok()).collect(),
            })
        };
        let ranges = texts(&all["podCIDRs"]);
        let returns = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];
        let returns = returns.into_iter().flat_map(|(family, word)| {
            let nodes = texts(&all["returns"][word]);
            nodes.into_iter().map(move |node| (family, node))
        });
        Some(Self {
            links: list(&all["links"]).iter().filter_map(link).collect(),
            ranges: ranges.iter().filter_map(|net| net.parse().ok()).collect(),
            returns: returns.collect(),
        })
    }
}

/// An Ethernet address of one machine.
fn ether(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).ok())
        .collect();
    let ether = <[u8; 6]>::try_from(octets?).ok()?;
    let of_many = ether[0] & 1 == 1;
    (ether != [0; 6] && !of_many).then_some(ether)
}

/// The node that a Lease is of.
pub(super) fn node_of(lease: &Value) -> Option<String> {
    let name = str_at(lease, "metadata.name");
    name.strip_prefix(NAME).map(str::to_owned)
}

/// What a Lease says.
pub(super) fn said_in(lease: &Value) -> Option<Said> {
    Said::read(lease["metadata"]["annotations"][KEY].as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let said = Said {
            links: vec![SaidLink {
                ether: [2, 0x42, 0xac, 18, 0, 3],
                addresses: vec!["192.0.2.3".parse().unwrap(), "2001:db8::3".parse().unwrap()],
            }],
            ranges: vec!["10.244.2.0/24".parse().unwrap()],
            returns: [(Family::V4, "node-1"), (Family::V6, "node-3")]
                .map(|(family, node)| (family, node.to_owned()))
                .into(),
        };
        assert_eq!(Said::read(&said.text()), Some(said));
        assert_eq!(Said::read("{}"), Some(Said::default()));
        assert_eq!(Said::read("nonsense"), None);
        let odd = r#"{"links": [{"mac": "ff:ff:ff:ff:ff:ff"}, {"mac": "02:00"}, 7],
            "podCIDRs": ["x", "10.0.0.0/8"], "returns": []}"#;
        let read = Said::read(odd).unwrap();
        assert!(read.links.is_empty() && read.returns.is_empty());
        assert_eq!(read.ranges.len(), 1);
    }

    #[test]
    fn leases_are_named_after_nodes() {
        let lease = json!({"metadata": {"name": lease_name("node-7")}});
        assert_eq!(node_of(&lease).as_deref(), Some("node-7"));
        assert_eq!(node_of(&json!({"metadata": {"name": "other"}})), None);
        assert_eq!(said_in(&lease), None);
    }
}
