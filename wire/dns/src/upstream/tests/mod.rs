//! Tables and laws of what a forwarder is made of.

mod cache;
mod names;
mod servers;

use crate::{Name, Rtype, Transport};

use super::{Age, Ask, Key, Received};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn query(text: &str, rtype: Rtype) -> Vec<u8> {
    crate::query(7, &name(text), rtype)
}

fn key(text: &str) -> Key {
    Key::of(&query(text, Rtype::A)).unwrap()
}

/// A record in wire form, its owner spelled out.
fn record(owner: &str, rtype: Rtype, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = name(owner).as_wire().to_vec();
    out.extend_from_slice(&rtype.0.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn soa(owner: &str, ttl: u32, minimum: u32) -> Vec<u8> {
    let mut data = [name("ns").as_wire(), name("mail").as_wire()].concat();
    for number in [1, 2, 3, 4, minimum] {
        data.extend_from_slice(&u32::to_be_bytes(number));
    }
    record(owner, Rtype::SOA, ttl, &data)
}

/// A reply to a query without EDNS, with these records by section.
fn reply(query: &[u8], rcode: u8, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    out[3] |= 0x80 | rcode;
    for (section, records) in sections.iter().enumerate() {
        out[7 + 2 * section] = records.len() as u8;
        for record in *records {
            out.extend_from_slice(record);
        }
    }
    out
}

fn received(text: &str, ttl: u32) -> Received {
    let asked = query(text, Rtype::A);
    let answer = record(text, Rtype::A, ttl, &[192, 0, 2, 1]);
    Received::read(&reply(&asked, 0, [&[answer], &[], &[]])).unwrap()
}

/// The TTL of the last record of a reply, which is an A record.
fn shown_ttl(reply: &[u8]) -> u32 {
    let (_, end) = reply.split_at(reply.len() - 10);
    u32::from_be_bytes(*end.first_chunk().unwrap())
}
