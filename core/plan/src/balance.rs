//! How connections are spread over endpoints: algorithm, weights, slots.
//!
//! A choice is a table of slots, each with the endpoint it stands for, and a rule
//! by which a connection gets its slot: at random, by counting on, or by its
//! client's address. Weights are how many slots an endpoint has. So all three
//! algorithms honour them, and a change of one endpoint is a few slots.
//!
//! Where endpoints are alike each has one slot. In which one it sits follows from the
//! endpoints alone as well, but not from its rank among them: then one that comes or
//! goes would move half of the others.
//!
//! The table by client address is Maglev's (Eisenbud and others, NSDI 2016): each
//! endpoint has an order of its own in which it wants slots, which follows from its
//! address alone, and they take turns. All nodes make the same table of the same
//! endpoints, and an endpoint that comes or goes moves little more than its own
//! clients.

use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::Algorithm;

use crate::frontend::Target;

/// The seed of the hash that gives a client its slot; the same on all nodes of a
/// cluster and in all versions, or clients would move.
pub const CLIENT_SEED: u32 = 0x706f_7274;

/// Weights that need more slots than this (and more than there are endpoints) are
/// scaled down in proportion: a share is exact to about a thousandth.
pub const MOST_SLOTS: usize = 1000;

/// The sizes of tables by client address: primes, each four times the one before,
/// so that a Service seldom changes its size, when most of its clients move.
/// A slot costs 88 bytes of the kernel's memory for IPv4 and 118 for IPv6 (measured
/// on Linux 6.18): for each frontend of IPv4 5 KB up to 3 endpoints, 22 KB up to 12,
/// 90 KB up to 51, 360 KB up to 204, 1.4 MB up to 819, and 5.8 MB for more. Here it
/// costs 2 bytes.
pub const TABLE_SIZES: [usize; 6] = [61, 251, 1021, 4093, 16_381, 65_521];
/// How many slots of such a table there are at least for each endpoint, but in the
/// largest: of two endpoints none has over a twentieth more slots than the other.
const SLOTS_EACH: usize = 20;
/// And for each unit of weight.
const SLOTS_PER_WEIGHT: usize = 5;

/// Up to so many endpoints sit in their order, which reads well and moves no more
/// than these.
const IN_ORDER: usize = 16;

/// How a forward's connections are spread, where it is not one slot for each
/// endpoint and one of them at random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// How a connection gets its slot.
    pub algorithm: Algorithm,
    /// The weight of each target; empty where they are alike.
    pub weights: Vec<u16>,
    /// Which target each slot stands for; none for one slot each, in order.
    pub slots: Option<Arc<[u16]>>,
}

/// The balance of these targets, each with its weight (none where all have 1); none
/// for the usual one.
pub(crate) fn balance(
    algorithm: Algorithm,
    targets: &[Target],
    weights: Vec<u16>,
) -> Option<Arc<Balance>> {
    let alike = weights.windows(2).all(|pair| pair[0] == pair[1]);
    let weights = if alike { Vec::new() } else { weights };
    let shares = if alike {
        vec![1; targets.len()]
    } else {
        shares(&weights)
    };
    let slots = match algorithm {
        Algorithm::Random | Algorithm::RoundRobin if alike => seats(targets),
        Algorithm::Random | Algorithm::RoundRobin => Some(interleave(&shares)),
        Algorithm::Maglev => Some(by_client(targets, &shares)),
    };
    if algorithm == Algorithm::Random && slots.is_none() {
        return None;
    }
    Some(Arc::new(Balance {
        algorithm,
        weights,
        slots: slots.map(Arc::from),
    }))
}

/// A slot for each target, none for their order: one after another, in the order of
/// a hash, takes the first free one of those that it wants. It wants the same ones
/// among `n` and among `n + 1`, but where it wants the new one. So of 100 endpoints
/// 5 move when one is replaced and 8 when one comes or goes, in the mean; by their
/// rank it would be 37 and 50.
fn seats(targets: &[Target]) -> Option<Vec<u16>> {
    let count = u16::try_from(targets.len()).ok()?;
    if targets.len() <= IN_ORDER {
        return None;
    }
    let wants = |at: &Target| mix(hash(at.address) ^ u64::from(at.port));
    let mut order: Vec<(u64, u16)> = targets.iter().map(wants).zip(0..count).collect();
    order.sort_unstable();
    let mut seats: Vec<Option<u16>> = vec![None; targets.len()];
    for (mut wish, target) in order {
        // SplitMix64: every number comes, and so every slot.
        let mut slot = jump(mix(wish), count.into());
        while seats[slot].is_some() {
            wish = wish.wrapping_add(GAMMA);
            slot = jump(mix(wish), count.into());
        }
        seats[slot] = Some(target);
    }
    Some(seats.into_iter().flatten().collect())
}

/// Jump consistent hashing (Lamping and Veach, 2014): a slot below `slots`, the same
/// as below `slots - 1` unless it is the last one.
fn jump(mut key: u64, slots: u64) -> usize {
    let (mut slot, mut next) = (0, 0);
    while next < slots {
        slot = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((slot + 1) << 31) / ((key >> 33) + 1);
    }
    slot as usize
}

/// How many slots each weight gives: as few as keep the proportions, and not many
/// more than [`MOST_SLOTS`]. Who has a weight has a slot.
fn shares(weights: &[u16]) -> Vec<u32> {
    let shares: Vec<u32> = weights.iter().map(|weight| u32::from(*weight)).collect();
    let shares = reduced(shares);
    let sum: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let most = MOST_SLOTS.max(weights.len()) as u64;
    if sum <= most {
        return shares;
    }
    let scale = |share: u32| match share {
        0 => 0,
        _ => u32::try_from((u64::from(share) * most + sum / 2) / sum)
            .unwrap_or(u32::MAX)
            .max(1),
    };
    reduced(shares.into_iter().map(scale).collect())
}

fn reduced(shares: Vec<u32>) -> Vec<u32> {
    let divisor = shares.iter().copied().fold(0, gcd).max(1);
    shares.into_iter().map(|share| share / divisor).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Smooth weighted round robin: whoever is owed most is next, so that nobody gets
/// all its connections in one go.
fn interleave(shares: &[u32]) -> Vec<u16> {
    let total: i64 = shares.iter().map(|share| i64::from(*share)).sum();
    let mut owed = vec![0_i64; shares.len()];
    let mut slots = Vec::new();
    for _ in 0..total {
        let mut next = 0;
        for (at, share) in shares.iter().enumerate() {
            owed[at] += i64::from(*share);
            if owed[at] > owed[next] {
                next = at;
            }
        }
        owed[next] -= total;
        slots.push(u16::try_from(next).unwrap_or(u16::MAX));
    }
    slots
}

/// One who takes turns.
struct Taker {
    target: u16,
    share: u64,
    /// The share that it waits for until its next turn.
    due: u64,
    /// The slot that it wants next.
    wants: usize,
    skip: usize,
}

/// Maglev's table; who has a greater share has its turn more often.
fn by_client(targets: &[Target], shares: &[u32]) -> Vec<u16> {
    let size = table_size(shares);
    let most = shares.iter().copied().max().map_or(1, u64::from);
    let mut takers: Vec<Taker> = (0..=u16::MAX)
        .zip(targets.iter().zip(shares))
        .filter(|(_, (_, share))| **share > 0)
        .map(|(target, (at, share))| Taker::new(target, at.address, *share, size))
        .collect();
    let mut slots: Vec<Option<u16>> = vec![None; size];
    let mut free = if takers.is_empty() { 0 } else { size };
    let mut round = 0;
    while free > 0 {
        round += 1;
        for taker in &mut takers {
            if free == 0 || round * taker.share < taker.due {
                continue;
            }
            taker.due += most;
            while slots[taker.wants].is_some() {
                taker.wants = (taker.wants + taker.skip) % size;
            }
            slots[taker.wants] = Some(taker.target);
            free -= 1;
        }
    }
    slots.into_iter().flatten().collect()
}

impl Taker {
    fn new(target: u16, address: IpAddr, share: u32, size: usize) -> Self {
        let hash = hash(address);
        Self {
            target,
            share: share.into(),
            due: 0,
            // Primes: every skip visits every slot.
            wants: (hash % size as u64) as usize,
            skip: (mix(hash) % (size as u64 - 1)) as usize + 1,
        }
    }
}

fn table_size(shares: &[u32]) -> usize {
    let takers = shares.iter().filter(|share| **share > 0).count();
    let sum: usize = shares.iter().map(|share| *share as usize).sum();
    let weighted = shares.iter().any(|share| *share > 1);
    let needed = (takers * SLOTS_EACH).max(if weighted { sum * SLOTS_PER_WEIGHT } else { 0 });
    let [.., largest] = TABLE_SIZES;
    let mut sizes = TABLE_SIZES.into_iter();
    sizes.find(|size| *size >= needed).unwrap_or(largest)
}

/// The address alone: at its other ports a client finds the same pod. Never to be
/// changed, as [`CLIENT_SEED`].
fn hash(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let [high, low] = [(bits >> 64) as u64, bits as u64];
    mix(mix(high) ^ low)
}

/// The step of SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
