//! Endpoints: the old form of endpoint slices, one object per Service.

use super::{AGE_COLUMN, BASE, Kind, NAME_COLUMN, column, schema_of};
use crate::value::{int_at, list_at, list_at_mut, set_default_text, str_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    definition: "io.k8s.api.core.v1.Endpoints",
    schema: schema_of::<k8s_openapi::api::core::v1::Endpoints>,
    columns: &[
        NAME_COLUMN,
        column("Endpoints", "string", "Addresses and ports."),
        AGE_COLUMN,
    ],
    row,
    defaults,
    validate: validate::endpoints::endpoints,
    warnings: validate::endpoints::warnings,
    deprecated: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    create_on_update: true,
    ..BASE
};

/// How many addresses a cell shows.
const SHOWN: usize = 3;

fn defaults(object: &mut Value) {
    for subset in list_at_mut(object, "subsets") {
        for port in list_at_mut(subset, "ports") {
            set_default_text(port, "protocol", "TCP");
        }
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        cell(object).into(),
        table::age(object, now),
    ]
}

fn cell(object: &Value) -> String {
    let subsets = list_at(object, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = list_at(subset, "ports");
        let addresses = list_at(subset, "addresses")
            .iter()
            .map(|address| str_at(address, "ip"));
        if ports.is_empty() {
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in ports {
            let port = int_at(port, "port").unwrap_or(0);
            all.extend(addresses.clone().map(|ip| host_port(ip, port)));
        }
    }
    let shown = all
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// `10.0.0.1:80`, `[fd00::1]:80`.
fn host_port(ip: &str, port: i64) -> String {
    match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells() {
        let object = |addresses: &[&str], ports: &[i64]| {
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port})).collect();
            json!({"subsets": [{"addresses": addresses, "ports": ports}]})
        };
        let cases = [
            (json!({}), "<none>"),
            (object(&["10.0.0.1"], &[80]), "10.0.0.1:80"),
            (object(&["fd00::1"], &[80]), "[fd00::1]:80"),
            (object(&["10.0.0.1", "10.0.0.2"], &[]), "10.0.0.1,10.0.0.2"),
            (
                object(&["1.1.1.1", "1.1.1.2"], &[80, 81]),
                "1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...",
            ),
        ];
        for (object, text) in cases {
            assert_eq!(cell(&object), text);
        }
    }
}
