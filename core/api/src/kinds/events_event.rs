//! Event of events.k8s.io/v1: the events of core/v1 under newer names.
//!
//! One collection holds both: what is written in one form is read in the
//! other.

use super::{BASE, Kind, StoredAs, event, schema_of};
use crate::cause::Cause;
use crate::meta;
use crate::value::{at, str_at};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "events.k8s.io",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    definition: "io.k8s.api.events.v1.Event",
    schema: schema_of::<k8s_openapi::api::events::v1::Event>,
    columns: event::KIND.columns,
    row: |object, now| (event::KIND.row)(&to_core(object.clone()), now),
    validate,
    fields,
    create_on_update: true,
    stored_as: Some(&STORED),
    ..BASE
};

static STORED: StoredAs = StoredAs {
    kind: &event::KIND,
    read: from_core,
    write: to_core,
};

/// Fields with their names in core/v1 and here.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The longest text of a note.
const MAX_NOTE_BYTES: usize = 1024;
const MAX_NAME_BYTES: usize = 128;

fn renamed(object: Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = object else {
        return object;
    };
    let mut result: Map<String, Value> = map
        .into_iter()
        .map(|(key, value)| (name(&key).map_or(key, str::to_owned), value))
        .collect();
    result.insert("apiVersion".to_owned(), api_version.into());
    result.insert("kind".to_owned(), "Event".into());
    Value::Object(result)
}

/// An event of core/v1 as events.k8s.io/v1 has it. `eventTime` is never left out.
pub fn from_core(object: Value) -> Value {
    let mut event = renamed(object, "events.k8s.io/v1", |key| {
        let pair = RENAMED.iter().find(|(core, _)| *core == key)?;
        Some(pair.1)
    });
    if let Value::Object(map) = &mut event {
        map.entry("eventTime").or_insert(Value::Null);
    }
    event
}

/// An event of events.k8s.io/v1 as core/v1 has it.
pub fn to_core(object: Value) -> Value {
    renamed(object, "v1", |key| {
        let pair = RENAMED.iter().find(|(_, own)| *own == key)?;
        Some(pair.0)
    })
}

fn fields(object: &Value) -> BTreeMap<&'static str, String> {
    let mut fields: BTreeMap<&'static str, String> = [
        "reason",
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reportingController",
        "type",
    ]
    .into_iter()
    .map(|path| (path, str_at(object, path).to_owned()))
    .collect();
    let source = match str_at(object, "deprecatedSource.component") {
        "" => str_at(object, "reportingController"),
        component => component,
    };
    fields.insert("source", source.to_owned());
    fields
}

/// New events of this form say more than those of core/v1 must.
fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let namespace = meta::namespace(object);
    let about = str_at(object, "regarding.namespace");
    let fits = match about {
        "" => namespace.is_empty() || namespace == "default" || namespace == "kube-system",
        _ => about == namespace,
    };
    if !fits {
        causes.push(Cause::invalid(
            "involvedObject.namespace",
            &about.into(),
            "does not match event.namespace",
        ));
    }
    // What was made in the old form may lack what is new.
    if old.is_some() && at(object, "eventTime").is_null() {
        return causes;
    }
    if at(object, "eventTime").is_null() {
        causes.push(Cause::required("eventTime", ""));
    }
    causes.extend(required(object));
    if !matches!(str_at(object, "type"), "Normal" | "Warning") {
        let kind = at(object, "type");
        causes.push(Cause::invalid("type", kind, "has invalid value: "));
    }
    if str_at(object, "note").len() > MAX_NOTE_BYTES {
        let detail = format!("can have at most {MAX_NOTE_BYTES} characters");
        causes.push(Cause::invalid("note", &"".into(), &detail));
    }
    if old.is_none() {
        for path in [
            "deprecatedFirstTimestamp",
            "deprecatedLastTimestamp",
            "deprecatedCount",
        ] {
            let set =
                !matches!(at(object, path), Value::Null) && at(object, path).as_i64() != Some(0);
            let core = RENAMED.iter().find(|(_, own)| *own == path);
            if let Some((core, _)) = core.filter(|_| set) {
                causes.push(Cause::invalid(*core, at(object, path), "needs to be unset"));
            }
        }
    }
    causes
}

fn required(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for path in [
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        let text = str_at(object, path);
        if text.is_empty() {
            causes.push(Cause::required(path, ""));
        } else if path != "reportingController" && text.len() > MAX_NAME_BYTES {
            let detail = format!("can have at most {MAX_NAME_BYTES} characters");
            causes.push(Cause::invalid(path, &"".into(), &detail));
        }
    }
    let controller = str_at(object, "reportingController");
    if !controller.is_empty() {
        let messages = crate::validate::names::qualified_name(controller);
        causes.extend(crate::validate::invalid(
            "reportingController",
            &controller.into(),
            messages,
        ));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn core() -> Value {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "message": "up", "reason": "Started",
            "source": {"component": "kubelet"}, "firstTimestamp": "2026-01-01T00:00:00Z", "count": 2,
            "reportingComponent": "kubelet", "reportingInstance": "n1", "action": "Start", "type": "Normal"})
    }

    #[test]
    fn there_and_back_nothing_is_lost() {
        let view = from_core(core());
        assert_eq!(view["apiVersion"], "events.k8s.io/v1");
        assert_eq!(view["note"], "up");
        assert_eq!(view["regarding"]["name"], "p");
        assert_eq!(view["deprecatedCount"], 2);
        assert_eq!(view["eventTime"], Value::Null);
        assert!(view.get("message").is_none());
        let mut back = to_core(view);
        back.as_object_mut().unwrap().remove("eventTime");
        assert_eq!(back, core());
    }

    #[test]
    fn a_new_event_says_who_did_what_when() {
        let mut event = json!({"metadata": {"name": "a", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "example.com/c", "reportingInstance": "c-1", "action": "Start", "reason": "Started",
            "type": "Normal", "regarding": {"namespace": "default"}});
        assert_eq!(validate(&event, None), []);
        for path in [
            "eventTime",
            "reportingController",
            "reportingInstance",
            "action",
            "reason",
        ] {
            let mut lacking = event.clone();
            lacking.as_object_mut().unwrap().remove(path);
            assert_eq!(
                validate(&lacking, None)[0].to_string(),
                format!("{path}: Required value")
            );
        }
        event["deprecatedCount"] = json!(1);
        assert_eq!(
            validate(&event, None)[0].to_string(),
            "count: Invalid value: 1: needs to be unset"
        );
        event["type"] = json!("Odd");
        assert!(
            validate(&event, None)
                .iter()
                .any(|cause| cause.field == "type")
        );
    }
}
