//! OpenAPI documents of the served kinds, v2 and v3.
//!
//! kubectl reads them for `explain`, for validation before it sends, for the
//! merge keys of `apply`, and to see whether the server knows the parameters
//! `dryRun` and `fieldValidation`. Up to 1.20 it reads v2 as protobuf only.
//!
//! The documents are constants of the program, but large: a server should keep
//! what it encodes.

mod paths;
mod proto;

use crate::kinds;
use crate::schema::{self, REF_PREFIX, group_versions};
use crate::value::map_mut;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The media type of [`v2_protobuf`]. Old clients ask for it with an at sign in
/// place of the second last dot (`spec.v2@v1.0`), which is no valid media type.
pub const V2_PROTOBUF_MEDIA_TYPE: &str =
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Where references lead in v3.
const V3_PREFIX: &str = "#/components/schemas/";

const TITLE: &str = "Kubernetes";

/// `/openapi/v3`: the index of documents, each with a hash of its content.
pub fn v3_index() -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions() {
        let path = document_path(group, version);
        let hash = fnv(v3(&path).unwrap_or_default().to_string().as_bytes());
        let url = format!("/openapi/v3/{path}?hash={hash:016X}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// `api/v1` or `apis/apps/v1`.
fn document_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        _ => format!("apis/{group}/{version}"),
    }
}

/// FNV-1a: stable over runs, and no more is asked of it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `/openapi/v3/{path}`, path being `api/v1` or `apis/apps/v1`.
pub fn v3(path: &str) -> Option<Value> {
    let (group, version) = group_versions()
        .into_iter()
        .find(|(group, version)| document_path(group, version) == path)?;
    let schemas: Map<String, Value> = reachable(group, version)
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), v3_definition(name)?)))
        .collect();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": api_version()},
        "paths": paths::v3(group, version),
        "components": {"schemas": schemas},
    }))
}

/// `/openapi/v2` as JSON.
pub fn v2() -> Value {
    let mut all = Map::new();
    for (group, version) in group_versions() {
        all.extend(paths::v2(group, version));
    }
    let definitions: BTreeMap<&String, &Value> = schema::definitions().iter().collect();
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": api_version()},
        "paths": all,
        "definitions": definitions,
    })
}

/// `/openapi/v2` as protobuf (gnostic's `openapi.v2.Document`).
pub fn v2_protobuf() -> Vec<u8> {
    proto::encode(&v2())
}

/// The Kubernetes version whose types these are.
fn api_version() -> &'static str {
    "v1.37.0"
}

/// The definitions that the documents of a group-version need.
fn reachable(group: &str, version: &str) -> BTreeSet<&'static str> {
    let mut todo: Vec<String> = ["Status", "DeleteOptions", "Patch"]
        .iter()
        .map(|name| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
        .collect();
    for kind in kinds::all().filter(|kind| kind.group == group && kind.version == version) {
        todo.push(kind.definition.to_owned());
        todo.push(schema::list_definition(kind));
        todo.extend(kind.subresources.iter().filter_map(paths::definition_of));
    }
    let mut found = BTreeSet::new();
    while let Some(name) = todo.pop() {
        let Some((name, definition)) = schema::definitions().get_key_value(&name) else {
            continue;
        };
        if found.insert(name.as_str()) {
            references(definition, &mut todo);
        }
    }
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(schema::ref_name(value).map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn v3_definition(name: &str) -> Option<Value> {
    let mut result = v3_schema(schema::definitions().get(name)?);
    if name == schema::QUANTITY {
        drop(map_mut(&mut result).remove("type"));
        put(
            &mut result,
            "oneOf",
            json!([{"type": "string"}, {"type": "number"}]),
        );
    }
    Some(result)
}

/// A definition in the form of v3: a reference beside other fields moves into
/// `allOf`, and a number or text is said to be one of both.
fn v3_schema(schema: &Value) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    let mut result: Map<String, Value> = Map::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let properties = properties
                    .iter()
                    .map(|(name, value)| (name.clone(), v3_schema(value)));
                Value::Object(properties.collect())
            }
            ("items" | "additionalProperties", value) => v3_schema(value),
            ("$ref", Value::String(reference)) => {
                let name = reference.strip_prefix(REF_PREFIX).unwrap_or(reference);
                format!("{V3_PREFIX}{name}").into()
            }
            (_, value) => value.clone(),
        };
        result.insert(key.clone(), value);
    }
    if result.len() > 1
        && let Some(reference) = result.remove("$ref")
    {
        result.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
    if result
        .get("format")
        .is_some_and(|format| format == "int-or-string")
    {
        result.remove("type");
        result.insert(
            "oneOf".to_owned(),
            json!([{"type": "integer"}, {"type": "string"}]),
        );
    }
    Value::Object(result)
}

/// Kubernetes' vendor extension for the kind that an operation is about.
fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Adds a field to a map value.
fn put(value: &mut Value, key: &str, field: Value) {
    map_mut(value).insert(key.to_owned(), field);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_references(value: &Value, prefix: &str, names: &Map<String, Value>) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let name = reference
                .strip_prefix(prefix)
                .unwrap_or_else(|| panic!("{reference}"));
            assert!(names.contains_key(name), "{name}");
        }
        match value {
            Value::Array(list) => list
                .iter()
                .for_each(|value| check_references(value, prefix, names)),
            Value::Object(map) => map
                .values()
                .for_each(|value| check_references(value, prefix, names)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_of_v3_resolves() {
        let index = v3_index();
        for path in index["paths"].as_object().unwrap().keys() {
            let document = v3(path).unwrap();
            check_references(
                &document,
                V3_PREFIX,
                document["components"]["schemas"].as_object().unwrap(),
            );
        }
        assert_eq!(v3("api/v2"), None);
    }

    #[test]
    fn every_reference_of_v2_resolves() {
        let document = v2();
        check_references(
            &document,
            REF_PREFIX,
            document["definitions"].as_object().unwrap(),
        );
    }

    #[test]
    fn v3_has_what_kubectl_looks_for() {
        let document = v3("api/v1").unwrap();
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/services/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Service");
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert!(
            names.contains(&"fieldValidation") && names.contains(&"dryRun"),
            "{names:?}"
        );
        let spec =
            &document["components"]["schemas"]["io.k8s.api.core.v1.ServiceSpec"]["properties"];
        assert_eq!(spec["ports"]["x-kubernetes-patch-merge-key"], "port");
        let service = &document["components"]["schemas"]["io.k8s.api.core.v1.Service"];
        assert_eq!(
            service["properties"]["spec"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.ServiceSpec"
        );
        assert_eq!(
            service["x-kubernetes-group-version-kind"][0]["kind"],
            "Service"
        );
    }

    #[test]
    fn the_protobuf_form_holds_the_definitions() {
        let bytes = v2_protobuf();
        let names = proto::definition_names(&bytes);
        assert_eq!(names.len(), schema::definitions().len());
        assert!(
            names
                .iter()
                .any(|name| name == "io.k8s.api.core.v1.Service")
        );
    }
}
