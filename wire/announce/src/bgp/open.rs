//! Our OPEN, and what the peer's makes of the session.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustbgpd_wire::{
    Afi, Capability, ExtendedNextHopFamily, GracefulRestartFamily, OpenMessage, Safi,
};

use super::config::{Config, Family};
use super::{Notice, code};

/// The AS number that stands for one of four bytes (RFC 6793).
const AS_TRANS: u16 = 23456;

/// What both sides support.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The peer's identifier.
    pub identifier: Ipv4Addr,
    /// The session ends when nothing is heard for so long; never if zero.
    pub hold_time: Duration,
    /// The families that both announce.
    pub families: Vec<Family>,
    /// AS numbers in paths have four bytes.
    pub four_byte_as: bool,
    /// IPv4 prefixes may go with an IPv6 next hop.
    pub extended_next_hop: bool,
    /// The peer answers and sends requests to announce all anew.
    pub route_refresh: bool,
    /// The peer speaks graceful restart, and for how long it asks others to keep
    /// its routes. We offer it as well.
    pub restart: Option<Duration>,
}

/// Our OPEN. `restarted` is whether it is the first to this peer after a restart.
#[must_use]
pub fn ours(config: &Config, restarted: bool) -> OpenMessage {
    let mut capabilities: Vec<Capability> = config
        .families
        .iter()
        .map(|family| Capability::MultiProtocol {
            afi: family.afi(),
            safi: Safi::Unicast,
        })
        .collect();
    capabilities.push(Capability::RouteRefresh);
    if config.extended_next_hop && config.families.contains(&Family::V4) {
        capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHopFamily {
            nlri_afi: Afi::Ipv4,
            nlri_safi: Safi::Unicast,
            next_hop_afi: Afi::Ipv6,
        }]));
    }
    if let Some(restart) = config.restart {
        let family = |family: &Family| GracefulRestartFamily {
            afi: family.afi(),
            safi: Safi::Unicast,
            forwarding_preserved: true,
        };
        capabilities.push(Capability::GracefulRestart {
            restart_state: restarted,
            notification: false,
            restart_time: u16::try_from(restart.time.as_secs().min(4095)).unwrap_or(4095),
            families: config.families.iter().map(family).collect(),
        });
    }
    capabilities.push(Capability::FourOctetAs {
        asn: config.local_as,
    });
    OpenMessage {
        version: 4,
        my_as: u16::try_from(config.local_as).unwrap_or(AS_TRANS),
        hold_time: config.hold_seconds(),
        bgp_identifier: config.identifier,
        capabilities,
    }
}

/// Judges the peer's OPEN by RFC 4271 section 6.2 (RFC 6286 for identifiers).
///
/// # Errors
/// The NOTIFICATION that it deserves.
pub fn judge(open: &OpenMessage, config: &Config) -> Result<Agreed, Notice> {
    let four = find(open, |one| {
        let Capability::FourOctetAs { asn } = one else {
            return None;
        };
        Some(*asn)
    });
    let said = four.unwrap_or(u32::from(open.my_as));
    // An AS of two bytes is said in both places (RFC 6793 section 4.1).
    let agree = four.is_none_or(|asn| u16::try_from(asn).unwrap_or(AS_TRANS) == open.my_as);
    if said != config.peer_as || said == 0 || !agree {
        // Whoever reads of it learns which one it is.
        return Err(Notice {
            data: said.to_be_bytes().to_vec().into(),
            ..Notice::new(code::OPEN, 2)
        });
    }
    let same = config.is_internal() && open.bgp_identifier == config.identifier;
    if open.bgp_identifier.is_unspecified() || same {
        return Err(Notice::new(code::OPEN, 3));
    }
    if matches!(open.hold_time, 1 | 2) {
        return Err(Notice::new(code::OPEN, 6));
    }
    let families = families(open, config);
    if families.is_empty() {
        return Err(missing_families(config));
    }
    let extended_next_hop = find(open, |one| {
        let Capability::ExtendedNextHop(list) = one else {
            return None;
        };
        let ours = |entry: &ExtendedNextHopFamily| {
            entry.nlri_afi == Afi::Ipv4
                && entry.nlri_safi == Safi::Unicast
                && entry.next_hop_afi == Afi::Ipv6
        };
        list.iter().any(ours).then_some(())
    });
    let restart = find(open, |one| {
        let Capability::GracefulRestart { restart_time, .. } = one else {
            return None;
        };
        Some(Duration::from_secs((*restart_time).into()))
    });
    Ok(Agreed {
        identifier: open.bgp_identifier,
        hold_time: Duration::from_secs(open.hold_time.min(config.hold_seconds()).into()),
        families,
        four_byte_as: four.is_some(),
        extended_next_hop: config.extended_next_hop && extended_next_hop.is_some(),
        route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
        restart: restart.filter(|_| config.restart.is_some()),
    })
}

/// The first capability that something is made of.
fn find<T>(open: &OpenMessage, of: impl FnMut(&Capability) -> Option<T>) -> Option<T> {
    open.capabilities.iter().find_map(of)
}

/// The families of both. Who says nothing about families has IPv4 unicast only.
fn families(open: &OpenMessage, config: &Config) -> Vec<Family> {
    // `None` for a family that the library does not know.
    let offered: Vec<Option<Family>> = open
        .capabilities
        .iter()
        .filter_map(|one| {
            if let Capability::MultiProtocol { afi, safi } = one {
                return Some(Family::from_wire(Some(*afi), Some(*safi)));
            }
            matches!(one, Capability::Unknown { code: 1, .. }).then_some(None)
        })
        .collect();
    let theirs: Vec<Family> = match offered.is_empty() {
        true => vec![Family::V4],
        false => offered.into_iter().flatten().collect(),
    };
    let both = config.families.iter().filter(|f| theirs.contains(f));
    both.copied().collect()
}

/// Unsupported Capability: the families without which the session is of no use
/// (RFC 5492 section 5).
fn missing_families(config: &Config) -> Notice {
    let mut data = BytesMut::new();
    for family in &config.families {
        data.put_slice(&[1, 4]);
        data.put_u16(family.afi() as u16);
        data.put_slice(&[0, Safi::Unicast as u8]);
    }
    Notice {
        code: code::OPEN,
        subcode: 7,
        data: data.freeze(),
    }
}
