//! The machine of one link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::ethernet::{self, Frame, Mac};
use super::{arp, ndp};

/// When an address is announced, as times since it is owned. Caches of others may
/// have missed the first; the rare ones are for stations that were away.
const SCHEDULE: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(180),
    Duration::from_secs(240),
    Duration::from_secs(300),
];

/// RFC 5227's DEFEND_INTERVAL.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Another station claims an address that is owned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The station.
    pub mac: Mac,
}

/// What a frame led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Frames to send, in this order.
    pub frames: Vec<Vec<u8>>,
    /// Whether somebody else claims an owned address.
    pub conflict: Option<Conflict>,
    /// The owned address that somebody asked for, and was answered.
    pub answered: Option<IpAddr>,
}

/// The state of one owned address.
#[derive(Clone, Copy, Debug)]
struct Owned {
    since: Duration,
    /// The next place in the schedule; beyond its end, nothing is due.
    step: usize,
    defended: Option<Duration>,
}

impl Owned {
    fn due(&self) -> Option<Duration> {
        SCHEDULE.get(self.step).map(|after| self.since + *after)
    }
}

/// The addresses that are answered for on one link, and what is due to be said.
/// Times are those since any fixed start, the same for all calls.
#[derive(Clone, Debug)]
pub struct Link {
    mac: Mac,
    owned: BTreeMap<IpAddr, Owned>,
    /// What is due, by time: the addresses of `owned` that have a next step.
    queue: BTreeSet<(Duration, IpAddr)>,
    /// How many owned addresses share a group.
    groups: BTreeMap<Ipv6Addr, u32>,
}

impl Link {
    /// A link where this node is the station `mac`, and owns nothing yet.
    #[must_use]
    pub const fn new(mac: Mac) -> Self {
        Self {
            mac,
            owned: BTreeMap::new(),
            queue: BTreeSet::new(),
            groups: BTreeMap::new(),
        }
    }

    /// The station that answers.
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// The link has another link-layer address: everything owned is announced
    /// anew, since others know the old one.
    pub fn set_mac(&mut self, mac: Mac, now: Duration) {
        if mac == self.mac {
            return;
        }
        self.mac = mac;
        let addresses: Vec<IpAddr> = self.owned.keys().copied().collect();
        for address in addresses {
            self.release(address);
            self.own(address, now);
        }
    }

    /// This node owns an address from now on. False, and nothing happens, if it
    /// did so already, or if no single station can own it (a group, `::`, a
    /// loopback address, 255.255.255.255).
    pub fn own(&mut self, address: IpAddr, now: Duration) -> bool {
        let everybody = address == IpAddr::V4(Ipv4Addr::BROADCAST);
        let nobody = address.is_multicast() || address.is_unspecified() || address.is_loopback();
        if everybody || nobody || self.owned.contains_key(&address) {
            return false;
        }
        let owned = Owned {
            since: now,
            step: 0,
            defended: None,
        };
        self.owned.insert(address, owned);
        self.queue.insert((now, address));
        if let IpAddr::V6(address) = address {
            *self.groups.entry(ndp::solicited_node(address)).or_insert(0) += 1;
        }
        true
    }

    /// This node no longer owns an address: nothing is said about it any more.
    /// False if it did not own it.
    pub fn release(&mut self, address: IpAddr) -> bool {
        let Some(owned) = self.owned.remove(&address) else {
            return false;
        };
        if let Some(due) = owned.due() {
            self.queue.remove(&(due, address));
        }
        if let IpAddr::V6(address) = address {
            let group = ndp::solicited_node(address);
            let last = match self.groups.get_mut(&group) {
                Some(count) => {
                    *count = count.saturating_sub(1);
                    *count == 0
                }
                None => false,
            };
            if last {
                self.groups.remove(&group);
            }
        }
        true
    }

    /// Whether this node owns an address.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.owned.contains_key(&address)
    }

    /// The owned addresses, in order.
    pub fn owned(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.owned.keys().copied()
    }

    /// The groups that must be joined on the link, so that solicitations for
    /// owned addresses arrive.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.groups.keys().copied()
    }

    /// Whether a group must be joined.
    #[must_use]
    pub fn needs(&self, group: Ipv6Addr) -> bool {
        self.groups.contains_key(&group)
    }

    /// When the next announcement is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The announcements that are due, of at most so many addresses: what is left
    /// stays due. A take-over of many addresses does not flood the link at once
    /// if the caller waits a little between its calls.
    pub fn announce(&mut self, now: Duration, most: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for _ in 0..most {
            let Some((due, address)) = self.queue.first().copied() else {
                break;
            };
            if due > now {
                break;
            }
            self.queue.remove(&(due, address));
            self.say(address, &mut frames);
            let Some(owned) = self.owned.get_mut(&address) else {
                continue;
            };
            owned.step += 1;
            // Whoever was late says it once, not once for each time missed.
            while owned.due().is_some_and(|next| next <= now) {
                owned.step += 1;
            }
            if let Some(next) = owned.due() {
                self.queue.insert((next, address));
            }
        }
        frames
    }

    fn say(&self, address: IpAddr, frames: &mut Vec<Vec<u8>>) {
        match address {
            IpAddr::V4(address) => frames.extend(arp::announcement(address, self.mac)),
            IpAddr::V6(address) => frames.push(ndp::announcement(address, self.mac)),
        }
    }

    /// A frame came in from the link.
    #[must_use]
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Heard {
        let Some(frame) = Frame::parse(bytes) else {
            return Heard::default();
        };
        // A tagged frame is of another link, and what we sent ourselves is no news.
        if frame.vlan.is_some() || frame.source == self.mac {
            return Heard::default();
        }
        match frame.ether_type {
            ethernet::ARP => self.receive_arp(&frame, now),
            ethernet::IPV6 => self.receive_ndp(&frame, now),
            _ => Heard::default(),
        }
    }

    fn receive_arp(&mut self, frame: &Frame<'_>, now: Duration) -> Heard {
        let Some(packet) = arp::of(frame, self.mac) else {
            return Heard::default();
        };
        if packet.sender_mac == self.mac {
            return Heard::default();
        }
        if self.owns(packet.sender.into()) {
            return self.claimed(packet.sender.into(), packet.sender_mac, now);
        }
        let answer = match self.owns(packet.target.into()) {
            true => arp::answer(&packet, self.mac),
            false => None,
        };
        Heard {
            answered: answer.as_ref().map(|_| packet.target.into()),
            frames: answer.into_iter().collect(),
            conflict: None,
        }
    }

    fn receive_ndp(&mut self, frame: &Frame<'_>, now: Duration) -> Heard {
        let Some(message) = ndp::of(frame, self.mac) else {
            return Heard::default();
        };
        let claimant = message.mac.unwrap_or(frame.source);
        if claimant == self.mac {
            return Heard::default();
        }
        match message.kind {
            ndp::Kind::Advertisement { .. } if self.owns(message.target.into()) => {
                self.claimed(message.target.into(), claimant, now)
            }
            ndp::Kind::Advertisement { .. } => Heard::default(),
            ndp::Kind::Solicitation if self.owns(message.source.into()) => {
                self.claimed(message.source.into(), claimant, now)
            }
            ndp::Kind::Solicitation => {
                let target = message.target;
                let to_it = message.destination == target
                    || message.destination == ndp::solicited_node(target);
                let answer = match to_it && self.owns(target.into()) {
                    true => ndp::answer(&message, frame.source, self.mac),
                    false => None,
                };
                Heard {
                    answered: answer.as_ref().map(|_| target.into()),
                    frames: answer.into_iter().collect(),
                    conflict: None,
                }
            }
        }
    }

    /// Another station speaks as an address that is owned here.
    fn claimed(&mut self, address: IpAddr, mac: Mac, now: Duration) -> Heard {
        let mut frames = Vec::new();
        let may = self.owned.get_mut(&address).is_some_and(|owned| {
            let may = owned
                .defended
                .is_none_or(|last| now.saturating_sub(last) >= DEFEND_INTERVAL);
            if may {
                owned.defended = Some(now);
            }
            may
        });
        if may {
            self.say(address, &mut frames);
        }
        Heard {
            frames,
            conflict: Some(Conflict { address, mac }),
            answered: None,
        }
    }
}
