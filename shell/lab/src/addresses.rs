//! Who has which address in a lab. Pure arithmetic over ranges, both families
//! alike.
//!
//! | who | IPv4 | IPv6 |
//! |---|---|---|
//! | the outside world and the API server | 172.18.0.1 | fd00:172:18::1 |
//! | node *i*, counted from 1 | 172.18.0.(i+1) | fd00:172:18::(i+1) |
//! | pods of node *i* | 10.244.i.0/24 | fd00:10:244:i::/64 |
//! | Services | 10.96.0.0/16 | fd00:10:96::/112 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most lab nodes there can be: one machine, and a readable table.
pub const MAX_NODES: u8 = 16;

/// The gateway that every pod sees on its node's side, in IPv4.
pub const POD_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The gateway that every pod sees on its node's side, in IPv6.
pub const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The name of node `number`, counted from 1.
pub fn node_name(number: u8) -> String {
    format!("node-{number}")
}

/// The address of the outside world on the node network: the API server, and
/// clients that are not in the cluster. One of each family with its prefix.
pub fn outside() -> [IpNet; 2] {
    fabric_host(1)
}

/// The addresses of node `number` on the node network, with prefix.
pub fn node(number: u8) -> [IpNet; 2] {
    fabric_host(u16::from(number) + 1)
}

/// The pod ranges of node `number`.
pub fn pods_of(number: u8) -> [IpNet; 2] {
    let four = Ipv4Addr::new(10, 244, number, 0);
    let six = Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 0);
    [v4(four, 24), v6(six, 64)]
}

/// The pod ranges of all nodes together.
pub fn all_pods() -> [IpNet; 2] {
    let six = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0);
    [v4(Ipv4Addr::new(10, 244, 0, 0), 16), v6(six, 48)]
}

/// The default ranges of Services.
pub fn services() -> [IpNet; 2] {
    let six = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0);
    [v4(Ipv4Addr::new(10, 96, 0, 0), 16), v6(six, 112)]
}

/// The default route's destination in the family of `ip`.
pub(crate) fn everything(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => v4(Ipv4Addr::UNSPECIFIED, 0),
        IpAddr::V6(_) => v6(Ipv6Addr::UNSPECIFIED, 0),
    }
}

/// The range that holds `ip` alone.
pub(crate) fn alone(ip: IpAddr) -> IpNet {
    ip.into()
}

fn fabric_host(host: u16) -> [IpNet; 2] {
    let low = u8::try_from(host).unwrap_or(u8::MAX);
    let six = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, host);
    [v4(Ipv4Addr::new(172, 18, 0, low), 24), v6(six, 64)]
}

fn v4(ip: Ipv4Addr, prefix: u8) -> IpNet {
    Ipv4Net::new_assert(ip, prefix).into()
}

fn v6(ip: Ipv6Addr, prefix: u8) -> IpNet {
    Ipv6Net::new_assert(ip, prefix).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_the_documented_one() {
        let text = |nets: [IpNet; 2]| nets.map(|net| net.to_string());
        assert_eq!(text(outside()), ["172.18.0.1/24", "fd00:172:18::1/64"]);
        assert_eq!(text(node(1)), ["172.18.0.2/24", "fd00:172:18::2/64"]);
        assert_eq!(text(pods_of(1)), ["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(text(all_pods()), ["10.244.0.0/16", "fd00:10:244::/48"]);
        assert_eq!(text(services()), ["10.96.0.0/16", "fd00:10:96::/112"]);
        assert_eq!(node_name(3), "node-3");
    }

    #[test]
    fn no_two_nodes_share_anything() {
        for number in 1..=MAX_NODES {
            for other in number + 1..=MAX_NODES {
                assert!(
                    node(number)
                        .iter()
                        .zip(node(other))
                        .all(|(a, b)| a.addr() != b.addr())
                );
                for (a, b) in pods_of(number).iter().zip(pods_of(other)) {
                    assert!(!a.contains(&b) && !b.contains(a));
                }
            }
            assert!(
                pods_of(number)
                    .iter()
                    .zip(all_pods())
                    .all(|(one, all)| all.contains(one))
            );
        }
    }
}
