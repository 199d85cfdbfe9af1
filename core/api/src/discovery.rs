//! Discovery documents: which groups, versions and resources there are.
//!
//! All are derived from the kinds table. Old clients read `/api`, `/apis` and
//! one document per group-version; newer ones ask for all at once in the
//! aggregated form.

use crate::kinds::{Kind, KindRef, Subresource};
use serde_json::{Map, Value, json};

/// The media type of the aggregated form.
pub const AGGREGATED_MEDIA_TYPE: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A group with its versions, the preferred one first.
type Group<'a> = (&'a str, Vec<&'a str>);

/// The groups of kinds, in the order in which they come first.
fn all_groups(kinds: &[KindRef]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for kind in kinds {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| crate::custom::priority(version));
    }
    groups
}

/// `/api`. The address is `host:port`.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`.
pub fn groups(kinds: &[KindRef]) -> Value {
    let groups: Vec<Value> = all_groups(kinds)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(group_entry)
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn group(kinds: &[KindRef], group: &str) -> Option<Value> {
    let groups = all_groups(kinds);
    let found = groups
        .iter()
        .find(|(name, _)| !name.is_empty() && *name == group)?;
    let mut entry = group_entry(found);
    if let Some(map) = entry.as_object_mut() {
        map.insert("kind".to_owned(), "APIGroup".into());
        map.insert("apiVersion".to_owned(), "v1".into());
    }
    Some(entry)
}

fn group_entry((group, versions): &Group<'_>) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

/// `/api/v1` (group "") and `/apis/GROUP/VERSION`.
pub fn resources(kinds: &[KindRef], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in of(kinds, group, version) {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| subresource(kind, sub)));
    }
    let group_version = match group {
        "" => version.to_owned(),
        _ => format!("{group}/{version}"),
    };
    (!resources.is_empty()).then(|| {
        let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
        if !group.is_empty() {
            list["apiVersion"] = "v1".into();
        }
        list
    })
}

/// The kinds of a group-version.
fn of<'a>(
    kinds: &'a [KindRef],
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a KindRef> {
    kinds
        .iter()
        .filter(move |kind| kind.group == group && kind.version == version)
}

fn resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    if let Some(map) = resource.as_object_mut() {
        insert_lists(map, kind);
    }
    resource
}

fn insert_lists(map: &mut Map<String, Value>, kind: &Kind) {
    for (key, list) in [
        ("shortNames", kind.short_names),
        ("categories", kind.categories),
    ] {
        if !list.is_empty() {
            map.insert(key.to_owned(), json!(list));
        }
    }
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut resource = json!({
        "name": format!("{}/{}", kind.plural, sub.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.kind,
        "verbs": sub.verbs,
    });
    if (sub.group, sub.version) != (kind.group, kind.version) {
        resource["group"] = sub.group.into();
        resource["version"] = sub.version.into();
    }
    resource
}

/// `/api` (`core`) or `/apis` in the aggregated form (APIGroupDiscoveryList v2).
pub fn aggregated(kinds: &[KindRef], core: bool) -> Value {
    let items: Vec<Value> = all_groups(kinds)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let metadata = match group {
                "" => json!({"creationTimestamp": null}),
                _ => json!({"name": group, "creationTimestamp": null}),
            };
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = of(kinds, group, version)
                        .map(|kind| aggregated_resource(kind))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": sub.verbs,
            })
        })
        .collect();
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if let Some(map) = resource.as_object_mut() {
        insert_lists(map, kind);
        if !subresources.is_empty() {
            map.insert("subresources".to_owned(), subresources.into());
        }
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn table() -> Vec<KindRef> {
        kinds::all().map(KindRef::from).collect()
    }

    #[test]
    fn every_kind_is_in_every_form() {
        let aggregated: String = [aggregated(&table(), true), aggregated(&table(), false)]
            .iter()
            .map(Value::to_string)
            .collect();
        for kind in kinds::all() {
            let list = resources(&table(), kind.group, kind.version).unwrap();
            let found = list["resources"]
                .as_array()
                .unwrap()
                .iter()
                .any(|entry| entry["name"] == kind.plural);
            assert!(found, "{}", kind.kind);
            assert!(aggregated.contains(&format!("\"resource\":\"{}\"", kind.plural)));
            assert!(kind.group.is_empty() || group(&table(), kind.group).is_some());
        }
        assert_eq!(resources(&table(), "x", "v1"), None);
        assert_eq!(group(&table(), ""), None);
    }

    #[test]
    fn scale_says_whose_kind_it_is() {
        let list = resources(&table(), "apps", "v1").unwrap();
        let scale = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == "deployments/scale")
            .unwrap();
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
        let groups = groups(&table());
        let names: Vec<&str> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"apps") && !names.contains(&""), "{names:?}");
    }
}
