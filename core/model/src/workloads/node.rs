//! Nodes, their leases, and namespaces.

use portolan_api::value::{at, bool_at, has, list_at, str_at, strings_at};
use serde_json::Value;

use super::apps::conditions;
use super::meta::object;
use super::{Condition, Meta, Resources};

/// Something about a node that pods must tolerate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, or empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads one entry of `spec.taints`.
    pub fn of(value: &Value) -> Self {
        Self {
            key: str_at(value, "key").to_owned(),
            value: str_at(value, "value").to_owned(),
            effect: str_at(value, "effect").to_owned(),
        }
    }
}

/// Taints that a pod puts up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    key: String,
    exists: bool,
    value: String,
    effect: String,
    seconds: Option<i64>,
}

impl Toleration {
    /// Reads one entry of `spec.tolerations`.
    pub fn of(value: &Value) -> Self {
        Self {
            key: str_at(value, "key").to_owned(),
            exists: str_at(value, "operator") == "Exists",
            value: str_at(value, "value").to_owned(),
            effect: str_at(value, "effect").to_owned(),
            seconds: at(value, "tolerationSeconds").as_i64(),
        }
    }

    /// Whether it covers a taint. An empty key with `Exists` covers all, an
    /// empty effect every effect.
    pub fn covers(&self, taint: &Taint) -> bool {
        let key = self.key == taint.key || (self.key.is_empty() && self.exists);
        let value = self.exists || self.value == taint.value;
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        key && value && effect
    }

    /// For how long it bears a `NoExecute` taint; none: for ever.
    pub fn seconds(&self) -> Option<i64> {
        self.seconds
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What every object has.
    pub meta: Meta,
    /// The status of the condition Ready; empty where it has none.
    pub ready: String,
    /// When the condition Ready last changed.
    pub ready_changed: Option<jiff::Timestamp>,
    /// `spec.unschedulable`
    pub unschedulable: bool,
    /// `spec.taints`
    pub taints: Vec<Taint>,
    /// `status.allocatable.pods`, where given.
    pub capacity: Option<usize>,
    /// `status.allocatable`, where CPU and memory are given.
    pub allocatable: Option<Resources>,
}

impl Node {
    /// Whether the condition Ready is True.
    pub fn is_ready(&self) -> bool {
        self.ready == "True"
    }
}

object!(Node, read_node);

fn read_node(object: &Value) -> Node {
    let ready = list_at(object, "status.conditions")
        .iter()
        .find(|c| str_at(c, "type") == "Ready");
    Node {
        meta: Meta::of(object),
        ready: ready.map_or("", |c| str_at(c, "status")).to_owned(),
        ready_changed: ready.and_then(|c| super::meta::time(str_at(c, "lastTransitionTime"))),
        unschedulable: bool_at(object, "spec.unschedulable"),
        taints: list_at(object, "spec.taints")
            .iter()
            .map(Taint::of)
            .collect(),
        capacity: str_at(object, "status.allocatable.pods").parse().ok(),
        allocatable: (has(object, "status.allocatable.cpu")
            && has(object, "status.allocatable.memory"))
        .then(|| Resources::of(at(object, "status.allocatable"))),
    }
}

/// A lease, by which a node says that it is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// What every object has.
    pub meta: Meta,
    /// `spec.renewTime` as it came: only whether it changes matters, since
    /// other machines' clocks are not trusted.
    pub renewed: String,
}

object!(Lease, read_lease);

fn read_lease(object: &Value) -> Lease {
    Lease {
        meta: Meta::of(object),
        renewed: str_at(object, "spec.renewTime").to_owned(),
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// What every object has.
    pub meta: Meta,
    /// `spec.finalizers`
    pub finalizers: Vec<String>,
    /// `status.conditions`
    pub conditions: Vec<Condition>,
}

object!(Namespace, read_namespace);

fn read_namespace(object: &Value) -> Namespace {
    Namespace {
        meta: Meta::of(object),
        finalizers: strings_at(object, "spec.finalizers")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        conditions: conditions(object),
    }
}
