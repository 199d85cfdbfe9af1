//! Ways of marked packets: each a rule that leads packets with a mark into a routing
//! table of its own, whose one route is to a neighbour.
//!
//! All are marked as ours by their protocol (FRA_PROTOCOL, rtm_protocol), so that they
//! are found again by another process, and others' are never touched.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::packet_core::NLM_F_DUMP;

use crate::link::{CREATE, LinkError, LinkIndex, Links, REPLACE, absent_is_empty, failed, family};

/// Who made a rule or a route: a number that nobody else uses.
const OURS: RouteProtocol = RouteProtocol::Other(0x50);
/// Our tables begin there: the number of a way is added.
const TABLES: u32 = 0x504f_0000;
/// Before the rules of others, which do not ask for marks.
const PRIORITY: u32 = 500;

/// Packets with this mark go to this neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// For packets of IPv6.
    pub ipv6: bool,
    /// Its number, from 0 to 65535: another one, another table.
    pub number: u16,
    /// The mark of its packets; none where the rule is gone.
    pub mark: Option<Mark>,
    /// To whom they go; none where the route is gone, as when a link was down.
    pub next: Option<NextHop>,
}

/// Some bits of a packet's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// What they are.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

/// A neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// Its address.
    pub address: IpAddr,
    /// The link.
    pub link: LinkIndex,
}

impl Way {
    fn table(&self) -> u32 {
        TABLES | u32::from(self.number)
    }

    fn family(&self) -> AddressFamily {
        if self.ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        }
    }

    fn route(&self) -> RouteMessage {
        let any = any(self.ipv6);
        let mut message = RouteMessage::default();
        message.header.address_family = self.family();
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = OURS;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(any.into()),
            RouteAttribute::Table(self.table()),
        ];
        if let Some(next) = self.next {
            message.header.flags = RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway(next.address.into()));
            message.attributes.push(RouteAttribute::Oif(next.link.0));
        }
        message
    }

    fn rule(&self, mark: Mark) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family();
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(PRIORITY),
            RuleAttribute::FwMark(mark.value),
            RuleAttribute::FwMask(mark.mask),
            RuleAttribute::Table(self.table()),
            RuleAttribute::Protocol(OURS),
        ];
        message
    }
}

/// A rule and its route, as `ip rule` and `ip route` have them.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let six = if self.ipv6 { " of IPv6" } else { "" };
        match self.mark {
            Some(Mark { value, mask }) => write!(
                f,
                "rule{six} fwmark {value:#x}/{mask:#x} and its table {}",
                self.table()
            ),
            None => write!(f, "routing table{six} {}", self.table()),
        }
    }
}

fn any(ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// The number of a way by its table, if that is one of ours.
fn number(table: u32) -> Option<u16> {
    u16::try_from(table.checked_sub(TABLES)?).ok()
}

impl Links {
    /// All ways that are there, whichever process made them, in order.
    pub async fn ways(&self) -> Result<Vec<Way>, LinkError> {
        let mut found = Vec::new();
        for ipv6 in [false, true] {
            let mut routes = self.way_routes(ipv6).await?;
            for (number, mark) in self.way_rules(ipv6).await? {
                let next = routes.iter().find(|(other, _)| *other == number);
                let next = next.and_then(|(_, next)| *next);
                found.push(Way {
                    ipv6,
                    number,
                    mark: Some(mark),
                    next,
                });
            }
            let ruled = |number: u16| {
                let mut ways = found.iter();
                ways.any(|way: &Way| way.ipv6 == ipv6 && way.number == number)
            };
            routes.retain(|(number, _)| !ruled(*number));
            found.extend(routes.into_iter().map(|(number, next)| Way {
                ipv6,
                number,
                mark: None,
                next,
            }));
        }
        found.sort();
        Ok(found)
    }

    /// Makes a way, or makes it anew: first its route, then the rule that leads there.
    pub async fn add_way(&self, way: &Way) -> Result<(), LinkError> {
        let what = |part: &str| format!("add the {part} of {way}");
        if way.next.is_some() {
            let route = RouteNetlinkMessage::NewRoute(way.route());
            self.send(route, REPLACE, || what("route")).await?;
        }
        let Some(mark) = way.mark else {
            return Ok(());
        };
        let rule = RouteNetlinkMessage::NewRule(way.rule(mark));
        let done = self.request(rule, CREATE).await;
        absent_is_empty(done, &[libc::EEXIST])
            .map(drop)
            .map_err(|cause| failed(what("rule"), cause))
    }

    /// Takes a way away: the rule, then the route. Gone already is success.
    pub async fn del_way(&self, way: &Way) -> Result<(), LinkError> {
        let what = |part: &str| format!("delete the {part} of {way}");
        if let Some(mark) = way.mark {
            let rule = RouteNetlinkMessage::DelRule(way.rule(mark));
            let done = self.request(rule, 0).await;
            absent_is_empty(done, &[libc::ENOENT]).map_err(|cause| failed(what("rule"), cause))?;
        }
        if way.next.is_some() {
            let route = RouteNetlinkMessage::DelRoute(way.route());
            let done = self.request(route, 0).await;
            absent_is_empty(done, &[libc::ESRCH, libc::ENODEV, libc::ENOENT])
                .map_err(|cause| failed(what("route"), cause))?;
        }
        Ok(())
    }

    /// To whom a packet to this address goes at once: the address itself where it is on
    /// the link. None where it goes nowhere, stays here, or no address is known.
    pub async fn next_hop(&self, to: IpAddr) -> Result<Option<NextHop>, LinkError> {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family(to);
        ask.header.destination_prefix_length = IpNet::from(to).prefix_len();
        ask.attributes.push(RouteAttribute::Destination(to.into()));
        let done = self.request(RouteNetlinkMessage::GetRoute(ask), 0).await;
        let nowhere = [
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::EACCES,
            libc::EINVAL,
            libc::ESRCH,
        ];
        let answers = absent_is_empty(done, &nowhere)
            .map_err(|cause| failed(format!("look up the route to {to}"), cause))?;
        let mut hops = answers.into_iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else {
                return None;
            };
            let (gateway, link) = hop(&route);
            let address = gateway.unwrap_or(to);
            let link = link.filter(|_| route.header.kind == RouteType::Unicast)?;
            Some(NextHop { address, link })
        });
        Ok(hops.next())
    }

    async fn way_rules(&self, ipv6: bool) -> Result<Vec<(u16, Mark)>, LinkError> {
        let mut ask = RuleMessage::default();
        ask.header.family = if ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        let what = || "list rules".to_owned();
        let answers = self
            .send(RouteNetlinkMessage::GetRule(ask), NLM_F_DUMP, what)
            .await?;
        Ok(answers.into_iter().filter_map(way_rule).collect())
    }

    async fn way_routes(&self, ipv6: bool) -> Result<Vec<(u16, Option<NextHop>)>, LinkError> {
        let mut ask = RouteMessage::default();
        ask.header.address_family = if ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        let what = || "list routes".to_owned();
        let answers = self
            .send(RouteNetlinkMessage::GetRoute(ask), NLM_F_DUMP, what)
            .await?;
        Ok(answers.into_iter().filter_map(way_route).collect())
    }
}

fn way_rule(message: RouteNetlinkMessage) -> Option<(u16, Mark)> {
    let RouteNetlinkMessage::NewRule(message) = message else {
        return None;
    };
    if !message.attributes.contains(&RuleAttribute::Protocol(OURS)) {
        return None;
    }
    let (mut table, mut value, mut mask) = (None, None, None);
    for attribute in &message.attributes {
        if let RuleAttribute::Table(found) = attribute {
            table = Some(*found);
        } else if let RuleAttribute::FwMark(found) = attribute {
            value = Some(*found);
        } else if let RuleAttribute::FwMask(found) = attribute {
            mask = Some(*found);
        }
    }
    let mark = Mark {
        value: value?,
        mask: mask?,
    };
    Some((number(table?)?, mark))
}

fn way_route(message: RouteNetlinkMessage) -> Option<(u16, Option<NextHop>)> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.protocol != OURS {
        return None;
    }
    let table = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Table(table) = attribute {
            Some(*table)
        } else {
            None
        }
    });
    let (address, link) = hop(&message);
    let next = address.zip(link);
    let next = next.map(|(address, link)| NextHop { address, link });
    Some((number(table?)?, next))
}

/// The gateway and the link of a route.
fn hop(message: &RouteMessage) -> (Option<IpAddr>, Option<LinkIndex>) {
    let (mut gateway, mut link) = (None, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Gateway(RouteAddress::Inet(ip)) = attribute {
            gateway = Some((*ip).into());
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(ip)) = attribute {
            gateway = Some((*ip).into());
        } else if let RouteAttribute::Oif(index) = attribute {
            link = Some(LinkIndex(*index));
        }
    }
    (gateway, link)
}

#[cfg(test)]
mod tests;
