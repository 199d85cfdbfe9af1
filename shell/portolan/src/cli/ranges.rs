//! The ranges that a lab gives addresses and ports from.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use ipnet::IpNet;
use portolan_apiserver::cluster_dns;

/// Ranges as they are typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct RangeArgs {
    /// Ranges of Service addresses: one, or one of each family, the primary family first
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10.96.0.0/16,fd00:10:96::/112",
        value_name = "CIDR"
    )]
    pub(crate) service_cidr: Vec<IpNet>,
    /// Ports that Services of type NodePort get
    #[arg(long, default_value = "30000-32767", value_parser = ports, value_name = "FIRST-LAST")]
    pub(crate) service_node_port_range: RangeInclusive<u16>,
}

/// Ranges that can be used.
#[derive(Debug, Clone)]
pub(crate) struct Ranges {
    pub(crate) services: Vec<IpNet>,
    pub(crate) node_ports: RangeInclusive<u16>,
    /// The address of DNS in each range of Services.
    pub(crate) dns: Vec<IpAddr>,
}

/// Kubernetes' limits of a range: 2^20 addresses in IPv4, a /64 in IPv6.
const SHORTEST_V4: u8 = 12;
const SHORTEST_V6: u8 = 64;

impl RangeArgs {
    /// Checks them; `taken` is what the lab itself uses.
    pub(crate) fn resolve(&self, taken: &[IpNet]) -> Result<Ranges> {
        let flag = "--service-cidr";
        match self.service_cidr.as_slice() {
            [_] => {}
            [one, other] if one.addr().is_ipv4() != other.addr().is_ipv4() => {}
            _ => bail!("{flag}: give one range, or one of each family"),
        }
        let mut dns = Vec::new();
        for net in &self.service_cidr {
            no_host_bits(net).map_err(|error| anyhow!("{flag}: {error}"))?;
            let shortest = match net {
                IpNet::V4(_) => SHORTEST_V4,
                IpNet::V6(_) => SHORTEST_V6,
            };
            ensure!(
                net.prefix_len() >= shortest,
                "{flag}: {net} is too large: its prefix may not be shorter than /{shortest}"
            );
            if let Some(other) = taken.iter().find(|other| overlap(net, other)) {
                bail!("{flag}: {net} overlaps {other}, which the lab uses for nodes or pods");
            }
            let Some(address) = cluster_dns(*net) else {
                bail!("{flag}: {net} is too small: its tenth address is that of DNS");
            };
            dns.push(address);
        }
        Ok(Ranges {
            services: self.service_cidr.clone(),
            node_ports: self.service_node_port_range.clone(),
            dns,
        })
    }
}

/// Refuses a range with bits set after its prefix.
///
/// # Errors
/// In words that name the range that may be meant.
pub(crate) fn no_host_bits(net: &IpNet) -> Result<(), String> {
    let meant = net.trunc();
    if *net == meant {
        return Ok(());
    }
    Err(format!(
        "{net} has bits set after its prefix: did you mean {meant}?"
    ))
}

/// Whether some address is in both.
pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// `30000-32767`, or as Kubernetes also reads it, `30000+2767`.
fn ports(text: &str) -> Result<RangeInclusive<u16>> {
    let parse = |part: &str| part.trim().parse::<u16>();
    let range = if let Some((first, last)) = text.split_once('-') {
        parse(first)?..=parse(last)?
    } else if let Some((first, more)) = text.split_once('+') {
        let first = parse(first)?;
        first..=first.saturating_add(parse(more)?)
    } else {
        parse(text)?..=parse(text)?
    };
    ensure!(*range.start() > 0, "ports are from 1 to 65535");
    ensure!(
        !range.is_empty(),
        "the first port is larger than the last one"
    );
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(cidrs: &[&str]) -> RangeArgs {
        RangeArgs {
            service_cidr: cidrs.iter().map(|net| net.parse().unwrap()).collect(),
            service_node_port_range: 30_000..=32_767,
        }
    }

    #[test]
    fn a4_the_tenth_address_of_each_range_is_that_of_dns() {
        let taken = ["10.244.0.0/16".parse().unwrap()];
        let dns = |cidrs: &[&str]| {
            let ranges = args(cidrs).resolve(&taken).unwrap();
            ranges.dns.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(dns(&["10.96.0.0/16"]), ["10.96.0.10"]);
        assert_eq!(
            dns(&["fd00::/108", "10.0.0.0/24"]),
            ["fd00::a", "10.0.0.10"]
        );
        for (cidrs, text) in [
            (&["10.0.0.0/24", "10.1.0.0/24"][..], "one of each family"),
            (&["10.0.0.0/29"], "is too small"),
            (&["10.0.0.0/11"], "is too large"),
            (&["fd00::/63"], "is too large"),
            (&["10.0.0.1/24"], "did you mean 10.0.0.0/24?"),
            (&["10.244.7.0/24"], "overlaps 10.244.0.0/16"),
        ] {
            let refused = args(cidrs).resolve(&taken).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn a3_node_port_ranges_as_kubernetes_reads_them() {
        assert_eq!(ports("30000-32767").unwrap(), 30_000..=32_767);
        assert_eq!(ports("30000+100").unwrap(), 30_000..=30_100);
        assert_eq!(ports("31000").unwrap(), 31_000..=31_000);
        for bad in ["", "x", "2-1", "0-5", "1-70000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
