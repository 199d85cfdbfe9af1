//! ServiceCIDR and IPAddress: where ClusterIPs come from, and each one that is
//! taken (KEP-1880).

use super::deployment::prepare;
use super::{
    AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, NameRule, column, schema_of, status_of,
};
use crate::value::{at, str_at, strings_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// The row of the kinds table for ServiceCIDR.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    list_kind: "ServiceCIDRList",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[status_of("networking.k8s.io", "v1", "ServiceCIDR")],
    definition: "io.k8s.api.networking.v1.ServiceCIDR",
    schema: schema_of::<k8s_openapi::api::networking::v1::ServiceCIDR>,
    columns: &[
        NAME_COLUMN,
        column("CIDRs", "string", "Ranges of addresses."),
        AGE_COLUMN,
    ],
    row: |object, now| {
        vec![
            meta::name(object).into(),
            strings_at(object, "spec.cidrs").join(",").into(),
            table::age(object, now),
        ]
    },
    validate: validate::service_cidr::service_cidr,
    prepare,
    generation: Generation::Spec,
    ..BASE
};

/// The row of the kinds table for IPAddress.
pub static IP_ADDRESS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IPAddress",
    list_kind: "IPAddressList",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    definition: "io.k8s.api.networking.v1.IPAddress",
    schema: schema_of::<k8s_openapi::api::networking::v1::IPAddress>,
    columns: &[
        NAME_COLUMN,
        column("ParentRef", "string", "The object that has the address."),
        AGE_COLUMN,
    ],
    row: address_row,
    validate: validate::service_cidr::ip_address,
    name_rule: NameRule::Address,
    generation: Generation::Spec,
    fields: |object| {
        let field = |name: &str| str_at(object, &format!("spec.parentRef.{name}")).to_owned();
        BTreeMap::from([
            ("spec.parentRef.group", field("group")),
            ("spec.parentRef.resource", field("resource")),
            ("spec.parentRef.namespace", field("namespace")),
            ("spec.parentRef.name", field("name")),
        ])
    },
    ..BASE
};

fn address_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = at(object, "spec.parentRef");
    let resource = match str_at(parent, "group") {
        "" => str_at(parent, "resource").to_owned(),
        group => format!("{}.{group}", str_at(parent, "resource")),
    };
    let path: Vec<&str> = [
        resource.as_str(),
        str_at(parent, "namespace"),
        str_at(parent, "name"),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect();
    vec![
        meta::name(object).into(),
        path.join("/").into(),
        table::age(object, now),
    ]
}
