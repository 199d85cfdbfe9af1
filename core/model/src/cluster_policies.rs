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
