//! Which addresses of a node's pod ranges are taken. Pure.
//!
//! All families of a pod get the same host number, so that 10.244.1.7 and
//! fd00:10:244:1::7 are one pod. An address that was given back is used again
//! as late as possible: clients and connection tracking may still remember it.

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// Host number of the first pod; 0 is the network, 1 is left to gateways.
const FIRST: u32 = 2;

/// The free and taken addresses of one node.
#[derive(Clone, Debug)]
pub struct PodAddresses {
    ranges: Vec<IpNet>,
    /// Numbers from here on were never used.
    fresh: u32,
    /// One past the last number.
    end: u32,
    taken: BTreeSet<u32>,
    /// Given back, oldest first.
    freed: VecDeque<u32>,
}

/// Every address of the node's ranges is taken.
#[derive(Debug, thiserror::Error)]
#[error("no free pod address in {ranges}")]
pub struct Exhausted {
    ranges: String,
}

impl PodAddresses {
    /// All of `ranges`, one of each family, is free.
    pub fn new(ranges: &[IpNet]) -> Self {
        let end = ranges.iter().map(last_host).min().unwrap_or(0);
        Self {
            ranges: ranges.to_vec(),
            fresh: FIRST,
            end,
            taken: BTreeSet::new(),
            freed: VecDeque::new(),
        }
    }

    /// Takes one address of each range, in the order of the ranges.
    pub fn take(&mut self) -> Result<Vec<IpAddr>, Exhausted> {
        let number = if self.fresh < self.end {
            self.fresh += 1;
            self.fresh - 1
        } else {
            self.freed.pop_front().ok_or_else(|| Exhausted {
                ranges: self
                    .ranges
                    .iter()
                    .map(IpNet::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            })?
        };
        self.taken.insert(number);
        Ok(self
            .ranges
            .iter()
            .map(|range| host(range, number))
            .collect())
    }

    /// Gives addresses back. What was not taken is ignored.
    pub fn give_back(&mut self, ips: &[IpAddr]) {
        for ip in ips {
            let range = self.ranges.iter().find(|range| range.contains(ip));
            let Some(number) = range.and_then(|range| number_of(range, *ip)) else {
                continue;
            };
            if self.taken.remove(&number) {
                self.freed.push_back(number);
            }
        }
    }

    /// How many pods have addresses.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }
}

/// One past the last usable host number: IPv4's broadcast address is none.
fn last_host(range: &IpNet) -> u32 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(16);
    let size = 1_u32 << bits;
    if range.addr().is_ipv4() {
        size - 1
    } else {
        size
    }
}

fn host(range: &IpNet, number: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits() | number).into(),
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() | u128::from(number)).into(),
    }
}

fn number_of(range: &IpNet, ip: IpAddr) -> Option<u32> {
    match (range.network(), ip) {
        (IpAddr::V4(base), IpAddr::V4(ip)) => Some(ip.to_bits() ^ base.to_bits()),
        (IpAddr::V6(base), IpAddr::V6(ip)) => u32::try_from(ip.to_bits() ^ base.to_bits()).ok(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ranges: &[&str]) -> PodAddresses {
        let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        PodAddresses::new(&ranges)
    }

    fn text(ips: &[IpAddr]) -> Vec<String> {
        ips.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn a_pod_gets_one_number_in_both_families_from_two_upward() {
        let mut pool = pool(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(
            text(&pool.take().unwrap()),
            ["10.244.1.2", "fd00:10:244:1::2"]
        );
        assert_eq!(
            text(&pool.take().unwrap()),
            ["10.244.1.3", "fd00:10:244:1::3"]
        );
    }

    #[test]
    fn what_was_freed_last_is_used_last() {
        let mut pool = pool(&["10.0.0.0/29"]);
        let all: Vec<Vec<IpAddr>> = std::iter::from_fn(|| pool.take().ok()).collect();
        assert_eq!(all.len(), 5, ".2 to .6 of a /29");
        assert_eq!(
            pool.take().unwrap_err().to_string(),
            "no free pod address in 10.0.0.0/29"
        );
        for index in [3, 0, 3, 2] {
            pool.give_back(&all[index]);
        }
        assert_eq!(pool.taken(), 2);
        for index in [3, 0, 2] {
            assert_eq!(pool.take().unwrap(), all[index]);
        }
        assert!(pool.take().is_err());
    }

    #[test]
    fn fresh_addresses_go_before_freed_ones() {
        let mut pool = pool(&["10.0.0.0/24"]);
        let first = pool.take().unwrap();
        pool.give_back(&first);
        assert_eq!(text(&pool.take().unwrap()), ["10.0.0.3"]);
    }

    #[test]
    fn foreign_addresses_are_ignored() {
        let mut pool = pool(&["10.0.0.0/24"]);
        pool.give_back(&["192.0.2.7".parse().unwrap(), "::2".parse().unwrap()]);
        pool.give_back(&["10.0.0.9".parse().unwrap()]);
        assert_eq!(pool.taken(), 0);
        assert_eq!(text(&pool.take().unwrap()), ["10.0.0.2"]);
    }
}
