//! A packet that was dropped, with who sent it to whom, and what denied it: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use portolan_kernel::nflog::{Ends, Logged};
use portolan_model::{Cluster, Direction, PodKey, Protocol, Tier};
use portolan_plan::policy::Source;
use portolan_plan::{Deny, NodePlan};
use portolan_why::policy::{Cause, Judgement, To, Who, World, judge, key, named};
use serde_json::{Value, json};

/// The input hook (NF_INET_LOCAL_IN): the node itself is meant.
const INPUT: u8 = 1;

/// The forward hook (NF_INET_FORWARD).
const FORWARD: u8 = 2;

/// What packets of one flow have in common, whatever port they come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    port: Option<u16>,
    hook: u8,
    /// Whether it went on until policies changed.
    was_cut: bool,
}

impl Flow {
    pub(super) fn of(packet: &Logged) -> Self {
        let ends = &packet.ends;
        Self {
            source: ends.source,
            destination: ends.destination,
            protocol: ends.protocol,
            port: ends.ports.map(|(_, port)| port),
            hook: packet.hook,
            was_cut: false,
        }
    }

    /// A connection that was cut.
    pub(super) fn cut(ends: &Ends) -> Self {
        Self {
            source: ends.source,
            destination: ends.destination,
            protocol: ends.protocol,
            port: ends.ports.map(|(_, port)| port),
            hook: FORWARD,
            was_cut: true,
        }
    }

    fn to(&self) -> To {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = all.into_iter().find(|own| own.number() == self.protocol);
        protocol.zip(self.port)
    }

    /// `8080/TCP`, or `ICMP`.
    fn words(&self) -> String {
        let protocol = protocol_name(self.protocol);
        match self.port {
            Some(port) => format!("{port}/{protocol}"),
            None => protocol,
        }
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// What was seen of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    first: SystemTime,
    /// The port that the first one came from.
    source_port: Option<u16>,
    pub(super) packets: u32,
}

impl Seen {
    pub(super) fn new(packet: &Logged, now: SystemTime) -> Self {
        Self {
            first: now,
            source_port: packet.ends.ports.map(|(port, _)| port),
            packets: 1,
        }
    }

    /// A connection that was cut, of which no packet was dropped yet.
    pub(super) fn cut(ends: &Ends, now: SystemTime) -> Self {
        Self {
            first: now,
            source_port: ends.ports.map(|(port, _)| port),
            packets: 0,
        }
    }
}

/// A flow that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    flow: Flow,
    seen: Seen,
    from: Who,
    to: Who,
    deny: Deny,
    /// Who denies it; none where nobody does any more.
    judgement: Option<Judgement>,
    /// An end that no pod is known to have, and that is closed for that.
    unknown: Option<IpAddr>,
    pub(super) packets: u32,
}

/// Asks the plan about flows that the kernel dropped. It costs what there are of
/// pods, once for all flows.
pub(super) fn joined(plan: &NodePlan, cluster: &Cluster, flows: BTreeMap<Flow, Seen>) -> Vec<Told> {
    let addresses: BTreeSet<IpAddr> = flows
        .keys()
        .flat_map(|flow| [flow.source, flow.destination])
        .collect();
    let plans = std::slice::from_ref(plan);
    let world = World::about(cluster, plans, &addresses);
    let told = flows.into_iter().map(|(flow, seen)| {
        let (source, destination) = (flow.source, flow.destination);
        let at = |direction, ends| judge(&world, plan, direction, ends, flow.to());
        let denies = |judged: &Judgement| !judged.allowed;
        // In the order of the rules: first the sender's.
        let egress = Some(at(Direction::Egress, (source, destination))).filter(denies);
        let ingress = || {
            let ingress = at(Direction::Ingress, (destination, source));
            Some(ingress).filter(|judged| denies(judged) && flow.hook != INPUT)
        };
        let mut ends = [source, destination].into_iter();
        Told {
            unknown: ends.find(|end| plan.policies.is_unknown(*end)),
            judgement: egress.or_else(ingress),
            from: world.who(source),
            to: world.who(destination),
            deny: plan.view.policy_deny,
            packets: seen.packets,
            flow,
            seen,
        }
    });
    told.collect()
}

impl Told {
    /// `ingress`, `egress`, or nothing.
    pub(super) fn direction(&self) -> &'static str {
        match self.judgement.as_ref().map(|judged| judged.direction) {
            Some(Direction::Ingress) => "ingress",
            Some(Direction::Egress) => "egress",
            None => "",
        }
    }

    /// The tier of the policies that deny it.
    pub(super) fn tier(&self) -> &'static str {
        let tier = self.judgement.as_ref().and_then(|judged| judged.tier);
        tier.map_or("", Tier::name)
    }

    /// The policies that deny it.
    pub(super) fn policies(&self) -> &[Source] {
        self.judgement
            .as_ref()
            .map_or(&[], |judged| judged.policies.as_slice())
    }

    /// The field of the rule that denies it; none where no rule does, but all of them
    /// allow something else.
    pub(super) fn rule(&self) -> String {
        match self.judgement.as_ref().map(|judged| &judged.cause) {
            Some(Cause::Denied(rule)) => rule.field(),
            _ => String::new(),
        }
    }

    /// The pod whose policies these are.
    pub(super) fn pod(&self) -> Option<&PodKey> {
        self.judgement.as_ref()?.pod.as_ref()
    }

    /// The flow as its pod is told of it; the same words for the same flow.
    pub(super) fn message(&self) -> String {
        let flow = &self.flow;
        let Some(judged) = &self.judgement else {
            return String::new();
        };
        let (way, who, address) = match judged.direction {
            Direction::Ingress => ("ingress from", &self.from, flow.source),
            Direction::Egress => ("egress to", &self.to, flow.destination),
        };
        let what = match flow.was_cut {
            true => "Cut a connection,",
            false => "Denied",
        };
        let place = match who {
            Who::Address(_) => address.to_string(),
            Who::Pod(_) | Who::Names | Who::Node(_) => format!("{who} ({address})"),
        };
        let at = match judged.direction {
            Direction::Ingress => format!(" to {}", flow.words()),
            Direction::Egress => format!(", {}", flow.words()),
        };
        let nearest = judged.nearest().map_or_else(String::new, |near| {
            let misses: Vec<String> = near
                .misses
                .iter()
                .map(|miss| format!("{} {}", miss.field, miss.what))
                .collect();
            format!(
                "; nearest is {}: {}",
                named(&near.rule.policy),
                misses.join(", ")
            )
        });
        format!(
            "{what} {way} {place}{at}, by {}{nearest}",
            judged.deciders()
        )
    }

    /// Why it was dropped without any policy.
    fn closed(&self) -> Option<String> {
        let address = self.unknown?;
        Some(format!(
            "no pod is known to have {address} yet (--close-unknown-pods)"
        ))
    }

    /// The flow as programs read it.
    pub(super) fn json(&self, node: &str) -> Value {
        let flow = &self.flow;
        let judged = self.judgement.as_ref();
        let seen = jiff::Timestamp::try_from(self.seen.first).unwrap_or_default();
        let end = |who: &Who, address: IpAddr, port: Option<u16>| {
            let (kind, namespace, name) = match who {
                Who::Pod(key) => ("pod", Some(&*key.namespace), Some(&*key.name)),
                Who::Names => ("dns", None, None),
                Who::Node(name) => ("node", None, Some(&**name)),
                Who::Address(_) => ("address", None, None),
            };
            let text = port.map_or_else(
                || address.to_string(),
                |port| SocketAddr::new(address, port).to_string(),
            );
            json!({"kind": kind, "namespace": namespace, "name": name,
                "address": address.to_string(), "port": port, "text": text})
        };
        json!({
            "time": format!("{seen:.3}"),
            "node": node,
            "verdict": match self.deny {
                _ if flow.was_cut => "cut",
                Deny::Drop => "dropped",
                Deny::Reject => "rejected",
            },
            "direction": judged.map(|_| self.direction()),
            "from": end(&self.from, flow.source, self.seen.source_port),
            "to": end(&self.to, flow.destination, flow.port),
            "protocol": protocol_name(flow.protocol),
            "packets": self.packets,
            "tier": judged.map(|_| self.tier()),
            "policies": self.policies().iter().map(key)
                .map(|(namespace, name)| json!({"namespace": namespace, "name": name}))
                .collect::<Vec<_>>(),
            "reason": judged.map(Judgement::reason).or_else(|| self.closed()),
            "nearest": judged.and_then(|judged| judged.json()["nearest"].get(0).cloned()),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use portolan_model::{Change, Fact, intake};
    use portolan_plan::NodeView;

    use super::*;

    fn packet(source: &str, destination: &str, protocol: u8, port: Option<u16>) -> Logged {
        let address = |text: &str| text.parse().expect("an address");
        Logged {
            hook: 2,
            prefix: String::new(),
            number: None,
            ends: Ends {
                source: address(source),
                destination: address(destination),
                protocol,
                ports: port.map(|port| (40_000, port)),
            },
        }
    }

    /// A pod, which a policy lets nobody reach but at port 80.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": "10.0.0.1"}});
        let (pod, _) = intake::pod(&serde_json::from_value(pod).expect("a pod"));
        cluster.apply(Change::Upsert(Fact::Pod(pod.into())));
        let policy = json!({"metadata": {"name": "p", "namespace": "shop"},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}});
        let (policy, _) = intake::policy(&serde_json::from_value(policy).expect("a policy"));
        cluster.apply(Change::Upsert(Fact::Policy(policy.into())));
        cluster
    }

    /// What is told of these packets.
    fn told(packets: &[Logged]) -> Vec<Told> {
        told_in(&cluster(), packets)
    }

    fn told_in(cluster: &Cluster, packets: &[Logged]) -> Vec<Told> {
        let view = NodeView {
            node: "n".into(),
            ..NodeView::default()
        };
        let plan = portolan_plan::node(cluster, &view);
        let now = SystemTime::UNIX_EPOCH;
        let flows = packets
            .iter()
            .map(|one| (Flow::of(one), Seen::new(one, now)));
        joined(&plan, cluster, flows.collect())
    }

    /// One packet that a policy denies.
    pub(in super::super) fn one() -> Vec<Told> {
        told(&[packet("10.0.0.9", "10.0.0.1", 6, Some(81))])
    }

    /// One packet that a rule denies.
    pub(in super::super) fn one_by_a_rule() -> Vec<Told> {
        let mut cluster = cluster();
        let policy = json!({"metadata": {"name": "closed"}, "spec": {
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}});
        let (policy, _) =
            intake::cluster_policy(&serde_json::from_value(policy).expect("a policy"));
        cluster.apply(Change::Upsert(Fact::ClusterPolicy(policy.into())));
        let pod = json!({"metadata": {"name": "other", "namespace": "shop"},
            "spec": {"nodeName": "m"}, "status": {"phase": "Running", "podIP": "10.0.1.1"}});
        let (pod, _) = intake::pod(&serde_json::from_value(pod).expect("a pod"));
        cluster.apply(Change::Upsert(Fact::Pod(pod.into())));
        let namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}}));
        let namespace = intake::namespace(&namespace.expect("a namespace"));
        cluster.apply(Change::Upsert(Fact::Namespace(namespace)));
        told_in(&cluster, &[packet("10.0.1.1", "10.0.0.1", 6, Some(80))])
    }

    #[test]
    fn n18_a_packet_is_joined_with_who_denied_it() {
        let packets = [
            packet("10.0.0.9", "10.0.0.1", 6, Some(81)),
            packet("10.0.0.9", "10.0.0.1", 1, None),
            packet("10.0.0.9", "10.0.0.1", 6, Some(80)),
        ];
        let told = told(&packets);
        let words: Vec<String> = told.iter().map(Told::message).collect();
        assert_eq!(
            words,
            [
                "Denied ingress from 10.0.0.9 to ICMP, by NetworkPolicy shop/p; nearest is shop/p: spec.ingress[0].ports allows 80/TCP; not a protocol without ports",
                "",
                "Denied ingress from 10.0.0.9 to 81/TCP, by NetworkPolicy shop/p; nearest is shop/p: spec.ingress[0].ports allows 80/TCP; not 81/TCP",
            ]
        );
        let value = told[2].json("n");
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["direction"], "ingress");
        assert_eq!(value["to"]["name"], "web");
        assert_eq!(value["from"]["text"], "10.0.0.9:40000");
        assert_eq!(
            value["policies"],
            json!([{"namespace": "shop", "name": "p"}])
        );
        assert_eq!(value["nearest"]["field"], "spec.ingress[0]");
        assert_eq!(
            (&value["verdict"], &value["packets"]),
            (&json!("dropped"), &json!(1))
        );
        // Allowed by now: nobody is blamed.
        assert_eq!(told[1].json("n")["direction"], Value::Null);
        assert_eq!(told[1].tier(), "");
    }

    #[test]
    fn n11_a_connection_that_was_cut_is_joined_with_who_denies_it() {
        let cluster = cluster();
        let view = NodeView {
            node: "n".into(),
            ..NodeView::default()
        };
        let plan = portolan_plan::node(&cluster, &view);
        let ends = packet("10.0.0.9", "10.0.0.1", 6, Some(81)).ends;
        let seen = Seen::cut(&ends, SystemTime::UNIX_EPOCH);
        let told = joined(&plan, &cluster, [(Flow::cut(&ends), seen)].into());
        let [told] = &told[..] else {
            panic!("{told:?}")
        };
        let said = told.message();
        let start = "Cut a connection, ingress from 10.0.0.9 to 81/TCP, by NetworkPolicy shop/p";
        assert!(said.starts_with(start), "{said}");
        let value = told.json("n");
        assert_eq!(
            (&value["verdict"], &value["packets"]),
            (&json!("cut"), &json!(0))
        );
        assert_eq!(value["from"]["text"], "10.0.0.9:40000");
    }
}
