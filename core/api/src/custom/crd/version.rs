//! What is wrong with the versions of a definition: schema, subresources,
//! printer columns, selectable fields.

use super::{columns, invariants, structural};
use crate::cause::Cause;
use crate::custom::rules::{self, Engine};
use crate::value::{at, list_at, str_at};
use serde_json::Value;

/// What is wrong with the versions beyond their names.
pub(super) fn validate(versions: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    each(versions, "schema", "validation", |version, path| {
        let schema = at(version, "schema.openAPIV3Schema");
        if schema.is_object() {
            let path = format!("{path}.openAPIV3Schema");
            let status = at(version, "subresources.status").is_object();
            causes.extend(root(schema, &path, status));
            causes.extend(invariants::validate(schema, &path));
            causes.extend(structural::validate(schema, &path));
        }
    });
    each(versions, "subresources", "subresources", |version, path| {
        causes.extend(scale(at(version, "subresources.scale"), path));
    });
    each(
        versions,
        "additionalPrinterColumns",
        "additionalPrinterColumns",
        |version, path| {
            for (index, column) in list_at(version, "additionalPrinterColumns")
                .iter()
                .enumerate()
            {
                causes.extend(columns::validate(column, &format!("{path}[{index}]")));
            }
        },
    );
    each(
        versions,
        "selectableFields",
        "selectableFields",
        |version, path| {
            causes.extend(columns::selectable(version, path));
        },
    );
    causes
}

/// What is wrong with the rules in the schemas.
pub(super) fn rule_faults(versions: &[Value], engine: &dyn Engine) -> Vec<Cause> {
    let mut causes = Vec::new();
    each(versions, "schema", "validation", |version, path| {
        let schema = at(version, "schema.openAPIV3Schema");
        causes.extend(rules::faults(
            schema,
            &format!("{path}.openAPIV3Schema"),
            engine,
        ));
    });
    causes
}

/// Calls `check` for each version with the path of a part of it, or once with
/// the path at the top where all versions have the same.
fn each(versions: &[Value], part: &str, top: &str, mut check: impl FnMut(&Value, &str)) {
    let Some(first) = versions.first() else {
        return;
    };
    if versions
        .iter()
        .all(|version| at(version, part) == at(first, part))
    {
        check(first, &format!("spec.{top}"));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        check(version, &format!("spec.versions[{index}].{part}"));
    }
}

/// With a status subresource the root of the schema is split; only what
/// survives that may stand there.
fn root(schema: &Value, path: &str, status: bool) -> Option<Cause> {
    const ALLOWED: &[&str] = &[
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    let map = schema.as_object().filter(|_| status)?;
    let odd = map.keys().any(|key| !ALLOWED.contains(&key.as_str()));
    odd.then(|| {
        let detail = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled";
        Cause::invalid(path, schema, detail)
    })
}

fn scale(scale: &Value, path: &str) -> Vec<Cause> {
    if !scale.is_object() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    for (field, root, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", ".status.", false),
    ] {
        let value = str_at(scale, field);
        let place = format!("{path}.scale.{field}");
        let roots: &[&str] = match required {
            true => &[root],
            false => &[".status.", ".spec."],
        };
        if value.is_empty() {
            causes.extend(required.then(|| Cause::required(place, "")));
        } else if let Some(fault) = columns::simple_path(value) {
            causes.push(Cause::invalid(place, &value.into(), fault));
        } else if !roots.iter().any(|root| value.starts_with(root)) {
            let detail = match required {
                true => format!("should be a json path under {}", root.trim_end_matches('.')),
                false => "should be a json path under either .status or .spec".to_owned(),
            };
            causes.push(Cause::invalid(place, &value.into(), &detail));
        }
    }
    causes
}
