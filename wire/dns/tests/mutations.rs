//! A million damaged packets: none makes the code panic, answers with garbage or
//! makes more of itself than a client asked for. `cargo xtask fuzz dns` goes on from
//! there.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::net::IpAddr;

use domain::base::Rtype as Type;
use domain::base::iana::Class;
use portolan_dns::{Answer, CookieSecret, Identity, Transport, adorn, is_transfer};
use support::{cluster, query, query_of};

const PACKETS: u32 = 1_000_000;

/// The same packets on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most.max(1)
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        ("web.prod.svc.cluster.local", Type::A, None),
        ("many.prod.svc.cluster.local", Type::A, Some(1232)),
        ("many.prod.svc.cluster.local", Type::AAAA, Some(65_535)),
        ("_sql._tcp.db.prod.svc.cluster.local", Type::SRV, Some(512)),
        ("in.prod.svc.cluster.local", Type::A, Some(4096)),
        ("out.prod.svc.cluster.local", Type::A, None),
        ("dns-version.cluster.local", Type::TXT, None),
        ("1.7.96.10.in-addr.arpa", Type::PTR, Some(1232)),
        ("cluster.local", Type::SOA, Some(1232)),
        ("cluster.local", Type::AXFR, None),
        ("cluster.local", Type::IXFR, Some(1232)),
        ("web.prod.svc.cluster.local", Type::ANY, Some(1232)),
        ("nope.cluster.local", Type::A, Some(1232)),
    ]
    .into_iter()
    .map(|(owner, rtype, size)| query(owner, rtype, size))
    .collect();
    seeds.push(query_of("version.bind", Type::TXT, Class::CH, None));
    // With a cookie, a padding and a question for the server's name.
    let mut options = query("web.prod.svc.cluster.local", Type::A, Some(1232));
    let at = options.len() - 1;
    options[at] = 24;
    options.extend(b"\x00\x0a\x00\x08abcdefgh\x00\x0c\x00\x04\x00\x00\x00\x00\x00\x03\x00\x00");
    seeds.push(options);
    seeds
}

fn mutate(packet: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(packet.len());
        match dice.below(6) {
            0 => packet.truncate(at),
            1 => packet.insert(at, dice.below(256) as u8),
            2 => drop(packet.drain(..at.min(3))),
            3 => packet.extend_from_within(at..),
            // Lengths, pointers and counts are where trouble is.
            4 => *packet.get_mut(at).unwrap_or(&mut 0) = [0, 1, 63, 64, 192, 255][dice.below(6)],
            _ => *packet.get_mut(at).unwrap_or(&mut 0) = dice.below(256) as u8,
        }
        if packet.is_empty() {
            packet.push(0);
        }
    }
}

/// What a client may get for a datagram: what plain DNS allows, or what its own EDNS
/// record grants, which lies at one of the offsets after the question.
fn granted(packet: &[u8]) -> usize {
    let opt = packet
        .windows(5)
        .filter(|window| window[..3] == [0, 0, 41])
        .map(|window| usize::from(u16::from_be_bytes([window[3], window[4]])));
    opt.max().unwrap_or(0).max(512)
}

#[test]
fn d18_a_million_damaged_packets_do_no_harm() {
    let (zones, seeds) = (cluster(), seeds());
    let identity = Identity::new("node-1", CookieSecret::new([1; 16]));
    let client = IpAddr::from([10, 244, 1, 7]);
    let mut dice = Dice(0x706f_7274_6f6c_616e);
    let (mut out, mut packet) = (Vec::new(), Vec::new());
    let (mut replies, mut dropped) = (0_u32, 0_u32);
    for number in 0..PACKETS {
        packet.clear();
        packet.extend_from_slice(&seeds[dice.below(seeds.len())]);
        mutate(&mut packet, &mut dice);
        match zones.answer(&packet, Transport::Udp, u64::from(number), &mut out) {
            Answer::Reply | Answer::Follow(_) => {
                adorn(&packet, client, 1_800_000_000, &identity, &mut out);
                replies += 1;
                assert!(out.len() <= granted(&packet), "{packet:?}\n{out:?}");
                assert_eq!(out[..2], packet[..2], "the query's ID");
                assert_eq!(packet[2] & 0x80, 0, "a reply was answered: {packet:?}");
                assert_ne!(out[2] & 0x80, 0);
                if number % 16 == 0 {
                    readable(&out);
                }
            }
            Answer::Forward => {}
            Answer::Drop => dropped += 1,
        }
        if is_transfer(&packet) {
            let mut transfer = zones.transfer(&packet, Transport::Tcp);
            let mut rounds = 0;
            while transfer.next(&packet, Transport::Tcp, &mut out) {
                rounds += 1;
                assert!(rounds < 100, "a transfer without end: {packet:?}");
            }
            readable(&out);
        }
    }
    assert!(replies > PACKETS / 4 && dropped > PACKETS / 100);
}

#[track_caller]
fn readable(reply: &[u8]) {
    let message = domain::base::Message::from_octets(reply).unwrap();
    let (_, answer, authority, additional) = message.sections().unwrap();
    for section in [answer, authority, additional] {
        for record in section {
            record.unwrap();
        }
    }
}
