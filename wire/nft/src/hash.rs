//! `jhash`: Jenkins' hash of a field, as the kernel computes it
//! (include/linux/jhash.h, net/netfilter/nft_hash.c).

use std::net::IpAddr;

const INITIAL: u32 = 0xdead_beef;

/// The slot below `modulus` in which `jhash FIELD mod MODULUS seed SEED` puts what
/// the register holds: not a remainder, but the hash's share of the whole.
#[must_use]
pub fn slot(bytes: &[u8], modulus: u32, seed: u32) -> u32 {
    let scaled = u64::from(jhash(bytes, seed)) * u64::from(modulus);
    (scaled >> 32) as u32
}

/// The [`slot`] of an address, as `jhash ip saddr` and `jhash ip6 saddr` give it.
#[must_use]
pub fn slot_of(address: IpAddr, modulus: u32, seed: u32) -> u32 {
    match address {
        IpAddr::V4(address) => slot(&address.octets(), modulus, seed),
        IpAddr::V6(address) => slot(&address.octets(), modulus, seed),
    }
}

/// Jenkins' lookup3 of a key with a seed.
#[must_use]
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    let start = INITIAL
        .wrapping_add(u32::try_from(key.len()).unwrap_or(u32::MAX))
        .wrapping_add(seed);
    let [mut a, mut b, mut c] = [start; 3];
    let mut rest = key;
    while let Some((block, behind)) = rest.split_first_chunk::<12>()
        && !behind.is_empty()
    {
        let word = |at: usize| {
            let bytes = [block[at], block[at + 1], block[at + 2], block[at + 3]];
            u32::from_ne_bytes(bytes)
        };
        a = a.wrapping_add(word(0));
        b = b.wrapping_add(word(4));
        c = c.wrapping_add(word(8));
        [a, b, c] = mix(a, b, c);
        rest = behind;
    }
    if rest.is_empty() {
        return c;
    }
    let mut last = [0; 12];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    let [words_a, words_b, words_c] = [0, 4, 8]
        .map(|at| u32::from_le_bytes([last[at], last[at + 1], last[at + 2], last[at + 3]]));
    last_mix(
        a.wrapping_add(words_a),
        b.wrapping_add(words_b),
        c.wrapping_add(words_c),
    )
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> [u32; 3] {
    for (first, second) in [(4, 6), (16, 19)] {
        a = a.wrapping_sub(c) ^ c.rotate_left(first);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(second);
        a = a.wrapping_add(c);
        let third = if first == 4 { 8 } else { 4 };
        c = c.wrapping_sub(b) ^ b.rotate_left(third);
        b = b.wrapping_add(a);
    }
    [a, b, c]
}

fn last_mix(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jenkins' own answers for lookup3 (`hashlittle` with the same start).
    #[test]
    fn answers_are_lookup3s() {
        assert_eq!(jhash(b"", 0), 0xdead_beef);
        assert_eq!(jhash(b"", 0xdead_beef), 0xbd5b_7dde);
        assert_eq!(jhash(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(jhash(b"Four score and seven years ago", 1), 0xcd62_8161);
    }

    #[test]
    fn slots_cover_the_whole_range_and_no_more() {
        let mut seen = [0_u32; 7];
        for number in 0_u32..7000 {
            let slot = slot(&number.to_be_bytes(), 7, 0x706f_7274) as usize;
            seen[slot] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(slot(&[1, 2, 3, 4], 1, 5), 0);
    }
}
