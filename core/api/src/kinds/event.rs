//! Event (core/v1): what happened to an object, for people.

use super::{BASE, Column, Kind, column, schema_of, wide};
use crate::table::since;
use crate::value::{int_at, str_at};
use crate::{meta, validate};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    definition: "io.k8s.api.core.v1.Event",
    schema: schema_of::<k8s_openapi::api::core::v1::Event>,
    columns: &[
        column("Last Seen", "string", "Time since it was last seen."),
        column("Type", "string", "Normal or Warning."),
        column("Reason", "string", "Why, for machines."),
        column("Object", "string", "What it is about."),
        wide("Subobject", "string", "Which part of it."),
        wide("Source", "string", "Who says so."),
        column("Message", "string", "What happened, for people."),
        wide("First Seen", "string", "Time since it was first seen."),
        wide("Count", "string", "How often it was seen."),
        Column {
            format: "name",
            ..wide("Name", "string", "Name of the event.")
        },
    ],
    row,
    validate: validate::data::event,
    fields,
    create_on_update: true,
    ..BASE
};

fn fields(object: &Value) -> BTreeMap<&'static str, String> {
    let mut fields: BTreeMap<&'static str, String> = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ]
    .into_iter()
    .map(|path| (path, str_at(object, path).to_owned()))
    .collect();
    let source = match str_at(object, "source.component") {
        "" => str_at(object, "reportingComponent"),
        component => component,
    };
    fields.insert("source", source.to_owned());
    fields
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |path: &str, fallback: String| match str_at(object, path) {
        "" => fallback,
        time => since(time, now),
    };
    let first = either("firstTimestamp", since(str_at(object, "eventTime"), now));
    let mut last = either("lastTimestamp", first.clone());
    let mut count = int_at(object, "count")
        .filter(|count| *count > 0)
        .unwrap_or(1);
    if let Some(series) = int_at(object, "series.count") {
        last = since(str_at(object, "series.lastObservedTime"), now);
        count = series;
    }
    let kind = str_at(object, "involvedObject.kind").to_lowercase();
    let target = match str_at(object, "involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        str_at(object, "type").into(),
        str_at(object, "reason").into(),
        target.into(),
        str_at(object, "involvedObject.fieldPath").into(),
        source(object).into(),
        str_at(object, "message").trim().into(),
        first.into(),
        count.into(),
        meta::name(object).into(),
    ]
}

/// `kubelet, node-1`.
fn source(object: &Value) -> String {
    let or = |path: &str, other: &str| match str_at(object, path) {
        "" => str_at(object, other).to_owned(),
        text => text.to_owned(),
    };
    let component = or("source.component", "reportingComponent");
    match or("source.host", "reportingInstance").as_str() {
        "" => component,
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells() {
        let now = "2024-05-01T10:00:00Z".parse().unwrap();
        let event = json!({
            "metadata": {"name": "web.1"}, "type": "Normal", "reason": "Started", "message": " up\n",
            "involvedObject": {"kind": "Pod", "name": "web"}, "source": {"component": "kubelet", "host": "node-1"},
            "firstTimestamp": "2024-05-01T09:50:00Z", "lastTimestamp": "2024-05-01T09:59:00Z", "count": 3,
        });
        let cells = row(&event, now);
        assert_eq!(
            Value::Array(cells),
            json!([
                "60s",
                "Normal",
                "Started",
                "pod/web",
                "",
                "kubelet, node-1",
                "up",
                "10m",
                3,
                "web.1"
            ])
        );
    }
}
