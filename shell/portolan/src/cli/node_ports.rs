//! `--nodeport-addresses`, in kube-proxy's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use portolan_model::Family;
use portolan_plan::{NodePortAddresses, NodePorts, OpenNodePorts};

use super::ranges::no_host_bits;

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodePortWord {
    /// The node's first address of each family.
    Primary,
    /// 127.0.0.1 and ::1, by a proxy of ours.
    Localhost,
    /// Every address but localhost's.
    All,
    /// Addresses in this range.
    Range(IpNet),
}

impl FromStr for NodePortWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "localhost" => Ok(Self::Localhost),
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::Range).map_err(|_no_range| {
                let hint = match text.parse::<IpAddr>() {
                    Ok(address) => format!(": did you mean {}?", IpNet::from(address)),
                    Err(_) => String::new(),
                };
                format!("expected a CIDR range, primary, localhost or all{hint}")
            }),
        }
    }
}

/// What a list means. As kube-proxy has it, a family that has no word and no range
/// of its own where the other one has ranges is open on all its addresses.
///
/// # Errors
/// If a range has bits set after its prefix; the words name it.
pub(crate) fn node_ports(words: &[NodePortWord]) -> Result<NodePorts, String> {
    for word in words {
        if let NodePortWord::Range(net) = word {
            no_host_bits(net)?;
        }
    }
    let [v4, v6] = Family::BOTH.map(|family| of_family(words, family));
    Ok(NodePorts { v4, v6 })
}

fn of_family(words: &[NodePortWord], family: Family) -> OpenNodePorts {
    let ranges: Vec<IpNet> = words
        .iter()
        .filter_map(|word| match word {
            NodePortWord::Range(net) if Family::of(net.addr()) == family => Some(*net),
            NodePortWord::Range(_)
            | NodePortWord::Primary
            | NodePortWord::Localhost
            | NodePortWord::All => None,
        })
        .collect();
    let says = |word: NodePortWord| words.contains(&word);
    let primary = says(NodePortWord::Primary) || words.is_empty();
    // A range of everything is no wish for localhost (KEP-6032).
    let whole = ranges.iter().any(|net| net.prefix_len() == 0);
    let loopback = ranges.iter().any(has_loopback);
    let localhost = says(NodePortWord::Localhost) || (loopback && !whole);
    let silent = ranges.is_empty() && !primary && !says(NodePortWord::Localhost);
    let addresses = if whole || silent || says(NodePortWord::All) {
        NodePortAddresses::AnyLocal
    } else if ranges.is_empty() && primary {
        NodePortAddresses::Primary
    } else {
        NodePortAddresses::Within { ranges, primary }
    };
    OpenNodePorts {
        addresses,
        localhost,
    }
}

fn has_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_loopback() || net.contains(&Ipv4Addr::new(127, 0, 0, 0)),
        IpNet::V6(net) => net.contains(&Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use portolan_plan::NodePortAddresses::{AnyLocal, Primary, Within};

    use super::*;

    fn typed(list: &str) -> Result<NodePorts, String> {
        let words: Result<Vec<NodePortWord>, _> = list
            .split(',')
            .filter(|word| !word.is_empty())
            .map(str::parse)
            .collect();
        node_ports(&words?)
    }

    fn within(ranges: &[&str], primary: bool) -> NodePortAddresses {
        Within {
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            primary,
        }
    }

    #[test]
    fn p11_lists_mean_what_they_mean_to_kube_proxy() {
        let cases = [
            ("", (Primary, false), (Primary, false)),
            ("primary", (Primary, false), (Primary, false)),
            ("all", (AnyLocal, false), (AnyLocal, false)),
            ("0.0.0.0/0", (AnyLocal, false), (AnyLocal, false)),
            ("0.0.0.0/0,::/0", (AnyLocal, false), (AnyLocal, false)),
            (
                "192.0.2.0/24,::/0",
                (within(&["192.0.2.0/24"], false), false),
                (AnyLocal, false),
            ),
            (
                "192.0.2.0/24",
                (within(&["192.0.2.0/24"], false), false),
                (AnyLocal, false),
            ),
            (
                "primary,192.0.2.0/24",
                (within(&["192.0.2.0/24"], true), false),
                (Primary, false),
            ),
            ("primary,localhost", (Primary, true), (Primary, true)),
            (
                "localhost",
                (within(&[], false), true),
                (within(&[], false), true),
            ),
            ("all,localhost", (AnyLocal, true), (AnyLocal, true)),
            (
                "primary,127.0.0.0/8",
                (within(&["127.0.0.0/8"], true), true),
                (Primary, false),
            ),
            (
                "primary,127.0.0.1/32,::1/128",
                (within(&["127.0.0.1/32"], true), true),
                (within(&["::1/128"], true), true),
            ),
        ];
        for (list, v4, v6) in cases {
            let [v4, v6] = [v4, v6].map(|(addresses, localhost)| OpenNodePorts {
                addresses,
                localhost,
            });
            assert_eq!(typed(list), Ok(NodePorts { v4, v6 }), "{list}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_may_be_meant() {
        let error = |list| typed(list).unwrap_err();
        assert!(error("192.0.2.1").contains("did you mean 192.0.2.1/32?"));
        assert!(error("192.0.2.1/24").contains("did you mean 192.0.2.0/24?"));
        assert!(error("primary,host").contains("primary, localhost or all"));
    }
}
