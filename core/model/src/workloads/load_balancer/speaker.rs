//! Agents that announce, as their Leases tell of them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_api::value::{int_at, str_at, strings_at};
use serde_json::Value;

use super::super::Meta;
use super::super::meta::object;

/// The label of an announcing agent's Lease; its value is of no meaning.
pub const SPEAKER: &str = "portolan.dev/announces";
/// The annotation with the links where it can answer, as JSON:
/// `[{"name": "eth0", "addresses": ["192.0.2.7/24"]}]`.
pub const LINKS: &str = "portolan.dev/links";
/// The annotation with where it hears the heartbeats of others: `192.0.2.7:7947`.
pub const HEARTBEATS_AT: &str = "portolan.dev/heartbeats-at";

/// A link of a node where addresses can be answered for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpeakerLink {
    /// Its name.
    pub name: String,
    /// The node's addresses on it, each with the length of its subnet.
    pub addresses: Vec<IpNet>,
}

impl SpeakerLink {
    /// Whether an address is of one of its subnets, and not the node's own.
    pub fn holds(&self, address: IpAddr) -> bool {
        let mut nets = self.addresses.iter();
        nets.any(|net| net.contains(&address) && net.addr() != address)
    }
}

/// An agent that announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// What every object has.
    pub meta: Meta,
    /// Its node (`spec.holderIdentity`); none when the agent has left.
    pub node: String,
    /// `spec.renewTime` as it came: only whether it changes matters, since other
    /// machines' clocks are not trusted.
    pub renewed: String,
    /// For how many seconds it counts without being renewed.
    pub seconds: u64,
    /// Where it hears the heartbeats of others.
    pub heartbeats_at: Option<SocketAddr>,
    /// The links of its node, ordered by name.
    pub links: Vec<SpeakerLink>,
}

object!(Speaker, read);

fn read(object: &Value) -> Speaker {
    let mut meta = Meta::of(object);
    let links = meta.annotations.remove(LINKS).unwrap_or_default();
    let links: Value = serde_json::from_str(&links).unwrap_or_default();
    let heartbeats_at = meta.annotations.remove(HEARTBEATS_AT);
    meta.annotations.clear();
    let links = links.as_array().map_or(&[][..], Vec::as_slice);
    let mut links: Vec<SpeakerLink> = links.iter().map(link).collect();
    links.sort();
    let seconds = int_at(object, "spec.leaseDurationSeconds").unwrap_or(0);
    Speaker {
        meta,
        node: str_at(object, "spec.holderIdentity").to_owned(),
        renewed: str_at(object, "spec.renewTime").to_owned(),
        seconds: u64::try_from(seconds).unwrap_or(0),
        heartbeats_at: heartbeats_at.and_then(|text| text.parse().ok()),
        links,
    }
}

fn link(value: &Value) -> SpeakerLink {
    let addresses = strings_at(value, "addresses").into_iter();
    SpeakerLink {
        name: str_at(value, "name").to_owned(),
        addresses: addresses.filter_map(|text| text.parse().ok()).collect(),
    }
}

impl Speaker {
    /// Whether it says the same of its node; how fresh it is does not count.
    pub fn says_as(&self, other: &Self) -> bool {
        self.node == other.node
            && self.seconds == other.seconds
            && self.heartbeats_at == other.heartbeats_at
            && self.links == other.links
    }
}
