//! What a peer should hear of, what it has heard of, and the UPDATEs between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustbgpd_wire::{
    Ipv4NlriEntry, Ipv4Prefix, Ipv4UnicastMode, MAX_MESSAGE_LEN, Message, PathAttribute,
    UpdateMessage, encode_message,
};

use super::attributes::{self, Attributes};
use super::config::{Config, Family};
use super::open::Agreed;

/// Why a prefix that should be announced to a peer is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Untold {
    /// The session is not up.
    NoSession,
    /// The peer does not speak of this family.
    Family,
    /// The next hop is of the other family, which the peer does not take.
    NextHop,
    /// Its attributes cannot be said: they are too long, or have AS 0.
    Attributes,
}

/// How prefixes are put into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// In the fields of RFC 4271.
    Body,
    /// In attributes (RFC 4760).
    Attribute,
}

/// The routes of one session, outbound.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    desired: BTreeMap<IpNet, Arc<Attributes>>,
    told: BTreeMap<IpNet, Arc<Attributes>>,
    /// Where both may differ.
    dirty: BTreeSet<IpNet>,
    /// Families whose end the peer is to be told once all is known.
    ends: BTreeSet<Family>,
    complete: bool,
}

impl Rib {
    /// A prefix is to be announced with these attributes.
    pub fn announce(&mut self, prefix: IpNet, attributes: Arc<Attributes>) {
        let prefix = prefix.trunc();
        self.dirty.insert(prefix);
        self.desired.insert(prefix, attributes);
    }

    /// A prefix is not to be announced any more. False if it was not to be.
    pub fn withdraw(&mut self, prefix: IpNet) -> bool {
        let prefix = prefix.trunc();
        self.dirty.insert(prefix);
        self.desired.remove(&prefix).is_some()
    }

    /// What is to be announced is known in whole: before that, no End-of-RIB is
    /// sent.
    pub const fn complete(&mut self) {
        self.complete = true;
    }

    /// How many prefixes are to be announced, and how many the peer was told.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.desired.len(), self.told.len())
    }

    /// What the peer was told, in order.
    pub fn told(&self) -> impl Iterator<Item = (IpNet, &Attributes)> + '_ {
        self.told.iter().map(|(prefix, a)| (*prefix, &**a))
    }

    /// Why a prefix that should be announced is not; `None` if it is, or should
    /// not be. `agreed` is that of the session that is up.
    #[must_use]
    pub fn untold(&self, prefix: IpNet, agreed: Option<&Agreed>) -> Option<Untold> {
        let attributes = self.desired.get(&prefix)?;
        if self.told.contains_key(&prefix) {
            return None;
        }
        let Some(agreed) = agreed else {
            return Some(Untold::NoSession);
        };
        let way = way(prefix, attributes.next_hop, agreed);
        Some(way.err().unwrap_or(Untold::Attributes))
    }

    /// A session is up, whose peer knows nothing.
    pub(super) fn begin(&mut self, agreed: &Agreed) {
        self.told.clear();
        self.dirty = self.desired.keys().copied().collect();
        self.ends = match agreed.restart {
            Some(_) => agreed.families.iter().copied().collect(),
            None => BTreeSet::new(),
        };
    }

    /// The session is over.
    pub(super) fn end(&mut self) {
        self.told.clear();
        self.dirty.clear();
        self.ends.clear();
    }

    /// The peer asks for a family again (RFC 2918).
    pub(super) fn refresh(&mut self, family: Family) {
        let desired = &self.desired;
        self.told
            .retain(|prefix, _| Family::of(*prefix) != family || !desired.contains_key(prefix));
        let again = desired.keys().filter(|p| Family::of(**p) == family);
        self.dirty.extend(again.copied());
    }

    /// The messages that tell the peer what has changed. Announcements come first:
    /// where one prefix takes the place of another, there is no moment without
    /// either.
    pub(super) fn flush(&mut self, config: &Config, agreed: &Agreed) -> Vec<Vec<u8>> {
        let mut announced: BTreeMap<(Way, Family, Arc<Attributes>), Vec<IpNet>> = BTreeMap::new();
        let mut withdrawn: BTreeMap<(Way, Family), Vec<IpNet>> = BTreeMap::new();
        for prefix in std::mem::take(&mut self.dirty) {
            let family = Family::of(prefix);
            let had = self.told.get(&prefix);
            let want = self.desired.get(&prefix).and_then(|attributes| {
                let way = way(prefix, attributes.next_hop, agreed).ok()?;
                Some((way, attributes))
            });
            match (want, had) {
                (Some((_, new)), Some(old)) if new == old => {}
                (Some((way, new)), _) => {
                    let key = (way, family, Arc::clone(new));
                    announced.entry(key).or_default().push(prefix);
                }
                (None, Some(old)) => {
                    let way = way(prefix, old.next_hop, agreed).unwrap_or(Way::Body);
                    withdrawn.entry((way, family)).or_default().push(prefix);
                }
                (None, None) => {}
            }
        }
        let mut out = Vec::new();
        for ((way, family, attributes), prefixes) in announced {
            let messages = announcements(way, &attributes, &prefixes, config, agreed);
            // What cannot be said takes away what was said before: the peer must
            // not go on with it.
            if messages.is_empty() {
                let gone = prefixes.iter().filter(|p| self.told.contains_key(*p));
                withdrawn
                    .entry((way, family))
                    .or_default()
                    .extend(gone.copied());
                continue;
            }
            out.extend(messages);
            for prefix in prefixes {
                self.told.insert(prefix, Arc::clone(&attributes));
            }
        }
        for ((way, family), prefixes) in withdrawn {
            for prefix in &prefixes {
                self.told.remove(prefix);
            }
            out.extend(withdrawals(way, family, &prefixes));
        }
        if self.complete {
            let ends = std::mem::take(&mut self.ends);
            out.extend(ends.into_iter().filter_map(end_of_rib));
        }
        out
    }
}

/// How a prefix can be told, if it can.
fn way(prefix: IpNet, next_hop: IpAddr, agreed: &Agreed) -> Result<Way, Untold> {
    if !agreed.families.contains(&Family::of(prefix)) {
        return Err(Untold::Family);
    }
    match (prefix, next_hop) {
        (IpNet::V4(_), IpAddr::V4(_)) => Ok(Way::Body),
        (IpNet::V4(_), IpAddr::V6(_)) if agreed.extended_next_hop => Ok(Way::Attribute),
        (IpNet::V6(_), IpAddr::V6(_)) => Ok(Way::Attribute),
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => Err(Untold::NextHop),
    }
}

/// How many bytes a prefix takes in a message.
fn size(prefix: IpNet) -> usize {
    1 + usize::from(prefix.prefix_len().div_ceil(8))
}

/// Prefixes in runs of as many as fit into so many bytes.
fn runs(prefixes: &[IpNet], room: usize) -> Vec<&[IpNet]> {
    let mut out = Vec::new();
    let mut rest = prefixes;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = rest
            .iter()
            .take_while(|prefix| {
                used += size(**prefix);
                used <= room
            })
            .count();
        let (run, after) = rest.split_at(fits);
        if run.is_empty() {
            return Vec::new();
        }
        out.push(run);
        rest = after;
    }
    out
}

/// What is left of a message that already has so many bytes, with one to spare: the
/// length of an attribute above 255 takes a byte more.
fn room_beside(message: &UpdateMessage) -> usize {
    usize::from(MAX_MESSAGE_LEN).saturating_sub(message.encoded_len() + 1)
}

/// An UPDATE with these parts.
fn update(
    announced: &[IpNet],
    withdrawn: &[IpNet],
    attributes: &[PathAttribute],
    four_byte_as: bool,
) -> Option<UpdateMessage> {
    let body = |list: &[IpNet]| -> Vec<Ipv4NlriEntry> {
        list.iter()
            .filter_map(|prefix| match prefix {
                IpNet::V4(net) => Some(Ipv4NlriEntry {
                    path_id: 0,
                    prefix: Ipv4Prefix::new(net.network(), net.prefix_len()),
                }),
                IpNet::V6(_) => None,
            })
            .collect()
    };
    UpdateMessage::try_build(
        &body(announced),
        &body(withdrawn),
        attributes,
        four_byte_as,
        false,
        Ipv4UnicastMode::Body,
    )
    .ok()
}

fn bytes(message: UpdateMessage) -> Option<Vec<u8>> {
    let encoded = encode_message(&Message::Update(message)).ok()?;
    Some(encoded.to_vec())
}

/// The messages that announce prefixes; none if the attributes cannot be said.
fn announcements(
    way: Way,
    attributes: &Attributes,
    prefixes: &[IpNet],
    config: &Config,
    agreed: &Agreed,
) -> Vec<Vec<u8>> {
    let four = agreed.four_byte_as;
    let mut list = attributes.for_peer(config);
    let built: Option<Vec<Vec<u8>>> = match (way, attributes.next_hop) {
        (Way::Body, IpAddr::V4(next_hop)) => {
            // In order of types, as RFC 4271 section 5 asks: after the path.
            list.insert(2, PathAttribute::NextHop(next_hop));
            let Some(bare) = update(&[], &[], &list, four) else {
                return Vec::new();
            };
            runs(prefixes, room_beside(&bare))
                .into_iter()
                .map(|run| bytes(update(run, &[], &list, four)?))
                .collect()
        }
        (Way::Body | Way::Attribute, next_hop) => {
            // RFC 7606 section 5.1: as the very first attribute.
            let with = |run: &[IpNet]| -> Option<UpdateMessage> {
                let mut all = vec![attributes::reach(run, next_hop)?];
                all.extend(list.iter().cloned());
                update(&[], &[], &all, four)
            };
            let Some((first, one)) = prefixes.first().zip(with(prefixes.get(..1).unwrap_or(&[])))
            else {
                return Vec::new();
            };
            runs(prefixes, room_beside(&one) + size(*first))
                .into_iter()
                .map(|run| bytes(with(run)?))
                .collect()
        }
    };
    built.unwrap_or_default()
}

/// The messages that withdraw prefixes.
fn withdrawals(way: Way, family: Family, prefixes: &[IpNet]) -> Vec<Vec<u8>> {
    let message = |run: &[IpNet]| match way {
        Way::Body => update(&[], run, &[], true),
        Way::Attribute => update(&[], &[], &[attributes::unreach(family, run)], true),
    };
    let Some(bare) = message(&[]) else {
        return Vec::new();
    };
    let runs = runs(prefixes, room_beside(&bare)).into_iter();
    runs.filter_map(|run| bytes(message(run)?)).collect()
}

/// The End-of-RIB of a family (RFC 4724 section 2).
fn end_of_rib(family: Family) -> Option<Vec<u8>> {
    match family {
        Family::V4 => bytes(update(&[], &[], &[], true)?),
        Family::V6 => bytes(update(
            &[],
            &[],
            &[attributes::unreach(Family::V6, &[])],
            true,
        )?),
    }
}
