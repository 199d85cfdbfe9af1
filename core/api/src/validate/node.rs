//! Rules for Node.

use super::{address, immutable, labels};
use crate::cause::Cause;
use crate::value::{at, list_at, str_at, strings_at};
use serde_json::Value;
use std::collections::BTreeSet;

/// Node.
pub fn node(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = taints(object);
    let cidrs = strings_at(object, "spec.podCIDRs");
    for (index, cidr) in cidrs.iter().enumerate() {
        causes.extend(address::cidr(&format!("spec.podCIDRs[{index}]"), cidr));
    }
    if cidrs.len() > 2 {
        let message = "must specify no more than one CIDR for each IP family";
        causes.push(Cause::invalid(
            "spec.podCIDRs",
            at(object, "spec.podCIDRs"),
            message,
        ));
    }
    if let Some(old) = old {
        let set = !list_at(old, "spec.podCIDRs").is_empty();
        if set && at(object, "spec.podCIDRs") != at(old, "spec.podCIDRs") {
            let message = "node updates may not change podCIDR except from \"\" to valid";
            causes.push(Cause::forbidden("spec.podCIDRs", message));
        }
        if !str_at(old, "spec.providerID").is_empty() {
            let path = "spec.providerID";
            causes.extend(immutable(path, at(object, path), at(old, path)));
        }
    }
    causes
}

fn taints(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in list_at(object, "spec.taints").iter().enumerate() {
        let path = format!("spec.taints[{index}]");
        let (key, effect) = (str_at(taint, "key"), str_at(taint, "effect"));
        causes.extend(labels::label_name(&format!("{path}.key"), key));
        match effect {
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            "" => causes.push(Cause::required(format!("{path}.effect"), "")),
            other => {
                let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
                causes.push(Cause::not_supported(
                    format!("{path}.effect"),
                    &other.into(),
                    &supported,
                ));
            }
        }
        if !seen.insert((key, effect)) {
            causes.push(Cause::duplicate(path, taint));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pod_ranges_are_set_once() {
        let none = json!({"spec": {}});
        let one = json!({"spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}});
        let two = json!({"spec": {"podCIDRs": ["10.244.2.0/24"]}});
        assert!(node(&one, Some(&none)).is_empty());
        assert_eq!(node(&two, Some(&one)).len(), 1);
        assert_eq!(node(&json!({"spec": {"podCIDRs": ["x"]}}), None).len(), 1);
    }
}
