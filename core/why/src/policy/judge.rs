//! One end of a connection: which rule of which policy decides.

use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::{
    Action, ClusterPolicy, Direction, LabelSelector, Labels, NetworkPolicy, Pod, PodKey,
    PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Tier,
};
use portolan_plan::NodePlan;
use portolan_plan::policy::Source;

use super::miss::{Miss, What};
use super::world::World;

/// The destination's protocol and port; none for protocols without ports.
pub type To = Option<(Protocol, u16)>;

/// What is decided at one end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Which end: the source's egress, or the destination's ingress.
    pub direction: Direction,
    /// The pod whose policies decide; none where the address is no pod's.
    pub pod: Option<PodKey>,
    /// The other end, as this end's node sees it.
    pub peer: IpAddr,
    /// The plan's verdict.
    pub allowed: bool,
    /// The tier that decides; none where no policy has a say.
    pub tier: Option<Tier>,
    /// The policies of that tier that decide: those that isolate the pod in this
    /// direction, or the one whose rule it is.
    pub policies: Vec<Source>,
    /// What the verdict follows from.
    pub cause: Cause,
}

/// What a verdict follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No policy is about it (N1).
    Open,
    /// A pod always reaches itself (N12).
    Itself,
    /// A pod's own node always reaches it (N12).
    OwnNode,
    /// These rules allow it, by name; the first would do.
    Rules(Vec<RuleAt>),
    /// This rule denies it (N19).
    Denied(RuleAt),
    /// NetworkPolicies isolate the pod, and no rule allows it; these come near, the
    /// nearest first.
    Nothing(Vec<Near>),
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleAt {
    /// The policy.
    pub policy: Source,
    /// Of which list.
    pub direction: Direction,
    /// Which of the list.
    pub index: usize,
}

impl RuleAt {
    /// The rule's path, such as `spec.ingress[1]`.
    pub fn field(&self) -> String {
        format!("{}[{}]", list(self.direction), self.index)
    }
}

/// A policy as people name it: `shop/web`, or `web` for one of the whole cluster.
pub fn named(policy: &Source) -> String {
    match policy {
        Source::Policy(key) => key.to_string(),
        Source::Cluster(name) => name.to_string(),
    }
}

/// A policy's namespace, if it is of one, and its name.
pub fn key(policy: &Source) -> (Option<&str>, &str) {
    match policy {
        Source::Policy(key) => (Some(&key.namespace), &key.name),
        Source::Cluster(name) => (None, name),
    }
}

impl Judgement {
    /// The rule that comes nearest to allowing what is denied.
    pub fn nearest(&self) -> Option<&Near> {
        match &self.cause {
            Cause::Nothing(near) if !self.allowed => near.first(),
            Cause::Nothing(_)
            | Cause::Open
            | Cause::Itself
            | Cause::OwnNode
            | Cause::Denied(_)
            | Cause::Rules(_) => None,
        }
    }
}

/// `spec.ingress` or `spec.egress`.
pub(super) fn list(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "spec.ingress",
        Direction::Egress => "spec.egress",
    }
}

/// A rule that does not allow a connection, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// The rule.
    pub rule: RuleAt,
    /// What is not as it asks.
    pub misses: Vec<Miss>,
}

impl Near {
    /// How far the rule is from allowing it: less is nearer.
    pub fn cost(&self) -> usize {
        cost(&self.misses)
    }
}

/// Judges one end of a connection on the node of `plan`: `own` is the pod there,
/// `peer` the other end.
pub fn judge(
    world: &World<'_>,
    plan: &NodePlan,
    direction: Direction,
    (own, peer): (IpAddr, IpAddr),
    to: To,
) -> Judgement {
    let here = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(&plan.view.node);
    let pods: Vec<&Pod> = world.pods_at(own).filter(here).map(|pod| &**pod).collect();
    let mut judgement = Judgement {
        direction,
        pod: pods.first().map(|pod| pod.key.clone()),
        peer,
        allowed: plan.policies.allows(direction, (own, peer), to),
        tier: None,
        policies: Vec::new(),
        cause: Cause::Open,
    };
    let question = |pod| Question {
        world,
        direction,
        pod,
        peer,
        to,
    };
    for tier in Tier::ALL {
        // While two pods have one address, the first that is governed stands for both.
        let mut answers = pods
            .iter()
            .filter_map(|pod| Some((pod, question(*pod).of_tier(tier)?)));
        let Some((pod, said)) = answers.next() else {
            continue;
        };
        if own == peer {
            judgement.cause = Cause::Itself;
            return judgement;
        }
        let Said::Decided(cause, policies) = said else {
            continue;
        };
        judgement.pod = Some(pod.key.clone());
        judgement.tier = Some(tier);
        judgement.policies = policies;
        judgement.cause = cause;
        break;
    }
    judgement
}

/// What a tier says about a connection.
enum Said {
    /// Nothing: the next one is asked.
    Passed,
    /// The verdict, and the policies that it follows from.
    Decided(Cause, Vec<Source>),
}

/// The policies that are about a pod's address in a direction, tier by tier.
pub fn about(world: &World<'_>, plan: &NodePlan, direction: Direction, own: IpAddr) -> Vec<Source> {
    let here = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(&plan.view.node);
    let mut found = Vec::new();
    for pod in world.pods_at(own).filter(here) {
        let question = Question {
            world,
            direction,
            pod,
            peer: own,
            to: None,
        };
        let isolating = question.isolating();
        for tier in Tier::ALL {
            match tier {
                Tier::NetworkPolicy => found.extend(
                    isolating
                        .iter()
                        .map(|policy| Source::Policy(policy.key.clone())),
                ),
                Tier::Baseline if !isolating.is_empty() => {}
                Tier::Admin | Tier::Baseline => found.extend(
                    question
                        .clusterwide(tier)
                        .map(|policy| Source::Cluster(policy.name.clone())),
                ),
            }
        }
    }
    found
}

/// A connection, as the rules of one pod are asked about it.
struct Question<'q> {
    world: &'q World<'q>,
    direction: Direction,
    pod: &'q Pod,
    peer: IpAddr,
    to: To,
}

impl<'q> Question<'q> {
    /// What a tier says; nothing where none of its policies is about the pod.
    fn of_tier(&self, tier: Tier) -> Option<Said> {
        let isolating = self.isolating();
        if tier == Tier::NetworkPolicy {
            let sources = isolating.iter();
            let sources = sources.map(|policy| Source::Policy(policy.key.clone()));
            let said = || Said::Decided(self.cause(&isolating), sources.collect());
            return (!isolating.is_empty()).then(said);
        }
        if tier == Tier::Baseline && !isolating.is_empty() {
            return None;
        }
        let mut policies = self.clusterwide(tier).peekable();
        policies.peek()?;
        for policy in policies {
            for (index, one) in policy.rules(self.direction).iter().enumerate() {
                let at = RuleAt {
                    policy: Source::Cluster(policy.name.clone()),
                    direction: self.direction,
                    index,
                };
                if !self.misses(&at, &one.rule).is_empty() {
                    continue;
                }
                let sources = vec![at.policy.clone()];
                return Some(match (tier, one.action) {
                    (Tier::Baseline, Action::Pass) | (_, Action::Accept) => {
                        Said::Decided(Cause::Rules(vec![at]), sources)
                    }
                    (_, Action::Deny) => Said::Decided(Cause::Denied(at), sources),
                    (_, Action::Pass) => Said::Passed,
                });
            }
        }
        Some(Said::Passed)
    }

    /// The NetworkPolicies that isolate the pod.
    fn isolating(&self) -> Vec<&'q NetworkPolicy> {
        let policies = self.world.cluster.policies_of(&self.pod.key.namespace);
        policies
            .filter(|policy| policy.pods.matches(&self.pod.labels))
            .filter(|policy| policy.rules(self.direction).is_some())
            .map(|policy| &**policy)
            .collect()
    }

    /// The ClusterNetworkPolicies of a tier that say something about the pod.
    fn clusterwide(&self, tier: Tier) -> impl Iterator<Item = &'q ClusterPolicy> {
        let namespace = self.world.cluster.labels_of(&self.pod.key.namespace);
        let policies = self.world.cluster.cluster_policies(tier);
        let (pod, direction) = (self.pod, self.direction);
        policies
            .filter(move |policy| policy.subject.selects(namespace, &pod.labels))
            .filter(move |policy| !policy.rules(direction).is_empty())
            .map(|policy| &**policy)
    }

    fn cause(&self, policies: &[&NetworkPolicy]) -> Cause {
        let mut allowing = Vec::new();
        let mut near = Vec::new();
        for policy in policies {
            let rules = policy.rules(self.direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                let at = RuleAt {
                    policy: Source::Policy(policy.key.clone()),
                    direction: self.direction,
                    index,
                };
                let misses = self.misses(&at, rule);
                if misses.is_empty() {
                    allowing.push(at);
                } else {
                    near.push(Near { rule: at, misses });
                }
            }
        }
        if !allowing.is_empty() {
            return Cause::Rules(allowing);
        }
        near.sort_by_key(Near::cost);
        Cause::Nothing(near)
    }

    /// What keeps a rule from allowing the connection; nothing if it does.
    fn misses(&self, at: &RuleAt, rule: &PolicyRule) -> Vec<Miss> {
        // Each pod at the address, and the address alone.
        let pods = self.world.pods_at(self.peer).map(|pod| Some(&**pod));
        let candidates: Vec<Option<&Pod>> = pods.chain([None]).collect();
        let side = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let mut ways: Vec<Vec<Miss>> = Vec::new();
        match &rule.peers {
            None => {
                for pod in &candidates {
                    ways.push(self.port_misses(at, rule, *pod));
                }
            }
            Some(peers) if peers.is_empty() => ways.push(vec![Miss {
                field: format!("{}.{side}", at.field()),
                what: What::Unreadable,
            }]),
            Some(peers) => {
                for (index, peer) in peers.iter().enumerate() {
                    let field = format!("{}.{side}[{index}]", at.field());
                    for pod in &candidates {
                        let mut way = self.peer_misses(&field, at, peer, *pod);
                        let by_name = match peer {
                            PolicyPeer::Pods { .. } => *pod,
                            // Addresses have no names of ports.
                            PolicyPeer::Block(_) => None,
                        };
                        way.extend(self.port_misses(at, rule, by_name));
                        ways.push(way);
                    }
                }
            }
        }
        ways.sort_by_key(|way| cost(way));
        ways.into_iter().next().unwrap_or_default()
    }

    /// What keeps the other end, as this pod or as an address, from being a peer.
    fn peer_misses(
        &self,
        field: &str,
        at: &RuleAt,
        peer: &PolicyPeer,
        pod: Option<&Pod>,
    ) -> Vec<Miss> {
        let miss = |part: &str, what| Miss {
            field: format!("{field}.{part}"),
            what,
        };
        let (namespaces, selector) = match peer {
            PolicyPeer::Block(block) if block.contains(self.peer) => return Vec::new(),
            PolicyPeer::Block(block) => {
                let hole = block.except.iter().find(|net| net.contains(&self.peer));
                return vec![match hole {
                    Some(hole) if block.range.contains(&self.peer) => miss(
                        "ipBlock.except",
                        What::Excepted(self.peer, hole.to_string()),
                    ),
                    _ => miss("ipBlock.cidr", What::OutOfRange(self.peer)),
                }];
            }
            PolicyPeer::Pods { namespaces, pods } => (namespaces, pods),
        };
        let Some(pod) = pod else {
            let host = self.world.all_at(self.peer).iter();
            let host = host.into_iter().find(|pod| pod.host_network);
            return vec![miss(
                "podSelector",
                match host {
                    Some(pod) => What::HostNetwork(pod.key.clone()),
                    None => What::NotAPod(self.peer),
                },
            )];
        };
        let mut misses: Vec<Miss> = self
            .namespace_misses(at, namespaces.as_ref(), pod)
            .into_iter()
            .map(|(part, what)| miss(part, what))
            .collect();
        misses.extend(selector.unmet(&pod.labels).map(|(key, ask)| {
            miss(
                "podSelector",
                What::Label {
                    pod: pod.key.clone(),
                    key: key.clone(),
                    ask: ask.clone(),
                    has: pod.labels.get(key).cloned(),
                },
            )
        }));
        misses
    }

    /// What keeps a pod's namespace from being one of a peer's, each with the part of
    /// the peer that asks.
    fn namespace_misses(
        &self,
        at: &RuleAt,
        namespaces: Option<&LabelSelector>,
        pod: &Pod,
    ) -> Vec<(&'static str, What)> {
        let own = match &at.policy {
            Source::Policy(key) => key.namespace.clone(),
            // Those of the whole cluster always tell their namespaces.
            Source::Cluster(_) => "".into(),
        };
        let there = &pod.key.namespace;
        let Some(selector) = namespaces else {
            let what = What::Namespace {
                own: own.clone(),
                peer: there.clone(),
            };
            return (own != *there)
                .then_some(("podSelector", what))
                .into_iter()
                .collect();
        };
        let none = Labels::default();
        let labels = self.world.cluster.labels_of(there);
        let unmet: Vec<_> = match labels {
            Some(labels) => selector.unmet(labels).collect(),
            // Of a namespace that nobody knows no label is known either.
            None => selector.requirements().iter().collect(),
        };
        let labels = labels.unwrap_or(&none);
        let told = unmet.into_iter().map(|(key, ask)| {
            let what = What::NamespaceLabel {
                namespace: there.clone(),
                key: key.clone(),
                ask: ask.clone(),
                has: labels.get(key).cloned(),
            };
            ("namespaceSelector", what)
        });
        told.collect()
    }

    /// What keeps the port from being one of the rule's. On the way out a name is that
    /// of a port of `peer` (N10).
    fn port_misses(&self, at: &RuleAt, rule: &PolicyRule, peer: Option<&Pod>) -> Vec<Miss> {
        let Some(ports) = &rule.ports else {
            return Vec::new();
        };
        let named = match self.direction {
            Direction::Ingress => Some(self.pod),
            Direction::Egress => peer,
        };
        let meets = |port: &PolicyPort| {
            let Some((protocol, number)) = self.to else {
                return false;
            };
            port.protocol == protocol
                && match &port.port {
                    PortMatch::All => true,
                    PortMatch::Range(first, last) => (first..=last).contains(&&number),
                    PortMatch::Named(name) => {
                        named.is_some_and(|pod| pod.named(name, protocol).any(|own| own == number))
                    }
                }
        };
        if ports.iter().any(meets) {
            return Vec::new();
        }
        let lacks = |port: &PolicyPort| match &port.port {
            PortMatch::Named(name) => {
                let none = named.is_none_or(|pod| pod.named(name, port.protocol).next().is_none());
                none.then(|| name.clone())
            }
            PortMatch::All | PortMatch::Range(..) => None,
        };
        let what = if ports.is_empty() {
            What::Unreadable
        } else {
            What::Port {
                allowed: ports.iter().map(port_text).collect(),
                wanted: self.to.map(|(protocol, port)| at_port(protocol, port)),
                names: ports.iter().filter_map(lacks).collect(),
            }
        };
        vec![Miss {
            field: format!("{}.ports", at.field()),
            what,
        }]
    }
}

fn cost(misses: &[Miss]) -> usize {
    misses.iter().map(|miss| miss.what.cost()).sum()
}

/// `80/TCP`, `8000-9000/UDP`, `"web"/TCP`, `every port of TCP`.
pub(super) fn port_text(port: &PolicyPort) -> String {
    let protocol = protocol_text(port.protocol);
    match &port.port {
        PortMatch::All => format!("every port of {protocol}"),
        PortMatch::Range(first, last) if first == last => format!("{first}/{protocol}"),
        PortMatch::Range(first, last) => format!("{first}-{last}/{protocol}"),
        PortMatch::Named(name) => format!("{name}/{protocol}"),
    }
}

/// `80/TCP`.
pub(super) fn at_port(protocol: Protocol, port: u16) -> String {
    format!("{port}/{}", protocol_text(protocol))
}

/// As kubectl writes it.
fn protocol_text(protocol: Protocol) -> String {
    protocol.name().to_uppercase()
}
