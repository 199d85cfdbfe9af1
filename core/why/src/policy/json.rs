//! A check as programs read it.

use serde_json::{Value, json};

use super::check::{Check, Hop};
use super::judge::{Cause, Judgement, Near, RuleAt, key};
use super::world::Who;
use portolan_model::Tier;
use portolan_plan::policy::Source;

impl Check {
    /// The check as one JSON object; absent values are null.
    pub fn json(&self) -> Value {
        let packet = &self.packet;
        let service = self.service.as_ref().map(|found| {
            json!({"namespace": &*found.service.namespace, "name": &*found.service.name,
                "port": &*found.port_name})
        });
        json!({
            "allowed": self.allowed(),
            "verdict": self.verdict(),
            "from": who(&self.from, packet.source.to_string()),
            "to": {
                "address": packet.destination.to_string(),
                "port": packet.port,
                "protocol": packet.protocol.name().to_uppercase(),
                "service": service,
            },
            "hops": self.hops.iter().map(hop).collect::<Vec<_>>(),
        })
    }
}

fn who(who: &Who, address: String) -> Value {
    let (kind, namespace, name) = match who {
        Who::Pod(key) => ("pod", Some(&*key.namespace), Some(&*key.name)),
        Who::Names => ("dns", None, None),
        Who::Node(name) => ("node", None, Some(&**name)),
        Who::Address(_) => ("address", None, None),
    };
    json!({"kind": kind, "namespace": namespace, "name": name, "address": address})
}

fn hop(hop: &Hop) -> Value {
    let hidden = hop.hidden.as_ref().map(|hidden| {
        json!({"node": hidden.node, "address": hidden.address.to_string(),
            "reason": hidden.why.to_string()})
    });
    json!({
        "to": who(&hop.who, hop.target.ip().to_string()),
        "port": hop.target.port(),
        "node": hop.node,
        "allowed": hop.allowed(),
        "sourceHidden": hidden,
        "egress": hop.egress.as_ref().map(Judgement::json),
        "ingress": hop.ingress.as_ref().map(Judgement::json),
    })
}

impl Judgement {
    /// One direction as a JSON object.
    pub fn json(&self) -> Value {
        let (decided, nearest) = match &self.cause {
            Cause::Rules(rules) => (rules.iter().map(rule).collect(), Vec::new()),
            Cause::Denied(at) => (vec![rule(at)], Vec::new()),
            Cause::Nothing(near) => (Vec::new(), near.iter().map(nearest).collect()),
            Cause::Open | Cause::Itself | Cause::OwnNode => (Vec::new(), Vec::new()),
        };
        json!({
            "pod": self.pod.as_ref().map(|pod| json!({"namespace": &*pod.namespace, "name": &*pod.name})),
            "peer": self.peer.to_string(),
            "allowed": self.allowed,
            "tier": self.tier.map(Tier::name),
            "reason": self.reason(),
            "policies": self.policies.iter().map(policy).collect::<Vec<_>>(),
            "rules": decided,
            "nearest": nearest,
        })
    }
}

/// A policy: one of the whole cluster has no namespace.
pub(super) fn policy(policy: &Source) -> Value {
    let (namespace, name) = key(policy);
    json!({"namespace": namespace, "name": name})
}

fn rule(rule: &RuleAt) -> Value {
    let mut value = policy(&rule.policy);
    value["field"] = rule.field().into();
    value
}

fn nearest(near: &Near) -> Value {
    let mut value = rule(&near.rule);
    let misses = near.misses.iter();
    let misses = misses.map(|miss| json!({"field": miss.field, "message": miss.what.to_string()}));
    value["misses"] = misses.collect();
    value
}
