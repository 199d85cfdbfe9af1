//! EndpointSlice objects.

use std::net::IpAddr;

use portolan_api::lean;

use super::{Problems, exact};
use crate::fact::{Conditions, Endpoint, Hints, Slice, SlicePort};
use crate::key::{Family, Protocol, ServiceKey, SliceKey};
use crate::problem::Problem;
use crate::text::Text;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// An EndpointSlice object as a fact; none when it belongs to no Service or
/// lists no IP addresses.
pub fn slice(object: &lean::EndpointSlice) -> (Option<Slice>, Vec<Problem>) {
    let mut problems = Problems::of("EndpointSlice", &object.metadata);
    let metadata = &object.metadata;
    let Some(service) = metadata
        .labels
        .get(SERVICE_NAME)
        .filter(|name| !name.is_empty())
    else {
        return (None, problems.found); // somebody's own use of the kind
    };
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return (None, problems.found), // no proxy supports it
        other => {
            problems.add(
                "addressType",
                format!("{other:?} is not a known address type"),
            );
            return (None, problems.found);
        }
    };
    let ports = object.ports.iter();
    let ports = exact(ports.filter_map(|port| slice_port(port, &mut problems)));
    let mut zones = Vec::new();
    let endpoints = exact(object.endpoints.iter().filter_map(|object| {
        let mut endpoint = endpoint(object, family, &mut problems)?;
        endpoint.zone = number_of(object.zone.as_deref(), &mut zones);
        Some(endpoint)
    }));
    let slice = Slice {
        key: SliceKey::new(&metadata.namespace, &metadata.name),
        service: ServiceKey::new(&metadata.namespace, service),
        family,
        headless: metadata.labels.contains_key(HEADLESS),
        weight: super::spread::of_slice(metadata, &mut problems),
        ports,
        endpoints,
        zones: zones.into(),
    };
    (Some(slice), problems.found)
}

/// The number of a zone among those of a slice, to which it is added.
fn number_of(zone: Option<&str>, zones: &mut Vec<Text>) -> u16 {
    let Some(zone) = zone.filter(|zone| !zone.is_empty()) else {
        return 0;
    };
    let at = zones.iter().position(|known| **known == *zone);
    let at = at.unwrap_or_else(|| {
        zones.push(zone.into());
        zones.len() - 1
    });
    u16::try_from(at + 1).unwrap_or(0)
}

fn slice_port(port: &lean::EndpointPort, problems: &mut Problems) -> Option<SlicePort> {
    let text = port.protocol.as_deref().unwrap_or("TCP");
    let Some(protocol) = Protocol::parse(text) else {
        problems.add(
            "ports[*].protocol",
            format!("{text:?} is not a known protocol"),
        );
        return None;
    };
    let number = match port.port.map(u16::try_from) {
        None => None,
        Some(Ok(number)) if number > 0 => Some(number),
        Some(_) => {
            problems.add(
                "ports[*].port",
                format!("{} is not a port", port.port.unwrap_or_default()),
            );
            return None;
        }
    };
    Some(SlicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol,
        port: number,
    })
}

fn endpoint(
    endpoint: &lean::Endpoint,
    family: Family,
    problems: &mut Problems,
) -> Option<Endpoint> {
    let Some(text) = endpoint.addresses.first() else {
        problems.add("endpoints[*].addresses", "empty".into());
        return None;
    };
    let address: IpAddr = problems.address("endpoints[*].addresses", text)?;
    if Family::of(address) != family {
        problems.add(
            "endpoints[*].addresses",
            format!("{address} is not of the slice's family {family}"),
        );
        return None;
    }
    let ready = endpoint.conditions.ready.unwrap_or(true);
    let conditions = Conditions {
        ready,
        serving: endpoint.conditions.serving.unwrap_or(ready),
        terminating: endpoint.conditions.terminating.unwrap_or(false),
    };
    let nonempty = |text: &Option<String>| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(Into::into)
    };
    Some(Endpoint {
        address,
        conditions,
        zone: 0,
        node: nonempty(&endpoint.node_name),
        hostname: nonempty(&endpoint.hostname),
        pod: endpoint
            .target_ref
            .as_ref()
            .filter(|target| target.kind == "Pod")
            .map(|target| target.name.as_str().into()),
        hints: endpoint.hints.as_ref().and_then(hints),
    })
}

fn hints(hints: &lean::EndpointHints) -> Option<Box<Hints>> {
    let hints = Hints {
        zones: hints
            .for_zones
            .iter()
            .map(|zone| zone.name.as_str().into())
            .collect(),
        nodes: hints
            .for_nodes
            .iter()
            .map(|node| node.name.as_str().into())
            .collect(),
    };
    (hints != Hints::default()).then(|| Box::new(hints))
}
