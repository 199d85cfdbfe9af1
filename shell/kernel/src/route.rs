//! Routes of the main table (and the local one) of a network namespace.
//!
//! A route is one value, [`Route`]; writing it twice changes nothing, and
//! deleting what is gone is success.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};
use rtnetlink::packet_core::NLM_F_DUMP;

use crate::link::{CREATE, LinkError, LinkIndex, Links, REPLACE, absent_is_empty, failed, family};

/// `RT_TABLE_LOCAL`, where addresses are that the host answers for.
const TABLE_LOCAL: u8 = 255;

/// ICMP for IPv6, which the library has no name for (RFC 4443).
const IPPROTO_ICMPV6: i32 = 58;

/// Where packets for a range go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The range; `0.0.0.0/0` or `::/0` is the default route.
    pub to: IpNet,
    /// What happens to them.
    pub kind: RouteKind,
    /// The source address for traffic that starts here.
    pub source: Option<IpAddr>,
    /// Preference among routes to one range; lower wins, the kernel's default
    /// otherwise.
    pub metric: Option<u32>,
    /// A table of its own, to which a [`Rule`] leads, instead of the usual one.
    pub table: Option<u8>,
}

/// Which packets look into a table of its own before the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The family that it is for.
    pub ipv6: bool,
    /// What the packets carry.
    pub traffic: RuleTraffic,
    /// The table to look into; if it has no route, the search goes on.
    pub table: u8,
    /// Rules are tried in this order; the usual tables come at 32766.
    pub priority: u32,
}

/// What packets carry for which a [`Rule`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleTraffic {
    /// TCP from this port: what a server answers.
    FromTcpPort(u16),
    /// UDP from this port: what a server answers.
    FromUdpPort(u16),
    /// ICMP of the family.
    Icmp,
}

/// What happens to packets that take a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// The destination is a neighbour on this link.
    Link(LinkIndex),
    /// They go to a gateway that some other route reaches.
    Via(IpAddr),
    /// They go to a gateway on this link, even if no route covers the gateway.
    OnLink(IpAddr, LinkIndex),
    /// They are dropped without a word.
    Blackhole,
    /// They are refused with an ICMP error.
    Unreachable,
    /// The host itself answers for the whole range (table `local`).
    Local(LinkIndex),
}

impl Route {
    /// A route without source or metric.
    pub fn new(to: IpNet, kind: RouteKind) -> Self {
        Self {
            to,
            kind,
            source: None,
            metric: None,
            table: None,
        }
    }

    /// The same route with a preferred source address.
    #[must_use]
    pub fn with_source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The same route with a metric.
    #[must_use]
    pub fn with_metric(mut self, metric: u32) -> Self {
        self.metric = Some(metric);
        self
    }

    /// The same route in a table of its own.
    #[must_use]
    pub fn in_table(mut self, table: u8) -> Self {
        self.table = Some(table);
        self
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.to.addr());
        message.header.destination_prefix_length = self.to.prefix_len();
        message.header.table = self.table.unwrap_or(RouteHeader::RT_TABLE_MAIN);
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.to.network().into()));
        attributes.extend(self.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        match self.kind {
            RouteKind::Link(link) => {
                attributes.push(RouteAttribute::Oif(link.0));
                message.header.scope = RouteScope::Link;
            }
            RouteKind::Via(gateway) => attributes.push(RouteAttribute::Gateway(gateway.into())),
            RouteKind::OnLink(gateway, link) => {
                attributes.push(RouteAttribute::Gateway(gateway.into()));
                attributes.push(RouteAttribute::Oif(link.0));
                message.header.flags = RouteFlags::Onlink;
            }
            RouteKind::Blackhole => message.header.kind = RouteType::BlackHole,
            RouteKind::Unreachable => message.header.kind = RouteType::Unreachable,
            RouteKind::Local(link) => {
                attributes.push(RouteAttribute::Oif(link.0));
                message.header.kind = RouteType::Local;
                message.header.scope = RouteScope::Host;
                message.header.table = TABLE_LOCAL;
            }
        }
        if self.to.addr().is_ipv6() {
            // IPv6 has no scopes for routes; the kernel ignores or refuses them.
            message.header.scope = RouteScope::Universe;
        }
        message
    }
}

impl Rule {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        message.header.table = self.table;
        message.header.action = RuleAction::ToTable;
        let (protocol, port) = match self.traffic {
            RuleTraffic::FromTcpPort(port) => (IpProtocol::Tcp, Some(port)),
            RuleTraffic::FromUdpPort(port) => (IpProtocol::Udp, Some(port)),
            RuleTraffic::Icmp if self.ipv6 => (IpProtocol::Other(IPPROTO_ICMPV6), None),
            RuleTraffic::Icmp => (IpProtocol::Icmp, None),
        };
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::IpProtocol(protocol),
        ];
        message.attributes.extend(port.map(|port| {
            RuleAttribute::SourcePortRange(RulePortRange {
                start: port,
                end: port,
            })
        }));
        message
    }
}

impl Links {
    /// Adds a route; it is an error if the same one exists.
    pub async fn add_route(&self, route: &Route) -> Result<(), LinkError> {
        self.send(
            RouteNetlinkMessage::NewRoute(route.message()),
            CREATE,
            || format!("add route to {} ({:?})", route.to, route.kind),
        )
        .await
        .map(drop)
    }

    /// Adds a route or replaces the one to the same range.
    pub async fn replace_route(&self, route: &Route) -> Result<(), LinkError> {
        self.send(
            RouteNetlinkMessage::NewRoute(route.message()),
            REPLACE,
            || format!("replace route to {} ({:?})", route.to, route.kind),
        )
        .await
        .map(drop)
    }

    /// Removes a route. Gone already is success.
    pub async fn del_route(&self, route: &Route) -> Result<(), LinkError> {
        let done = self
            .request(RouteNetlinkMessage::DelRoute(route.message()), 0)
            .await;
        absent_is_empty(done, &[libc::ESRCH, libc::ENODEV])
            .map(drop)
            .map_err(|cause| {
                failed(
                    format!("delete route to {} ({:?})", route.to, route.kind),
                    cause,
                )
            })
    }

    /// Adds a rule, or leaves it if it is there.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), LinkError> {
        let done = self
            .request(RouteNetlinkMessage::NewRule(rule.message()), CREATE)
            .await;
        absent_is_empty(done, &[libc::EEXIST])
            .map(drop)
            .map_err(|cause| failed(format!("add rule {rule:?}"), cause))
    }

    /// The ranges that the main table has routes to, in order, both families.
    pub async fn route_destinations(&self) -> Result<Vec<IpNet>, LinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RouteMessage::default();
            ask.header.address_family = family;
            let what = || format!("list {family:?} routes");
            let answers = self
                .send(RouteNetlinkMessage::GetRoute(ask), NLM_F_DUMP, what)
                .await?;
            found.extend(answers.into_iter().filter_map(destination_of));
        }
        found.sort();
        Ok(found)
    }
}

fn destination_of(message: RouteNetlinkMessage) -> Option<IpNet> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let ip = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(to) = attribute {
            ip_of(to)
        } else {
            None
        }
    });
    let any: IpAddr = if message.header.address_family == AddressFamily::Inet {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    IpNet::new(ip.unwrap_or(any), message.header.destination_prefix_length).ok()
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(ip) = address {
        Some((*ip).into())
    } else if let RouteAddress::Inet6(ip) = address {
        Some((*ip).into())
    } else {
        None
    }
}
