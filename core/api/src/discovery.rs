//! Discovery documents: which groups, versions and resources there are.
//!
//! All are derived from the kinds table. Old clients read `/api`, `/apis` and
//! one document per group-version; newer ones ask for all at once in the
//! aggregated form.

use crate::kinds::{self, Kind, Subresource};
use crate::schema::group_versions;
use serde_json::{Map, Value, json};

/// The media type of the aggregated form.
pub const AGGREGATED_MEDIA_TYPE: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`. The address is `host:port`.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`.
pub fn groups() -> Value {
    let groups: Vec<Value> = named_groups().into_iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn group(group: &str) -> Option<Value> {
    let found = named_groups()
        .into_iter()
        .find(|(name, _)| *name == group)?;
    let mut entry = group_entry(found);
    if let Some(map) = entry.as_object_mut() {
        map.insert("kind".to_owned(), "APIGroup".into());
        map.insert("apiVersion".to_owned(), "v1".into());
    }
    Some(entry)
}

fn named_groups() -> Vec<(&'static str, &'static str)> {
    group_versions()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .collect()
}

fn group_entry((group, version): (&str, &str)) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

/// `/api/v1` (group "") and `/apis/GROUP/VERSION`.
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds::all().filter(|kind| kind.group == group && kind.version == version) {
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
pub fn aggregated(core: bool) -> Value {
    let items: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let metadata = match group {
                "" => json!({"creationTimestamp": null}),
                _ => json!({"name": group, "creationTimestamp": null}),
            };
            let resources: Vec<Value> = kinds::all()
                .filter(|kind| kind.group == group && kind.version == version)
                .map(aggregated_resource)
                .collect();
            let version =
                json!({"version": version, "resources": resources, "freshness": "Current"});
            json!({"metadata": metadata, "versions": [version]})
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

    #[test]
    fn every_kind_is_in_every_form() {
        let aggregated: String = [aggregated(true), aggregated(false)]
            .iter()
            .map(Value::to_string)
            .collect();
        for kind in kinds::all() {
            let list = resources(kind.group, kind.version).unwrap();
            let found = list["resources"]
                .as_array()
                .unwrap()
                .iter()
                .any(|entry| entry["name"] == kind.plural);
            assert!(found, "{}", kind.kind);
            assert!(aggregated.contains(&format!("\"resource\":\"{}\"", kind.plural)));
            assert!(kind.group.is_empty() || group(kind.group).is_some());
        }
        assert_eq!(resources("x", "v1"), None);
        assert_eq!(group(""), None);
    }

    #[test]
    fn scale_says_whose_kind_it_is() {
        let list = resources("apps", "v1").unwrap();
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
        assert_eq!(groups()["groups"].as_array().unwrap().len(), 3);
    }
}
