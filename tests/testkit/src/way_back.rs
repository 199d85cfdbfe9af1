//! Nodes of the universe that send answers back to where connections came in.

use portolan_plan::{Neighbour, REPLY_MASK, Replies};

/// The second node sends answers back in some families, and gets its own.
pub(crate) fn replies(which: i32) -> Replies {
    let ranges = ["10.244.2.0/24", "fd00:10:244:2::/64", "10.99.0.0/16"];
    let ether = [2, 0, 0, 0, 0, 2];
    Replies {
        mask: if which < 2 { REPLY_MASK } else { 0x300 },
        nodes: ["172.18.0.3", "fd00:172:18::3"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        kept: ranges
            .iter()
            .take(usize::try_from(which).unwrap_or(0))
            .filter_map(|text| text.parse().ok())
            .collect(),
        neighbours: vec![Neighbour {
            number: 1,
            ethers: vec![ether],
        }],
    }
}
