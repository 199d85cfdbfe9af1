//! Node objects.

use portolan_api::lean;

use super::Problems;
use crate::fact::{Node, NodeAddress};
use crate::problem::Problem;

/// The taint by which the cluster autoscaler says that it deletes a node.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// A Node object as a fact.
pub fn node(object: &lean::Node) -> (Node, Vec<Problem>) {
    let mut problems = Problems::of("Node", &object.metadata);
    let mut addresses = Vec::new();
    for address in &object.status.addresses {
        let internal = match address.address_type.as_str() {
            "InternalIP" => true,
            "ExternalIP" => false,
            _ => continue, // host names
        };
        if let Some(address) = problems.address("status.addresses", &address.address) {
            addresses.push(NodeAddress { address, internal });
        }
    }
    // podCIDR is the first of podCIDRs, and all there is on old clusters.
    let ranges = &object.spec.pod_cidrs;
    let single = [object.spec.pod_cidr.clone()];
    let listed = if ranges.is_empty() {
        single.as_slice()
    } else {
        ranges.as_slice()
    };
    let listed = listed
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty());
    let pod_cidrs = problems.ranges("spec.podCIDRs", listed);
    let zone = object
        .metadata
        .labels
        .get("topology.kubernetes.io/zone")
        .filter(|zone| !zone.is_empty());
    let node = Node {
        name: object.metadata.name.as_str().into(),
        addresses,
        pod_cidrs,
        zone: zone.map(|zone| zone.as_str().into()),
        leaving: object.spec.taints.iter().any(|taint| taint.key == LEAVING),
    };
    (node, problems.found)
}
