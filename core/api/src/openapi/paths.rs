//! Paths and operations of the documents.
//!
//! Only what clients look at: the kind that an operation is about, its query
//! parameters, and the schemas of bodies and answers.

use super::{V3_PREFIX, group_version_kind, put};
use crate::kinds::{self, Kind, Subresource};
use crate::schema::{self, REF_PREFIX};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// One operation before it takes the form of a version.
struct Operation {
    method: &'static str,
    action: &'static str,
    /// Query parameters by name and type.
    parameters: &'static [(&'static str, &'static str)],
    /// The definition of the body, if there is one.
    body: Option<String>,
    /// The definition of the answer.
    answer: String,
    kind: (String, String, String),
}

const WRITE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("pretty", "string"),
];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("pretty", "string"),
];
const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
    ("pretty", "string"),
];
const GET: &[(&str, &str)] = &[("pretty", "string")];

/// The definition of the kind of a subresource.
pub(super) fn definition_of(sub: &Subresource) -> Option<String> {
    let name = match (sub.group, sub.kind) {
        ("autoscaling", "Scale") => "io.k8s.api.autoscaling.v1.Scale",
        ("policy", "Eviction") => "io.k8s.api.policy.v1.Eviction",
        ("authentication.k8s.io", "TokenRequest") => "io.k8s.api.authentication.v1.TokenRequest",
        ("", "Binding") => "io.k8s.api.core.v1.Binding",
        _ => kinds::by_kind(sub.group, sub.version, sub.kind)?.definition,
    };
    Some(name.to_owned())
}

/// Paths with their path parameters and operations.
fn all(group: &str, version: &str) -> Vec<(String, Vec<&'static str>, Vec<Operation>)> {
    let mut paths = Vec::new();
    for kind in kinds::all().filter(|kind| kind.group == group && kind.version == version) {
        let namespace = if kind.namespaced { "{namespace}" } else { "" };
        let scope: &[&str] = if kind.namespaced { &["namespace"] } else { &[] };
        let named: Vec<&'static str> = scope.iter().copied().chain(["name"]).collect();
        if kind.namespaced {
            paths.push((kind.path("", ""), Vec::new(), vec![list(kind)]));
        }
        paths.push((kind.path(namespace, ""), scope.to_vec(), collection(kind)));
        let item = kind.path(namespace, "{name}");
        for sub in kind.subresources {
            paths.push((
                format!("{item}/{}", sub.name),
                named.clone(),
                subresource(sub),
            ));
        }
        paths.push((item, named, single(kind)));
    }
    paths
}

fn operation(kind: &Kind, method: &'static str, action: &'static str) -> Operation {
    Operation {
        method,
        action,
        parameters: GET,
        body: None,
        answer: kind.definition.to_owned(),
        kind: (
            kind.group.to_owned(),
            kind.version.to_owned(),
            kind.kind.to_owned(),
        ),
    }
}

fn list(kind: &Kind) -> Operation {
    Operation {
        parameters: LIST,
        answer: schema::list_definition(kind),
        ..operation(kind, "get", "list")
    }
}

fn collection(kind: &Kind) -> Vec<Operation> {
    let mut operations = vec![
        list(kind),
        Operation {
            parameters: WRITE,
            body: Some(kind.definition.to_owned()),
            ..operation(kind, "post", "post")
        },
    ];
    if kind.verbs.contains(&"deletecollection") {
        operations.push(Operation {
            parameters: DELETE,
            body: Some(format!("{META}.DeleteOptions")),
            answer: format!("{META}.Status"),
            ..operation(kind, "delete", "deletecollection")
        });
    }
    operations
}

fn single(kind: &Kind) -> Vec<Operation> {
    vec![
        operation(kind, "get", "get"),
        Operation {
            parameters: WRITE,
            body: Some(kind.definition.to_owned()),
            ..operation(kind, "put", "put")
        },
        Operation {
            parameters: PATCH,
            body: Some(format!("{META}.Patch")),
            ..operation(kind, "patch", "patch")
        },
        Operation {
            parameters: DELETE,
            body: Some(format!("{META}.DeleteOptions")),
            answer: format!("{META}.Status"),
            ..operation(kind, "delete", "delete")
        },
    ]
}

fn subresource(sub: &Subresource) -> Vec<Operation> {
    let Some(definition) = definition_of(sub) else {
        return Vec::new();
    };
    sub.verbs
        .iter()
        .map(|verb| {
            let (method, action, parameters, body) = match *verb {
                "create" => ("post", "post", WRITE, Some(definition.clone())),
                "update" => ("put", "put", WRITE, Some(definition.clone())),
                "patch" => ("patch", "patch", PATCH, Some(format!("{META}.Patch"))),
                _ => ("get", "get", GET, None),
            };
            Operation {
                method,
                action,
                parameters,
                body,
                answer: definition.clone(),
                kind: (
                    sub.group.to_owned(),
                    sub.version.to_owned(),
                    sub.kind.to_owned(),
                ),
            }
        })
        .collect()
}

fn common(path: &str, operation: &Operation) -> Value {
    let id: String = path
        .chars()
        .filter(|char| char.is_ascii_alphanumeric())
        .collect();
    let (group, version, kind) = &operation.kind;
    json!({
        "operationId": format!("{}{id}", operation.action),
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": group_version_kind(group, version, kind),
    })
}

/// The paths of a group-version for OpenAPI v3.
pub(super) fn v3(group: &str, version: &str) -> Map<String, Value> {
    let content = |name: &str| json!({"application/json": {"schema": {"$ref": format!("{V3_PREFIX}{name}")}}});
    let parameter = |place: &str, name: &str, kind: &str| json!({"name": name, "in": place, "required": place == "path", "schema": {"type": kind, "uniqueItems": true}});
    let mut paths = Map::new();
    for (path, named, operations) in all(group, version) {
        let mut item = json!({});
        for operation in &operations {
            let mut value = common(&path, operation);
            let parameters: Vec<Value> = operation
                .parameters
                .iter()
                .map(|(name, kind)| parameter("query", name, kind))
                .collect();
            put(&mut value, "parameters", parameters.into());
            if let Some(body) = &operation.body {
                put(&mut value, "requestBody", json!({"content": content(body)}));
            }
            let answer = json!({"description": "OK", "content": content(&operation.answer)});
            put(
                &mut value,
                "responses",
                json!({"200": answer, "401": {"description": "Unauthorized"}}),
            );
            put(&mut item, operation.method, value);
        }
        let parameters: Vec<Value> = named
            .iter()
            .map(|name| parameter("path", name, "string"))
            .collect();
        put(&mut item, "parameters", parameters.into());
        paths.insert(path, item);
    }
    paths
}

/// The paths of a group-version for OpenAPI v2.
pub(super) fn v2(group: &str, version: &str) -> Map<String, Value> {
    let schema = |name: &str| json!({"$ref": format!("{REF_PREFIX}{name}")});
    let parameter = |place: &str, name: &str, kind: &str| json!({"name": name, "in": place, "required": place == "path", "type": kind, "uniqueItems": true});
    let mut paths = Map::new();
    for (path, named, operations) in all(group, version) {
        let mut item = json!({});
        for operation in &operations {
            let mut value = common(&path, operation);
            let mut parameters: Vec<Value> = operation
                .parameters
                .iter()
                .map(|(name, kind)| parameter("query", name, kind))
                .collect();
            if let Some(body) = &operation.body {
                parameters.push(
                    json!({"name": "body", "in": "body", "required": true, "schema": schema(body)}),
                );
            }
            put(&mut value, "parameters", parameters.into());
            put(&mut value, "consumes", json!(["application/json"]));
            put(&mut value, "produces", json!(["application/json"]));
            let answer = json!({"description": "OK", "schema": schema(&operation.answer)});
            put(
                &mut value,
                "responses",
                json!({"200": answer, "401": {"description": "Unauthorized"}}),
            );
            put(&mut item, operation.method, value);
        }
        let parameters: Vec<Value> = named
            .iter()
            .map(|name| parameter("path", name, "string"))
            .collect();
        put(&mut item, "parameters", parameters.into());
        paths.insert(path, item);
    }
    paths
}
