//! Which ClusterIP or NodePort a Service gets.
//!
//! A range has two bands (KEP-3070 for addresses, KEP-3668 for ports): people
//! who write a number themselves are asked to take it from the lower one, so
//! automatic choice takes the upper band first and the lower one only when
//! that is full. What is in use is kept as runs of neighbours, so no operation
//! looks at every number of a range: a /112 or a /64 costs what is allocated
//! in it, not what it could hold.
//!
//! Randomness is an argument: the caller's seed says where in the band to look
//! first, which keeps two servers over the same state from agreeing on "the
//! next one" and a freed number from being reused at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Width of the lower band of a ClusterIP range with `size` addresses (A1).
pub fn address_band(size: u128) -> u128 {
    if size < 16 {
        0
    } else {
        (size / 16).clamp(16, 256)
    }
}

/// Width of the lower band of a NodePort range with `size` ports (A3).
pub fn port_band(size: u128) -> u128 {
    if size < 16 {
        0
    } else {
        (size / 32).clamp(16, 128)
    }
}

/// Why a number that somebody asked for is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Outside the range.
    OutOfRange,
    /// Somebody has it.
    Taken,
}

/// Numbers `0..size` of which some are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    size: u128,
    lower: u128,
    /// Runs of taken numbers, first → last, never touching one another.
    runs: BTreeMap<u128, u128>,
}

impl Space {
    /// An empty space whose first `lower` numbers are the lower band.
    pub fn new(size: u128, lower: u128) -> Self {
        Self {
            size,
            lower: lower.min(size),
            runs: BTreeMap::new(),
        }
    }

    /// Whether `number` is taken.
    pub fn is_taken(&self, number: u128) -> bool {
        self.run_of(number).is_some()
    }

    /// How many numbers are taken. Costs one step per run.
    pub fn taken(&self) -> u128 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Take a number that somebody chose (A2: from either band).
    pub fn take(&mut self, number: u128) -> Result<(), Refused> {
        if number >= self.size {
            return Err(Refused::OutOfRange);
        }
        if self.is_taken(number) {
            return Err(Refused::Taken);
        }
        self.insert(number);
        Ok(())
    }

    /// Take a free number, from the upper band while it has one (A2).
    pub fn pick(&mut self, seed: u64) -> Option<u128> {
        let number = self
            .free_in(self.lower, self.size, seed)
            .or_else(|| self.free_in(0, self.lower, seed))?;
        self.insert(number);
        Some(number)
    }

    /// Give a number back; says whether it was taken.
    pub fn release(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.run_of(number) else {
            return false;
        };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
        true
    }

    fn run_of(&self, number: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.runs.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }

    fn insert(&mut self, number: u128) {
        let mut first = number;
        let mut last = number;
        if let Some(before) = number.checked_sub(1)
            && let Some((start, _)) = self.run_of(before)
        {
            first = start;
        }
        if let Some(end) = self.runs.remove(&(number + 1)) {
            last = end;
        }
        self.runs.insert(first, last);
    }

    /// The first free number of `from..to` at or after a seeded place, wrapping.
    fn free_in(&self, from: u128, to: u128, seed: u64) -> Option<u128> {
        let width = to.checked_sub(from).filter(|width| *width > 0)?;
        let start = from + u128::from(seed) % width;
        self.free_at(start, to).or_else(|| self.free_at(from, to))
    }

    fn free_at(&self, start: u128, to: u128) -> Option<u128> {
        let free = match self.run_of(start) {
            Some((_, last)) => last + 1,
            None => start,
        };
        (free < to).then_some(free)
    }
}

/// The ClusterIPs of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    net: IpNet,
    space: Space,
}

impl Addresses {
    /// All of `net` but its own address and, in IPv4, the broadcast address.
    pub fn new(net: IpNet) -> Self {
        let net = net.trunc();
        let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let size = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let reserved = match net {
            IpNet::V4(_) => 2,
            IpNet::V6(_) => 1,
        };
        Self {
            net,
            space: Space::new(size.saturating_sub(reserved), address_band(size)),
        }
    }

    /// The range.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The first usable address: that of default/kubernetes (A4).
    pub fn first(&self) -> Option<IpAddr> {
        (self.space.size > 0).then(|| self.address(0))
    }

    /// Take the address that a Service asks for.
    pub fn take(&mut self, address: IpAddr) -> Result<(), Refused> {
        let number = self.number(address).ok_or(Refused::OutOfRange)?;
        self.space.take(number)
    }

    /// Take a free address (A2).
    pub fn pick(&mut self, seed: u64) -> Option<IpAddr> {
        let number = self.space.pick(seed)?;
        Some(self.address(number))
    }

    /// Give an address back; says whether it was taken.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.number(address)
            .is_some_and(|number| self.space.release(number))
    }

    /// Whether `address` belongs to this range, usable or not.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.net.contains(&address)
    }

    fn base(&self) -> u128 {
        match self.net.addr() {
            IpAddr::V4(base) => u128::from(base.to_bits()),
            IpAddr::V6(base) => base.to_bits(),
        }
    }

    fn number(&self, address: IpAddr) -> Option<u128> {
        let bits = match (address, self.net) {
            (IpAddr::V4(address), IpNet::V4(_)) => u128::from(address.to_bits()),
            (IpAddr::V6(address), IpNet::V6(_)) => address.to_bits(),
            (IpAddr::V4(_), IpNet::V6(_)) | (IpAddr::V6(_), IpNet::V4(_)) => return None,
        };
        bits.checked_sub(self.base())?.checked_sub(1)
    }

    fn address(&self, number: u128) -> IpAddr {
        let bits = self.base() + 1 + number;
        match self.net {
            IpNet::V4(_) => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)))
            }
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

/// The NodePorts (and health check node ports, A11) of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    range: RangeInclusive<u16>,
    space: Space,
}

impl Ports {
    /// All of `range`.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        let size = if range.is_empty() {
            0
        } else {
            u128::from(range.end() - range.start()) + 1
        };
        Self {
            space: Space::new(size, port_band(size)),
            range,
        }
    }

    /// The range.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.range.clone()
    }

    /// Take the port that a Service asks for.
    pub fn take(&mut self, port: u16) -> Result<(), Refused> {
        let number = port
            .checked_sub(*self.range.start())
            .ok_or(Refused::OutOfRange)?;
        self.space.take(u128::from(number))
    }

    /// Take a free port (A2).
    pub fn pick(&mut self, seed: u64) -> Option<u16> {
        let number = self.space.pick(seed)?;
        u16::try_from(number).ok()?.checked_add(*self.range.start())
    }

    /// Give a port back; says whether it was taken.
    pub fn release(&mut self, port: u16) -> bool {
        port.checked_sub(*self.range.start())
            .is_some_and(|number| self.space.release(u128::from(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn addresses(net: &str) -> Addresses {
        Addresses::new(net.parse().unwrap())
    }

    #[test]
    fn a1_band_widths() {
        for (prefix, band) in [
            (16, 256),
            (12, 256),
            (22, 64),
            (24, 16),
            (26, 16),
            (28, 16),
            (29, 0),
        ] {
            assert_eq!(address_band(1 << (32 - prefix)), band, "/{prefix}");
        }
    }

    #[test]
    fn a1_the_static_band_of_a_slash_16_ends_at_1_0() {
        let pool = addresses("192.168.0.0/16");
        assert_eq!(
            pool.address(pool.space.lower - 1).to_string(),
            "192.168.1.0"
        );
        assert_eq!(pool.first().unwrap().to_string(), "192.168.0.1");
    }

    #[test]
    fn a2_upper_band_first_then_the_lower_until_exhausted() {
        let mut pool = addresses("10.0.0.0/26");
        let picks: Vec<IpAddr> = (0..62).map(|seed| pool.pick(seed * 7).unwrap()).collect();
        let lower: Vec<bool> = picks
            .iter()
            .map(|ip| pool.number(*ip).unwrap() < 16)
            .collect();
        assert!(lower[..46].iter().all(|low| !low));
        assert!(lower[46..].iter().all(|low| *low));
        assert_eq!(picks.iter().collect::<BTreeSet<_>>().len(), 62);
        assert_eq!(pool.pick(1), None);
        assert!(pool.release(picks[3]));
        assert_eq!(pool.pick(1), Some(picks[3]));
    }

    #[test]
    fn a2_a_static_request_may_take_any_free_address_in_range() {
        let mut pool = addresses("10.96.0.0/16");
        let take = |pool: &mut Addresses, ip: &str| pool.take(ip.parse().unwrap());
        assert_eq!(take(&mut pool, "10.96.0.1"), Ok(()));
        assert_eq!(take(&mut pool, "10.96.0.1"), Err(Refused::Taken));
        assert_eq!(take(&mut pool, "10.96.255.254"), Ok(()));
        for outside in ["10.96.0.0", "10.96.255.255", "10.97.0.1", "::1"] {
            assert_eq!(
                take(&mut pool, outside),
                Err(Refused::OutOfRange),
                "{outside}"
            );
        }
        assert!(!pool.release("10.97.0.1".parse().unwrap()));
    }

    #[test]
    fn a3_port_band_widths() {
        assert_eq!(port_band(2768), 86);
        assert_eq!(port_band(12768), 128);
        assert_eq!(port_band(200), 16);
        assert_eq!(port_band(15), 0);
    }

    #[test]
    fn a3_ports_from_the_upper_band() {
        let mut ports = Ports::new(30_000..=32_767);
        for seed in 0..2_682 {
            assert!(ports.pick(seed * 31).unwrap() >= 30_086);
        }
        assert_eq!(ports.pick(u64::MAX).unwrap() / 100, 300);
        assert_eq!(ports.take(29_999), Err(Refused::OutOfRange));
        assert_eq!(ports.take(32_768), Err(Refused::OutOfRange));
        assert_eq!(ports.take(31_000), Err(Refused::Taken));
    }

    #[test]
    fn a4_the_first_address_of_each_family() {
        assert_eq!(
            addresses("10.96.0.0/16").first().unwrap().to_string(),
            "10.96.0.1"
        );
        assert_eq!(
            addresses("fd00:10:96::/112").first().unwrap().to_string(),
            "fd00:10:96::1"
        );
        assert_eq!(addresses("10.0.0.0/32").first(), None);
    }

    #[test]
    fn a_huge_range_costs_what_is_taken_in_it() {
        let mut pool = addresses("fd00::/8");
        let mut seed = 1_u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let picked = pool.pick(seed).unwrap();
            assert!(pool.covers(picked));
        }
        assert_eq!(pool.space.taken(), 10_000);
    }

    #[test]
    fn runs_agree_with_a_plain_set() {
        let mut space = Space::new(64, 16);
        let mut model = BTreeSet::new();
        let mut seed = 7_u64;
        for step in 0..5_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            let number = u128::from(seed >> 33) % 66;
            match step % 3 {
                0 => {
                    let expected = if number >= 64 {
                        Err(Refused::OutOfRange)
                    } else if model.insert(number) {
                        Ok(())
                    } else {
                        Err(Refused::Taken)
                    };
                    assert_eq!(space.take(number), expected);
                }
                1 => assert_eq!(space.release(number), model.remove(&number)),
                _ => {
                    if let Some(picked) = space.pick(seed) {
                        assert!(model.insert(picked));
                        assert!(picked >= 16 || (16..64).all(|n| model.contains(&n)));
                    } else {
                        assert_eq!(model.len(), 64);
                    }
                }
            }
            assert_eq!(space.taken(), model.len() as u128);
            let touching = space.runs.iter().zip(space.runs.iter().skip(1));
            assert!(
                touching
                    .clone()
                    .all(|((_, last), (first, _))| last + 1 < *first)
            );
        }
    }
}
