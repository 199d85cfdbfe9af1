//! Lease: who holds a role, and until when.

use super::{AGE_COLUMN, BASE, Kind, NAME_COLUMN, column, schema_of};
use crate::value::str_at;
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    definition: "io.k8s.api.coordination.v1.Lease",
    schema: schema_of::<k8s_openapi::api::coordination::v1::Lease>,
    columns: &[
        NAME_COLUMN,
        column("Holder", "string", "Who holds the lease."),
        AGE_COLUMN,
    ],
    row,
    validate: validate::lease::lease,
    create_on_update: true,
    unconditional_update: false,
    ..BASE
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        str_at(object, "spec.holderIdentity").into(),
        table::age(object, now),
    ]
}
