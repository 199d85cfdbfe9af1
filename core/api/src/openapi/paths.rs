//! Operations in the form of OpenAPI v2 or v3: two ways to write the same.

use super::operations::{self, Operation};
use super::{V3_PREFIX, group_version_kind, put};
use crate::kinds::KindRef;
use crate::schema::REF_PREFIX;
use serde_json::{Map, Value, json};

/// The answers that a body may have.
const PRODUCED: &[&str] = &["application/json"];
/// What a request may carry.
const CONSUMED: &[&str] = &["application/json", "application/yaml"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A version of OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

/// The paths of a group-version.
pub(super) fn of(kinds: &[KindRef], group: &str, version: &str, form: Form) -> Map<String, Value> {
    let tag = operations::tag(group, version);
    let custom = |path: &str| {
        kinds.iter().any(|kind| {
            kind.custom.is_some()
                && kind.group == group
                && path.split('/').any(|part| part == kind.plural)
        })
    };
    let mut paths = Map::new();
    for place in operations::all(kinds, group, version) {
        let mut item = json!({});
        let patches = match custom(&place.path) {
            // Strategic merge patches are not for custom resources.
            true => PATCHES
                .iter()
                .copied()
                .filter(|media| !media.contains("strategic"))
                .collect(),
            false => PATCHES.to_vec(),
        };
        for operation in &place.operations {
            let mut value = common(operation, &tag);
            form.parameters(operation, &mut value);
            form.bodies(operation, &patches, &mut value);
            put(&mut item, operation.method, value);
        }
        let parameters: Vec<Value> = place
            .named
            .iter()
            .map(|name| form.parameter("path", (name, "string", path_text(name))))
            .collect();
        if !parameters.is_empty() {
            put(&mut item, "parameters", parameters.into());
        }
        paths.insert(place.path, item);
    }
    paths
}

fn path_text(name: &str) -> &'static str {
    match name {
        "namespace" => "The namespace of the object.",
        "name" => "The name of the object.",
        _ => "The path of the request that is passed on.",
    }
}

fn common(operation: &Operation, tag: &str) -> Value {
    let (group, version, kind) = &operation.kind;
    json!({
        "tags": [tag],
        "description": operation.description,
        "operationId": operation.id,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": group_version_kind(group, version, kind),
    })
}

impl Form {
    fn schema(self, name: Option<&str>) -> Value {
        match (self, name) {
            (_, None) => json!({"type": "string"}),
            (Self::V2, Some(name)) => json!({"$ref": format!("{REF_PREFIX}{name}")}),
            (Self::V3, Some(name)) => json!({"$ref": format!("{V3_PREFIX}{name}")}),
        }
    }

    fn parameter(self, place: &str, (name, kind, text): (&str, &str, &str)) -> Value {
        let mut value = json!({"name": name, "in": place, "description": text});
        if place == "path" {
            put(&mut value, "required", true.into());
        }
        match self {
            Self::V2 => {
                put(&mut value, "type", kind.into());
                put(&mut value, "uniqueItems", true.into());
            }
            Self::V3 => {
                let schema = json!({"type": kind, "uniqueItems": true});
                put(&mut value, "schema", schema);
            }
        }
        value
    }

    fn parameters(self, operation: &Operation, value: &mut Value) {
        let mut parameters: Vec<Value> = operation
            .parameters
            .iter()
            .map(|parameter| self.parameter("query", *parameter))
            .collect();
        if self == Self::V2
            && let Some(body) = &operation.body
        {
            let required = operation.method != "delete";
            let schema = self.schema(Some(body));
            parameters.push(
                json!({"name": "body", "in": "body", "required": required, "schema": schema}),
            );
        }
        put(value, "parameters", parameters.into());
    }

    fn bodies(self, operation: &Operation, patches: &[&str], value: &mut Value) {
        let consumed = if operation.method == "patch" {
            patches
        } else {
            CONSUMED
        };
        let answer = self.schema(operation.answer.as_deref());
        let produced: &[&str] = match operation.answer {
            Some(_) => PRODUCED,
            None => &["*/*"],
        };
        let mut ok = json!({"description": "OK"});
        match self {
            Self::V2 => {
                put(value, "consumes", json!(consumed));
                put(value, "produces", json!(produced));
                put(value, "schemes", json!(["https"]));
                put(&mut ok, "schema", answer);
            }
            Self::V3 => {
                if let Some(body) = &operation.body {
                    let schema = self.schema(Some(body));
                    let content = content(consumed, &schema);
                    put(value, "requestBody", json!({"content": content}));
                }
                put(&mut ok, "content", content(produced, &answer));
            }
        }
        let unauthorized = json!({"description": "Unauthorized"});
        let mut responses = json!({"200": ok.clone(), "401": unauthorized});
        let created = match operation.action {
            "post" => Some("Created"),
            "put" | "patch" => Some("Created"),
            _ => None,
        };
        if let Some(text) = created {
            put(&mut ok, "description", text.into());
            put(&mut responses, "201", ok);
        }
        put(value, "responses", responses);
    }
}

/// A body in each of its media types.
fn content(media: &[&str], schema: &Value) -> Value {
    let entries = media
        .iter()
        .map(|media| ((*media).to_owned(), json!({"schema": schema})));
    Value::Object(entries.collect())
}
