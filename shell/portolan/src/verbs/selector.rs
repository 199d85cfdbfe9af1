//! Selectors of objects as text, for people and for queries.

use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `a=b,c in (d,e)`: the selector of a workload (both its parts) or of a Service
/// (a plain map). Empty for no selector.
pub(crate) fn written(selector: &Value) -> String {
    let nested = selector["matchLabels"].is_object() || selector["matchExpressions"].is_array();
    let labels = if nested {
        &selector["matchLabels"]
    } else {
        selector
    };
    let labels = labels.as_object().into_iter().flatten();
    let mut parts: Vec<(&str, String)> = labels
        .map(|(k, v)| (k.as_str(), format!("{k}={}", text(v))))
        .collect();
    let terms = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    for term in terms.filter(|_| nested) {
        let key = text(&term["key"]);
        let values = term["values"].as_array().into_iter().flatten();
        let values: Vec<&str> = values.map(text).collect();
        let values = values.join(",");
        let written = match text(&term["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            other => format!("{key} {other} ({values})"),
        };
        parts.push((key, written));
    }
    parts.sort_by_key(|(key, _)| *key);
    let parts: Vec<String> = parts.into_iter().map(|(_, written)| written).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_written_as_kubectl_writes_them() {
        assert_eq!(written(&json!({"b": "2", "a": "1"})), "a=1,b=2");
        assert_eq!(written(&Value::Null), "");
        assert_eq!(written(&json!({})), "");
        let both = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "t", "operator": "In", "values": ["x", "y"]},
            {"key": "u", "operator": "DoesNotExist"}]});
        assert_eq!(written(&both), "a=1,t in (x,y),!u");
    }
}
