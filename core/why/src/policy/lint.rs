//! What is odd about policies by themselves: rules that do nothing, or not what they
//! seem to.

use std::collections::BTreeSet;

use portolan_model::{
    Block, Direction, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch,
    Problem, Protocol, Text,
};

use super::judge::list;
use super::world::World;
use crate::doctor::{Finding, Mend, Severity};

/// Looks through the policies of these namespaces (of all, if none).
pub fn lint(
    world: &World<'_>,
    problems: &[Problem],
    namespaces: Option<&BTreeSet<Text>>,
) -> Vec<Finding> {
    let wanted = |name: &str| namespaces.is_none_or(|all| all.iter().any(|own| **own == *name));
    let mut found = Vec::new();
    for policy in world.cluster.policies() {
        if !wanted(&policy.key.namespace) {
            continue;
        }
        let mut look = Look {
            world,
            policy,
            found: &mut found,
        };
        look.policy();
    }
    for problem in problems {
        let (namespace, name) = match problem.object.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => ("", problem.object.as_str()),
        };
        let is_policy = matches!(problem.kind, "NetworkPolicy" | "ClusterNetworkPolicy");
        if !is_policy || !namespace.is_empty() && !wanted(namespace) {
            continue;
        }
        found.push(Finding {
            severity: Severity::Fault,
            object: format!("{}/{name}", problem.kind.to_lowercase()),
            namespace: namespace.to_owned(),
            field: problem.field.clone(),
            message: problem.message.clone(),
            mend: Some(Mend {
                text: "correct the field: what cannot be read allows nothing".to_owned(),
                command: None,
            }),
        });
    }
    found
}

/// One policy, and what is found.
struct Look<'l> {
    world: &'l World<'l>,
    policy: &'l NetworkPolicy,
    found: &'l mut Vec<Finding>,
}

impl Look<'_> {
    fn tell(&mut self, severity: Severity, field: String, (message, mend): (String, &str)) {
        let key = &self.policy.key;
        self.found.push(Finding {
            severity,
            object: format!("networkpolicy/{}", key.name),
            namespace: key.namespace.to_string(),
            field,
            message,
            mend: Some(Mend {
                text: mend.to_owned(),
                command: None,
            }),
        });
    }

    fn policy(&mut self) {
        let here = &self.policy.key.namespace;
        let mut pods = self.world.cluster.pods_of(here);
        let selects = pods.any(|pod| !pod.host_network && self.policy.pods.matches(&pod.labels));
        if !selects {
            let asks = &self.policy.pods;
            let (severity, message) = if asks.requirements().is_empty() {
                let message = format!("namespace {here} has no pods");
                (Severity::Note, message)
            } else {
                let message = format!("no pod of namespace {here} has {asks}");
                (Severity::Warning, message)
            };
            self.tell(
                severity,
                "spec.podSelector".to_owned(),
                (message, "select pods that exist, or delete the policy"),
            );
        }
        for direction in Direction::BOTH {
            let rules = self.policy.rules(direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                let field = format!("{}[{index}]", list(direction));
                self.peers(direction, &field, rule);
                self.ports(direction, &field, rule);
                let others = rules.iter().enumerate();
                let wider = others.filter(|(other, _)| *other != index);
                let wider = wider
                    .filter(|(other, wider)| {
                        covers(wider, rule) && (*other < index || !covers(rule, wider))
                    })
                    .map(|(other, _)| other)
                    .next();
                if let Some(other) = wider {
                    let message = format!(
                        "{}[{other}] allows all that this rule allows",
                        list(direction)
                    );
                    self.tell(
                        Severity::Warning,
                        field.clone(),
                        (message, "remove the rule, or narrow the other one"),
                    );
                }
            }
        }
    }

    fn peers(&mut self, direction: Direction, field: &str, rule: &PolicyRule) {
        let side = match direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        for (index, peer) in rule.peers.iter().flatten().enumerate() {
            let field = format!("{field}.{side}[{index}]");
            match peer {
                PolicyPeer::Pods { namespaces, pods } => {
                    self.selector(&field, namespaces.as_ref(), pods);
                }
                PolicyPeer::Block(block) => {
                    let dns = self.world.names();
                    let dns = dns.is_some_and(|dns| dns.addresses.contains(&block.range.addr()));
                    if dns && direction == Direction::Egress {
                        let message = format!(
                            "{} is the cluster's DNS: that is met only where each node answers itself",
                            block.range
                        );
                        let mend = "select the pods with k8s-app: kube-dns in kube-system";
                        let field = format!("{field}.ipBlock.cidr");
                        self.tell(Severity::Note, field, (message, mend));
                    } else if let Some(what) = self.services_in(block) {
                        let message = format!(
                            "{} {what}: policies meet the pods behind a Service, never its address",
                            block.range
                        );
                        self.tell(
                            Severity::Warning,
                            format!("{field}.ipBlock.cidr"),
                            (
                                message,
                                "select the pods behind the Service, and their own ports",
                            ),
                        );
                    }
                }
            }
        }
    }

    /// Whether a range is about Services only: the address of one, or a part of the
    /// range that their cluster addresses come from. A wider one has them among others.
    fn services_in(&self, block: &Block) -> Option<String> {
        let cluster = self.world.cluster;
        let range = &block.range;
        if range.prefix_len() == range.max_prefix_len() {
            let address = range.addr();
            let mut services = cluster.services();
            let of = services.find(|service| {
                let outer = service.outer_ips();
                service
                    .cluster_ips
                    .iter()
                    .copied()
                    .chain(outer)
                    .any(|own| own == address)
            });
            if let Some(service) = of {
                return Some(format!("is the address of service {}", service.key));
            }
        }
        let mut ranges = cluster.service_cidrs().flat_map(|cidr| &cidr.ranges);
        let own = ranges.find(|own| own.contains(range))?;
        Some(format!("is of the range of cluster addresses, {own}"))
    }

    fn selector(&mut self, field: &str, namespaces: Option<&LabelSelector>, pods: &LabelSelector) {
        let cluster = self.world.cluster;
        let own = &self.policy.key.namespace;
        let there: Vec<&Text> = match namespaces {
            None => vec![own],
            Some(selector) => cluster
                .namespaces()
                .filter(|name| {
                    let labels = cluster.labels_of(name);
                    labels.is_some_and(|labels| selector.matches(labels))
                })
                .collect(),
        };
        if let (true, Some(selector)) = (there.is_empty(), namespaces) {
            let message = format!("no namespace has {selector}");
            self.tell(
                Severity::Warning,
                format!("{field}.namespaceSelector"),
                (message, "name labels that namespaces have; kubernetes.io/metadata.name is the name of each"),
            );
            return;
        }
        let mut all = there.iter().flat_map(|name| cluster.pods_of(name));
        let dns = self.world.names();
        let is_dns = there.iter().any(|name| ***name == *"kube-system")
            && dns.is_some_and(|dns| pods.matches(&dns.labels));
        if is_dns || all.any(|pod| !pod.host_network && pods.matches(&pod.labels)) {
            return;
        }
        let place = match there.as_slice() {
            [one] => format!("namespace {one}"),
            many => format!("{} namespaces that are meant", many.len()),
        };
        let message = if pods.requirements().is_empty() {
            format!("there are no pods in {place}")
        } else {
            format!("no pod in {place} has {pods}")
        };
        self.tell(
            Severity::Warning,
            format!("{field}.podSelector"),
            (message, "name labels that the pods have"),
        );
    }

    fn ports(&mut self, direction: Direction, field: &str, rule: &PolicyRule) {
        for (index, port) in rule.ports.iter().flatten().enumerate() {
            let PortMatch::Named(name) = &port.port else {
                continue;
            };
            let field = format!("{field}.ports[{index}].port");
            let only_blocks = rule.peers.as_ref().is_some_and(|peers| {
                let mut all = peers.iter();
                !peers.is_empty() && all.all(|peer| matches!(peer, PolicyPeer::Block(_)))
            });
            if direction == Direction::Egress && only_blocks {
                let message = "addresses have no names of ports: this allows nothing".to_owned();
                self.tell(
                    Severity::Warning,
                    field,
                    (message, "give the port's number"),
                );
                continue;
            }
            if !self.has_port(direction, name, port.protocol) {
                let (protocol, whose) = (
                    port.protocol.name().to_uppercase(),
                    match direction {
                        Direction::Ingress => "no pod that the policy selects",
                        Direction::Egress => "no pod",
                    },
                );
                let message = format!("{whose} has a port named {name:?} for {protocol}");
                self.tell(
                    Severity::Warning,
                    field,
                    (message, "name the container's port so, or give its number"),
                );
            }
        }
    }

    fn has_port(&self, direction: Direction, name: &str, protocol: Protocol) -> bool {
        let cluster = self.world.cluster;
        let here = &self.policy.key.namespace;
        let mut pods: Box<dyn Iterator<Item = _>> = match direction {
            Direction::Ingress => Box::new(
                cluster
                    .pods_of(here)
                    .filter(|pod| self.policy.pods.matches(&pod.labels)),
            ),
            Direction::Egress => Box::new(cluster.pods()),
        };
        let dns = self.world.names();
        let dns = dns.is_some_and(|dns| dns.named(name, protocol).next().is_some());
        direction == Direction::Egress && dns
            || pods.any(|pod| pod.named(name, protocol).next().is_some())
    }
}

/// Whether a rule allows all that another one allows, as far as their words tell.
fn covers(wide: &PolicyRule, narrow: &PolicyRule) -> bool {
    let unreadable = |list: Option<bool>| list == Some(true);
    if unreadable(narrow.peers.as_ref().map(Vec::is_empty))
        || unreadable(narrow.ports.as_ref().map(Vec::is_empty))
    {
        return false;
    }
    let peers = match (&wide.peers, &narrow.peers) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            let held = |one: &PolicyPeer| wide.iter().any(|other| holds(other, one));
            narrow.iter().all(held)
        }
    };
    let ports = match (&wide.ports, &narrow.ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            let held = |one: &PolicyPort| wide.iter().any(|other| reaches(other, one));
            narrow.iter().all(held)
        }
    };
    peers && ports
}

fn holds(wide: &PolicyPeer, narrow: &PolicyPeer) -> bool {
    match (wide, narrow) {
        (PolicyPeer::Block(wide), PolicyPeer::Block(narrow)) => {
            let excepted = |hole: &ipnet::IpNet| {
                let mut holes = narrow.except.iter();
                !narrow.range.contains(&hole.network()) && !hole.contains(&narrow.range.network())
                    || holes.any(|own| own.contains(hole))
            };
            wide.range.contains(&narrow.range) && wide.except.iter().all(excepted)
        }
        (
            PolicyPeer::Pods { namespaces, pods },
            PolicyPeer::Pods {
                namespaces: there,
                pods: own,
            },
        ) => {
            let everywhere = match (namespaces, there) {
                (None, None) => true,
                (Some(wide), Some(narrow)) => asks_less(wide, narrow),
                (Some(wide), None) => wide.requirements().is_empty(),
                (None, Some(_)) => false,
            };
            everywhere && asks_less(pods, own)
        }
        (PolicyPeer::Block(_), PolicyPeer::Pods { .. })
        | (PolicyPeer::Pods { .. }, PolicyPeer::Block(_)) => false,
    }
}

/// Whether whatever the other selector selects is selected by this one too.
fn asks_less(wide: &LabelSelector, narrow: &LabelSelector) -> bool {
    let asks = narrow.requirements();
    wide.requirements().iter().all(|ask| asks.contains(ask))
}

fn reaches(wide: &PolicyPort, narrow: &PolicyPort) -> bool {
    wide.protocol == narrow.protocol
        && match (&wide.port, &narrow.port) {
            (PortMatch::All, _) => true,
            (PortMatch::Range(first, last), PortMatch::Range(from, to)) => {
                first <= from && to <= last
            }
            (one, other) => one == other,
        }
}
