//! The resolvers of a machine, as resolv.conf(5) names them.

use portolan_dns::Name;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The servers that are asked, as many as resolv.conf(5) allows.
const MOST_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;

/// The servers of a resolv.conf(5), in order. Lines that cannot be read are
/// passed over, as by the C library; a link-local server needs its interface by
/// number, since names of interfaces belong to a namespace.
pub fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().filter(|&word| word == "nameserver")?;
            server_address(words.next()?)
        })
        .take(MOST_SERVERS)
        .collect()
}

/// The domains that a resolv.conf(5) adds to names, in order. The last line counts
/// that has some.
pub(crate) fn search_domains(resolv_conf: &str) -> Vec<Name> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words
            .next()
            .filter(|word| ["search", "domain"].contains(word))?;
        Some(words.filter_map(|word| Name::parse(word).ok()).collect())
    };
    let last = resolv_conf.lines().rev().find_map(of_line);
    last.unwrap_or_default()
}

fn server_address(text: &str) -> Option<SocketAddr> {
    if let Some((address, scope)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(SocketAddrV6::new(address, DNS_PORT, 0, scope.parse().ok()?).into());
    }
    let address: IpAddr = text.parse().ok()?;
    Some(SocketAddr::new(address, DNS_PORT))
}
