//! Rules for labels and label selectors.

use super::{invalid, names};
use crate::cause::Cause;
use crate::value::{at, list_at, str_at};
use serde_json::Value;

/// What is wrong with a map of labels.
pub fn labels(path: &str, map: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in map.as_object().into_iter().flatten() {
        causes.extend(label_name(path, key));
        causes.extend(invalid(
            path,
            value,
            names::label_value(value.as_str().unwrap_or("")),
        ));
    }
    causes
}

/// What is wrong with a label's key.
pub fn label_name(path: &str, key: &str) -> Vec<Cause> {
    invalid(path, &key.into(), names::qualified_name(key))
}

/// What is wrong with a LabelSelector object.
pub fn selector(path: &str, selector: &Value) -> Vec<Cause> {
    let mut causes = labels(&format!("{path}.matchLabels"), at(selector, "matchLabels"));
    for (index, expression) in list_at(selector, "matchExpressions").iter().enumerate() {
        causes.extend(requirement(
            &format!("{path}.matchExpressions[{index}]"),
            expression,
        ));
    }
    causes
}

fn requirement(path: &str, expression: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let values = list_at(expression, "values");
    let operator = at(expression, "operator");
    match operator.as_str().unwrap_or("") {
        "In" | "NotIn" => {
            if values.is_empty() {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{path}.values"), message));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{path}.values"), message));
            }
        }
        other => {
            let message = "not a valid selector operator";
            causes.push(Cause::invalid(
                format!("{path}.operator"),
                &other.into(),
                message,
            ));
        }
    }
    causes.extend(label_name(
        &format!("{path}.key"),
        str_at(expression, "key"),
    ));
    for (index, value) in values.iter().enumerate() {
        let messages = names::label_value(value.as_str().unwrap_or(""));
        causes.extend(invalid(&format!("{path}.values[{index}]"), value, messages));
    }
    causes
}
