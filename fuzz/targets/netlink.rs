//! Answers of nftables: no bytes panic, and whatever is understood of them has a
//! text, and can be made and taken away again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_nft::netlink::{Dump, encode, messages};
use portolan_nft::{Ruleset, diff};

/// Netlink's header, with netfilter's behind it.
const HEAD: usize = 20;
const NFTABLES: u16 = 10;

fuzz_target!(|bytes: &[u8]| {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    // Either whole messages, or bodies that are given a header, which random bytes
    // hardly ever have: a kind, a length, and as many bytes.
    let buffer = if form & 1 == 0 {
        rest.to_vec()
    } else {
        framed(rest)
    };
    let mut dump = if form & 2 == 0 {
        Dump::new()
    } else {
        Dump::with_learned()
    };
    for message in messages(&buffer) {
        dump.take(&message);
    }
    drop((dump.sets(), dump.generation()));
    let ruleset = dump.finish();
    drop(ruleset.text());
    let batch = diff(&Ruleset::new(), &ruleset);
    drop(encode(&batch, 500, 1, None).count());
    // A table with parts that this language lacks is always made anew.
    if !ruleset.tables.values().any(|table| table.alien) {
        assert!(
            diff(&ruleset, &ruleset).is_empty(),
            "nothing differs from itself"
        );
    }
});

/// Messages of nftables with these bodies.
fn framed(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((&[kind, family, length], after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let whole = HEAD + body.len();
        out.extend_from_slice(&u32::try_from(whole).unwrap_or(0).to_ne_bytes());
        let kind = NFTABLES << 8 | u16::from(kind % 32);
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(&[if family & 1 == 0 { 2 } else { 10 }, 0, 0, 0]);
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
