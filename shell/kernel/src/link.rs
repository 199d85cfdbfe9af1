//! Links and their addresses in one network namespace, over rtnetlink.
//!
//! [`Links`] is a connection that was opened inside the namespace and keeps
//! acting there, whichever task uses it. Every operation that removes
//! something succeeds when it is already gone. Routes are in [`crate::route`],
//! on the same handle.
//!
//! Absent on purpose: a wait for link state. What is made here is up when the
//! call returns, and IPv6 addresses skip duplicate detection because the
//! namespaces of a lab know all their neighbours.

use std::{fmt, io, net::IpAddr, os::fd::AsRawFd};

use futures::StreamExt;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};

use crate::netns::{NetNs, NetNsError};

/// Flags of a request that makes something new and may not find it there.
pub(crate) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Flags of a request that makes something or replaces what is there.
pub(crate) const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// A handle for links, addresses, neighbours and routes of one namespace.
#[derive(Clone, Debug)]
pub struct Links {
    handle: rtnetlink::Handle,
    ns: NetNs,
}

/// The number by which the kernel knows a link inside its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A hardware address.
pub type Mac = [u8; 6];

/// One link, as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// The largest packet it takes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// The bridge it belongs to.
    pub master: Option<LinkIndex>,
}

/// One end of a veth pair to be made; it is up from the start.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address; the kernel picks one otherwise.
    pub mac: Option<Mac>,
}

/// What was being done when the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The namespace could not be entered to open the connection.
    #[error("cannot open rtnetlink in a network namespace")]
    Namespace(#[source] NetNsError),
    /// The netlink socket could not be opened.
    #[error("cannot open an rtnetlink socket")]
    Open(#[source] io::Error),
    /// One request failed.
    #[error("cannot {action}")]
    Request {
        /// The operation with its operands, such as `add bridge fabric0`.
        action: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// A link that was just made, or that the caller named, is not there.
    #[error("there is no link {name}")]
    NoSuchLink {
        /// Its name.
        name: String,
    },
}

impl Links {
    /// Opens a connection inside `ns`. Must be called within a tokio runtime.
    pub fn open(ns: &NetNs) -> Result<Self, LinkError> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _events) = ns
            .run(|| {
                let _inside = runtime.enter();
                rtnetlink::new_connection()
            })
            .map_err(LinkError::Namespace)?
            .map_err(LinkError::Open)?;
        // The connection ends by itself when the last handle is dropped.
        drop(runtime.spawn(connection));
        Ok(Self {
            handle,
            ns: ns.clone(),
        })
    }

    /// The namespace in which this handle acts.
    pub fn netns(&self) -> &NetNs {
        &self.ns
    }

    /// Makes a bridge and switches it on.
    pub async fn add_bridge(&self, name: &str) -> Result<LinkIndex, LinkError> {
        let mut link = named(name, None, None);
        link.attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Bridge,
            )]));
        self.send(RouteNetlinkMessage::NewLink(link), CREATE, || {
            format!("add bridge {name}")
        })
        .await?;
        self.index(name).await
    }

    /// Makes a veth pair: `here` in this namespace, `there` where `peer` acts.
    /// Both ends are up. Returns the index of `here`.
    pub async fn add_veth(
        &self,
        here: VethEnd<'_>,
        there: VethEnd<'_>,
        peer: &Links,
        mtu: Option<u32>,
    ) -> Result<LinkIndex, LinkError> {
        let mut other = named(there.name, there.mac, mtu);
        // A veth cannot go up before it has its other half.
        other.header.flags = LinkFlags::empty();
        other
            .attributes
            .push(LinkAttribute::NetNsFd(peer.ns.as_raw_fd()));
        let mut link = named(here.name, here.mac, mtu);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        self.send(RouteNetlinkMessage::NewLink(link), CREATE, || {
            format!("add veth {} with peer {}", here.name, there.name)
        })
        .await?;
        peer.set_up(peer.index(there.name).await?, true).await?;
        self.index(here.name).await
    }

    /// The index of the link called `name`.
    pub async fn index(&self, name: &str) -> Result<LinkIndex, LinkError> {
        self.find(name)
            .await?
            .map(|link| link.index)
            .ok_or_else(|| LinkError::NoSuchLink {
                name: name.to_owned(),
            })
    }

    /// The link called `name`, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, LinkError> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let found = self.request(RouteNetlinkMessage::GetLink(ask), 0).await;
        let answers = absent_is_empty(found, &[libc::ENODEV])
            .map_err(|cause| failed(format!("look up link {name}"), cause))?;
        Ok(answers.into_iter().find_map(link_of))
    }

    /// All links of the namespace, by index.
    pub async fn list(&self) -> Result<Vec<Link>, LinkError> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self
            .send(ask, NLM_F_DUMP, || "list links".to_owned())
            .await?;
        let mut links: Vec<Link> = answers.into_iter().filter_map(link_of).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Puts a link under a bridge, or takes it out.
    pub async fn set_master(
        &self,
        link: LinkIndex,
        master: Option<LinkIndex>,
    ) -> Result<(), LinkError> {
        let index = master.map_or(0, |m| m.0);
        self.change(
            link,
            vec![LinkAttribute::Controller(index)],
            "set the bridge of",
        )
        .await
    }

    /// Sets the largest packet of a link.
    pub async fn set_mtu(&self, link: LinkIndex, mtu: u32) -> Result<(), LinkError> {
        self.change(link, vec![LinkAttribute::Mtu(mtu)], "set the mtu of")
            .await
    }

    /// Sets the hardware address of a link.
    pub async fn set_mac(&self, link: LinkIndex, mac: Mac) -> Result<(), LinkError> {
        self.change(
            link,
            vec![LinkAttribute::Address(mac.to_vec())],
            "set the mac of",
        )
        .await
    }

    /// Switches a link on or off.
    pub async fn set_up(&self, link: LinkIndex, up: bool) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.0;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        let word = if up { "up" } else { "down" };
        self.send(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set link {link} {word}")
        })
        .await
        .map(drop)
    }

    /// Removes a link; of a veth pair, both ends. Gone already is success.
    pub async fn delete(&self, name: &str) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let done = self.request(RouteNetlinkMessage::DelLink(message), 0).await;
        absent_is_empty(done, &[libc::ENODEV])
            .map(drop)
            .map_err(|cause| failed(format!("delete link {name}"), cause))
    }

    async fn change(
        &self,
        link: LinkIndex,
        attributes: Vec<LinkAttribute>,
        action: &str,
    ) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.0;
        message.attributes = attributes;
        self.send(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("{action} link {link}")
        })
        .await
        .map(drop)
    }

    /// One request; its refusal names the operation.
    pub(crate) async fn send(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        self.request(message, flags)
            .await
            .map_err(|cause| failed(action(), cause))
    }

    /// One request and everything that comes back for it.
    pub(crate) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        let ack = if flags & NLM_F_DUMP == NLM_F_DUMP {
            0
        } else {
            NLM_F_ACK
        };
        request.header.flags = NLM_F_REQUEST | ack | flags;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(io::Error::other)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                // Code zero is the acknowledgement.
                if error.code.is_some() {
                    return Err(error.to_io());
                }
            } else if let NetlinkPayload::InnerMessage(message) = answer.payload {
                found.push(message);
            }
        }
        Ok(found)
    }
}

/// The error of a request that had operands.
pub(crate) fn failed(action: String, cause: io::Error) -> LinkError {
    LinkError::Request { action, cause }
}

/// Turns "it is not there" into an empty answer.
pub(crate) fn absent_is_empty(
    result: io::Result<Vec<RouteNetlinkMessage>>,
    absent: &[i32],
) -> io::Result<Vec<RouteNetlinkMessage>> {
    result.or_else(|cause| {
        let gone = cause
            .raw_os_error()
            .is_some_and(|code| absent.contains(&code));
        if gone { Ok(Vec::new()) } else { Err(cause) }
    })
}

/// The address family of an address.
pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn named(name: &str, mac: Option<Mac>, mtu: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: LinkIndex(message.header.index),
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
    };
    for attribute in message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name = name;
        } else if let LinkAttribute::Address(mac) = attribute {
            link.mac = mac.try_into().ok();
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = mtu;
        } else if let LinkAttribute::Controller(master) = attribute {
            link.master = Some(LinkIndex(master));
        }
    }
    Some(link)
}

#[cfg(test)]
mod tests;
