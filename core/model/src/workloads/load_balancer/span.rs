//! Ranges of addresses, as pools write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::Family;

/// Addresses from a first to a last one, both of one family and part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    first: IpAddr,
    last: IpAddr,
}

impl Span {
    /// From the first to the last; none where that is no range.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let same = Family::of(first) == Family::of(last);
        (same && first <= last).then_some(Self { first, last })
    }

    /// Reads `192.0.2.0/28`, `192.0.2.8-192.0.2.15` or `192.0.2.9`.
    ///
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = |text: &str| {
            let text = text.trim();
            text.parse::<IpAddr>()
                .map_err(|_error| format!("{text:?} is no IP address"))
        };
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            if Family::of(first) != Family::of(last) {
                return Err(format!("{text:?} begins in one family and ends in another"));
            }
            return Self::new(first, last).ok_or_else(|| format!("{text:?} ends before it begins"));
        }
        if text.contains('/') {
            let net: IpNet = text
                .trim()
                .parse()
                .map_err(|_error| format!("{text:?} is no CIDR"))?;
            return Ok(Self {
                first: net.network(),
                last: net.broadcast(),
            });
        }
        let only = address(text)?;
        Ok(Self {
            first: only,
            last: only,
        })
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Whether an address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.family() == Family::of(address) && self.first <= address && address <= self.last
    }

    /// How many there are; the most that a number holds for all of IPv6.
    pub fn size(&self) -> u128 {
        number(self.last)
            .saturating_sub(number(self.first))
            .saturating_add(1)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// An address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Span {
    /// Whether some routers take an address for that of a network: IPv4, ending in
    /// 0 or 255.
    pub fn is_buggy(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => matches!(v4.octets(), [_, _, _, 0 | 255]),
            IpAddr::V6(_) => false,
        }
    }

    /// How many of its addresses are not buggy.
    pub fn size_without_buggy(&self) -> u128 {
        // Those below a number, of which each 256 have two.
        let below = |end: u128| 2 * (end >> 8) + (end & 255).min(1);
        match self.family() {
            Family::V4 => {
                let buggy = below(number(self.last) + 1) - below(number(self.first));
                self.size() - buggy
            }
            Family::V6 => self.size(),
        }
    }

    /// The address after this one; none after the last of its family.
    pub fn next(address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(v4) => {
                let next = v4.to_bits().checked_add(1)?;
                Some(IpAddr::V4(Ipv4Addr::from_bits(next)))
            }
            IpAddr::V6(v6) => {
                let next = v6.to_bits().checked_add(1)?;
                Some(IpAddr::V6(Ipv6Addr::from_bits(next)))
            }
        }
    }

    /// The address before this one; none before the first of its family.
    pub fn before(address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(v4) => {
                let before = v4.to_bits().checked_sub(1)?;
                Some(IpAddr::V4(Ipv4Addr::from_bits(before)))
            }
            IpAddr::V6(v6) => {
                let before = v6.to_bits().checked_sub(1)?;
                Some(IpAddr::V6(Ipv6Addr::from_bits(before)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let cases = [
            ("192.0.2.0/28", Ok(("192.0.2.0", "192.0.2.15", 16))),
            ("192.0.2.9/28", Ok(("192.0.2.0", "192.0.2.15", 16))),
            ("192.0.2.8 - 192.0.2.9", Ok(("192.0.2.8", "192.0.2.9", 2))),
            ("2001:db8::5", Ok(("2001:db8::5", "2001:db8::5", 1))),
            (
                "192.0.2.9-192.0.2.8",
                Err("\"192.0.2.9-192.0.2.8\" ends before it begins"),
            ),
            (
                "192.0.2.9-::1",
                Err("\"192.0.2.9-::1\" begins in one family and ends in another"),
            ),
            ("192.0.2.0/33", Err("\"192.0.2.0/33\" is no CIDR")),
            ("192.0.2", Err("\"192.0.2\" is no IP address")),
        ];
        for (text, wanted) in cases {
            let read = Span::parse(text);
            let read = read.as_ref().map(|span| {
                (
                    span.first().to_string(),
                    span.last().to_string(),
                    span.size(),
                )
            });
            let wanted =
                wanted.map(|(first, last, size)| (first.to_owned(), last.to_owned(), size));
            assert_eq!(read.map_err(String::as_str), wanted, "{text}");
        }
        for (text, usable) in [
            ("192.0.2.0/24", 254),
            ("192.0.2.0-192.0.3.0", 254),
            ("192.0.2.255-192.0.3.1", 1),
            ("192.0.2.0", 0),
            ("192.0.2.1-192.0.2.254", 254),
            ("2001:db8::/120", 256),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!(span.size_without_buggy(), usable, "{text}");
        }
        assert_eq!(Span::parse("::/0").unwrap().size(), u128::MAX);
    }
}
