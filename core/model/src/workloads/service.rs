//! Services, as the endpoint controllers see them.

use std::collections::BTreeMap;

use portolan_api::meta::texts;
use portolan_api::value::{at, bool_at, int_at, list_at, str_at, strings_at};
use serde_json::Value;

use super::meta::{object, owned};
use super::pod::protocol;
use super::{Meta, Pod};
use crate::{Family, Protocol};

/// Where a Service port leads in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This number.
    Number(u16),
    /// The container port of this name.
    Name(String),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, or empty.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// Where it leads.
    pub target: TargetPort,
    /// The application protocol, where given.
    pub app_protocol: Option<String>,
}

impl Port {
    /// The port's number in a pod; none where the name does not resolve (E9).
    pub fn resolve(&self, pod: &Pod) -> Option<u16> {
        match &self.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod
                .ports
                .iter()
                .find(|port| port.name == *name && port.protocol == self.protocol)
                .map(|port| port.port),
        }
    }
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What every object has.
    pub meta: Meta,
    /// Which pods it leads to; none: somebody else writes its endpoints (E13).
    pub selector: Option<BTreeMap<String, String>>,
    /// Whether it is only an alias for a name.
    pub external_name: bool,
    /// Whether it has no address of its own.
    pub headless: bool,
    /// Address families, the primary one first.
    pub families: Vec<Family>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `publishNotReadyAddresses`
    pub publish_not_ready: bool,
    /// `trafficDistribution`, or empty (E16).
    pub traffic_distribution: String,
}

impl Service {
    /// Whether it leads to pods with these labels. Pods only count in its own
    /// namespace.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.external_name
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| super::selector::includes(labels, selector))
    }
}

object!(Service, read);

fn read(object: &Value) -> Service {
    let address = str_at(object, "spec.clusterIP");
    Service {
        meta: Meta::of(object),
        selector: at(object, "spec.selector")
            .as_object()
            .filter(|selector| !selector.is_empty())
            .map(|_| owned(texts(at(object, "spec.selector")))),
        external_name: str_at(object, "spec.type") == "ExternalName",
        headless: address.is_empty() || address == "None",
        families: families(object),
        ports: list_at(object, "spec.ports")
            .iter()
            .filter_map(port)
            .collect(),
        publish_not_ready: bool_at(object, "spec.publishNotReadyAddresses"),
        traffic_distribution: str_at(object, "spec.trafficDistribution").to_owned(),
    }
}

pub(super) fn families(object: &Value) -> Vec<Family> {
    let mut families: Vec<Family> = strings_at(object, "spec.ipFamilies")
        .into_iter()
        .filter_map(|family| match family {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        // A Service from before dual-stack: its address tells.
        families.push(if str_at(object, "spec.clusterIP").contains(':') {
            Family::V6
        } else {
            Family::V4
        });
    }
    families
}

fn port(value: &Value) -> Option<Port> {
    let number = |field| int_at(value, field).and_then(|n| u16::try_from(n).ok());
    let target = match at(value, "targetPort") {
        Value::String(name) => match name.parse() {
            Ok(number) => TargetPort::Number(number),
            Err(_name) => TargetPort::Name(name.clone()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            let port = number("targetPort")
                .filter(|n| *n != 0)
                .or_else(|| number("port"));
            TargetPort::Number(port?)
        }
    };
    Some(Port {
        name: str_at(value, "name").to_owned(),
        protocol: protocol(str_at(value, "protocol")),
        target,
        app_protocol: at(value, "appProtocol").as_str().map(str::to_owned),
    })
}
