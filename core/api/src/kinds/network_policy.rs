//! NetworkPolicy: who may talk to whom.

use super::deployment::prepare;
use super::{AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, column, schema_of};
use crate::selector::LabelSelector;
use crate::value::{at, has, list_at_mut, set, set_default_text};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    list_kind: "NetworkPolicyList",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    definition: "io.k8s.api.networking.v1.NetworkPolicy",
    schema: schema_of::<k8s_openapi::api::networking::v1::NetworkPolicy>,
    columns: &[
        NAME_COLUMN,
        column(
            "Pod-Selector",
            "string",
            "Labels of the pods that it is about.",
        ),
        AGE_COLUMN,
    ],
    row,
    defaults,
    validate: validate::network_policy::network_policy,
    prepare: |object, old, write| {
        prepare(object, old, write);
        drop(crate::value::remove(object, "status"));
    },
    generation: Generation::Spec,
    ..BASE
};

fn defaults(object: &mut Value) {
    for direction in ["spec.ingress", "spec.egress"] {
        for rule in list_at_mut(object, direction) {
            for port in list_at_mut(rule, "ports") {
                set_default_text(port, "protocol", "TCP");
            }
        }
    }
    let none = at(object, "spec.policyTypes")
        .as_array()
        .is_none_or(|types| types.is_empty());
    if none && has(object, "spec") {
        // Egress only where there is an egress rule (N2).
        let egress = at(object, "spec.egress")
            .as_array()
            .is_some_and(|rules| !rules.is_empty());
        let types = match egress {
            true => json!(["Ingress", "Egress"]),
            false => json!(["Ingress"]),
        };
        set(object, "spec.policyTypes", types);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let selector = match LabelSelector::from_object(at(object, "spec.podSelector")) {
        Ok(selector) => table::or_none(&selector.to_string()),
        Err(_) => "<error>".into(),
    };
    vec![meta::name(object).into(), selector, table::age(object, now)]
}
