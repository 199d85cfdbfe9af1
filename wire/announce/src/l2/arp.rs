//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use super::ethernet::{self, Frame, Mac};

/// Hardware Ethernet, protocol IPv4, addresses of six and four bytes.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// The length of a packet of these.
const LENGTH: usize = 28;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender's address.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whether it asks or answers.
    pub operation: Operation,
    /// The link-layer address of the sender.
    pub sender_mac: Mac,
    /// The address of the sender; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The link-layer address of the target; it means nothing in a request.
    pub target_mac: Mac,
    /// The address that is asked for, or answered to.
    pub target: Ipv4Addr,
}

impl Packet {
    /// Reads the payload of a frame. `None` for other hardware and protocols, for
    /// operations other than request and reply, where it ends too early, and
    /// where the sender is no single station.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = payload.first_chunk()?;
        let (kind, rest) = bytes.split_first_chunk::<6>()?;
        if *kind != ETHERNET_IPV4 {
            return None;
        }
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let operation = match u16::from_be_bytes(*operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk::<6>()?;
        let (target, _) = rest.split_first_chunk::<4>()?;
        let packet = Self {
            operation,
            sender_mac: Mac(*sender_mac),
            sender: Ipv4Addr::from(*sender),
            target_mac: Mac(*target_mac),
            target: Ipv4Addr::from(*target),
        };
        let sender = packet.sender;
        let nobody = sender.is_multicast() || sender.is_broadcast() || sender.is_loopback();
        (packet.sender_mac.is_station() && !nobody).then_some(packet)
    }

    /// The packet as the payload of a frame.
    #[must_use]
    pub fn bytes(&self) -> [u8; LENGTH] {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut out = [0; LENGTH];
        let parts: [&[u8]; 6] = [
            &ETHERNET_IPV4,
            &operation.to_be_bytes(),
            &self.sender_mac.0,
            &self.sender.octets(),
            &self.target_mac.0,
            &self.target.octets(),
        ];
        let bytes = parts.into_iter().flatten();
        for (slot, byte) in out.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        out
    }
}

/// What an owner of `address` at `mac` answers to a request, if it is one that
/// wants an answer: not what announces an address of the asker's own.
#[must_use]
pub fn answer(request: &Packet, mac: Mac) -> Option<Vec<u8>> {
    if request.operation != Operation::Request || request.sender == request.target {
        return None;
    }
    let reply = Packet {
        operation: Operation::Reply,
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
    };
    let to = request.sender_mac;
    Some(ethernet::frame(to, mac, ethernet::ARP, &reply.bytes()))
}

/// Both forms of gratuitous ARP: some stations take news from requests only,
/// some from replies only.
#[must_use]
pub fn announcement(address: Ipv4Addr, mac: Mac) -> [Vec<u8>; 2] {
    // RFC 5227 section 3: requests, with a target address of zeros; RFC 2002
    // section 4.6: replies, with the address to be updated to.
    [(Operation::Request, Mac::ZERO), (Operation::Reply, mac)].map(|(operation, target_mac)| {
        let packet = Packet {
            operation,
            sender_mac: mac,
            sender: address,
            target_mac,
            target: address,
        };
        ethernet::frame(Mac::BROADCAST, mac, ethernet::ARP, &packet.bytes())
    })
}

/// Reads the ARP packet of a frame, if it went to everybody or to `mac`.
#[must_use]
pub fn of(frame: &Frame<'_>, mac: Mac) -> Option<Packet> {
    let ours = frame.destination == Mac::BROADCAST || frame.destination == mac;
    if frame.ether_type != ethernet::ARP || !ours {
        return None;
    }
    Packet::parse(frame.payload)
}
