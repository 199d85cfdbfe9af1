//! Several ServiceCIDRs: which of them give addresses, and when one may go.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ranges::AddressRange;

/// Name of the ServiceCIDR that the server's flags make.
pub const DEFAULT: &str = "kubernetes";

/// What matters of one ServiceCIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cidrs`.
    pub nets: Vec<IpNet>,
    /// The condition Ready is not False; one without conditions counts as ready.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set: it gives no new addresses (A6).
    pub deleting: bool,
}

/// The ranges that new addresses come from, each once: that of the default
/// ServiceCIDR until it is full, then the others by name.
pub fn giving(cidrs: &[ServiceCidr]) -> Vec<AddressRange> {
    let mut ready: Vec<&ServiceCidr> = cidrs
        .iter()
        .filter(|cidr| cidr.ready && !cidr.deleting)
        .collect();
    ready.sort_by_key(|cidr| (cidr.name != DEFAULT, cidr.name.as_str()));
    let mut ranges: Vec<AddressRange> = Vec::new();
    for net in ready.iter().flat_map(|cidr| &cidr.nets) {
        let range = AddressRange::new(*net);
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

/// Whether any ServiceCIDR has `address`, whatever its state.
pub fn cover(cidrs: &[ServiceCidr], address: IpAddr) -> bool {
    let mut nets = cidrs.iter().flat_map(|cidr| &cidr.nets);
    nets.any(|net| net.contains(&address))
}

/// Whether the end of `cidr` leaves each of `addresses` in a ServiceCIDR that
/// stays (A6).
pub fn may_go(
    cidr: &ServiceCidr,
    all: &[ServiceCidr],
    mut addresses: impl Iterator<Item = IpAddr>,
) -> bool {
    let staying: Vec<&IpNet> = all
        .iter()
        .filter(|other| other.name != cidr.name && !other.deleting)
        .flat_map(|other| &other.nets)
        .collect();
    let within = |net: &IpNet| staying.iter().any(|other| other.contains(net));
    if cidr.nets.iter().all(within) {
        return true;
    }
    !addresses.any(|address| {
        cidr.nets.iter().any(|net| net.contains(&address))
            && !staying.iter().any(|net| net.contains(&address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(name: &str, nets: &[&str]) -> ServiceCidr {
        ServiceCidr {
            name: name.to_owned(),
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ready: true,
            deleting: false,
        }
    }

    fn texts(ranges: &[AddressRange]) -> Vec<String> {
        ranges.iter().map(|range| range.net().to_string()).collect()
    }

    #[test]
    fn a6_only_ready_ones_give_the_default_first() {
        let mut extra = cidr("a", &["10.1.0.0/24"]);
        let same = cidr("b", &["10.96.0.0/16"]);
        let default = cidr(DEFAULT, &["10.96.0.0/16", "fd00::/112"]);
        let all = [extra.clone(), same.clone(), default.clone()];
        assert_eq!(
            texts(&giving(&all)),
            ["10.96.0.0/16", "fd00::/112", "10.1.0.0/24"]
        );
        extra.deleting = true;
        let mut unready = same;
        unready.ready = false;
        let all = [extra, unready, default];
        assert_eq!(texts(&giving(&all)), ["10.96.0.0/16", "fd00::/112"]);
        assert!(cover(&all, "10.1.0.9".parse().unwrap()));
        assert!(!cover(&all, "10.2.0.9".parse().unwrap()));
    }

    #[test]
    fn a6_deletion_waits_for_addresses_that_nothing_else_covers() {
        let small = cidr("small", &["10.1.0.0/28"]);
        let large = cidr("large", &["10.1.0.0/24"]);
        let inside: IpAddr = "10.1.0.3".parse().unwrap();
        let beside: IpAddr = "10.1.0.99".parse().unwrap();
        let all = [small.clone(), large.clone()];
        assert!(may_go(&small, &all, [inside].into_iter()));
        assert!(may_go(&large, &all, [inside].into_iter()));
        assert!(!may_go(&large, &all, [inside, beside].into_iter()));
        assert!(may_go(&large, &all, std::iter::empty()));
        assert!(!may_go(
            &small,
            std::slice::from_ref(&small),
            [inside].into_iter()
        ));
        // Two that go at once do not vouch for each other.
        let mut twin = cidr("twin", &["10.1.0.0/28"]);
        assert!(may_go(
            &small,
            &[small.clone(), twin.clone()],
            [inside].into_iter()
        ));
        twin.deleting = true;
        assert!(!may_go(
            &small,
            &[small.clone(), twin],
            [inside].into_iter()
        ));
    }
}
