//! The addresses of a pool that nobody has, as gaps between those in use: a pool
//! may have 2^64 of them, and finding one must not cost the number of Services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use portolan_model::Family;
use portolan_model::workloads::{Pool, Span};

/// Free addresses. No gap begins or ends with an address that is left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    /// First and last address of each.
    gaps: BTreeMap<IpAddr, IpAddr>,
    avoid_buggy: bool,
}

impl Gaps {
    /// All addresses of a pool.
    pub(super) fn of(pool: &Pool) -> Self {
        let mut gaps = Self {
            gaps: BTreeMap::new(),
            avoid_buggy: pool.avoid_buggy,
        };
        for span in disjoint(&pool.spans) {
            gaps.insert(Some(span.first()), Some(span.last()));
        }
        gaps
    }

    /// The first free address of a family.
    pub(super) fn first(&self, family: Family) -> Option<IpAddr> {
        let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let mut found = match family {
            Family::V4 => self.gaps.range(..v6),
            Family::V6 => self.gaps.range(v6..),
        };
        found.next().map(|(first, _)| *first)
    }

    /// An address is in use.
    pub(super) fn take(&mut self, address: IpAddr) {
        let around = self.gaps.range(..=address).next_back();
        let Some((first, last)) = around.map(|(first, last)| (*first, *last)) else {
            return;
        };
        if Span::new(first, last).is_some_and(|gap| gap.contains(address)) {
            self.gaps.remove(&first);
            self.insert(Some(first), Span::before(address));
            self.insert(Span::next(address), Some(last));
        }
    }

    /// An address of the pool is free again.
    pub(super) fn give(&mut self, address: IpAddr) {
        let (mut first, mut last) = (address, address);
        let left = self.gaps.range(..address).next_back();
        if let Some((begin, end)) = left.map(|(begin, end)| (*begin, *end))
            && Span::next(end) == Some(address)
        {
            self.gaps.remove(&begin);
            first = begin;
        }
        if let Some(end) = Span::next(address).and_then(|next| self.gaps.remove(&next)) {
            last = end;
        }
        self.gaps.insert(first, last);
    }

    /// Adds a gap without the addresses at its ends that are left out: two at most
    /// follow each other, so what is between them can be given.
    fn insert(&mut self, first: Option<IpAddr>, last: Option<IpAddr>) {
        let is_out = |address: &IpAddr| self.avoid_buggy && Span::is_buggy(*address);
        let (mut first, mut last) = (first, last);
        while let Some(address) = first.filter(is_out) {
            first = Span::next(address);
        }
        while let Some(address) = last.filter(is_out) {
            last = Span::before(address);
        }
        if let Some(gap) = first
            .zip(last)
            .and_then(|(first, last)| Span::new(first, last))
        {
            self.gaps.insert(gap.first(), gap.last());
        }
    }
}

/// The same addresses in ranges that neither overlap nor touch.
pub(super) fn disjoint(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort();
    let mut merged: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        let joined = merged.last().and_then(|before| {
            let touches =
                before.contains(span.first()) || Span::next(before.last()) == Some(span.first());
            touches.then(|| Span::new(before.first(), before.last().max(span.last())))?
        });
        match joined {
            Some(joined) => {
                merged.pop();
                merged.push(joined);
            }
            None => merged.push(span),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;
    use serde_json::json;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(ranges: &[&str], avoid_buggy: bool) -> Pool {
        let spec = json!({"addresses": ranges, "avoidBuggyIPs": avoid_buggy});
        Pool::read(&json!({"metadata": {"name": "lab"}, "spec": spec}))
    }

    #[test]
    fn every_address_is_found_once_in_order() {
        let pool = pool(
            &[
                "192.0.2.254-192.0.3.1",
                "192.0.2.8/31",
                "192.0.2.9-192.0.2.10",
            ],
            false,
        );
        let mut gaps = Gaps::of(&pool);
        let mut found = Vec::new();
        while let Some(next) = gaps.first(Family::V4) {
            gaps.take(next);
            found.push(next.to_string());
        }
        assert_eq!(
            found,
            [
                "192.0.2.8",
                "192.0.2.9",
                "192.0.2.10",
                "192.0.2.254",
                "192.0.2.255",
                "192.0.3.0",
                "192.0.3.1"
            ]
        );
        gaps.give(ip("192.0.2.9"));
        assert_eq!(gaps.first(Family::V4), Some(ip("192.0.2.9")));
        assert_eq!(gaps.first(Family::V6), None);
    }

    #[test]
    fn addresses_that_are_left_out_never_appear() {
        let mut gaps = Gaps::of(&pool(&["192.0.2.253-192.0.3.2", "192.0.4.0"], true));
        let mut found = Vec::new();
        while let Some(next) = gaps.first(Family::V4) {
            gaps.take(next);
            found.push(next.to_string());
        }
        assert_eq!(
            found,
            ["192.0.2.253", "192.0.2.254", "192.0.3.1", "192.0.3.2"]
        );
        assert!(gaps.gaps.is_empty());
        for address in ["192.0.3.1", "192.0.2.254"] {
            gaps.give(ip(address));
        }
        assert_eq!(gaps.first(Family::V4), Some(ip("192.0.2.254")));
    }

    #[test]
    fn the_ends_of_a_family_are_addresses_too() {
        let mut gaps = Gaps::of(&pool(&["255.255.255.254/31", "::/0"], false));
        gaps.take(ip("255.255.255.255"));
        assert_eq!(gaps.first(Family::V4), Some(ip("255.255.255.254")));
        gaps.take(ip("255.255.255.254"));
        assert_eq!(gaps.first(Family::V4), None);
        assert_eq!(gaps.first(Family::V6), Some(ip("::")));
        gaps.take(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        gaps.give(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(gaps.gaps.len(), 1);
    }
}
