//! Secret: keys and values not to be shown around.

use super::{AGE_COLUMN, BASE, Kind, NAME_COLUMN, column, schema_of};
use crate::value::{map_at, map_mut, place, remove, set_default_text, str_at};
use crate::{meta, table, validate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    definition: "io.k8s.api.core.v1.Secret",
    schema: schema_of::<k8s_openapi::api::core::v1::Secret>,
    columns: &[
        NAME_COLUMN,
        column("Type", "string", "What the data is for."),
        column("Data", "string", "Number of entries."),
        AGE_COLUMN,
    ],
    row,
    defaults,
    validate: validate::secret::secret,
    fields: |object| BTreeMap::from([("type", str_at(object, "type").to_owned())]),
    ..BASE
};

fn defaults(object: &mut Value) {
    set_default_text(object, "type", "Opaque");
    // `stringData` is write-only: it is merged into `data` and never stored.
    let Some(Value::Object(texts)) = remove(object, "stringData") else {
        return;
    };
    let data = map_mut(place(object, "data"));
    for (key, text) in texts {
        let encoded = STANDARD.encode(text.as_str().unwrap_or(""));
        data.insert(key, encoded.into());
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        str_at(object, "type").into(),
        map_at(object, "data").map_or(0, |map| map.len()).into(),
        table::age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"a": "user", "b": "pass1", "c": "", "d": "abc"}});
        defaults(&mut secret);
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"a": "dXNlcg==", "b": "cGFzczE=", "c": "", "d": "YWJj"}})
        );
    }
}
