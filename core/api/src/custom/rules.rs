//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! Which rule holds for which value, and what is said when it does not hold,
//! is decided here. Evaluating an expression is left to an [`Engine`] that the
//! server brings: the libraries for it reach further than this crate may.

use super::schema::{self, Place, join};
use crate::cause::{Cause, CauseReason};
use crate::value::{bool_at, list_at, str_at};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Compiles expressions.
pub trait Engine: Send + Sync {
    /// A program, or why the text is none.
    fn compile(&self, text: &str) -> Result<Box<dyn Program>, String>;
}

/// A compiled expression.
pub trait Program: Send + Sync {
    /// Whether it mentions `oldSelf`.
    fn is_transition(&self) -> bool;
    /// Its value.
    fn run(&self, input: &Input<'_>) -> Result<Output, String>;
}

/// What an expression is evaluated over.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The value, `self`.
    pub value: &'a Value,
    /// What it was before, `oldSelf`.
    pub old: Option<&'a Value>,
    /// Whether `oldSelf` is an optional.
    pub optional_old: bool,
    /// The schema of both, by which numbers get their types.
    pub schema: &'a Value,
}

/// What an expression gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A truth.
    Bool(bool),
    /// A text.
    Text(String),
}

/// The compiled rules of a schema, by their text.
#[derive(Default)]
pub(super) struct Rules(BTreeMap<String, Box<dyn Program>>);

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

const RULES: &str = "x-kubernetes-validations";

impl Rules {
    /// Compiles every rule of a schema. Those that are none are left out, which
    /// is said when the definition is written.
    pub(super) fn new(schema: &Value, engine: &dyn Engine) -> Self {
        let mut rules = Self::default();
        each(schema, "", &mut |rule, _| {
            for field in ["rule", "messageExpression"] {
                let text = str_at(rule, field);
                if !text.is_empty()
                    && !rules.0.contains_key(text)
                    && let Ok(program) = engine.compile(text)
                {
                    rules.0.insert(text.to_owned(), program);
                }
            }
        });
        rules
    }

    /// What the rules say about a value. `before` are the causes that the
    /// schema gave: after some of them rules are not asked.
    pub(super) fn check(
        &self,
        schema: &Value,
        value: &Value,
        old: Option<&Value>,
        before: &[Cause],
    ) -> Vec<Cause> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let blocked = before.iter().any(|cause| {
            matches!(
                cause.reason,
                CauseReason::NotSupported
                    | CauseReason::Required
                    | CauseReason::TooLong
                    | CauseReason::TooMany
                    | CauseReason::TypeInvalid
            )
        });
        if blocked {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            return vec![Cause::invalid("<nil>", &Value::Null, detail)];
        }
        let mut causes = Vec::new();
        self.walk(schema, value, old, "", &mut causes);
        causes
    }

    fn walk(
        &self,
        schema: &Value,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        causes: &mut Vec<Cause>,
    ) {
        // As with the schema: what has not changed is not judged again.
        if value.is_null() || old == Some(value) {
            return;
        }
        for rule in list_at(schema, RULES) {
            let input = Input {
                value,
                old,
                optional_old: bool_at(rule, "optionalOldSelf"),
                schema,
            };
            causes.extend(self.fault(rule, &input, path));
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Place::Known(schema) = schema::below(schema, key) {
                        let old = old.and_then(|old| old.get(key));
                        self.walk(schema, value, old, &join(path, key), causes);
                    }
                }
            }
            Value::Array(list) => {
                for (index, item) in list.iter().enumerate() {
                    if let Some(items) = schema.get("items") {
                        let old = super::check::correlated(schema, old, index, item);
                        self.walk(items, item, old, &format!("{path}[{index}]"), causes);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fault(&self, rule: &Value, input: &Input<'_>, path: &str) -> Option<Cause> {
        let text = str_at(rule, "rule");
        let program = self.0.get(text)?;
        if program.is_transition() && input.old.is_none() && !input.optional_old {
            return None;
        }
        let message = match str_at(rule, "message") {
            "" => format!("failed rule: {}", text.trim()),
            message => message.trim().to_owned(),
        };
        let detail = match program.run(input) {
            Ok(Output::Bool(true)) => return None,
            Ok(Output::Bool(false)) => self.said(rule, input).unwrap_or(message),
            Ok(Output::Text(_)) => "cel evaluation did not give a bool".to_owned(),
            Err(error) => format!("{error} evaluating rule: {}", text.trim()),
        };
        let place = match str_at(rule, "fieldPath") {
            "" => path.to_owned(),
            below => format!("{path}{below}"),
        };
        let place = place.strip_prefix('.').unwrap_or(&place);
        let place = if place.is_empty() { "<nil>" } else { place };
        let shown = Value::from(str_at(input.schema, "type"));
        Some(match str_at(rule, "reason") {
            "FieldValueRequired" => Cause::required(place, &detail),
            "FieldValueForbidden" => Cause::forbidden(place, &detail),
            "FieldValueDuplicate" => Cause::duplicate(place, &shown),
            _ => Cause::invalid(place, &shown, &detail),
        })
    }

    /// The message that the rule computes, if it can be used.
    fn said(&self, rule: &Value, input: &Input<'_>) -> Option<String> {
        let program = self.0.get(str_at(rule, "messageExpression"))?;
        match program.run(input) {
            Ok(Output::Text(text)) if !text.trim().is_empty() && !text.contains('\n') => Some(text),
            Ok(Output::Text(_) | Output::Bool(_)) | Err(_) => None,
        }
    }
}

/// Calls `found` with each rule of a schema and its path.
fn each(schema: &Value, path: &str, found: &mut dyn FnMut(&Value, &str)) {
    for (index, rule) in list_at(schema, RULES).iter().enumerate() {
        found(rule, &format!("{path}.{RULES}[{index}]"));
    }
    for (name, property) in schema::properties(schema) {
        each(property, &format!("{path}.properties[{name}]"), found);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key).filter(|below| below.is_object()) {
            each(below, &format!("{path}.{key}"), found);
        }
    }
}

/// What is wrong with the rules of a schema: they do not compile, or say
/// nothing.
pub(super) fn faults(schema: &Value, path: &str, engine: &dyn Engine) -> Vec<Cause> {
    let mut causes = Vec::new();
    each(schema, path, &mut |rule, path| {
        let text = str_at(rule, "rule");
        if text.trim().is_empty() {
            causes.push(Cause::required(
                format!("{path}.rule"),
                "rule is not specified",
            ));
        }
        for field in ["rule", "messageExpression"] {
            let text = str_at(rule, field);
            if !text.trim().is_empty()
                && let Err(error) = engine.compile(text)
            {
                causes.push(Cause::invalid(
                    format!("{path}.{field}"),
                    &text.into(),
                    &format!("compilation failed: {error}"),
                ));
            }
        }
        let message = str_at(rule, "message");
        if message.trim().contains('\n') {
            let detail = "message must not contain line breaks";
            causes.push(Cause::invalid(
                format!("{path}.message"),
                &message.into(),
                detail,
            ));
        } else if text.trim().contains('\n') && message.is_empty() {
            causes.push(Cause::required(
                format!("{path}.message"),
                "message must be specified if rule contains line breaks",
            ));
        }
    });
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `self > N`, `self > oldSelf`, a text in quotes; anything else is no rule.
    struct Words;

    struct Word(String);

    impl Engine for Words {
        fn compile(&self, text: &str) -> Result<Box<dyn Program>, String> {
            match text.starts_with("self > ") || text.starts_with('\'') {
                true => Ok(Box::new(Word(text.to_owned()))),
                false => Err("syntax error".to_owned()),
            }
        }
    }

    impl Program for Word {
        fn is_transition(&self) -> bool {
            self.0.contains("oldSelf")
        }

        fn run(&self, input: &Input<'_>) -> Result<Output, String> {
            if let Some(text) = self.0.strip_prefix('\'') {
                return Ok(Output::Text(text.to_owned()));
            }
            let bound = match self.0.trim_start_matches("self > ") {
                "oldSelf" => input.old.and_then(Value::as_i64),
                number => number.parse().ok(),
            };
            let bound = bound.ok_or_else(|| "no such key: oldSelf".to_owned())?;
            Ok(Output::Bool(input.value.as_i64() > Some(bound)))
        }
    }

    fn check(schema: &Value, value: Value, old: Option<Value>) -> Vec<String> {
        let rules = Rules::new(schema, &Words);
        let causes = rules.check(schema, &value, old.as_ref(), &[]);
        causes.iter().map(Cause::to_string).collect()
    }

    fn number(rule: Value) -> Value {
        json!({"type": "integer", RULES: [rule]})
    }

    #[test]
    fn rules_are_asked_wherever_they_stand() {
        let schema = json!({"type": "object", "properties": {
            "one": number(json!({"rule": "self > 1", "message": "more than one"})),
            "list": {"type": "array", "items": number(json!({"rule": "self > 2", "reason": "FieldValueForbidden"}))},
            "map": {"type": "object", "additionalProperties": number(json!({"rule": "self > 3", "messageExpression": "'computed"}))},
            "broken": number(json!({"rule": "self !"})),
        }});
        let value = json!({"one": 1, "list": [3, 2], "map": {"k": 3}, "broken": 0});
        assert_eq!(
            check(&schema, value, None),
            [
                "list[1]: Forbidden: failed rule: self > 2",
                "map.k: Invalid value: \"integer\": computed",
                "one: Invalid value: \"integer\": more than one",
            ]
        );
    }

    #[test]
    fn transitions_need_an_old_value_and_a_change() {
        let schema = json!({"type": "object", "properties": {"n": number(json!({"rule": "self > oldSelf"}))}});
        assert!(check(&schema, json!({"n": 1}), None).is_empty());
        assert!(check(&schema, json!({"n": 1}), Some(json!({"n": 1}))).is_empty());
        assert!(check(&schema, json!({"n": 2}), Some(json!({"n": 1}))).is_empty());
        assert_eq!(
            check(&schema, json!({"n": 1}), Some(json!({"n": 2}))),
            ["n: Invalid value: \"integer\": failed rule: self > oldSelf"]
        );
    }

    #[test]
    fn rules_that_do_not_compile_are_told() {
        let schema = json!({"type": "object", "properties": {"n": number(json!({"rule": "self !"})), "m": number(json!({"rule": ""}))}});
        let texts: Vec<String> = faults(&schema, "schema", &Words)
            .iter()
            .map(Cause::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "schema.properties[m].x-kubernetes-validations[0].rule: Required value: rule is not specified",
                "schema.properties[n].x-kubernetes-validations[0].rule: Invalid value: \"self !\": compilation failed: syntax error",
            ]
        );
    }
}
