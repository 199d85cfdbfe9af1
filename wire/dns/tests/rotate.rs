//! The order of addresses in replies of others.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use portolan_dns::{Name, Rtype, query, rotate};
use proptest::prelude::*;

/// Where the name of the question stands.
const QUESTION: &[u8] = b"\xc0\x0c";
const A: u16 = 1;
const CNAME: u16 = 5;
const RRSIG: u16 = 46;

fn record(owner: &[u8], rtype: u16, ttl: u8, data: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, ttl]);
    out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn reply(answers: &[Vec<u8>], additional: &[Vec<u8>]) -> Vec<u8> {
    let mut out = query(7, &Name::parse("www.example.com").unwrap(), Rtype::A);
    out[2] |= 0x80;
    out[7] = u8::try_from(answers.len()).unwrap();
    out[11] = u8::try_from(additional.len()).unwrap();
    out.extend(answers.iter().chain(additional).flatten());
    out
}

fn address(owner: &[u8], last: u8) -> Vec<u8> {
    record(owner, A, 30, &[192, 0, 2, last])
}

/// The last octets of the addresses in the answer section, in their order.
fn order(reply: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = 12 + 17 + 4;
    for _ in 0..reply[7] {
        let owner = if reply[at] >= 0xc0 { 2 } else { 17 };
        let fixed = at + owner;
        let length = usize::from(u16::from_be_bytes([reply[fixed + 8], reply[fixed + 9]]));
        if reply[fixed + 1] == 1 {
            all.push(reply[fixed + 13]);
        }
        at = fixed + 10 + length;
    }
    all
}

fn turned(reply: &[u8], rotation: u64) -> Vec<u8> {
    let mut turned = reply.to_vec();
    rotate(&mut turned, rotation);
    turned
}

#[test]
fn d18_each_address_comes_first_in_turn() {
    let plain = reply(&[1, 2, 3].map(|last| address(QUESTION, last)), &[]);
    assert_eq!(order(&turned(&plain, 0)), [1, 2, 3]);
    assert_eq!(order(&turned(&plain, 1)), [2, 3, 1]);
    assert_eq!(order(&turned(&plain, 2)), [3, 1, 2]);
    assert_eq!(
        order(&turned(&plain, u64::MAX)),
        order(&turned(&plain, u64::MAX % 3))
    );
}

#[test]
fn d18_only_addresses_of_one_name_change_places() {
    let long = b"\x03www\x07example\x03com\0";
    // An alias before them, a signature behind them, and others' in addition.
    let alias = record(QUESTION, CNAME, 30, long);
    let target = 0xc000 + u16::try_from(12 + 17 + 4 + 12).unwrap();
    let target = target.to_be_bytes();
    let signature = record(&target, RRSIG, 30, &[1; 24]);
    let answers = [
        alias.clone(),
        address(&target, 1),
        address(&target, 2),
        signature.clone(),
    ];
    let glue = [address(QUESTION, 8), address(QUESTION, 9)];
    let before = reply(&answers, &glue);
    let swapped = [alias, address(&target, 2), address(&target, 1), signature];
    assert_eq!(turned(&before, 1), reply(&swapped, &glue));
    // The first one is spelled out, and the others point to it.
    let at = (0xc000_u16 + 12 + 17 + 4).to_be_bytes();
    let spelled = reply(&[address(long, 1), address(&at, 2), address(&at, 3)], &[]);
    let expected = reply(&[address(long, 2), address(&at, 3), address(&at, 1)], &[]);
    assert_eq!(turned(&spelled, 1), expected);
    // Two names, and two that must not be one: their TTLs differ.
    let two = reply(&[address(QUESTION, 1), address(&target, 2)], &[]);
    assert_eq!(turned(&two, 1), two);
    let ttls = reply(
        &[
            address(QUESTION, 1),
            record(QUESTION, A, 31, &[192, 0, 2, 2]),
        ],
        &[],
    );
    assert_eq!(turned(&ttls, 1), ttls);
    let mut failed = reply(&[1, 2].map(|last| address(QUESTION, last)), &[]);
    failed[3] |= 2;
    assert_eq!(turned(&failed, 1), failed);
}

#[test]
fn d18_more_addresses_than_anybody_has_are_survived() {
    let many: Vec<Vec<u8>> = (0..255).map(|last| address(QUESTION, last)).collect();
    let plain = reply(&many, &[]);
    let order = order(&turned(&plain, 100));
    assert_eq!(
        (order[0], order[154], order[155], order[254]),
        (100, 254, 0, 99)
    );
}

proptest! {
    /// Whatever the octets are, nothing is lost, and nothing but addresses moves.
    #[test]
    fn damage_is_survived(
        at in 0_usize..120,
        to: u8,
        cut in 0_usize..120,
        rotation: u64,
    ) {
        let mut octets = reply(&[1, 2, 3, 4].map(|last| address(QUESTION, last)), &[]);
        let at = at % octets.len();
        octets[at] = to;
        octets.truncate(cut);
        let mut turned = turned(&octets, rotation);
        prop_assert_eq!(turned.len(), octets.len());
        turned.sort_unstable();
        octets.sort_unstable();
        prop_assert_eq!(turned, octets);
    }
}
