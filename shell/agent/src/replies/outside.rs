//! What the Leases say, for those who only look on: `portolan trace`.

use portolan_api::value::str_at;
use portolan_model::Family;
use portolan_plan::{REPLY_MASK, Replies};
use serde_json::Value;

use super::said::{KEY, node_of, said_in};
use super::state::is_fresh;

/// The label by which these Leases are found, in all namespaces.
pub const LABEL: &str = KEY;

/// What a node knows of the way back, as far as Leases tell: none if it has none and so
/// does not take part. Both nodes must have said that they send answers to each other.
#[must_use]
pub fn seen_in(leases: &[Value], node: &str) -> Option<Replies> {
    let own = leases
        .iter()
        .find(|lease| node_of(lease).as_deref() == Some(node));
    let own = said_in(own?)?;
    let mut replies = Replies {
        mask: REPLY_MASK,
        nodes: own.addresses().collect(),
        ..Replies::default()
    };
    for lease in leases {
        let Some((other, said)) = node_of(lease).zip(said_in(lease)) else {
            continue;
        };
        if other == node || str_at(lease, "spec.holderIdentity") != other {
            continue;
        }
        replies.nodes.extend(said.addresses());
        for family in Family::BOTH {
            let there = said.returns.contains(&(family, node.to_owned()));
            let here = own.returns.contains(&(family, other.clone()));
            if there && here && is_fresh(lease) {
                replies.kept.extend(said.ranges_of(family).copied());
            }
        }
    }
    Some(replies)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::super::said::lease_name;
    use super::*;

    fn lease(node: &str, range: &str, returns: &[&str], age: i64) -> Value {
        let said = json!({"links": [], "podCIDRs": [range], "returns": {"IPv4": returns}});
        let renewed = Timestamp::from_second(Timestamp::now().as_second() - age).unwrap();
        json!({
            "metadata": {"name": lease_name(node), "annotations": {KEY: said.to_string()}},
            "spec": {"holderIdentity": node, "renewTime": renewed.to_string()},
        })
    }

    #[test]
    fn p7_both_nodes_must_say_it_and_be_alive() {
        let all = ["a", "b", "c", "d"];
        let leases = [
            lease("a", "10.1.0.0/24", &all, 1),
            lease("b", "10.2.0.0/24", &all, 1),
            // Knows nobody, and is away.
            lease("c", "10.3.0.0/24", &[], 1),
            lease("d", "10.4.0.0/24", &all, 3600),
        ];
        let kept = |node| seen_in(&leases, node).map(|replies| replies.kept);
        assert_eq!(kept("a"), Some(vec!["10.2.0.0/24".parse().unwrap()]));
        assert_eq!(kept("c"), Some(Vec::new()));
        assert_eq!(kept("e"), None);
    }
}
