//! NetworkPolicy and ClusterNetworkPolicy in the plainest words: no index, no sharing,
//! every object looked at for every question. What `plan` compiles must agree with it.

use std::net::IpAddr;

use portolan_model::{
    Action, Cluster, ClusterRule, Direction, LabelSelector, NetworkPolicy, Pod, PolicyPeer,
    PolicyPort, PolicyRule, PortMatch, Protocol, Text, Tier,
};
use portolan_plan::NodeView;

/// The destination's protocol and port; none for protocols without ports.
pub type To = Option<(Protocol, u16)>;

/// Whether the node of `view` lets a new connection of its pod at `own` through:
/// coming from `peer`, or going to it.
pub fn allowed(
    cluster: &Cluster,
    view: &NodeView,
    direction: Direction,
    ends: (IpAddr, IpAddr),
    to: To,
) -> bool {
    let judged = judged(cluster, view, direction, ends, to);
    judged.is_none_or(|(_, action)| action != Action::Deny)
}

/// Which tier accepts or denies such a connection; none if nobody minds it.
pub fn judged(
    cluster: &Cluster,
    view: &NodeView,
    direction: Direction,
    (own, peer): (IpAddr, IpAddr),
    to: To,
) -> Option<(Tier, Action)> {
    if own == peer {
        return None;
    }
    let here = |pod: &&Pod| pod.node.as_ref() == Some(&view.node) && pod.addresses.contains(&own);
    let pods: Vec<&Pod> = to_policies(cluster).into_iter().filter(here).collect();
    let question = |pod| Question {
        cluster,
        view,
        direction,
        pod,
        peer,
        to,
    };
    // While two pods have one address, the first that is governed stands for both.
    for tier in Tier::ALL {
        let mut answers = pods.iter().map(|pod| question(pod).of_tier(tier));
        match answers.find_map(|answer| answer) {
            None | Some(Action::Pass) => {}
            Some(action) => return Some((tier, action)),
        }
    }
    None
}

/// The pods that policies know: hostNetwork pods are their nodes (N13).
fn to_policies(cluster: &Cluster) -> Vec<&Pod> {
    let pods = cluster.pods().map(|pod| &**pod);
    pods.filter(|pod| !pod.host_network).collect()
}

struct Question<'q> {
    cluster: &'q Cluster,
    view: &'q NodeView,
    direction: Direction,
    pod: &'q Pod,
    peer: IpAddr,
    to: To,
}

impl Question<'_> {
    /// What a tier says; nothing if no policy of it is about the pod.
    fn of_tier(&self, tier: Tier) -> Option<Action> {
        let policies = self.isolating();
        if tier == Tier::NetworkPolicy {
            return (!policies.is_empty()).then(|| self.of_policies(&policies));
        }
        if tier == Tier::Baseline && !policies.is_empty() {
            return None;
        }
        let labels = self.cluster.labels_of(&self.pod.key.namespace);
        let all = Tier::ALL.into_iter();
        let all = all.flat_map(|tier| self.cluster.cluster_policies(tier));
        let mut policies: Vec<_> = all.filter(|policy| policy.tier == tier).collect();
        policies.sort_by_key(|policy| (policy.priority, policy.name.clone()));
        let rules: Vec<&ClusterRule> = policies
            .into_iter()
            .filter(|policy| policy.subject.selects(labels, &self.pod.labels))
            .flat_map(|policy| policy.rules(self.direction))
            .collect();
        if rules.is_empty() {
            return None;
        }
        let namespace = "no namespace of its own".into();
        let first = rules.iter().find(|one| self.meets(&namespace, &one.rule));
        Some(match (tier, first.map(|one| one.action)) {
            (Tier::Baseline, Some(Action::Pass) | None) => Action::Accept,
            (_, Some(action)) => action,
            (_, None) => Action::Pass,
        })
    }

    /// The NetworkPolicies that isolate the pod.
    fn isolating(&self) -> Vec<&NetworkPolicy> {
        self.cluster
            .policies()
            .map(|policy| &**policy)
            .filter(|policy| policy.key.namespace == self.pod.key.namespace)
            .filter(|policy| policy.pods.matches(&self.pod.labels))
            .filter(|policy| policy.rules(self.direction).is_some())
            .collect()
    }

    fn of_policies(&self, policies: &[&NetworkPolicy]) -> Action {
        let allowed = policies.iter().any(|policy| {
            let rules = policy.rules(self.direction).unwrap_or_default();
            rules
                .iter()
                .any(|rule| self.meets(&policy.key.namespace, rule))
        });
        if allowed {
            Action::Accept
        } else {
            Action::Deny
        }
    }

    fn meets(&self, namespace: &Text, rule: &PolicyRule) -> bool {
        match &rule.ports {
            None => self.is_peer(namespace, rule),
            Some(ports) => ports
                .iter()
                .any(|port| self.meets_at(namespace, rule, port)),
        }
    }

    fn meets_at(&self, namespace: &Text, rule: &PolicyRule, port: &PolicyPort) -> bool {
        let Some((protocol, number)) = self.to else {
            return false;
        };
        if port.protocol != protocol {
            return false;
        }
        match (&port.port, self.direction) {
            (PortMatch::All, _) => self.is_peer(namespace, rule),
            (PortMatch::Range(first, last), _) => {
                (first..=last).contains(&&number) && self.is_peer(namespace, rule)
            }
            (PortMatch::Named(name), Direction::Ingress) => {
                self.pod.named(name, protocol).any(|own| own == number)
                    && self.is_peer(namespace, rule)
            }
            (PortMatch::Named(name), Direction::Egress) => {
                let named = |pod: &Pod| pod.named(name, protocol).any(|own| own == number);
                self.peers_at().iter().any(|(labels, pod)| {
                    let of = |peer: &PolicyPeer| self.selects(namespace, peer, (labels, pod));
                    let selected = rule.peers.as_ref().is_none_or(|peers| peers.iter().any(of));
                    let dns = pod.is_none()
                        && matches!(
                            (&**name, protocol),
                            ("dns", Protocol::Udp) | ("dns-tcp", Protocol::Tcp)
                        )
                        && number == 53;
                    selected && (pod.is_some_and(named) || dns)
                })
            }
        }
    }

    fn is_peer(&self, namespace: &Text, rule: &PolicyRule) -> bool {
        let Some(peers) = &rule.peers else {
            return true;
        };
        peers.iter().any(|peer| match peer {
            PolicyPeer::Block(block) => block.contains(self.peer),
            PolicyPeer::Pods { .. } => {
                let there = self.peers_at();
                there
                    .iter()
                    .any(|(labels, pod)| self.selects(namespace, peer, (labels, pod)))
            }
        })
    }

    /// The pods at the peer's address, each with its namespace and whether it is one;
    /// none stands for who answers for names (N21).
    fn peers_at(&self) -> Vec<(Text, Option<&Pod>)> {
        let pods = to_policies(self.cluster).into_iter();
        let there = pods.filter(|pod| pod.addresses.contains(&self.peer));
        let mut all: Vec<_> = there
            .map(|pod| (pod.key.namespace.clone(), Some(pod)))
            .collect();
        if self.view.dns_addresses.contains(&self.peer) {
            all.push(("kube-system".into(), None));
        }
        all
    }

    fn selects(&self, own: &Text, peer: &PolicyPeer, (there, pod): (&Text, &Option<&Pod>)) -> bool {
        let PolicyPeer::Pods { namespaces, pods } = peer else {
            return false;
        };
        let in_namespace = match namespaces {
            None => own == there,
            Some(selector) => {
                let labels = self.cluster.labels_of(there);
                *selector == LabelSelector::default()
                    || labels.is_some_and(|labels| selector.matches(labels))
            }
        };
        let dns = [("k8s-app", "kube-dns")].into_iter().collect();
        let labels = pod.map_or(&dns, |pod| &pod.labels);
        in_namespace && LabelSelector::matches(pods, labels)
    }
}
