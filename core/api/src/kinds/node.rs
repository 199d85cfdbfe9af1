//! Node: a machine of the cluster.

use super::{
    AGE_COLUMN, BASE, Kind, NAME_COLUMN, PROXY_VERBS, column, connect, schema_of, status_of, wide,
};
use crate::value::{bool_at, list_at, set_default, str_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[
        connect("proxy", "NodeProxyOptions", PROXY_VERBS),
        status_of("", "v1", "Node"),
    ],
    definition: "io.k8s.api.core.v1.Node",
    schema: schema_of::<k8s_openapi::api::core::v1::Node>,
    columns: &[
        NAME_COLUMN,
        column("Status", "string", "Whether the node is ready."),
        column("Roles", "string", "Roles by label."),
        AGE_COLUMN,
        column("Version", "string", "Version of the node's kubelet."),
        wide("Internal-IP", "string", "First internal address."),
        wide("External-IP", "string", "First external address."),
        wide("OS-Image", "string", "Operating system."),
        wide("Kernel-Version", "string", "Kernel."),
        wide("Container-Runtime", "string", "What runs the containers."),
    ],
    row,
    defaults,
    validate: validate::node::node,
    prepare: |_, _, _| {},
    fields: |object| {
        let unschedulable = bool_at(object, "spec.unschedulable");
        BTreeMap::from([("spec.unschedulable", unschedulable.to_string())])
    },
    ..BASE
};

fn defaults(object: &mut Value) {
    set_default(object, "spec", Value::Object(serde_json::Map::new()));
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| match str_at(object, &format!("status.nodeInfo.{field}")) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    vec![
        meta::name(object).into(),
        status(object).into(),
        roles(object),
        table::age(object, now),
        str_at(object, "status.nodeInfo.kubeletVersion").into(),
        address(object, "InternalIP"),
        address(object, "ExternalIP"),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn status(object: &Value) -> String {
    let ready = list_at(object, "status.conditions")
        .iter()
        .find(|condition| str_at(condition, "type") == "Ready");
    let mut text = match ready.map(|condition| str_at(condition, "status")) {
        None => "Unknown".to_owned(),
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if bool_at(object, "spec.unschedulable") {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(object: &Value) -> Value {
    let roles: BTreeSet<&str> = meta::labels(object)
        .into_iter()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some("") => None,
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" && !value.is_empty() => Some(value),
                None => None,
            },
        )
        .collect();
    table::or_none(&roles.into_iter().collect::<Vec<_>>().join(","))
}

fn address(object: &Value, address_type: &str) -> Value {
    let found = list_at(object, "status.addresses")
        .iter()
        .find(|address| str_at(address, "type") == address_type);
    table::or_none(found.map_or("", |address| str_at(address, "address")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells() {
        let now = "2024-05-01T10:00:00Z".parse().unwrap();
        let node = json!({
            "metadata": {"name": "node-1", "creationTimestamp": "2024-05-01T09:00:00Z",
                "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/a": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1"}},
        });
        assert_eq!(
            Value::Array(row(&node, now)),
            json!([
                "node-1",
                "Ready,SchedulingDisabled",
                "a,control-plane",
                "60m",
                "v1.36.0",
                "172.18.0.2",
                "<none>",
                "<unknown>",
                "6.1",
                "<unknown>"
            ])
        );
    }
}
