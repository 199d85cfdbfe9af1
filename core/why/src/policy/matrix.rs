//! Who can reach whom, as a table: pods that policies treat alike are one row.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::{Direction, Family, PodKey, PolicyPort, PortMatch, Protocol, Text};
use serde_json::{Value, json};

use super::judge::{To, at_port};
use super::world::World;

/// More rows and columns than this are cut: nobody reads them.
const MOST: usize = 200;

/// Who can reach whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Groups of pods that are treated alike.
    pub groups: Vec<Group>,
    /// The ports that were asked about; the last stands for all others.
    pub ports: Vec<Asked>,
    /// From the group of the row to that of the column, which ports are open.
    pub open: Vec<Vec<Vec<bool>>>,
    /// So many pods were left out.
    pub left_out: usize,
}

/// Pods that reach the same and are reached by the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is called: a pod, or what the names of several have in common.
    pub name: String,
    /// The pods.
    pub pods: Vec<PodKey>,
}

/// A port that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// This one.
    Port(Protocol, u16),
    /// One that no rule names.
    Other(Protocol, u16),
}

impl Asked {
    fn to(self) -> To {
        match self {
            Self::Port(protocol, port) | Self::Other(protocol, port) => Some((protocol, port)),
        }
    }
}

/// One pod, as it is asked about.
struct Own {
    key: PodKey,
    /// An address of each family.
    addresses: Vec<IpAddr>,
}

/// Asks about all pods of these namespaces (of all, if none), at the ports that
/// policies and containers name, or at one port.
pub fn matrix(
    world: &World<'_>,
    namespaces: Option<&BTreeSet<Text>>,
    only: Option<(Protocol, u16)>,
) -> Matrix {
    let wanted = |name: &Text| namespaces.is_none_or(|all| all.contains(name));
    let pods = world.cluster.pods();
    let pods = pods.filter(|pod| !pod.host_network && wanted(&pod.key.namespace));
    let mut own: Vec<Own> = pods
        .filter(|pod| {
            pod.node
                .as_deref()
                .is_some_and(|node| world.plan(node).is_some())
        })
        .filter(|pod| !pod.addresses.is_empty())
        .map(|pod| Own {
            key: pod.key.clone(),
            addresses: pod.addresses.clone(),
        })
        .collect();
    own.sort_by(|one, other| one.key.cmp(&other.key));
    let left_out = own.len().saturating_sub(MOST);
    own.truncate(MOST);
    let ports = match only {
        Some((protocol, port)) => vec![Asked::Port(protocol, port)],
        None => ports(world, &own),
    };
    let reach: Vec<Vec<Vec<bool>>> = own
        .iter()
        .map(|from| {
            let row = own.iter().map(|to| {
                let open = ports.iter().map(|port| reaches(world, from, to, port.to()));
                open.collect()
            });
            row.collect()
        })
        .collect();
    grouped(&own, ports, &reach, left_out)
}

/// Whether both ends let a connection through, in some family.
fn reaches(world: &World<'_>, from: &Own, to: &Own, port: To) -> bool {
    if from.key == to.key {
        return true;
    }
    let pairs = from.addresses.iter().flat_map(|source| {
        let same = |own: &&IpAddr| Family::of(**own) == Family::of(*source);
        let there = to.addresses.iter().filter(same);
        there.map(move |destination| (*source, *destination))
    });
    let mut pairs = pairs;
    pairs.any(|(source, destination)| {
        let judges = [
            (Direction::Egress, source, destination),
            (Direction::Ingress, destination, source),
        ];
        judges.into_iter().all(|(direction, own, peer)| {
            let plan = world.judge_of(own);
            plan.is_none_or(|plan| plan.policies.allows(direction, (own, peer), port))
        })
    })
}

/// The ports that rules about these pods and their containers name, and one more.
fn ports(world: &World<'_>, own: &[Own]) -> Vec<Asked> {
    let namespaces: BTreeSet<&Text> = own.iter().map(|own| &own.key.namespace).collect();
    let mut found: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    let mut take = |ports: &[PolicyPort]| {
        for port in ports {
            match port.port {
                PortMatch::Range(first, last) => {
                    found.insert((port.protocol, first));
                    found.insert((port.protocol, last));
                }
                PortMatch::All | PortMatch::Named(_) => {}
            }
        }
    };
    for policy in world.cluster.policies() {
        if !namespaces.contains(&policy.key.namespace) {
            continue;
        }
        for direction in Direction::BOTH {
            for rule in policy.rules(direction).unwrap_or_default() {
                take(rule.ports.as_deref().unwrap_or_default());
            }
        }
    }
    for tier in portolan_model::Tier::ALL {
        for policy in world.cluster.cluster_policies(tier) {
            for direction in Direction::BOTH {
                for one in policy.rules(direction) {
                    take(one.rule.ports.as_deref().unwrap_or_default());
                }
            }
        }
    }
    for one in own {
        let pod = world.cluster.pod(&one.key);
        let ports = pod.iter().flat_map(|pod| &pod.ports);
        found.extend(ports.map(|port| (port.protocol, port.port)));
    }
    let free = (1..=u16::MAX)
        .rev()
        .find(|port| !found.contains(&(Protocol::Tcp, *port)));
    let other = free.map(|port| Asked::Other(Protocol::Tcp, port));
    let named = found
        .into_iter()
        .map(|(protocol, port)| Asked::Port(protocol, port));
    named.chain(other).collect()
}

/// Pods of one namespace that reach the same and are reached by the same are one.
fn grouped(own: &[Own], ports: Vec<Asked>, reach: &[Vec<Vec<bool>>], left_out: usize) -> Matrix {
    // Two pods are alike if all others treat them alike, and they each other.
    let alike = |one: usize, other: usize| {
        let same = own.get(one).zip(own.get(other));
        same.is_some_and(|(one, other)| one.key.namespace == other.key.namespace)
            && (0..own.len()).all(|third| {
                let at = |from: usize, to: usize| reach.get(from).and_then(|row| row.get(to));
                third == one
                    || third == other
                    || at(one, third) == at(other, third) && at(third, one) == at(third, other)
            })
            && reach.get(one).and_then(|row| row.get(other))
                == reach.get(other).and_then(|row| row.get(one))
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in 0..own.len() {
        let group = groups
            .iter_mut()
            .find(|group| group.iter().all(|member| alike(*member, index)));
        match group {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    let cell = |from: &[usize], to: &[usize]| -> Vec<bool> {
        let one = from.first().copied().unwrap_or_default();
        // Within a group two of it are meant, and of one pod itself.
        let other = to.iter().copied().find(|to| *to != one).unwrap_or(one);
        let found = reach.get(one).and_then(|row| row.get(other));
        found.cloned().unwrap_or_default()
    };
    let open = groups
        .iter()
        .map(|from| groups.iter().map(|to| cell(from, to)).collect())
        .collect();
    let groups = groups.iter().map(|members| {
        let pods = members.iter().filter_map(|index| own.get(*index));
        let pods: Vec<PodKey> = pods.map(|own| own.key.clone()).collect();
        Group {
            name: called(&pods),
            pods,
        }
    });
    Matrix {
        groups: groups.collect(),
        ports,
        open,
        left_out,
    }
}

/// `web-7c65b57496-* (3)`: the beginning that the names of several pods have in common.
fn called(pods: &[PodKey]) -> String {
    let (Some(first), Some(last)) = (pods.first(), pods.last()) else {
        return String::new();
    };
    if pods.len() == 1 {
        return first.name.to_string();
    }
    // Names are in order, so what the first and the last share all do.
    let shared = first.name.bytes().zip(last.name.bytes());
    let shared = shared.take_while(|(one, other)| one == other).count();
    let shared = first.name.get(..shared).unwrap_or_default();
    let beginning = shared.rfind('-').map_or("", |dash| &shared[..=dash]);
    if beginning.is_empty() {
        let names: Vec<&str> = pods.iter().map(|pod| &*pod.name).collect();
        match names.as_slice() {
            [one, other] => format!("{one},{other}"),
            [one, other, rest @ ..] => format!("{one},{other},… ({} pods)", rest.len() + 2),
            _ => String::new(),
        }
    } else {
        format!("{beginning}* ({} pods)", pods.len())
    }
}

impl Matrix {
    /// What is open in a cell: `all`, `-` for nothing, or the ports.
    pub fn cell(&self, from: usize, to: usize) -> String {
        let open = self.open.get(from).and_then(|row| row.get(to));
        let Some(open) = open else {
            return String::new();
        };
        if open.iter().all(|open| *open) {
            return "all".to_owned();
        }
        if open.iter().all(|open| !*open) {
            return "-".to_owned();
        }
        let named = |wanted: bool| {
            let pairs = self.ports.iter().zip(open);
            let some = pairs.filter_map(move |(port, open)| match port {
                Asked::Port(protocol, port) if *open == wanted => Some(at_port(*protocol, *port)),
                Asked::Port(..) | Asked::Other(..) => None,
            });
            let some: Vec<String> = some.collect();
            some.join(",")
        };
        let other = self.ports.iter().zip(open);
        let mut other = other.filter(|(port, _)| matches!(port, Asked::Other(..)));
        match other.next() {
            Some((_, true)) => format!("all but {}", named(false)),
            Some((_, false)) | None => named(true),
        }
    }

    /// Whether groups are of several namespaces.
    fn is_of_several(&self) -> bool {
        let all = self.groups.iter().flat_map(|group| &group.pods);
        let namespaces: BTreeSet<&Text> = all.map(|pod| &pod.namespace).collect();
        namespaces.len() > 1
    }

    /// What the groups are called, with their namespaces where there are several.
    pub fn names(&self) -> Vec<String> {
        let several = self.is_of_several();
        let name = |group: &Group| match group.pods.first() {
            Some(first) if several => format!("{}/{}", first.namespace, group.name),
            _ => group.name.clone(),
        };
        self.groups.iter().map(name).collect()
    }

    /// The table as one JSON object.
    pub fn json(&self) -> Value {
        let names = self.names();
        let groups = self.groups.iter().zip(&names).map(|(group, name)| {
            let pods = group.pods.iter();
            let pods = pods.map(|pod| json!({"namespace": &*pod.namespace, "name": &*pod.name}));
            json!({"name": name, "pods": pods.collect::<Vec<_>>()})
        });
        let mut cells = Vec::new();
        for (from, source) in names.iter().enumerate() {
            for (to, destination) in names.iter().enumerate() {
                let open = self.open.get(from).and_then(|row| row.get(to));
                let pairs = self.ports.iter().zip(open.into_iter().flatten());
                let mut ports: BTreeMap<String, bool> = BTreeMap::new();
                for (port, open) in pairs {
                    let name = match port {
                        Asked::Port(protocol, port) => at_port(*protocol, *port),
                        Asked::Other(..) => "other".to_owned(),
                    };
                    ports.insert(name, *open);
                }
                cells.push(json!({"from": source, "to": destination,
                    "summary": self.cell(from, to), "ports": ports}));
            }
        }
        json!({"groups": groups.collect::<Vec<_>>(), "reach": cells, "leftOut": self.left_out})
    }
}
