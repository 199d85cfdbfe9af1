use super::*;
use crate::kinds::custom_resource_definition::KIND;
use crate::value::set;
use serde_json::json;

fn definition() -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}],
        },
    })
}

fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut object = definition();
    change(&mut object);
    KIND.default(&mut object);
    KIND.prepare_create(&mut object);
    KIND.validate_create(&object)
        .iter()
        .map(Cause::to_string)
        .collect()
}

fn of_spec(schema: Value) -> Vec<String> {
    faults(|object| {
        object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = schema;
    })
}

const SPEC: &str = "spec.validation.openAPIV3Schema.properties[spec]";

#[test]
fn a_good_definition_has_no_faults() {
    assert_eq!(faults(|_| {}), Vec::<String>::new());
}

#[test]
fn names_group_and_scope() {
    let cases: [(&str, Value, &str); 10] = [
        (
            "metadata.name",
            json!("a.b.c"),
            "metadata.name: Invalid value: \"a.b.c\": must be spec.names.plural+\".\"+spec.group",
        ),
        ("spec.scope", json!(""), "spec.scope: Required value"),
        (
            "spec.scope",
            json!("World"),
            "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            "spec.names.kind",
            json!("Cron_Tab"),
            "spec.names.singular: Invalid value: \"cron_tab\": a DNS-1035 label",
        ),
        (
            "spec.names",
            json!({"plural": "crontabs", "singular": "c", "listKind": "L", "kind": "Cron Tab"}),
            "spec.names.kind: Invalid value: \"Cron Tab\": may have mixed case, but should otherwise match: a DNS-1035 label",
        ),
        (
            "spec.names.listKind",
            json!("CronTab"),
            "spec.names.listKind: Invalid value: \"CronTab\": kind and listKind may not be the same",
        ),
        (
            "spec.names.shortNames",
            json!(["Ct"]),
            "spec.names.shortNames[0]: Invalid value: \"Ct\": a DNS-1035 label",
        ),
        (
            "spec.names.categories",
            json!(["All"]),
            "spec.names.categories[0]: Invalid value: \"All\": a DNS-1035 label",
        ),
        (
            "spec.preserveUnknownFields",
            json!(true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
        ),
        (
            "spec.conversion",
            json!({"strategy": "Magic"}),
            "spec.conversion.strategy: Unsupported value: \"Magic\": supported values: \"None\", \"Webhook\"",
        ),
    ];
    for (path, value, text) in cases {
        let found = faults(|object| set(object, path, value));
        assert!(found[0].starts_with(text), "{found:?}");
    }
    let found = faults(|object| {
        set(object, "spec.group", "example");
        set(object, "metadata.name", "crontabs.example");
    });
    assert_eq!(
        found,
        ["spec.group: Invalid value: \"example\": should be a domain with at least one dot"]
    );
    let found = faults(|object| {
        set(object, "spec.group", "x.k8s.io");
        set(object, "metadata.name", "crontabs.x.k8s.io");
    });
    assert!(
        found[0].starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value"),
        "{found:?}"
    );
}

#[test]
fn exactly_one_version_is_stored() {
    let found = faults(|object| object["spec"]["versions"][0]["storage"] = json!(false));
    assert!(
        found[0].ends_with("must have exactly one version marked as storage version"),
        "{found:?}"
    );
    let found = faults(|object| {
        let version = object["spec"]["versions"][0].clone();
        object["spec"]["versions"] = json!([version, version]);
    });
    assert!(
        found[0].ends_with("must contain unique version names"),
        "{found:?}"
    );
    let found = faults(|object| object["spec"]["versions"][0]["name"] = json!("1v"));
    assert!(
        found[0].starts_with("spec.versions[0].name: Invalid value: \"1v\""),
        "{found:?}"
    );
    let found = faults(|object| drop(object["spec"]["versions"][0]["schema"].take()));
    assert_eq!(
        found,
        ["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"]
    );
    let found = faults(|object| object["spec"]["versions"][0]["deprecationWarning"] = json!("old"));
    assert!(
        found[0].ends_with("can only be set for deprecated versions"),
        "{found:?}"
    );
}

#[test]
fn schemas_are_structural() {
    let cases = [
        (
            json!({}),
            format!("{SPEC}.type: Required value: must not be empty for specified object fields"),
        ),
        (
            json!({"type": "array"}),
            format!("{SPEC}.items: Required value: must be specified"),
        ),
        (
            json!({"type": "array", "items": {}}),
            format!(
                "{SPEC}.items.type: Required value: must not be empty for specified array items"
            ),
        ),
        (
            json!({"type": "object", "anyOf": [{"type": "object"}]}),
            format!("{SPEC}.anyOf[0].type: Forbidden: must be empty to be structural"),
        ),
        (
            json!({"type": "object", "not": {"properties": {"a": {"minimum": 1}}}}),
            format!(
                "{SPEC}.properties[a]: Required value: because it is defined in {SPEC}.not.properties[a]"
            ),
        ),
        (
            json!({"type": "object", "allOf": [{"description": "x"}]}),
            format!("{SPEC}.allOf[0].description: Forbidden: must be empty to be structural"),
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            format!(
                "{SPEC}.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"
            ),
        ),
        (
            json!({"type": "string", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            format!(
                "{SPEC}.type: Invalid value: \"string\": must be object if x-kubernetes-embedded-resource is true"
            ),
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            format!(
                "{SPEC}.x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true"
            ),
        ),
    ];
    for (schema, text) in cases {
        assert_eq!(of_spec(schema), [text]);
    }
    let fine = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    assert!(of_spec(fine).is_empty());
    let found = faults(|object| {
        object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["metadata"] =
            json!({"type": "object", "properties": {"labels": {"type": "object"}}});
    });
    assert_eq!(
        found,
        [
            "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ]
    );
}

#[test]
fn what_openapi_has_and_kubernetes_has_not() {
    let cases = [
        (
            json!({"type": "object", "$ref": "#/x"}),
            format!("{SPEC}.$ref: Forbidden: $ref is not supported"),
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            format!(
                "{SPEC}.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            format!(
                "{SPEC}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
            ),
        ),
        (
            json!({"type": "thing"}),
            format!(
                "{SPEC}.type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
            ),
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            format!(
                "{SPEC}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
            ),
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}),
            format!(
                "{SPEC}.x-kubernetes-list-map-keys[0]: Invalid value: \"a\": entries must all be names of item properties"
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            format!(
                "{SPEC}.properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\""
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}}}}),
            format!(
                "{SPEC}.properties[a].default: Invalid value: {{\"x\":1}}: must not have unknown fields"
            ),
        ),
    ];
    for (schema, text) in cases {
        assert_eq!(of_spec(schema), [text]);
    }
    let found = of_spec(json!({"type": "string", "pattern": "a("}));
    assert!(
        found[0].contains("must be a valid regular expression, but isn't"),
        "{found:?}"
    );
}

#[test]
fn columns_scale_and_selectable_fields() {
    let with =
        |part: &str, value: Value| faults(|object| object["spec"]["versions"][0][part] = value);
    let cases = [
        (
            "additionalPrinterColumns",
            json!([{"type": "string", "jsonPath": ".spec.a"}]),
            "spec.additionalPrinterColumns[0].name: Required value",
        ),
        (
            "additionalPrinterColumns",
            json!([{"name": "a", "type": "text", "jsonPath": ".spec.a"}]),
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
        ),
        (
            "additionalPrinterColumns",
            json!([{"name": "a", "type": "string", "jsonPath": "spec"}]),
            "spec.additionalPrinterColumns[0].jsonPath: Invalid value: \"spec\": must be a simple json path starting with .",
        ),
        (
            "subresources",
            json!({"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.n"}}),
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
        ),
        (
            "subresources",
            json!({"scale": {"specReplicasPath": ".spec.n"}}),
            "spec.subresources.scale.statusReplicasPath: Required value",
        ),
        (
            "selectableFields",
            json!([{"jsonPath": ".spec.none"}]),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
        ),
        (
            "selectableFields",
            json!([{"jsonPath": ".metadata.name"}]),
            "spec.selectableFields[0].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata",
        ),
    ];
    for (part, value, text) in cases {
        assert_eq!(with(part, value), [text]);
    }
    assert!(with("selectableFields", json!([{"jsonPath": ".spec.size"}])).is_empty());
}

#[test]
fn what_is_served_keeps_its_identity() {
    let mut old = definition();
    KIND.default(&mut old);
    KIND.prepare_create(&mut old);
    set(&mut old, "metadata.resourceVersion", "1");
    old = custom::names::decide(&old, &[], "t");
    let changed = |path: &str, value: Value| -> Vec<String> {
        let mut new = old.clone();
        set(&mut new, path, value);
        KIND.prepare_update(&mut new, &old);
        KIND.validate_update(&new, &old)
            .iter()
            .map(Cause::to_string)
            .collect()
    };
    assert_eq!(
        changed("spec.scope", json!("Cluster")),
        ["spec.scope: Invalid value: \"Cluster\": field is immutable"]
    );
    assert_eq!(
        changed("spec.names.kind", json!("Tab")),
        ["spec.names.kind: Invalid value: \"Tab\": field is immutable"]
    );
    let mut versions = old["spec"]["versions"].clone();
    versions[0]["name"] = json!("v2");
    let found = changed("spec.versions", versions);
    assert!(found[0].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version"), "{found:?}");
}
