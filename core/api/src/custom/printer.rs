//! The table columns of a definition.

use super::jsonpath::JsonPath;
use crate::table::since;
use crate::value::{int_at, list_at, str_at};
use crate::{meta, schema};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Columns and where their cells come from.
#[derive(Debug)]
pub(super) struct Printer {
    definitions: Vec<Value>,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    kind: String,
    path: Option<JsonPath>,
}

impl Printer {
    pub(super) fn new(version: &Value) -> Self {
        let mut definitions = vec![json!({
            "name": "Name",
            "type": "string",
            "format": "name",
            "description": described("name"),
            "priority": 0,
        })];
        let age = [json!({
            "name": "Age",
            "type": "date",
            "description": described("creationTimestamp"),
            "jsonPath": ".metadata.creationTimestamp",
        })];
        let listed = match list_at(version, "additionalPrinterColumns") {
            [] => &age,
            listed => listed,
        };
        let mut columns = Vec::new();
        for column in listed {
            let path = str_at(column, "jsonPath");
            let description = match str_at(column, "description") {
                "" => format!("Custom resource definition column (in JSONPath format): {path}"),
                text => text.to_owned(),
            };
            definitions.push(json!({
                "name": str_at(column, "name"),
                "type": str_at(column, "type"),
                "format": str_at(column, "format"),
                "description": description,
                "priority": int_at(column, "priority").unwrap_or(0),
            }));
            columns.push(Column {
                kind: str_at(column, "type").to_owned(),
                path: JsonPath::parse(path),
            });
        }
        Self {
            definitions,
            columns,
        }
    }

    /// The column definitions of a Table.
    pub(super) fn columns(&self) -> &[Value] {
        &self.definitions
    }

    /// The cells of an object.
    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = Value::from(meta::name(object));
        let others = self.columns.iter().map(|column| {
            let path = column.path.as_ref();
            let found = path.map(|path| path.find(object)).unwrap_or_default();
            cell(&column.kind, &found, now)
        });
        std::iter::once(name).chain(others).collect()
    }
}

fn described(field: &str) -> &'static str {
    schema::definitions()
        .get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .map_or("", |meta| {
            let property = &meta["properties"][field];
            str_at(property, "description")
        })
}

/// A cell of a column of this type; what does not fit the type is null.
fn cell(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    let Some(value) = found.first() else {
        return Value::Null;
    };
    match (kind, value) {
        ("integer", Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().map(whole))
            .into(),
        ("number", Value::Number(number)) => number.as_f64().into(),
        ("boolean", Value::Bool(flag)) => (*flag).into(),
        ("date", Value::String(time)) => match time.parse::<Timestamp>() {
            Ok(_) => since(time, now).into(),
            Err(_) => "<invalid>".into(),
        },
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", Value::Null) => Value::Null,
        ("string", value) => value.to_string().into(),
        _ => Value::Null,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cell shows the whole part, as Go's conversion does"
)]
fn whole(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_of_the_column_s_type() {
        let version = json!({"additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Load", "type": "number", "jsonPath": ".status.load"},
            {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "priority": 1},
            {"name": "Seen", "type": "date", "jsonPath": ".status.seen"},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.on", "description": "d"},
            {"name": "All", "type": "string", "jsonPath": ".spec.list"},
        ]});
        let printer = Printer::new(&version);
        assert_eq!(printer.columns().len(), 8);
        assert_eq!(printer.columns()[4]["priority"], 1);
        assert_eq!(
            printer.columns()[1]["description"],
            "Custom resource definition column (in JSONPath format): .spec.size"
        );
        let object = json!({"metadata": {"name": "x"}, "spec": {"size": 2.0, "on": true, "list": [1]},
            "status": {"load": 1, "seen": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]}});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(
            Value::Array(printer.cells(&object, now)),
            json!(["x", 2, 1.0, true, "True", "5m", null, "[1]"])
        );
        let bare = Printer::new(&json!({}));
        let object =
            json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(bare.cells(&object, now), [json!("x"), json!("5m")]);
        assert_eq!(bare.columns()[1]["name"], "Age");
    }
}
