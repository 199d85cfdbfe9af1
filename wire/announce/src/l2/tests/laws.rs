//! Laws over arbitrary frames, and over frames that are nearly right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::super::ethernet::{self, Frame, Mac};
use super::super::{Link, arp, ndp};
use super::{NOW, OWNED, OWNED6, US, hex, quiet};

/// Whatever goes in, what comes out is valid, short, from us, and about an
/// owned address.
fn check(link: &mut Link, bytes: &[u8]) -> Result<(), TestCaseError> {
    let heard = link.receive(bytes, NOW);
    prop_assert!(heard.frames.len() <= 2);
    for frame in heard.frames {
        let frame = Frame::parse(&frame).expect("a frame");
        prop_assert_eq!(frame.source, US);
        let about = match frame.ether_type {
            ethernet::ARP => IpAddr::from(arp::Packet::parse(frame.payload).unwrap().sender),
            ethernet::IPV6 => {
                let message = ndp::Message::parse(frame.payload).expect("a valid message");
                prop_assert_eq!(message.source, message.target);
                prop_assert_eq!(message.mac, Some(US));
                IpAddr::from(message.target)
            }
            other => return Err(TestCaseError::fail(format!("EtherType {other:x}"))),
        };
        prop_assert!(link.owns(about));
    }
    Ok(())
}

fn seeds() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(hex(super::WHO_HAS)),
        Just(hex(super::SOLICITATION)),
        Just(hex(super::TRIAL)),
        Just(ndp::announcement(OWNED6, Mac([2, 0, 0, 0, 0, 7]))),
        Just(arp::announcement(OWNED, Mac([2, 0, 0, 0, 0, 7]))[1].clone()),
    ]
}

proptest! {
    #[test]
    fn no_bytes_lead_to_an_invalid_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&mut quiet(), &bytes)?;
    }

    #[test]
    fn no_mutation_leads_to_an_invalid_answer(
        mut bytes in seeds(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&mut quiet(), &bytes)?;
    }

    #[test]
    fn packets_are_read_as_written(
        reply in any::<bool>(), sender in any::<u32>(), target in any::<u32>(), mac in any::<[u8; 6]>(),
    ) {
        let packet = arp::Packet {
            operation: if reply { arp::Operation::Reply } else { arp::Operation::Request },
            sender_mac: Mac(mac),
            sender: Ipv4Addr::from_bits(sender),
            target_mac: Mac::ZERO,
            target: Ipv4Addr::from_bits(target),
        };
        let nobody = packet.sender.is_multicast()
            || packet.sender.is_broadcast()
            || packet.sender.is_loopback();
        let expected = (packet.sender_mac.is_station() && !nobody).then_some(packet);
        prop_assert_eq!(arp::Packet::parse(&packet.bytes()), expected);
    }

    /// The queue and the groups follow what is owned, whatever the order.
    #[test]
    fn bookkeeping_follows_what_is_owned(
        steps in prop::collection::vec((0_u8..3, 0_u8..6), 0..40),
    ) {
        let address = |n: u8| match n % 2 {
            0 => IpAddr::from([192, 0, 2, n]),
            _ => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, u16::from(n), 0, 0, 0, 0, 1)),
        };
        let mut link = Link::new(US);
        let mut now = Duration::ZERO;
        let mut owned = std::collections::BTreeSet::new();
        for (what, n) in steps {
            now += Duration::from_millis(700);
            match what {
                0 => prop_assert_eq!(link.own(address(n), now), owned.insert(address(n))),
                1 => prop_assert_eq!(link.release(address(n)), owned.remove(&address(n))),
                _ => {
                    let frames = link.announce(now, 100);
                    prop_assert!(frames.len() <= 2 * owned.len());
                    prop_assert!(link.deadline().is_none_or(|due| due > now));
                }
            }
            prop_assert!(link.owned().eq(owned.iter().copied()));
            let sixth = owned.iter().any(IpAddr::is_ipv6);
            prop_assert_eq!(link.groups().count(), usize::from(sixth), "all end alike");
            prop_assert_eq!(owned.is_empty(), link.deadline().is_none());
        }
    }
}
