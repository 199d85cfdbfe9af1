//! Ranges less others, as intervals that do not overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_model::{Block, Family};

/// The addresses of one family in the blocks of some steps: intervals by their first
/// and last address, in order, each with the first step that is about it.
pub(super) fn steps_of(steps: &[Vec<&Block>], family: Family) -> Vec<(IpAddr, IpAddr, u32)> {
    let mut found: Vec<((u128, u128), u32)> = Vec::new();
    let mut taken: Vec<(u128, u128)> = Vec::new();
    for (step, blocks) in (0..).zip(steps) {
        let same = |block: &&&Block| Family::of(block.range.addr()) == family;
        let own = merged(blocks.iter().filter(same).flat_map(|block| less(block)));
        for whole in &own {
            found.extend(without(*whole, &taken).into_iter().map(|part| (part, step)));
        }
        taken = merged(taken.into_iter().chain(own));
    }
    found.sort_unstable();
    let back = |((first, last), step)| (address(first, family), address(last, family), step);
    found.into_iter().map(back).collect()
}

/// Whether an address comes right after another.
pub(super) fn follows(before: IpAddr, after: IpAddr) -> bool {
    number(before).checked_add(1) == Some(number(after))
}

/// Intervals in order, with something between them.
fn merged(all: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u128)> {
    let mut all: Vec<(u128, u128)> = all.collect();
    all.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some((_, end)) if end.checked_add(1).is_none_or(|next| first <= next) => {
                *end = last.max(*end);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// A block's range without what is excepted.
fn less(block: &Block) -> Vec<(u128, u128)> {
    let same = |net: &&IpNet| Family::of(net.addr()) == Family::of(block.range.addr());
    let holes = merged(block.except.iter().filter(same).map(bounds));
    without(bounds(&block.range), &holes)
}

/// An interval without holes, which are in order.
fn without((first, last): (u128, u128), holes: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut left = Vec::new();
    let mut from = Some(first);
    for (hole, end) in holes {
        let Some(start) = from else { break };
        if *end < start || *hole > last {
            continue;
        }
        if start < *hole {
            left.push((start, hole - 1));
        }
        from = end.checked_add(1).filter(|next| *next <= last);
    }
    left.extend(from.map(|start| (start, last)));
    left
}

fn bounds(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(range: &str, except: &[&str]) -> Block {
        let net = |text: &str| text.parse().expect("a range");
        Block {
            range: net(range),
            except: except.iter().map(|text| net(text)).collect(),
        }
    }

    #[track_caller]
    fn check(blocks: &[Block], family: Family, wanted: &[(&str, &str)]) {
        let found = steps_of(&[blocks.iter().collect()], family);
        let text: Vec<(String, String)> = found
            .iter()
            .map(|(first, last, _)| (first.to_string(), last.to_string()))
            .collect();
        let wanted: Vec<(String, String)> = wanted
            .iter()
            .map(|(first, last)| ((*first).to_owned(), (*last).to_owned()))
            .collect();
        assert_eq!(text, wanted);
    }

    #[test]
    fn n8_a_range_less_others() {
        let v4 = Family::V4;
        check(
            &[block("10.0.0.0/8", &[])],
            v4,
            &[("10.0.0.0", "10.255.255.255")],
        );
        check(
            &[block(
                "10.0.0.0/8",
                &["10.1.0.0/16", "10.0.0.0/24", "10.1.2.0/24"],
            )],
            v4,
            &[("10.0.1.0", "10.0.255.255"), ("10.2.0.0", "10.255.255.255")],
        );
        check(
            &[block("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.128/25"])],
            v4,
            &[],
        );
        check(
            &[block("0.0.0.0/0", &["255.0.0.0/8"])],
            v4,
            &[("0.0.0.0", "254.255.255.255")],
        );
        check(
            &[block("::/0", &["ffff::/16"]), block("10.0.0.0/8", &[])],
            Family::V6,
            &[("::", "fffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff")],
        );
    }

    /// What one block excepts another may allow.
    #[test]
    fn n8_blocks_are_added() {
        check(
            &[
                block("10.0.0.0/24", &["10.0.0.128/25"]),
                block("10.0.0.192/26", &[]),
            ],
            Family::V4,
            &[("10.0.0.0", "10.0.0.127"), ("10.0.0.192", "10.0.0.255")],
        );
        check(
            &[block("10.0.1.0/24", &[]), block("10.0.0.0/24", &[])],
            Family::V4,
            &[("10.0.0.0", "10.0.1.255")],
        );
    }

    /// An address belongs to the first step that has it.
    #[test]
    fn n19_earlier_steps_take_their_addresses() {
        let first = block("10.0.0.64/26", &[]);
        let second = block("10.0.0.0/24", &["10.0.0.128/26"]);
        let third = block("10.0.0.0/23", &[]);
        let steps = [vec![&first], vec![&second], vec![&third]];
        let found = steps_of(&steps, Family::V4);
        let text: Vec<String> = found
            .iter()
            .map(|(first, last, step)| format!("{first} {last} {step}"))
            .collect();
        assert_eq!(
            text,
            [
                "10.0.0.0 10.0.0.63 1",
                "10.0.0.64 10.0.0.127 0",
                "10.0.0.128 10.0.0.191 2",
                "10.0.0.192 10.0.0.255 1",
                "10.0.1.0 10.0.1.255 2",
            ]
        );
        assert_eq!(steps_of(&steps, Family::V6), []);
    }
}
