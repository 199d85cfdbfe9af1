//! EndpointSlice: some of the endpoints of a Service.

use super::{AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, Write, column, schema_of};
use crate::value::{has, int_at, list_at, list_at_mut, remove, set_default, str_at, strings_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The label that names the Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The label that names who writes the slice.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    schema: schema_of::<k8s_openapi::api::discovery::v1::EndpointSlice>,
    columns: &[
        NAME_COLUMN,
        column("AddressType", "string", "IPv4, IPv6 or FQDN."),
        column("Ports", "string", "Ports of every endpoint."),
        column("Endpoints", "string", "Addresses."),
        AGE_COLUMN,
    ],
    row,
    defaults,
    validate: validate::endpoints::endpoint_slice,
    prepare,
    generation: Generation::Content,
    ..BASE
};

/// How many entries a cell shows.
const SHOWN: usize = 3;

fn defaults(object: &mut Value) {
    set_default(object, "endpoints", json!([]));
    for port in list_at_mut(object, "ports") {
        if !has(port, "name") {
            set_default(port, "name", "");
        }
        set_default(port, "protocol", "TCP");
    }
}

fn prepare(object: &mut Value, _old: Option<&Value>, _write: Write) {
    // Written by old clients only; v1 has no place for it.
    for endpoint in list_at_mut(object, "endpoints") {
        drop(remove(endpoint, "deprecatedTopology"));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list_at(object, "ports")
        .iter()
        .map(|port| match (int_at(port, "port"), str_at(port, "name")) {
            (Some(number), _) => number.to_string(),
            (None, "") if !has(port, "name") => "*".to_owned(),
            (None, name) => name.to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list_at(object, "endpoints")
        .iter()
        .flat_map(|endpoint| strings_at(endpoint, "addresses"))
        .map(str::to_owned)
        .collect();
    vec![
        meta::name(object).into(),
        str_at(object, "addressType").into(),
        cell(&ports).into(),
        cell(&addresses).into(),
        table::age(object, now),
    ]
}

fn cell(all: &[String]) -> String {
    let shown = all
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    match all.len().saturating_sub(SHOWN) {
        0 if shown.is_empty() => "<unset>".to_owned(),
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let now = "2024-05-01T10:00:00Z".parse().unwrap();
        let slice = json!({
            "metadata": {"name": "web-1", "creationTimestamp": "2024-05-01T09:59:30Z"}, "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "x"}, {}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"]}],
        });
        assert_eq!(
            Value::Array(row(&slice, now)),
            json!([
                "web-1",
                "IPv4",
                "80,x,*",
                "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...",
                "30s"
            ])
        );
        assert_eq!(row(&json!({}), now)[2], "<unset>");
    }
}
