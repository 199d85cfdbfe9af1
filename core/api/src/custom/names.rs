//! Whether the names of a definition are free, and what its status says then.

use crate::meta;
use crate::value::{at, list_at, set, str_at, strings_at};
use serde_json::{Value, json};

/// One condition of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// `Established`, `NamesAccepted`, `Terminating`.
    pub name: &'a str,
    /// `True` or `False`.
    pub status: &'a str,
    /// Why, for machines.
    pub reason: &'a str,
    /// Why, for people.
    pub message: &'a str,
}

/// Whether a condition is true.
pub fn is_true(definition: &Value, name: &str) -> bool {
    list_at(definition, "status.conditions")
        .iter()
        .any(|one| str_at(one, "type") == name && str_at(one, "status") == "True")
}

/// Sets a condition; the time changes only with the status.
pub fn set_condition(definition: &mut Value, condition: Condition<'_>, now: &str) {
    let mut list = list_at(definition, "status.conditions").to_vec();
    let since = |old: &Value| match str_at(old, "status") == condition.status {
        true => str_at(old, "lastTransitionTime").to_owned(),
        false => now.to_owned(),
    };
    let made = |time: String| {
        json!({
            "type": condition.name,
            "status": condition.status,
            "lastTransitionTime": time,
            "reason": condition.reason,
            "message": condition.message,
        })
    };
    match list
        .iter_mut()
        .find(|old| str_at(old, "type") == condition.name)
    {
        Some(old) => *old = made(since(old)),
        None => list.push(made(now.to_owned())),
    }
    set(definition, "status.conditions", list);
}

/// The definition with the status that its names deserve beside those of the
/// others; once established it stays so.
pub fn decide(definition: &Value, others: &[&Value], now: &str) -> Value {
    let mut result = definition.clone();
    let wanted = at(definition, "spec.names");
    let held = at(definition, "status.acceptedNames");
    let taken = Taken::of(definition, others);
    let mut accepted = held.clone();
    let mut refusal: Option<(&str, String)> = None;
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let conflicts: Vec<&str> = names_of(wanted, field)
            .into_iter()
            .filter(|name| !names_of(held, field).contains(name) && taken.contains(name))
            .collect();
        match conflicts.as_slice() {
            [] => copy(wanted, &mut accepted, field),
            [one] => refusal = Some((reason, in_use(one))),
            many => {
                let texts: Vec<String> = many.iter().map(|name| in_use(name)).collect();
                refusal = Some((reason, format!("[{}]", texts.join(", "))));
            }
        }
    }
    copy(wanted, &mut accepted, "categories");
    set(&mut result, "status.acceptedNames", accepted);
    let names = match &refusal {
        None => Condition {
            name: "NamesAccepted",
            status: "True",
            reason: "NoConflicts",
            message: "no conflicts found",
        },
        Some((reason, message)) => Condition {
            name: "NamesAccepted",
            status: "False",
            reason,
            message,
        },
    };
    set_condition(&mut result, names, now);
    approve(&mut result, now);
    if is_true(definition, "Established") {
        return result;
    }
    let established = match refusal {
        None => Condition {
            name: "Established",
            status: "True",
            reason: "InitialNamesAccepted",
            message: "the initial names have been accepted",
        },
        Some(_) => Condition {
            name: "Established",
            status: "False",
            reason: "NotAccepted",
            message: "not all names are accepted",
        },
    };
    set_condition(&mut result, established, now);
    result
}

/// Notes the approval that a group of the Kubernetes project has (KEP-1111).
fn approve(definition: &mut Value, now: &str) {
    let approved = meta::annotation(definition, "api-approved.kubernetes.io").unwrap_or_default();
    let group = str_at(definition, "spec.group");
    let protected = [".k8s.io", ".kubernetes.io"]
        .iter()
        .any(|ending| group.ends_with(ending));
    if !protected || approved.is_empty() {
        return;
    }
    let (status, reason, message) = match approved.starts_with("https://") {
        true => (
            "True",
            "ApprovedAnnotation",
            format!("approved in {approved}"),
        ),
        false => (
            "False",
            "UnapprovedAnnotation",
            format!("not approved: {approved:?}"),
        ),
    };
    let condition = Condition {
        name: "KubernetesAPIApprovalPolicyConformant",
        status,
        reason,
        message: &message,
    };
    set_condition(definition, condition, now);
}

/// Names that other definitions of the group hold.
struct Taken<'a> {
    resources: Vec<&'a str>,
    kinds: Vec<&'a str>,
}

impl<'a> Taken<'a> {
    fn of(definition: &Value, others: &[&'a Value]) -> Self {
        let group = str_at(definition, "spec.group");
        let mut taken = Self {
            resources: Vec::new(),
            kinds: Vec::new(),
        };
        for other in others {
            let same = meta::name(other) == meta::name(definition);
            if same || str_at(other, "spec.group") != group {
                continue;
            }
            let names = at(other, "status.acceptedNames");
            for field in ["plural", "singular", "shortNames"] {
                taken.resources.extend(names_of(names, field));
            }
            for field in ["kind", "listKind"] {
                taken.kinds.extend(names_of(names, field));
            }
        }
        taken
    }
}

fn names_of<'a>(names: &'a Value, field: &str) -> Vec<&'a str> {
    match field {
        "shortNames" => strings_at(names, field),
        _ => Some(str_at(names, field))
            .filter(|name| !name.is_empty())
            .into_iter()
            .collect(),
    }
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    crate::value::copy(from, to, field);
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": ["x"]}},
        })
    }

    #[test]
    fn free_names_are_accepted_and_established() {
        let decided = decide(&definition("as", "A"), &[], "t");
        assert!(is_true(&decided, "NamesAccepted"));
        assert!(is_true(&decided, "Established"));
        assert_eq!(
            decided["status"]["acceptedNames"]["shortNames"],
            json!(["x"])
        );
        assert_eq!(decide(&decided, &[&decided], "u"), decided);
    }

    #[test]
    fn a_taken_name_is_told_and_the_rest_accepted() {
        let first = decide(&definition("as", "A"), &[], "t");
        let second = decide(&definition("bs", "B"), &[&first], "t");
        assert!(!is_true(&second, "Established"));
        let condition = &second["status"]["conditions"][0];
        assert_eq!(condition["reason"], "ShortNamesConflict");
        assert_eq!(condition["message"], "\"x\" is already in use");
        assert_eq!(second["status"]["acceptedNames"]["plural"], "bs");
        let third = decide(&definition("cs", "A"), &[&first], "t");
        assert_eq!(
            third["status"]["conditions"][0]["reason"],
            "ListKindConflict"
        );
        assert_eq!(third["status"]["acceptedNames"].get("kind"), None);
    }

    #[test]
    fn an_established_definition_stays_so() {
        let first = decide(&definition("as", "A"), &[], "t");
        let mut second = decide(&definition("bs", "B"), &[], "t");
        set(&mut second, "spec.names.kind", "A");
        let decided = decide(&second, &[&first], "u");
        assert!(!is_true(&decided, "NamesAccepted"));
        assert!(is_true(&decided, "Established"));
        assert_eq!(decided["status"]["acceptedNames"]["kind"], "B");
    }
}
