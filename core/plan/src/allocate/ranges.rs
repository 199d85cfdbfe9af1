//! The ranges that numbers are given from, and their two bands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::used::Used;

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

/// Numbers `first..end`, of which those below `upper` are the lower band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bands {
    first: u128,
    upper: u128,
    end: u128,
}

impl Bands {
    fn new(first: u128, end: u128, band: u128) -> Self {
        Self {
            first,
            upper: first.saturating_add(band).min(end),
            end,
        }
    }

    fn contains(self, number: u128) -> bool {
        (self.first..self.end).contains(&number)
    }

    /// The upper band first, the lower one when that is full (A2).
    fn pick(self, used: &Used, seed: u64) -> Option<u128> {
        used.free_in(self.upper, self.end, seed)
            .or_else(|| used.free_in(self.first, self.upper, seed))
    }

    fn check(self, used: &Used, number: u128) -> Result<u128, Refused> {
        if !self.contains(number) {
            Err(Refused::OutOfRange)
        } else if used.holders(number) > 0 {
            Err(Refused::Taken)
        } else {
            Ok(number)
        }
    }
}

/// An address as a number. Families share no numbers that matter: each has a
/// [`Used`] of its own.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The ClusterIPs of one range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    net: IpNet,
    bands: Bands,
}

impl AddressRange {
    /// All of `net` but its own address and, in IPv4, the broadcast address.
    pub fn new(net: IpNet) -> Self {
        let net = net.trunc();
        let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let size = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let first = number(net.addr()).saturating_add(1);
        let reserved = match net {
            IpNet::V4(_) => 2,
            IpNet::V6(_) => 1,
        };
        let end = first.saturating_add(size.saturating_sub(reserved));
        Self {
            net,
            bands: Bands::new(first, end, address_band(size)),
        }
    }

    /// The range.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// Usable address `index`, counted from 1: the first is that of
    /// default/kubernetes (A4), the tenth by custom that of DNS.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let number = self.bands.first.checked_add(index.checked_sub(1)?)?;
        self.bands.contains(number).then(|| self.address(number))
    }

    /// Whether `address` belongs to this range, usable or not.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.net.contains(&address)
    }

    /// Whether a Service may have `address`.
    pub fn check(&self, used: &Used, address: IpAddr) -> Result<(), Refused> {
        if !self.covers(address) {
            return Err(Refused::OutOfRange);
        }
        self.bands.check(used, number(address)).map(|_| ())
    }

    /// A free address (A2).
    pub fn pick(&self, used: &Used, seed: u64) -> Option<IpAddr> {
        let number = self.bands.pick(used, seed)?;
        Some(self.address(number))
    }

    /// How many addresses of the range are in use.
    pub fn in_use(&self, used: &Used) -> usize {
        used.count(self.bands.first, self.bands.end)
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.net {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(
                u32::try_from(number).unwrap_or(u32::MAX),
            )),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

/// The NodePorts (and health check node ports, A11) of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange {
    range: RangeInclusive<u16>,
    bands: Bands,
}

impl PortRange {
    /// All of `range`.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        let first = u128::from(*range.start());
        let end = if range.is_empty() {
            first
        } else {
            u128::from(*range.end()) + 1
        };
        Self {
            bands: Bands::new(first, end, port_band(end - first)),
            range,
        }
    }

    /// The range.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.range.clone()
    }

    /// Whether a Service may have `port`.
    pub fn check(&self, used: &Used, port: u16) -> Result<(), Refused> {
        self.bands.check(used, port.into()).map(|_| ())
    }

    /// A free port (A2).
    pub fn pick(&self, used: &Used, seed: u64) -> Option<u16> {
        u16::try_from(self.bands.pick(used, seed)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn addresses(net: &str) -> AddressRange {
        AddressRange::new(net.parse().unwrap())
    }

    fn text(address: Option<IpAddr>) -> String {
        address
            .map(|address| address.to_string())
            .unwrap_or_default()
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
        let range = addresses("192.168.0.0/16");
        assert_eq!(
            range.address(range.bands.upper - 1).to_string(),
            "192.168.1.0"
        );
        assert_eq!(text(range.nth(1)), "192.168.0.1");
        assert_eq!(text(range.nth(10)), "192.168.0.10");
    }

    #[test]
    fn a2_upper_band_first_then_the_lower_until_exhausted() {
        let range = addresses("10.0.0.0/26");
        let mut used = Used::default();
        let mut picks = Vec::new();
        for seed in 0..62 {
            let picked = range.pick(&used, seed * 7).unwrap();
            used.add(number(picked));
            picks.push(picked);
        }
        let lower: Vec<bool> = picks
            .iter()
            .map(|ip| number(*ip) < range.bands.upper)
            .collect();
        assert!(lower[..46].iter().all(|low| !low));
        assert!(lower[46..].iter().all(|low| *low));
        assert_eq!(picks.iter().collect::<BTreeSet<_>>().len(), 62);
        assert_eq!(range.pick(&used, 1), None);
        assert_eq!(range.in_use(&used), 62);
        used.remove(number(picks[3]));
        assert_eq!(range.pick(&used, 1), Some(picks[3]));
    }

    #[test]
    fn a2_a_static_request_may_take_any_free_address_in_range() {
        let range = addresses("10.96.0.0/16");
        let mut used = Used::default();
        let first = "10.96.0.1".parse().unwrap();
        assert_eq!(range.check(&used, first), Ok(()));
        used.add(number(first));
        assert_eq!(range.check(&used, first), Err(Refused::Taken));
        let last = "10.96.255.254".parse().unwrap();
        assert_eq!(range.check(&used, last), Ok(()));
        for outside in ["10.96.0.0", "10.96.255.255", "10.97.0.1", "::1", "::a60:1"] {
            let refused = range.check(&used, outside.parse().unwrap());
            assert_eq!(refused, Err(Refused::OutOfRange), "{outside}");
        }
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
        let ports = PortRange::new(30_000..=32_767);
        let mut used = Used::default();
        for seed in 0..2_682 {
            let port = ports.pick(&used, seed * 31).unwrap();
            assert!(port >= 30_086);
            used.add(port.into());
        }
        assert_eq!(ports.pick(&used, u64::MAX).unwrap() / 100, 300);
        assert_eq!(ports.check(&used, 29_999), Err(Refused::OutOfRange));
        assert_eq!(ports.check(&used, 32_768), Err(Refused::OutOfRange));
        assert_eq!(ports.check(&used, 31_000), Err(Refused::Taken));
        let all = PortRange::new(1..=u16::MAX);
        assert_eq!(all.check(&used, u16::MAX), Ok(()));
    }

    #[test]
    fn a4_the_first_address_of_each_family() {
        assert_eq!(text(addresses("10.96.0.0/16").nth(1)), "10.96.0.1");
        assert_eq!(text(addresses("fd00:10:96::/112").nth(1)), "fd00:10:96::1");
        assert_eq!(addresses("10.0.0.0/32").nth(1), None);
        assert_eq!(addresses("10.0.0.0/29").nth(7), None);
        assert_eq!(addresses("10.0.0.0/29").nth(0), None);
    }

    #[test]
    fn a2_a_huge_range_costs_what_is_taken_in_it() {
        for net in ["fd00::/8", "fd00::/64", "fd00::/108", "::/0"] {
            let range = addresses(net);
            let mut used = Used::default();
            let mut seed = 1_u64;
            for _ in 0..10_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let picked = range.pick(&used, seed).unwrap();
                assert!(range.covers(picked) && number(picked) >= range.bands.upper);
                used.add(number(picked));
            }
            assert_eq!(used.len(), 10_000);
        }
    }
}
