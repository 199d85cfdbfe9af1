use super::*;
use serde_json::json;

fn faults(schema: Value, value: Value) -> Vec<String> {
    faults_of_update(schema, value, None)
}

fn faults_of_update(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
    let whole = json!({"type": "object", "properties": {"spec": schema}});
    let mut compiled = Patterns::new();
    patterns(&whole, &mut compiled);
    let old = old.map(|old| json!({"spec": old}));
    check(&compiled, &whole, &json!({"spec": value}), old.as_ref())
        .iter()
        .map(Cause::to_string)
        .collect()
}

#[test]
fn types_and_texts_have_the_texts_of_kubernetes() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("x"),
            "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "spec: Invalid value: \"number\": spec in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "string"}),
            json!(null),
            "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "spec: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "spec: Invalid value: \"b\": spec in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            "spec: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            "spec: Invalid value: \"a\": spec in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("a"),
            "spec: Invalid value: \"a\": spec in body must be of type ipv4: \"a\"",
        ),
    ];
    for (schema, value, text) in cases {
        assert_eq!(faults(schema.clone(), value), [text], "{schema}");
    }
}

#[test]
fn numbers_have_the_texts_of_kubernetes() {
    let cases = [
        (
            json!({"type": "integer", "maximum": 10}),
            json!(11),
            "spec: Invalid value: 11: spec in body should be less than or equal to 10",
        ),
        (
            json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true}),
            json!(10),
            "spec: Invalid value: 10: spec in body should be less than 10",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            "spec: Invalid value: 0.7: spec in body should be a multiple of 0.5",
        ),
    ];
    for (schema, value, text) in cases {
        assert_eq!(faults(schema.clone(), value), [text], "{schema}");
    }
}

#[test]
fn lists_and_objects_have_the_texts_of_kubernetes() {
    let cases = [
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
            json!(["a", "b"]),
            "spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
            json!([]),
            "spec: Invalid value: 0: spec in body should have at least 1 items",
        ),
        (
            json!({"type": "object", "maxProperties": 0}),
            json!({"a": 1}),
            "spec: Too many: 1: must have at most 0 items",
        ),
        (
            json!({"type": "object", "required": ["a"]}),
            json!({}),
            "spec.a: Required value",
        ),
        (
            json!({"type": "array", "items": {"type": "object", "required": ["a"]}}),
            json!([{}]),
            "spec[0].a: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": "v"}),
            "spec.k: Invalid value: \"string\": spec.k in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "not": {"required": ["a"]}}),
            json!({"a": 1}),
            "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)",
        ),
    ];
    for (schema, value, text) in cases {
        assert_eq!(faults(schema.clone(), value), [text], "{schema}");
    }
}

#[test]
fn what_fits_has_no_faults() {
    let cases = [
        (json!({"type": "number"}), json!(1)),
        (json!({"type": "integer"}), json!(2.0)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("5%")),
        (json!({"x-kubernetes-int-or-string": true}), json!(5)),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"a": [1]}),
        ),
        (json!({"type": "integer", "enum": [1, 2]}), json!(2)),
    ];
    for (schema, value) in cases {
        assert_eq!(
            faults(schema.clone(), value),
            Vec::<String>::new(),
            "{schema}"
        );
    }
}

#[test]
fn alternatives_tell_the_nearest_failure() {
    let one_of = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_eq!(
        faults(one_of.clone(), json!({})),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            "spec.a: Required value"
        ]
    );
    assert_eq!(
        faults(one_of.clone(), json!({"a": 1, "b": 2})),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    assert!(faults(one_of, json!({"a": 1})).is_empty());
    let any_of = json!({"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^x"}]});
    assert_eq!(
        faults(any_of.clone(), json!("a"))
            .first()
            .map(String::as_str),
        Some("<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)")
    );
    assert!(faults(any_of, json!("x")).is_empty());
    let all_of = json!({"type": "string", "allOf": [{"minLength": 1}, {"pattern": "^x"}]});
    assert_eq!(
        faults(all_of, json!("a")),
        [
            "spec: Invalid value: \"a\": spec in body should match '^x'",
            "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)"
        ]
    );
}

#[test]
fn what_an_update_leaves_alone_is_not_judged_again() {
    let schema = json!({"type": "object", "properties": {"old": {"type": "string", "maxLength": 1}, "new": {"type": "string", "maxLength": 1}}});
    let before = json!({"old": "long", "new": "a"});
    let after = json!({"old": "long", "new": "b"});
    assert!(faults_of_update(schema.clone(), after, Some(before.clone())).is_empty());
    let after = json!({"old": "longer", "new": "b"});
    assert_eq!(faults_of_update(schema, after, Some(before)).len(), 1);
}

#[test]
fn sets_and_maps_hold_each_item_once() {
    let mut causes = Vec::new();
    let set = json!({"x-kubernetes-list-type": "set", "items": {"type": "string"}});
    duplicates(&json!(["a", "b", "a"]), &set, "spec.tags", &mut causes);
    let map = json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"], "items": {"type": "object"}});
    duplicates(
        &json!([{"port": 1, "x": 1}, {"port": 1}]),
        &map,
        "spec.ports",
        &mut causes,
    );
    let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
    assert_eq!(
        texts,
        [
            "spec.tags[2]: Duplicate value: \"a\"",
            "spec.ports[1]: Duplicate value: {\"port\":1}"
        ]
    );
}

#[test]
fn objects_inside_objects_say_what_they_are() {
    let mut causes = Vec::new();
    let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true});
    embedded(
        &json!({"kind": "Pod"}),
        &schema,
        "spec.template",
        &mut causes,
    );
    let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
    assert_eq!(
        texts,
        ["spec.template.apiVersion: Required value: must not be empty"]
    );
}
