//! ClusterNetworkPolicies, in the order in which they are asked.

use std::sync::Arc;

use imbl::OrdMap;

use crate::cluster_policy::{ClusterPolicy, Tier};
use crate::text::Text;

/// All ClusterNetworkPolicies.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterPolicies {
    by_name: OrdMap<Text, Arc<ClusterPolicy>>,
    /// The same, by [`ClusterPolicy::rank`].
    by_rank: OrdMap<(Tier, u16, Text), Arc<ClusterPolicy>>,
}

impl PartialEq for ClusterPolicies {
    /// The same policies; their order follows from them.
    fn eq(&self, other: &Self) -> bool {
        self.by_name == other.by_name
    }
}

impl ClusterPolicies {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ClusterPolicy>> {
        self.by_name.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Text> {
        self.by_name.keys()
    }

    pub(crate) fn of(&self, tier: Tier) -> impl Iterator<Item = &Arc<ClusterPolicy>> {
        self.by_rank
            .range((tier, 0, Text::from(""))..)
            .take_while(move |((own, ..), _)| *own == tier)
            .map(|(_, policy)| policy)
    }

    pub(crate) fn insert(&mut self, policy: Arc<ClusterPolicy>) {
        self.remove(&policy.name);
        self.by_rank.insert(policy.rank(), Arc::clone(&policy));
        self.by_name.insert(policy.name.clone(), policy);
    }

    /// Whether there was one of this name.
    pub(crate) fn remove(&mut self, name: &Text) -> bool {
        let before = self.by_name.remove(name);
        if let Some(before) = &before {
            self.by_rank.remove(&before.rank());
        }
        before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_policy::Subject;

    fn policy(name: &str, tier: Tier, priority: u16) -> Arc<ClusterPolicy> {
        Arc::new(ClusterPolicy {
            name: name.into(),
            tier,
            priority,
            subject: Subject::default(),
            ingress: Vec::new(),
            egress: Vec::new(),
        })
    }

    fn names(policies: &ClusterPolicies, tier: Tier) -> Vec<String> {
        let own = policies.of(tier).map(|policy| policy.name.to_string());
        own.collect()
    }

    #[test]
    fn n19_lower_priorities_come_first_and_names_then() {
        let mut policies = ClusterPolicies::default();
        for (name, tier, priority) in [
            ("late", Tier::Admin, 1000),
            ("b", Tier::Admin, 10),
            ("a", Tier::Admin, 10),
            ("z", Tier::Admin, 9),
            ("base", Tier::Baseline, 0),
        ] {
            policies.insert(policy(name, tier, priority));
        }
        assert_eq!(names(&policies, Tier::Admin), ["z", "a", "b", "late"]);
        assert_eq!(names(&policies, Tier::NetworkPolicy), [""; 0]);
        assert_eq!(names(&policies, Tier::Baseline), ["base"]);
        // Who changes its place leaves nothing behind.
        policies.insert(policy("z", Tier::Baseline, 1));
        policies.insert(policy("late", Tier::Admin, 0));
        assert!(policies.remove(&"a".into()) && !policies.remove(&"a".into()));
        assert_eq!(names(&policies, Tier::Admin), ["late", "b"]);
        assert_eq!(names(&policies, Tier::Baseline), ["base", "z"]);
        assert_eq!(policies.names().count(), 4);
    }
}
