//! Counters of what policies deny.

use portolan_model::Family as IpFamily;
use portolan_why::policy::key;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::join::Told;

type Labels = Vec<(&'static str, String)>;

/// Packets that policies deny.
#[derive(Debug, Clone, Default)]
pub(crate) struct Denied {
    by_policy: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    told: Counter,
}

impl Denied {
    /// Puts them among others.
    pub(crate) fn register(&self, all: &mut Registry) {
        all.register(
            "network_policy_denied_packets",
            "Packets that were told of and denied, by direction, tier, each policy that denies and its rule, which only ClusterNetworkPolicies have; without a policy where it was gone when the packet was told of",
            self.by_policy.clone(),
        );
        all.register(
            "network_policy_dropped_packets",
            "All packets that policies denied on this node, whether they were told of or not",
            self.dropped.clone(),
        );
        all.register(
            "network_policy_told_packets",
            "Packets that policies denied and that were told of: no more than 100 per second",
            self.told.clone(),
        );
    }

    pub(super) fn denied(&self, told: &Told) {
        self.told.inc_by(u64::from(told.packets));
        for labels in labels(told) {
            let counter = self.by_policy.get_or_create(&labels);
            counter.inc_by(u64::from(told.packets));
        }
    }

    pub(super) fn dropped(&self, family: IpFamily, packets: u64) {
        let family = match family {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        };
        let labels = vec![("ip_family", family.to_owned())];
        self.dropped.get_or_create(&labels).inc_by(packets);
    }
}

fn labels(told: &Told) -> Vec<Labels> {
    let one = |tier: &str, namespace: &str, policy: &str| {
        vec![
            ("direction", told.direction().to_owned()),
            ("tier", tier.to_owned()),
            ("namespace", namespace.to_owned()),
            ("policy", policy.to_owned()),
            ("rule", told.rule()),
        ]
    };
    let policies = told.policies();
    if policies.is_empty() {
        return vec![one("", "", "")];
    }
    let policies = policies.iter();
    policies
        .map(key)
        .map(|(namespace, name)| one(told.tier(), namespace.unwrap_or_default(), name))
        .collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::super::join::tests::{one, one_by_a_rule};
    use super::*;

    #[test]
    fn n18_n19_what_policies_deny_is_counted_by_policy_and_rule() {
        let denied = Denied::default();
        let mut all = Registry::default();
        denied.register(&mut all);
        for told in one().into_iter().chain(one_by_a_rule()) {
            denied.denied(&told);
        }
        denied.dropped(IpFamily::V6, 7);
        let mut text = String::new();
        encode(&mut text, &all).expect("text");
        for line in [
            r#"network_policy_denied_packets_total{direction="ingress",tier="NetworkPolicy",namespace="shop",policy="p",rule=""} 1"#,
            r#"network_policy_denied_packets_total{direction="ingress",tier="Admin",namespace="",policy="closed",rule="spec.ingress[0]"} 1"#,
            r#"network_policy_dropped_packets_total{ip_family="IPv6"} 7"#,
            "network_policy_told_packets_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
