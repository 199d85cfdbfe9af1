//! Zones as octets, for whoever keeps them while nobody answers from them.
//!
//! ```text
//! zones = count:u32 zone…
//! zone  = origin server mailbox ttl:u32 denies serial:u32 count:u32 name…
//!         count:u32 whole…
//! denies = 0 (all) | 1 (nothing) | 2 count:u32 (length:u8 label)…
//! name  = being:u8 length:u8 labels size:u32 groups
//! whole = length:u8 labels count:u32 part…
//! part  = length:u8 label size:u32 groups
//! ```
//!
//! Numbers are big-endian, names of a zone's head are in wire form, and groups are
//! as in `packed`. Only names that were set are written: the others follow. Reading
//! sets each name anew and compares, so that whatever is read is a zone as [`Zone`]
//! makes them; anything else is an error, never a panic.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{MAX_NAME, Name, Spelled};
use crate::packed::{Being, Cursor, Node};
use crate::record::Record;
use crate::zone::{Denies, Zone};
use crate::zones::Zones;

/// The octets are not zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the octets are no zones")]
pub struct NoZones;

impl Zones {
    /// Hands all octets to `put`, piece by piece: they may be more than should be in
    /// memory twice.
    ///
    /// # Errors
    /// The first one of `put`.
    pub fn write<E>(&self, mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        put(&number(self.iter().count()))?;
        for zone in self.iter() {
            let about = zone.about();
            for name in [&about.origin, &about.server, &about.mailbox] {
                put(name.as_wire())?;
            }
            put(&about.ttl.to_be_bytes())?;
            match &about.denies {
                Denies::All => put(&[0])?,
                Denies::Nothing => put(&[1])?,
                Denies::Below(labels) => {
                    put(&[2])?;
                    put(&number(labels.len()))?;
                    for label in labels {
                        put(&[u8::try_from(label.len()).unwrap_or(u8::MAX)])?;
                        put(label)?;
                    }
                }
            }
            put(&zone.serial().to_be_bytes())?;
            let set = || zone.nodes().filter(|node| node.explicit());
            put(&number(set().count()))?;
            for node in set() {
                // A name has at most 255 octets.
                let length = u8::try_from(node.name().len()).unwrap_or(u8::MAX);
                put(&[node.being() as u8, length])?;
                put(node.name())?;
                put(&number(node.groups().len()))?;
                put(node.groups())?;
            }
            put(&number(zone.wholes().count()))?;
            for (key, parts) in zone.wholes() {
                put(&[u8::try_from(key.len()).unwrap_or(u8::MAX)])?;
                put(key)?;
                put(&number(parts.iter().count()))?;
                for (label, node) in parts.iter() {
                    put(&[u8::try_from(label.len()).unwrap_or(u8::MAX)])?;
                    put(label)?;
                    put(&number(node.groups().len()))?;
                    put(node.groups())?;
                }
            }
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// If the octets are anything else, or more than that.
    pub fn read(octets: &[u8]) -> Result<Self, NoZones> {
        let mut rest = Cursor(octets);
        let zones = zones(&mut rest).ok_or(NoZones)?;
        if rest.0.is_empty() {
            Ok(zones)
        } else {
            Err(NoZones)
        }
    }
}

fn number(value: usize) -> [u8; 4] {
    // No zone has four thousand million names.
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

fn zones(rest: &mut Cursor<'_>) -> Option<Zones> {
    let mut zones = Zones::default();
    let mut origins = BTreeSet::new();
    for _ in 0..rest.u32()? {
        let zone = zone(rest)?;
        if !origins.insert(zone.origin().clone()) {
            return None;
        }
        zones.insert(zone);
    }
    Some(zones)
}

fn zone(rest: &mut Cursor<'_>) -> Option<Zone> {
    let (origin, server, mailbox) = (name(rest)?, name(rest)?, name(rest)?);
    let ttl = rest.u32()?;
    let mut zone = Zone::with_authority(origin, ttl, 0, (server, mailbox));
    match rest.u8()? {
        0 => {}
        1 => zone = zone.falling_through(),
        2 => zone = zone.answering_below(labels(rest)?),
        _ => return None,
    }
    let serial = rest.u32()?;
    for _ in 0..rest.u32()? {
        let being = match rest.u8()? {
            1 => Being::Set,
            2 => Being::Spelling,
            _ => return None,
        };
        let length = rest.u8()?;
        let labels = rest.take(usize::from(length))?;
        let size = usize::try_from(rest.u32()?).ok()?;
        set(&mut zone, being, labels, rest.take(size)?)?;
    }
    for _ in 0..rest.u32()? {
        whole(&mut zone, rest)?;
    }
    zone.set_serial(serial);
    Some(zone)
}

/// Labels in their order, each once and in lower case.
fn labels(rest: &mut Cursor<'_>) -> Option<BTreeSet<Vec<u8>>> {
    let mut all = BTreeSet::new();
    for _ in 0..rest.u32()? {
        let length = rest.u8()?;
        let label = rest.take(usize::from(length))?.to_vec();
        let is_next = all.last().is_none_or(|last| *last < label);
        if !is_next || label.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        all.insert(label);
    }
    Some(all)
}

/// The parts of one name.
fn whole(zone: &mut Zone, rest: &mut Cursor<'_>) -> Option<()> {
    let length = rest.u8()?;
    let labels = rest.take(usize::from(length))?;
    let owner = owner(zone, labels)?;
    let mut groups = BTreeMap::new();
    for _ in 0..rest.u32()? {
        let length = rest.u8()?;
        let label = rest.take(usize::from(length))?.to_vec();
        let size = usize::try_from(rest.u32()?).ok()?;
        if groups.insert(label, rest.take(size)?).is_some() {
            return None;
        }
    }
    let records = groups.iter().map(|(label, groups)| {
        let records = records(&owner, labels, groups);
        (label.clone(), records)
    });
    let parts = records.collect();
    // Whoever wrote it gave each name its parts once.
    if !zone.set_parts(&owner.to_name(), Some(&parts)).ok()? {
        return None;
    }
    let found = zone.parts_of(owner.prefix_above(zone.origin().as_wire())?)?;
    let mut read = groups.iter();
    let same = found.iter().all(|(label, node)| {
        read.next()
            .is_some_and(|(other, groups)| label == *other && node.groups() == *groups)
    });
    (same && read.next().is_none()).then_some(())
}

/// The name with these labels before the origin.
fn owner(zone: &Zone, labels: &[u8]) -> Option<Spelled> {
    let wire = [labels, zone.origin().as_wire()].concat();
    Spelled::read(&wire).filter(|owner| owner.wire() == wire)
}

fn records(owner: &Spelled, labels: &[u8], groups: &[u8]) -> Vec<Record> {
    let kept = Node::new(labels, 0, Being::Set, groups);
    kept.all_groups()
        .flat_map(|group| group.records(owner))
        .collect()
}

/// Sets a name by its labels before the origin, to groups.
fn set(zone: &mut Zone, being: Being, labels: &[u8], groups: &[u8]) -> Option<()> {
    let owner = owner(zone, labels)?;
    let records = records(&owner, labels, groups);
    zone.put(&owner.to_name(), being, &records).ok()?;
    let key = owner.prefix_above(zone.origin().as_wire())?;
    let node = zone.node(key)?;
    (node.groups() == groups && node.being() == being).then_some(())
}

/// A name in wire form.
fn name(rest: &mut Cursor<'_>) -> Option<Name> {
    let start = rest.0.get(..rest.0.len().min(MAX_NAME))?;
    let spelled = Spelled::read(start)?;
    let wire = rest.take(spelled.wire().len())?;
    // Upper case is nothing that was written.
    (spelled.wire() == wire).then(|| spelled.to_name())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Data, Rtype};
    use crate::{Transport, query};

    fn written(zones: &Zones) -> Vec<u8> {
        let mut out = Vec::new();
        let put = |piece: &[u8]| {
            out.extend_from_slice(piece);
            Ok::<(), std::convert::Infallible>(())
        };
        zones.write(put).unwrap();
        out
    }

    fn n(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// One of each kind of record, an empty name, a spelling one and an implied one.
    fn example() -> Zones {
        let mut zone = Zone::new(n("cluster.local"), 7, 42);
        let all = [
            Data::A([10, 0, 0, 1].into()).into(),
            Data::A([10, 0, 0, 2].into()).into(),
            Data::Aaaa("fd00::1".parse().unwrap()).into(),
            Record {
                ttl: Some(30),
                data: Data::Txt(vec![b"one".to_vec(), b"two".to_vec()]),
            },
            Data::Srv {
                priority: 0,
                weight: 100,
                port: 80,
                target: n("a.web.x.svc.cluster.local"),
            }
            .into(),
        ];
        zone.set(&n("web.x.svc.cluster.local"), &all).unwrap();
        let out = Data::Cname(n("www.example.com")).into();
        zone.set(&n("out.x.svc.cluster.local"), &[out]).unwrap();
        zone.set(&n("y.svc.cluster.local"), &[]).unwrap();
        zone.set_spelling(&n("x.pod.cluster.local")).unwrap();
        let parts = BTreeMap::from([
            (b"west-a".to_vec(), vec![all[0].clone(), all[4].clone()]),
            (b"west-b".to_vec(), vec![]),
        ]);
        zone.set_parts(&n("web.x.svc.cluster.local"), Some(&parts))
            .unwrap();
        zone.set_parts(&n("cold.x.svc.cluster.local"), Some(&BTreeMap::new()))
            .unwrap();
        let mut reverse = Zone::with_authority(
            n("in-addr.arpa"),
            7,
            3,
            (n("ns.dns.cluster.local"), n("hostmaster.cluster.local")),
        )
        .falling_through();
        let pointer = Data::Ptr(n("web.x.svc.cluster.local")).into();
        reverse
            .set(&n("1.0.0.10.in-addr.arpa"), &[pointer])
            .unwrap();
        let narrow = Zone::new(n("2.0.10.in-addr.arpa"), 7, 4).answering_below(["8", "9", "10"]);
        Zones::new([zone, reverse, narrow])
    }

    fn same(one: &Zones, other: &Zones) -> bool {
        let serials = |zones: &Zones| zones.iter().map(Zone::serial).collect::<Vec<_>>();
        one == other && serials(one) == serials(other)
    }

    #[test]
    fn d20_zones_are_read_as_they_were_written() {
        let zones = example();
        let octets = written(&zones);
        let read = Zones::read(&octets).unwrap();
        assert!(same(&read, &zones), "{read:?}");
        assert_eq!(written(&read), octets);
        // Implied names and spelled addresses answer as before, and names can go.
        for asked in [
            "svc.cluster.local",
            "10-0-0-9.x.pod.cluster.local",
            "west-a.pin._zone.web.x.svc.cluster.local",
            "x.prefer._zone.cold.x.svc.cluster.local",
            "9.2.0.10.in-addr.arpa",
            "11.2.0.10.in-addr.arpa",
        ] {
            let asked = query(1, &n(asked), Rtype::A);
            let answer = |zones: &Zones| {
                let mut out = Vec::new();
                zones.answer(&asked, Transport::Udp, 0, &mut out);
                out
            };
            assert_eq!(answer(&read), answer(&zones));
        }
        assert_eq!(
            Zones::read(&written(&Zones::default())).unwrap(),
            Zones::default()
        );
    }

    #[test]
    fn every_cut_and_every_tail_is_refused() {
        let octets = written(&example());
        for length in 0..octets.len() {
            assert_eq!(Zones::read(&octets[..length]), Err(NoZones), "{length}");
        }
        assert_eq!(Zones::read(&[&octets[..], b"\0"].concat()), Err(NoZones));
    }

    proptest! {
        /// Damaged octets are refused, or are other zones that are as sound.
        #[test]
        fn damage_makes_no_unsound_zone(at in 0_usize..600, to: u8) {
            let mut octets = written(&example());
            let at = at % octets.len();
            octets[at] = to;
            if let Ok(read) = Zones::read(&octets) {
                let again = Zones::read(&written(&read)).unwrap();
                prop_assert!(same(&read, &again));
            }
        }
    }
}
