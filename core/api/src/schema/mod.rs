//! The schemas of all served kinds, as one set of definitions.
//!
//! k8s-openapi knows types, descriptions and required fields; `extensions`
//! adds what it lacks (merge keys, list types). The set is a constant of the
//! program, computed once. It is kept in the form of Swagger definitions, where
//! a field may have a `$ref` and a description side by side; [`crate::openapi`]
//! derives the published forms from it, [`crate::fields`] and
//! [`crate::patch`] walk it.

mod extensions;

use crate::kinds::{self, Kind};
use crate::value::{map_mut, str_at};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Where a reference to a definition starts.
pub(crate) const REF_PREFIX: &str = "#/definitions/";

/// Definitions that stand for a number or a text.
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
pub(crate) const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

static DEFINITIONS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(build);

/// All definitions by name.
pub fn definitions() -> &'static BTreeMap<String, Value> {
    &DEFINITIONS
}

/// The definition of a kind.
pub fn of_kind(kind: &Kind) -> Option<&Value> {
    match &kind.custom {
        Some(definition) => Some(definition.published()),
        None => DEFINITIONS.get(kind.definition),
    }
}

/// The name of the definition of a kind's list.
pub fn list_definition(kind: &Kind) -> String {
    format!("{}List", kind.definition)
}

/// The definition that a schema stands for: itself, or what it refers to.
pub(crate) fn resolve(schema: &Value) -> &Value {
    match ref_name(schema).and_then(|name| DEFINITIONS.get(name)) {
        Some(definition) => definition,
        None => schema,
    }
}

/// The name of the definition that a schema refers to.
pub(crate) fn ref_name(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REF_PREFIX)
}

/// The schema of a field of an object, unresolved: it carries the extensions.
pub(crate) fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let schema = resolve(schema);
    let named = schema
        .get("properties")
        .and_then(|properties| properties.get(name));
    named.or_else(|| {
        schema
            .get("additionalProperties")
            .filter(|schema| schema.is_object())
    })
}

/// The schema of the elements of a list.
pub(crate) fn items(schema: &Value) -> Option<&Value> {
    resolve(schema).get("items")
}

/// What JSON types a schema admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Array,
    Text,
    Integer,
    Number,
    Bool,
    IntOrText,
    Any,
}

/// The shape of a schema.
pub(crate) fn shape(schema: &Value) -> Shape {
    match ref_name(schema) {
        Some(INT_OR_STRING) => return Shape::IntOrText,
        Some(QUANTITY) => return Shape::IntOrText,
        Some(_) | None => {}
    }
    match str_at(resolve(schema), "type") {
        "object" => Shape::Object,
        "array" => Shape::Array,
        "string" => Shape::Text,
        "integer" => Shape::Integer,
        "number" => Shape::Number,
        "boolean" => Shape::Bool,
        _ => Shape::Any,
    }
}

fn build() -> BTreeMap<String, Value> {
    let settings = schemars::generate::SchemaSettings::default().with(|settings| {
        settings.definitions_path = "/definitions".into();
    });
    let mut generator = settings.into_generator();
    for kind in kinds::all() {
        (kind.schema)(&mut generator);
    }
    kinds::schema_of::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>(
        &mut generator,
    );
    kinds::schema_of::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>(&mut generator);
    kinds::schema_of::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>(&mut generator);
    let mut definitions: BTreeMap<String, Value> =
        generator.take_definitions(true).into_iter().collect();
    special_types(&mut definitions);
    for kind in kinds::all().filter(|kind| kind.verbs.contains(&"list")) {
        definitions.insert(list_definition(kind), list_schema(kind));
    }
    for rule in extensions::RULES {
        extensions::apply(rule, &mut definitions);
    }
    for definition in extensions::ATOMIC_TYPES {
        extensions::mark_atomic(definition, &mut definitions);
    }
    group_version_kinds(&mut definitions);
    for definition in definitions.values_mut() {
        required_as_in_kubernetes(definition);
    }
    definitions
}

/// Types that every published form writes in its own way, and Patch.
fn special_types(definitions: &mut BTreeMap<String, Value>) {
    for name in [INT_OR_STRING, QUANTITY] {
        if let Some(definition) = definitions.get_mut(name) {
            let map = map_mut(definition);
            map.remove("x-kubernetes-int-or-string");
            map.insert("type".to_owned(), "string".into());
            if name == INT_OR_STRING {
                map.insert("format".to_owned(), "int-or-string".into());
            }
        }
    }
    // What may be of several types says nothing in v2; neither do we.
    for name in [
        "JSON",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrStringArray",
    ] {
        let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}");
        if let Some(definition) = definitions.get_mut(&name) {
            let map = map_mut(definition);
            map.remove("type");
            map.remove("oneOf");
        }
    }
    let patch = json!({
        "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
        "type": "object",
    });
    definitions.insert(
        "io.k8s.apimachinery.pkg.apis.meta.v1.Patch".to_owned(),
        patch,
    );
}

fn list_schema(kind: &Kind) -> Value {
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.plural),
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this representation of the list."},
            "kind": {"type": "string", "description": "The kind of the list."},
            "items": {
                "type": "array",
                "description": format!("The {}.", kind.plural),
                "items": {"$ref": format!("{REF_PREFIX}{}", kind.definition)},
            },
            "metadata": {
                "$ref": format!("{REF_PREFIX}io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
                "description": "Standard list metadata.",
            },
        },
        "required": ["items"],
    })
}

fn group_version_kinds(definitions: &mut BTreeMap<String, Value>) {
    let mut mark = |definition: &str, group: &str, version: &str, kind: &str| {
        if let Some(definition) = definitions.get_mut(definition) {
            let gvk = json!([{"group": group, "version": version, "kind": kind}]);
            map_mut(definition).insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        }
    };
    for kind in kinds::all() {
        mark(kind.definition, kind.group, kind.version, kind.kind);
        mark(
            &list_definition(kind),
            kind.group,
            kind.version,
            kind.list_kind,
        );
    }
    mark(
        "io.k8s.api.autoscaling.v1.Scale",
        "autoscaling",
        "v1",
        "Scale",
    );
    mark("io.k8s.api.core.v1.Binding", "", "v1", "Binding");
    mark("io.k8s.api.policy.v1.Eviction", "policy", "v1", "Eviction");
    mark(
        "io.k8s.api.authentication.v1.TokenRequest",
        "authentication.k8s.io",
        "v1",
        "TokenRequest",
    );
    mark(
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
        "",
        "v1",
        "Status",
    );
    let options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    if let Some(definition) = definitions.get_mut(options) {
        let groups: Vec<Value> = group_versions()
            .into_iter()
            .map(|(group, version)| json!({"group": group, "version": version, "kind": "DeleteOptions"}))
            .collect();
        map_mut(definition).insert("x-kubernetes-group-version-kind".to_owned(), groups.into());
    }
}

/// All served groups with their version, core first, without repeats.
pub(crate) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for kind in kinds::all() {
        if !all.contains(&(kind.group, kind.version)) {
            all.push((kind.group, kind.version));
        }
    }
    all
}

/// k8s-openapi requires whatever its types always have; Kubernetes does not
/// require metadata.
fn required_as_in_kubernetes(definition: &mut Value) {
    let map: &mut Map<String, Value> = map_mut(definition);
    let Some(Value::Array(required)) = map.get_mut("required") else {
        return;
    };
    required.retain(|name| name != "metadata");
    if required.is_empty() {
        map.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_definition() {
        for kind in kinds::all() {
            let definition = of_kind(kind).unwrap_or_else(|| panic!("{}", kind.kind));
            assert_eq!(
                definition["x-kubernetes-group-version-kind"][0]["kind"],
                kind.kind
            );
        }
    }

    #[test]
    fn every_reference_resolves() {
        fn walk(value: &Value, definitions: &BTreeMap<String, Value>) {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let name = reference
                    .strip_prefix(REF_PREFIX)
                    .unwrap_or_else(|| panic!("{reference}"));
                assert!(definitions.contains_key(name), "{name}");
            }
            match value {
                Value::Array(list) => list.iter().for_each(|value| walk(value, definitions)),
                Value::Object(map) => map.values().for_each(|value| walk(value, definitions)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        definitions()
            .values()
            .for_each(|value| walk(value, definitions()));
    }

    #[test]
    fn every_extension_is_about_a_field() {
        for rule in extensions::RULES {
            assert!(
                extensions::finds(rule, definitions()),
                "{}.{}",
                rule.definition,
                rule.field
            );
        }
    }

    #[test]
    fn every_atomic_type_is_a_type() {
        for name in extensions::ATOMIC_TYPES {
            let definition = definitions().get(&format!("io.k8s.{name}"));
            let marked = definition.and_then(|map| map["x-kubernetes-map-type"].as_str());
            assert_eq!(marked, Some("atomic"), "{name}");
        }
    }

    #[test]
    fn a_service_ports_merge_key_is_port_alone() {
        let ports = property(
            property(of_kind(&kinds::service::KIND).unwrap(), "spec").unwrap(),
            "ports",
        )
        .unwrap();
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
        assert_eq!(
            ports["x-kubernetes-list-map-keys"],
            json!(["port", "protocol"])
        );
        assert_eq!(
            shape(property(items(ports).unwrap(), "targetPort").unwrap()),
            Shape::IntOrText
        );
    }
}
