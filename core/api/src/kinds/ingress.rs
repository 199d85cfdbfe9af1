//! Ingress and IngressClass: stored and checked for those who serve them.

use super::deployment::prepare;
use super::{AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, column, schema_of, status_of};
use crate::value::{at, list_at, map_at, set_default_text, str_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table for Ingress.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    list_kind: "IngressList",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[status_of("networking.k8s.io", "v1", "Ingress")],
    definition: "io.k8s.api.networking.v1.Ingress",
    schema: schema_of::<k8s_openapi::api::networking::v1::Ingress>,
    columns: &[
        NAME_COLUMN,
        column("Class", "string", "The IngressClass that serves it."),
        column("Hosts", "string", "Host names of its rules."),
        column("Address", "string", "Where it is served."),
        column("Ports", "string", "Ports on which it is served."),
        AGE_COLUMN,
    ],
    row,
    validate: validate::ingress::ingress,
    prepare,
    generation: Generation::Spec,
    ..BASE
};

/// The row of the kinds table for IngressClass.
pub static CLASS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IngressClass",
    list_kind: "IngressClassList",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    definition: "io.k8s.api.networking.v1.IngressClass",
    schema: schema_of::<k8s_openapi::api::networking::v1::IngressClass>,
    columns: &[
        NAME_COLUMN,
        column(
            "Controller",
            "string",
            "Who serves Ingresses of this class.",
        ),
        column("Parameters", "string", "The object that configures it."),
        AGE_COLUMN,
    ],
    row: class_row,
    defaults: |object| {
        if map_at(object, "spec.parameters").is_some() {
            set_default_text(object, "spec.parameters.scope", "Cluster");
        }
    },
    validate: validate::ingress::ingress_class,
    generation: Generation::Spec,
    ..BASE
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let class = match str_at(object, "spec.ingressClassName") {
        "" => at(object, "metadata.annotations")
            .get("kubernetes.io/ingress.class")
            .and_then(Value::as_str)
            .unwrap_or_default(),
        class => class,
    };
    vec![
        meta::name(object).into(),
        table::or_none(class),
        hosts(object).into(),
        addresses(object).into(),
        match list_at(object, "spec.tls").is_empty() {
            true => "80".into(),
            false => "80, 443".into(),
        },
        table::age(object, now),
    ]
}

/// The first three hosts, as kubectl shows them.
fn hosts(object: &Value) -> String {
    let hosts: Vec<&str> = list_at(object, "spec.rules")
        .iter()
        .map(|rule| str_at(rule, "host"))
        .filter(|host| !host.is_empty())
        .collect();
    match hosts.len() {
        0 => "*".to_owned(),
        1..=3 => hosts.join(","),
        more => format!("{} + {} more...", hosts[..3].join(","), more - 3),
    }
}

fn addresses(object: &Value) -> String {
    let addresses: Vec<&str> = list_at(object, "status.loadBalancer.ingress")
        .iter()
        .map(|ingress| match str_at(ingress, "ip") {
            "" => str_at(ingress, "hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.join(",")
}

fn class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = at(object, "spec.parameters");
    let shown = match str_at(parameters, "kind") {
        "" => String::new(),
        kind => match str_at(parameters, "apiGroup") {
            "" => format!("{kind}/{}", str_at(parameters, "name")),
            group => format!("{kind}.{group}/{}", str_at(parameters, "name")),
        },
    };
    vec![
        meta::name(object).into(),
        str_at(object, "spec.controller").into(),
        table::or_none(&shown),
        table::age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_as_kubectl_shows_them() {
        let now = "2024-05-01T10:00:00Z".parse().unwrap();
        let rule = |host: &str| json!({"host": host});
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "2024-05-01T09:00:00Z"},
            "spec": {"tls": [{}], "rules": [rule("a"), rule("b"), rule("c"), rule("d")]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}}});
        assert_eq!(
            Value::Array(row(&object, now)),
            json!([
                "web",
                "<none>",
                "a,b,c + 1 more...",
                "192.0.2.1,lb.example",
                "80, 443",
                "60m"
            ])
        );
    }
}
