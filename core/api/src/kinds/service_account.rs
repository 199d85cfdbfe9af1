//! ServiceAccount: the identity of pods.

use super::{AGE_COLUMN, BASE, Kind, NAME_COLUMN, Subresource, column, schema_of};
use crate::value::list_at;
use crate::{meta, table};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    }],
    definition: "io.k8s.api.core.v1.ServiceAccount",
    schema: |generator| {
        schema_of::<k8s_openapi::api::core::v1::ServiceAccount>(generator);
        schema_of::<k8s_openapi::api::authentication::v1::TokenRequest>(generator);
    },
    columns: &[
        NAME_COLUMN,
        column(
            "Secrets",
            "string",
            "Number of secrets that pods of the account may use.",
        ),
        AGE_COLUMN,
    ],
    row,
    delete_returns_object: true,
    ..BASE
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        list_at(object, "secrets").len().into(),
        table::age(object, now),
    ]
}
