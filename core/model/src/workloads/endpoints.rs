//! EndpointSlices and Endpoints, as they are on the server.

use portolan_api::value::{at, list_at, str_at, strings_at};
use serde_json::Value;

use super::meta::object;
use super::pod::protocol;
use super::{Meta, Pod};
use crate::{Family, Protocol};

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number in the pod; none matches every port.
    pub port: Option<u16>,
    /// The application protocol, where given.
    pub app_protocol: Option<String>,
}

/// The pod behind an endpoint, or what else somebody says is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its kind; `Pod` for all but hand-written endpoints.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Target {
    /// Reads a `targetRef`; none where there is none.
    pub fn of(value: &Value) -> Option<Self> {
        let text = |field: &str| str_at(value, field).to_owned();
        value.is_object().then(|| Self {
            kind: text("kind"),
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
        })
    }

    /// A pod.
    pub fn pod(pod: &Pod) -> Self {
        Self {
            kind: "Pod".to_owned(),
            namespace: pod.meta.key.namespace.clone(),
            name: pod.meta.key.name.clone(),
            uid: pod.meta.uid.clone(),
        }
    }
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceEndpoint {
    /// Its address, as text.
    pub address: String,
    /// The pod behind it.
    pub target: Option<Target>,
    /// `conditions.ready`
    pub ready: bool,
    /// `conditions.serving`
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// `hostname`, or empty.
    pub hostname: String,
    /// `nodeName`, or empty.
    pub node: String,
    /// `zone`, or empty.
    pub zone: String,
    /// `hints`: for whom it is meant (E16).
    pub hints: Hints,
}

/// The zones and nodes that an endpoint is meant for; none: for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    /// `forZones`
    pub zones: Vec<String>,
    /// `forNodes`
    pub nodes: Vec<String>,
}

impl Hints {
    /// Reads `hints`.
    pub fn of(value: &Value) -> Self {
        let names = |field: &str| {
            let entries = list_at(value, field).iter();
            entries
                .map(|entry| str_at(entry, "name").to_owned())
                .collect()
        };
        Self {
            zones: names("forZones"),
            nodes: names("forNodes"),
        }
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What every object has.
    pub meta: Meta,
    /// Its address family; none for FQDN slices, which nobody here writes.
    pub family: Option<Family>,
    /// Its ports, ordered.
    pub ports: Vec<SlicePort>,
    /// Its endpoints, in the order in which they are stored.
    pub endpoints: Vec<SliceEndpoint>,
}

object!(Slice, read_slice);

fn read_slice(object: &Value) -> Slice {
    let mut ports: Vec<SlicePort> = list_at(object, "ports").iter().map(SlicePort::of).collect();
    ports.sort();
    Slice {
        meta: Meta::of(object),
        family: match str_at(object, "addressType") {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        },
        ports,
        endpoints: list_at(object, "endpoints")
            .iter()
            .map(slice_endpoint)
            .collect(),
    }
}

impl SlicePort {
    /// Reads a port of an EndpointSlice or of Endpoints.
    pub fn of(value: &Value) -> Self {
        Self {
            name: str_at(value, "name").to_owned(),
            protocol: protocol(str_at(value, "protocol")),
            port: at(value, "port")
                .as_i64()
                .and_then(|n| u16::try_from(n).ok()),
            app_protocol: at(value, "appProtocol").as_str().map(str::to_owned),
        }
    }
}

fn slice_endpoint(value: &Value) -> SliceEndpoint {
    let condition = |name: &str| at(at(value, "conditions"), name).as_bool();
    let ready = condition("ready").unwrap_or(true);
    SliceEndpoint {
        address: strings_at(value, "addresses")
            .first()
            .map_or_else(String::new, |address| (*address).to_owned()),
        target: Target::of(at(value, "targetRef")),
        ready,
        serving: condition("serving").unwrap_or(ready),
        terminating: condition("terminating").unwrap_or(false),
        hostname: str_at(value, "hostname").to_owned(),
        node: str_at(value, "nodeName").to_owned(),
        zone: str_at(value, "zone").to_owned(),
        hints: Hints::of(at(value, "hints")),
    }
}

/// A v1 Endpoints object. Its subsets are compared and written as a whole, so
/// they stay as they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    /// What every object has.
    pub meta: Meta,
    /// `subsets`
    pub subsets: Value,
}

object!(Endpoints, read_endpoints);

fn read_endpoints(object: &Value) -> Endpoints {
    Endpoints {
        meta: Meta::of(object),
        subsets: at(object, "subsets").clone(),
    }
}
