//! OpenAPI documents of the served kinds, v2 and v3.
//!
//! kubectl reads them for `explain`, for validation before it sends, for the
//! merge keys of `apply`, and to see whether the server knows the parameters
//! `dryRun` and `fieldValidation`. Up to 1.20 it reads v2 as protobuf only.
//!
//! The documents are constants of the program, but large: a server should keep
//! what it encodes.

mod operations;
mod parameters;
mod paths;
mod proto;

use crate::custom::published;
use crate::kinds::KindRef;
use crate::schema::{self, REF_PREFIX};
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

/// Every document path of v3: `api/v1`, `apis/apps/v1`.
pub fn v3_paths(kinds: &[KindRef]) -> Vec<String> {
    group_versions(kinds)
        .into_iter()
        .map(|(group, version)| document_path(group, version))
        .collect()
}

/// `/openapi/v3`: the index of documents, each with a hash of its content.
pub fn v3_index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Value {
    let mut paths = Map::new();
    for (path, document) in documents {
        let hash = fnv(document);
        let url = format!("/openapi/v3/{path}?hash={hash:016X}");
        paths.insert(path.to_owned(), json!({"serverRelativeURL": url}));
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

/// Served groups with their versions, without repeats.
fn group_versions(kinds: &[KindRef]) -> Vec<(&str, &str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for kind in kinds {
        if !all.contains(&(kind.group, kind.version)) {
            all.push((kind.group, kind.version));
        }
    }
    all
}

/// FNV-1a: stable over runs, and no more is asked of it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The definitions of all kinds: those of the table and those of definitions.
struct Definitions {
    custom: BTreeMap<String, Value>,
}

impl Definitions {
    fn new(kinds: &[KindRef]) -> Self {
        let mut custom = BTreeMap::new();
        for kind in kinds {
            if let Some(definition) = &kind.custom {
                custom.insert(kind.definition.to_owned(), definition.published().clone());
                custom.insert(schema::list_definition(kind), published::list(kind));
            }
        }
        Self { custom }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let custom = self.custom.get(name);
        custom.or_else(|| schema::definitions().get(name))
    }

    /// The definitions that the documents of a group-version need.
    fn reachable<'a>(
        &'a self,
        kinds: &[KindRef],
        group: &str,
        version: &str,
    ) -> BTreeMap<String, &'a Value> {
        let mut todo: Vec<String> = ["Status", "DeleteOptions", "Patch", "WatchEvent"]
            .iter()
            .map(|name| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
            .collect();
        let own = |kind: &&KindRef| kind.group == group && kind.version == version;
        for kind in kinds.iter().filter(own) {
            todo.push(kind.definition.to_owned());
            todo.push(schema::list_definition(kind));
            let below = kind.subresources.iter();
            todo.extend(below.filter_map(|sub| operations::definition_of(kind, sub)));
        }
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(definition) = self.get(&name) {
                references(definition, &mut todo);
                found.insert(name, definition);
            }
        }
        found
    }
}

/// `/openapi/v3/{path}`, path being `api/v1` or `apis/apps/v1`.
pub fn v3(kinds: &[KindRef], path: &str) -> Option<Value> {
    let (group, version) = group_versions(kinds)
        .into_iter()
        .find(|(group, version)| document_path(group, version) == path)?;
    let definitions = Definitions::new(kinds);
    let schemas: Map<String, Value> = definitions
        .reachable(kinds, group, version)
        .into_iter()
        .map(|(name, definition)| {
            let schema = v3_definition(&name, definition);
            (name, schema)
        })
        .collect();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": api_version()},
        "paths": paths::of(kinds, group, version, paths::Form::V3),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey",
                "description": "Bearer Token authentication",
                "name": "authorization",
                "in": "header",
            }},
        },
    }))
}

/// `/openapi/v2` as JSON.
pub fn v2(kinds: &[KindRef]) -> Value {
    let mut all = Map::new();
    for (group, version) in group_versions(kinds) {
        all.extend(paths::of(kinds, group, version, paths::Form::V2));
    }
    let mut definitions: Map<String, Value> = schema::definitions()
        .iter()
        .map(|(name, definition)| (name.clone(), definition.clone()))
        .collect();
    for (name, definition) in Definitions::new(kinds).custom {
        definitions.insert(name, published::v2(&definition));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": api_version()},
        "paths": all,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication",
            "in": "header",
            "name": "authorization",
            "type": "apiKey",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// `/openapi/v2` as protobuf (gnostic's `openapi.v2.Document`).
pub fn v2_protobuf(kinds: &[KindRef]) -> Vec<u8> {
    proto::encode(&v2(kinds))
}

/// The Kubernetes version whose API is served.
fn api_version() -> &'static str {
    "v1.36.0"
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

fn v3_definition(name: &str, definition: &Value) -> Value {
    let mut result = v3_schema(definition);
    if name == schema::QUANTITY {
        drop(map_mut(&mut result).remove("type"));
        put(
            &mut result,
            "oneOf",
            json!([{"type": "string"}, {"type": "number"}]),
        );
    }
    result
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
    use crate::kinds;

    fn table() -> Vec<KindRef> {
        kinds::all().map(KindRef::from).collect()
    }

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
        for path in v3_paths(&table()) {
            let document = v3(&table(), &path).unwrap();
            check_references(
                &document,
                V3_PREFIX,
                document["components"]["schemas"].as_object().unwrap(),
            );
        }
        assert_eq!(v3(&table(), "api/v2"), None);
    }

    #[test]
    fn every_reference_of_v2_resolves() {
        let document = v2(&table());
        check_references(
            &document,
            REF_PREFIX,
            document["definitions"].as_object().unwrap(),
        );
    }

    #[test]
    fn v3_has_what_kubectl_looks_for() {
        let document = v3(&table(), "api/v1").unwrap();
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
        let bytes = v2_protobuf(&table());
        let names = proto::definition_names(&bytes);
        assert_eq!(names.len(), schema::definitions().len());
        assert!(
            names
                .iter()
                .any(|name| name == "io.k8s.api.core.v1.Service")
        );
    }

    #[test]
    fn connections_are_connect_operations_of_their_options() {
        let document = v3(&table(), "api/v1").unwrap();
        let pods = "/api/v1/namespaces/{namespace}/pods/{name}";
        let cases = [
            (
                "exec",
                "get",
                "PodExecOptions",
                "connectCoreV1GetNamespacedPodExec",
            ),
            (
                "attach",
                "post",
                "PodAttachOptions",
                "connectCoreV1PostNamespacedPodAttach",
            ),
            (
                "portforward",
                "get",
                "PodPortForwardOptions",
                "connectCoreV1GetNamespacedPodPortforward",
            ),
            (
                "proxy",
                "put",
                "PodProxyOptions",
                "connectCoreV1PutNamespacedPodProxy",
            ),
            (
                "proxy/{path}",
                "delete",
                "PodProxyOptions",
                "connectCoreV1DeleteNamespacedPodProxyWithPath",
            ),
        ];
        for (sub, method, kind, id) in cases {
            let operation = &document["paths"][format!("{pods}/{sub}")][method];
            assert_eq!(operation["x-kubernetes-action"], "connect", "{sub}");
            assert_eq!(operation["operationId"], id);
            let gvk = &operation["x-kubernetes-group-version-kind"];
            assert_eq!(gvk, &json!({"group": "", "version": "v1", "kind": kind}));
        }
        let log = &document["paths"][format!("{pods}/log")]["get"];
        assert_eq!(log["x-kubernetes-action"], "get");
        assert_eq!(log["operationId"], "readCoreV1NamespacedPodLog");
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_says_what_it_does() {
        let document = v2(&table());
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} {path}");
                assert!(
                    operation["description"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                );
                assert!(operation["x-kubernetes-group-version-kind"]["kind"].is_string());
            }
        }
        for id in [
            "listCoreV1PodForAllNamespaces",
            "createCoreV1NamespacedPod",
            "deleteCoreV1CollectionNamespacedPod",
            "readAppsV1NamespacedDeploymentScale",
            "replaceCoreV1NamespacedServiceStatus",
            "patchCoreV1Node",
            "createApiextensionsV1CustomResourceDefinition",
        ] {
            assert!(ids.contains(id), "{id}");
        }
    }
}
