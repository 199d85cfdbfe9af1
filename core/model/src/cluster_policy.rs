//! ClusterNetworkPolicies: what holds before NetworkPolicies, and where there are none.

use crate::labels::{LabelSelector, Labels};
use crate::policy::{Direction, PolicyRule};
use crate::text::Text;

/// Which policies are asked first. Who is not judged by one tier is judged by the
/// next (N19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// ClusterNetworkPolicies that nobody in a namespace can overrule.
    Admin,
    /// NetworkPolicies: they always judge the pods that they isolate.
    NetworkPolicy,
    /// ClusterNetworkPolicies for pods that no NetworkPolicy isolates.
    Baseline,
}

impl Tier {
    /// All of them, as they are asked.
    pub const ALL: [Self; 3] = [Self::Admin, Self::NetworkPolicy, Self::Baseline];

    /// As `spec.tier` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        }
    }
}

/// What a rule does with what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Lets it through, whatever later rules and tiers say.
    Accept,
    /// Drops it, whatever they say.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

impl Action {
    /// As `action` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        }
    }
}

/// A ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// Its name.
    pub name: Text,
    /// [`Tier::Admin`] or [`Tier::Baseline`].
    pub tier: Tier,
    /// From 0 to 1000: of a tier's policies those with lower ones are asked first, and
    /// of those with the same the first by name.
    pub priority: u16,
    /// The pods that it is about; never those with `hostNetwork`.
    pub subject: Subject,
    /// About what comes in: the first rule that is about a connection decides.
    pub ingress: Vec<ClusterRule>,
    /// About what goes out, in the same manner.
    pub egress: Vec<ClusterRule>,
}

/// Whom a ClusterNetworkPolicy is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Subject {
    /// In which namespaces.
    pub namespaces: LabelSelector,
    /// Which pods there.
    pub pods: LabelSelector,
}

/// One element of `spec.ingress` or `spec.egress`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRule {
    /// What it is called; none if it has no name.
    pub name: Option<Text>,
    /// What it does.
    pub action: Action,
    /// With which connections. What is not understood is about nobody in a rule that
    /// accepts, and about everybody in another (N19). Namespaces are always told.
    pub rule: PolicyRule,
}

impl ClusterPolicy {
    /// Its rules for a direction, in their order.
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Where it stands among all: what is asked first is less.
    pub fn rank(&self) -> (Tier, u16, Text) {
        (self.tier, self.priority, self.name.clone())
    }
}

impl Subject {
    /// Whether pods with these labels are meant, in a namespace with those; none if the
    /// namespace is not known.
    pub fn selects(&self, namespace: Option<&Labels>, pod: &Labels) -> bool {
        // What asks nothing need not know the namespace.
        let there = self.namespaces.requirements().is_empty()
            || namespace.is_some_and(|labels| self.namespaces.matches(labels));
        there && self.pods.matches(pod)
    }
}
