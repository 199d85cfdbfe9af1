//! What is wrong with a CustomResourceDefinition.
//!
//! Paths are those of Kubernetes, which validates its internal form: what is
//! the same in all versions stands at the top there (`spec.validation`,
//! `spec.subresources`, `spec.additionalPrinterColumns`).

mod columns;
mod invariants;
mod structural;
mod version;

use crate::cause::Cause;
use crate::custom::rules::Engine;
use crate::validate::{immutable, names};
use crate::value::{at, bool_at, list_at, str_at, strings_at};
use crate::{custom, meta};
use serde_json::Value;
use std::collections::BTreeSet;

/// What is wrong with a definition; with the old one on update.
pub(crate) fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old.is_none() {
        let wanted = format!(
            "{}.{}",
            str_at(object, "spec.names.plural"),
            str_at(object, "spec.group")
        );
        if meta::name(object) != wanted {
            causes.push(Cause::invalid(
                "metadata.name",
                &meta::name(object).into(),
                "must be spec.names.plural+\".\"+spec.group",
            ));
        }
    }
    causes.extend(group_and_scope(object));
    causes.extend(approval(object));
    causes.extend(versions(object));
    causes.extend(required_names(object));
    causes.extend(accepted(at(object, "spec.names"), "spec.names"));
    causes.extend(conversion(object));
    causes.extend(validate_names_of_status(object));
    if let Some(old) = old {
        causes.extend(update(object, old));
    }
    causes
}

/// What is wrong with the rules in the schemas of a definition.
pub fn rule_faults(object: &Value, engine: &dyn Engine) -> Vec<Cause> {
    version::rule_faults(list_at(object, "spec.versions"), engine)
}

/// What is wrong with the status of a definition.
pub(crate) fn validate_status(object: &Value, _old: &Value) -> Vec<Cause> {
    validate_names_of_status(object)
}

fn validate_names_of_status(object: &Value) -> Vec<Cause> {
    accepted(at(object, "status.acceptedNames"), "status.acceptedNames")
}

fn joined(path: &str, value: &str, messages: &[String]) -> Option<Cause> {
    (!messages.is_empty()).then(|| Cause::invalid(path, &value.into(), &messages.join(",")))
}

fn group_and_scope(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let group = str_at(object, "spec.group");
    let messages = names::dns1123_subdomain(group);
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !messages.is_empty() {
        causes.extend(joined("spec.group", group, &messages));
    } else if !group.contains('.') {
        causes.push(Cause::invalid(
            "spec.group",
            &group.into(),
            "should be a domain with at least one dot",
        ));
    }
    match str_at(object, "spec.scope") {
        "" => causes.push(Cause::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => causes.push(Cause::not_supported(
            "spec.scope",
            &other.into(),
            &["Cluster", "Namespaced"],
        )),
    }
    if bool_at(object, "spec.preserveUnknownFields") {
        causes.push(Cause::invalid(
            "spec.preserveUnknownFields",
            &true.into(),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    causes
}

/// Groups of the Kubernetes project need its approval (KEP-1111).
fn approval(object: &Value) -> Option<Cause> {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let group = str_at(object, "spec.group");
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    let said = meta::annotation(object, ANNOTATION).unwrap_or_default();
    (protected && said.is_empty()).then(|| {
        Cause::required(
            format!("metadata.annotations[{ANNOTATION}]"),
            &format!("protected groups must have approval annotation {ANNOTATION:?}, see https://github.com/kubernetes/enhancements/pull/1111"),
        )
    })
}

fn versions(object: &Value) -> Vec<Cause> {
    let versions = list_at(object, "spec.versions");
    let mut causes = Vec::new();
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = str_at(version, "name");
        unique &= seen.insert(name);
        causes.extend(joined(
            &format!("{path}.name"),
            name,
            &names::dns1035_label(name),
        ));
        let warning = str_at(version, "deprecationWarning");
        if !warning.is_empty() && !bool_at(version, "deprecated") {
            causes.push(Cause::invalid(
                format!("{path}.deprecationWarning"),
                &warning.into(),
                "can only be set for deprecated versions",
            ));
        }
        if bool_at(version, "served") && !at(version, "schema.openAPIV3Schema").is_object() {
            causes.push(Cause::required(
                format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            ));
        }
    }
    let whole = at(object, "spec.versions");
    if !unique {
        let detail = "must contain unique version names";
        causes.push(Cause::invalid("spec.versions", whole, detail));
    }
    let stored = versions
        .iter()
        .filter(|one| bool_at(one, "storage"))
        .count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", whole, detail));
    }
    causes.extend(version::validate(versions));
    causes
}

fn required_names(object: &Value) -> Vec<Cause> {
    ["plural", "singular", "kind", "listKind"]
        .iter()
        .map(|field| format!("spec.names.{field}"))
        .filter(|path| str_at(object, path).is_empty())
        .map(|path| Cause::required(path, ""))
        .collect()
}

/// The form of names, as wanted or as accepted.
fn accepted(names: &Value, path: &str) -> Vec<Cause> {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    let mut causes = Vec::new();
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = str_at(names, field);
        if name.is_empty() {
            continue;
        }
        let path = format!("{path}.{field}");
        if matches!(field, "plural" | "singular") {
            causes.extend(joined(&path, name, &names::dns1035_label(name)));
            continue;
        }
        let messages = names::dns1035_label(&name.to_lowercase());
        if !messages.is_empty() {
            let detail = format!("{MIXED}{}", messages.join(","));
            causes.push(Cause::invalid(path, &name.into(), &detail));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in strings_at(names, field).into_iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            causes.extend(joined(&path, name, &names::dns1035_label(name)));
        }
    }
    let list_kind = str_at(names, "listKind");
    if !list_kind.is_empty() && list_kind == str_at(names, "kind") {
        causes.push(Cause::invalid(
            format!("{path}.listKind"),
            &list_kind.into(),
            "kind and listKind may not be the same",
        ));
    }
    causes
}

fn conversion(object: &Value) -> Vec<Cause> {
    let path = "spec.conversion";
    let strategy = str_at(object, "spec.conversion.strategy");
    let webhook = at(object, "spec.conversion.webhook");
    match strategy {
        "Webhook" if webhook.is_null() => vec![Cause::required(
            format!("{path}.webhookClientConfig"),
            "required when strategy is set to Webhook",
        )],
        "Webhook" if strings_at(webhook, "conversionReviewVersions").is_empty() => {
            vec![Cause::required(
                format!("{path}.conversionReviewVersions"),
                "",
            )]
        }
        "Webhook" => Vec::new(),
        "None" if webhook.is_null() => Vec::new(),
        "None" => vec![Cause::forbidden(
            format!("{path}.webhookClientConfig"),
            "should not be set when strategy is not set to Webhook",
        )],
        "" => vec![Cause::required(format!("{path}.strategy"), "")],
        other => vec![Cause::not_supported(
            format!("{path}.strategy"),
            &other.into(),
            &["None", "Webhook"],
        )],
    }
}

fn update(object: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let same = |path: &str| immutable(path, at(object, path), at(old, path));
    if custom::names::is_true(old, "Established") {
        causes.extend(same("spec.scope"));
        causes.extend(same("spec.names.kind"));
    }
    causes.extend(same("spec.group"));
    causes.extend(same("spec.names.plural"));
    let names: BTreeSet<&str> = list_at(object, "spec.versions")
        .iter()
        .map(|version| str_at(version, "name"))
        .collect();
    for (index, version) in strings_at(object, "status.storedVersions")
        .iter()
        .enumerate()
    {
        if !names.contains(version) {
            causes.push(Cause::invalid(
                format!("status.storedVersions[{index}]"),
                &(*version).into(),
                &format!("missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"),
            ));
        }
    }
    causes
}

#[cfg(test)]
mod tests;
