//! Addresses and neighbours of links, on the same handle as the links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::packet_core::NLM_F_DUMP;

use crate::link::{LinkError, LinkIndex, Links, Mac, REPLACE, absent_is_empty, failed, family};

/// Who put an answering address there, as the kernel keeps it (IFA_PROTO, from
/// Linux 5.18 on; older ones forget it): a number that nobody else uses.
const OURS: AddressProtocol = AddressProtocol::Other(0x50);

impl Links {
    /// Adds an address, or leaves it if it is there. An IPv6 address is usable
    /// at once (no duplicate address detection).
    pub async fn add_address(&self, link: LinkIndex, address: IpNet) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::NewAddress(address_message(link, address));
        self.send(message, REPLACE, || {
            format!("add address {address} to link {link}")
        })
        .await
        .map(drop)
    }

    /// Adds an address at which this namespace answers but which it never chooses
    /// as a source by itself, neither for its own packets nor to masquerade:
    /// of host scope in IPv4, deprecated in IPv6 (RFC 6724 section 5, rule 3). It is
    /// marked, so that [`Links::answering_addresses`] finds it again.
    pub async fn add_answering_address(
        &self,
        link: LinkIndex,
        address: IpNet,
    ) -> Result<(), LinkError> {
        let mut message = address_message(link, address);
        message.attributes.push(AddressAttribute::Protocol(OURS));
        match address.addr() {
            IpAddr::V4(_) => message.header.scope = AddressScope::Host,
            IpAddr::V6(_) => {
                let mut lifetimes = CacheInfo::default();
                lifetimes.ifa_preferred = 0;
                lifetimes.ifa_valid = u32::MAX;
                message
                    .attributes
                    .push(AddressAttribute::CacheInfo(lifetimes));
            }
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        self.send(message, REPLACE, || {
            format!("add address {address} to link {link}")
        })
        .await
        .map(drop)
    }

    /// Removes an address. Gone already is success.
    pub async fn del_address(&self, link: LinkIndex, address: IpNet) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::DelAddress(address_message(link, address));
        let done = self.request(message, 0).await;
        absent_is_empty(done, &[libc::EADDRNOTAVAIL, libc::ENODEV])
            .map(drop)
            .map_err(|cause| failed(format!("delete address {address} of link {link}"), cause))
    }

    /// The addresses of a link, in order.
    pub async fn addresses(&self, link: LinkIndex) -> Result<Vec<IpNet>, LinkError> {
        self.addresses_where(link, |_| true).await
    }

    /// The addresses of all links, in order.
    pub async fn all_addresses(&self) -> Result<Vec<(LinkIndex, IpNet)>, LinkError> {
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let what = || "list addresses".to_owned();
        let answers = self.send(ask, NLM_F_DUMP, what).await?;
        let mut found = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = &answer else {
                continue;
            };
            let link = LinkIndex(message.header.index);
            let net = address_of(answer, link, |_| true);
            found.extend(net.map(|net| (link, net)));
        }
        found.sort();
        Ok(found)
    }

    /// Those of a link that [`Links::add_answering_address`] put there, whichever
    /// process that was, in order; none on a kernel older than 5.18.
    pub async fn answering_addresses(&self, link: LinkIndex) -> Result<Vec<IpNet>, LinkError> {
        let marked = |message: &AddressMessage| {
            let ours = AddressAttribute::Protocol(OURS);
            message.attributes.contains(&ours)
        };
        self.addresses_where(link, marked).await
    }

    async fn addresses_where(
        &self,
        link: LinkIndex,
        which: impl Fn(&AddressMessage) -> bool,
    ) -> Result<Vec<IpNet>, LinkError> {
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let what = || format!("list addresses of link {link}");
        let answers = self.send(ask, NLM_F_DUMP, what).await?;
        let mut found: Vec<IpNet> = answers
            .into_iter()
            .filter_map(|answer| address_of(answer, link, &which))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Pins the hardware address behind `ip`, so that nobody needs to ask.
    pub async fn set_neighbour(
        &self,
        link: LinkIndex,
        ip: IpAddr,
        mac: Mac,
    ) -> Result<(), LinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = link.0;
        message.header.state = NeighbourState::Permanent;
        let destination = match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        };
        message
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.send(RouteNetlinkMessage::NewNeighbour(message), REPLACE, || {
            format!("set neighbour {ip} of link {link}")
        })
        .await
        .map(drop)
    }
}

fn address_message(link: LinkIndex, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = link.0;
    message.header.scope = scope(address.addr());
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    message
        .attributes
        .push(AddressAttribute::Local(address.addr()));
    if address.addr().is_ipv6() {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// A link-local IPv4 address has the scope of its link, as IPv6 has it by itself.
/// Masquerading towards a link takes the link's own address only if that is of
/// the widest scope, and another of the machine's otherwise.
fn scope(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => AddressScope::Link,
        IpAddr::V4(_) | IpAddr::V6(_) => AddressScope::Universe,
    }
}

fn address_of(
    message: RouteNetlinkMessage,
    link: LinkIndex,
    which: impl Fn(&AddressMessage) -> bool,
) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    if message.header.index != link.0 || !which(&message) {
        return None;
    }
    // IPv4 says its own address in Local, IPv6 in Address.
    let local = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(ip) = attribute {
            Some(*ip)
        } else {
            None
        }
    });
    let address = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Address(ip) = attribute {
            Some(*ip)
        } else {
            None
        }
    });
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}
