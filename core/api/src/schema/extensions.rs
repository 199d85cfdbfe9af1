//! Merge keys and list types, which k8s-openapi's schemas lack.
//!
//! A Service port's strategic merge key is `port` alone, while its apply list
//! keys are `port` and `protocol`; the two need not agree.

use crate::value::map_mut;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is to be known about one list or map field.
pub(super) struct Rule {
    /// Name of the definition, without what is common to all of the API.
    pub(super) definition: &'static str,
    /// Name of the field.
    pub(super) field: &'static str,
    /// `merge`, `retainKeys`, both, or "".
    strategy: &'static str,
    /// The field that identifies an element for a strategic merge.
    merge_key: &'static str,
    /// `atomic`, `set`, `map`, or "".
    list: &'static str,
    /// The fields that identify an element of a list of type map.
    keys: &'static [&'static str],
    /// `atomic` for a map that is replaced as a whole.
    map: &'static str,
}

const NONE: Rule = Rule {
    definition: "",
    field: "",
    strategy: "",
    merge_key: "",
    list: "",
    keys: &[],
    map: "",
};

/// A list merged by a key, which is also its apply key.
const fn by(definition: &'static str, field: &'static str, keys: &'static [&'static str]) -> Rule {
    Rule {
        definition,
        field,
        strategy: "merge",
        merge_key: keys[0],
        list: "map",
        keys,
        ..NONE
    }
}

/// The same, whose elements name which of their fields stay (volumes).
const fn retaining(
    definition: &'static str,
    field: &'static str,
    keys: &'static [&'static str],
) -> Rule {
    Rule {
        strategy: "merge,retainKeys",
        ..by(definition, field, keys)
    }
}

const fn atomic(definition: &'static str, field: &'static str) -> Rule {
    Rule {
        definition,
        field,
        list: "atomic",
        ..NONE
    }
}

const fn set(definition: &'static str, field: &'static str) -> Rule {
    Rule {
        definition,
        field,
        strategy: "merge",
        list: "set",
        ..NONE
    }
}

const fn atomic_map(definition: &'static str, field: &'static str) -> Rule {
    Rule {
        definition,
        field,
        map: "atomic",
        ..NONE
    }
}

/// All rules.
pub(super) const RULES: &[Rule] = &[
    // metadata
    set("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers"),
    by(
        "apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "ownerReferences",
        &["uid"],
    ),
    atomic("apimachinery.pkg.apis.meta.v1.ObjectMeta", "managedFields"),
    atomic(
        "apimachinery.pkg.apis.meta.v1.LabelSelector",
        "matchExpressions",
    ),
    atomic(
        "apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
        "values",
    ),
    // services
    by("api.core.v1.ServiceSpec", "ports", &["port", "protocol"]),
    atomic("api.core.v1.ServiceSpec", "clusterIPs"),
    atomic("api.core.v1.ServiceSpec", "externalIPs"),
    atomic("api.core.v1.ServiceSpec", "ipFamilies"),
    atomic("api.core.v1.ServiceSpec", "loadBalancerSourceRanges"),
    atomic_map("api.core.v1.ServiceSpec", "selector"),
    by("api.core.v1.ServiceStatus", "conditions", &["type"]),
    atomic("api.core.v1.LoadBalancerStatus", "ingress"),
    atomic("api.core.v1.LoadBalancerIngress", "ports"),
    atomic("api.core.v1.Endpoints", "subsets"),
    atomic("api.core.v1.EndpointSubset", "addresses"),
    atomic("api.core.v1.EndpointSubset", "notReadyAddresses"),
    atomic("api.core.v1.EndpointSubset", "ports"),
    atomic("api.discovery.v1.EndpointSlice", "endpoints"),
    atomic("api.discovery.v1.EndpointSlice", "ports"),
    Rule {
        strategy: "",
        ..set("api.discovery.v1.Endpoint", "addresses")
    },
    atomic("api.discovery.v1.EndpointHints", "forZones"),
    atomic("api.discovery.v1.EndpointHints", "forNodes"),
    // pods
    by("api.core.v1.PodSpec", "containers", &["name"]),
    by("api.core.v1.PodSpec", "initContainers", &["name"]),
    by("api.core.v1.PodSpec", "ephemeralContainers", &["name"]),
    retaining("api.core.v1.PodSpec", "volumes", &["name"]),
    retaining("api.core.v1.PodSpec", "resourceClaims", &["name"]),
    by("api.core.v1.PodSpec", "imagePullSecrets", &["name"]),
    by("api.core.v1.PodSpec", "hostAliases", &["ip"]),
    by("api.core.v1.PodSpec", "schedulingGates", &["name"]),
    by(
        "api.core.v1.PodSpec",
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    atomic("api.core.v1.PodSpec", "tolerations"),
    atomic("api.core.v1.PodSpec", "readinessGates"),
    atomic_map("api.core.v1.PodSpec", "nodeSelector"),
    by("api.core.v1.PodStatus", "conditions", &["type"]),
    by("api.core.v1.PodStatus", "podIPs", &["ip"]),
    Rule {
        list: "atomic",
        keys: &[],
        ..by("api.core.v1.PodStatus", "hostIPs", &["ip"])
    },
    atomic("api.core.v1.PodStatus", "containerStatuses"),
    atomic("api.core.v1.PodStatus", "initContainerStatuses"),
    atomic("api.core.v1.PodStatus", "ephemeralContainerStatuses"),
    retaining("api.core.v1.PodStatus", "resourceClaimStatuses", &["name"]),
    by("api.core.v1.Container", "env", &["name"]),
    by(
        "api.core.v1.Container",
        "ports",
        &["containerPort", "protocol"],
    ),
    by("api.core.v1.Container", "volumeMounts", &["mountPath"]),
    by("api.core.v1.Container", "volumeDevices", &["devicePath"]),
    atomic("api.core.v1.Container", "args"),
    atomic("api.core.v1.Container", "command"),
    atomic("api.core.v1.Container", "envFrom"),
    atomic("api.core.v1.Container", "resizePolicy"),
    by("api.core.v1.EphemeralContainer", "env", &["name"]),
    by(
        "api.core.v1.EphemeralContainer",
        "ports",
        &["containerPort", "protocol"],
    ),
    by(
        "api.core.v1.EphemeralContainer",
        "volumeMounts",
        &["mountPath"],
    ),
    by(
        "api.core.v1.EphemeralContainer",
        "volumeDevices",
        &["devicePath"],
    ),
    atomic("api.core.v1.EphemeralContainer", "args"),
    atomic("api.core.v1.EphemeralContainer", "command"),
    atomic("api.core.v1.EphemeralContainer", "envFrom"),
    Rule {
        strategy: "",
        merge_key: "",
        ..by("api.core.v1.ResourceRequirements", "claims", &["name"])
    },
    atomic("api.core.v1.ExecAction", "command"),
    atomic("api.core.v1.HTTPGetAction", "httpHeaders"),
    atomic("api.core.v1.Capabilities", "add"),
    atomic("api.core.v1.Capabilities", "drop"),
    atomic("api.core.v1.PodSecurityContext", "supplementalGroups"),
    atomic("api.core.v1.PodSecurityContext", "sysctls"),
    atomic("api.core.v1.PodDNSConfig", "nameservers"),
    atomic("api.core.v1.PodDNSConfig", "options"),
    atomic("api.core.v1.PodDNSConfig", "searches"),
    atomic("api.core.v1.HostAlias", "hostnames"),
    atomic("api.core.v1.ConfigMapVolumeSource", "items"),
    atomic("api.core.v1.SecretVolumeSource", "items"),
    atomic("api.core.v1.DownwardAPIVolumeSource", "items"),
    atomic("api.core.v1.ProjectedVolumeSource", "sources"),
    atomic("api.core.v1.NodeSelector", "nodeSelectorTerms"),
    atomic("api.core.v1.NodeSelectorTerm", "matchExpressions"),
    atomic("api.core.v1.NodeSelectorTerm", "matchFields"),
    // nodes, namespaces, accounts
    set("api.core.v1.NodeSpec", "podCIDRs"),
    atomic("api.core.v1.NodeSpec", "taints"),
    by("api.core.v1.NodeStatus", "conditions", &["type"]),
    by("api.core.v1.NodeStatus", "addresses", &["type"]),
    atomic("api.core.v1.NodeStatus", "images"),
    atomic("api.core.v1.NodeStatus", "volumesAttached"),
    atomic("api.core.v1.NodeStatus", "volumesInUse"),
    atomic("api.core.v1.NamespaceSpec", "finalizers"),
    by("api.core.v1.NamespaceStatus", "conditions", &["type"]),
    by("api.core.v1.ServiceAccount", "secrets", &["name"]),
    atomic("api.core.v1.ServiceAccount", "imagePullSecrets"),
    // workloads
    Rule {
        definition: "api.apps.v1.DeploymentSpec",
        field: "strategy",
        strategy: "retainKeys",
        ..NONE
    },
    by("api.apps.v1.DeploymentStatus", "conditions", &["type"]),
    by("api.apps.v1.ReplicaSetStatus", "conditions", &["type"]),
    by("api.apps.v1.DaemonSetStatus", "conditions", &["type"]),
    by("api.apps.v1.StatefulSetStatus", "conditions", &["type"]),
    by(
        "api.networking.v1.ServiceCIDRStatus",
        "conditions",
        &["type"],
    ),
    Rule {
        strategy: "",
        merge_key: "",
        ..by(
            "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
            "conditions",
            &["type"],
        )
    },
];

/// Types that are owned and replaced as a whole (`+structType=atomic`), if a
/// served kind has them.
pub(super) const ATOMIC_TYPES: &[&str] = &[
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.EndpointAddress",
    "api.core.v1.EndpointPort",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.networking.v1.ServiceBackendPort",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Marks an atomic type in the definitions.
pub(super) fn mark_atomic(definition: &str, definitions: &mut BTreeMap<String, Value>) {
    if let Some(definition) = definitions.get_mut(&format!("io.k8s.{definition}")) {
        map_mut(definition).insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
}

/// Writes a rule into the definitions.
pub(super) fn apply(rule: &Rule, definitions: &mut BTreeMap<String, Value>) {
    let Some(field) = definitions
        .get_mut(&name(rule))
        .and_then(|definition| definition.get_mut("properties"))
        .and_then(|properties| properties.get_mut(rule.field))
    else {
        return;
    };
    let field = map_mut(field);
    for (key, text) in [
        ("x-kubernetes-patch-strategy", rule.strategy),
        ("x-kubernetes-patch-merge-key", rule.merge_key),
        ("x-kubernetes-list-type", rule.list),
        ("x-kubernetes-map-type", rule.map),
    ] {
        if !text.is_empty() {
            field.insert(key.to_owned(), text.into());
        }
    }
    if !rule.keys.is_empty() {
        field.insert("x-kubernetes-list-map-keys".to_owned(), json!(rule.keys));
    }
}

/// Whether the field of a rule exists.
#[cfg(test)]
pub(super) fn finds(rule: &Rule, definitions: &BTreeMap<String, Value>) -> bool {
    let definition = definitions.get(&name(rule));
    definition.is_some_and(|definition| definition["properties"].get(rule.field).is_some())
}

fn name(rule: &Rule) -> String {
    format!("io.k8s.{}", rule.definition)
}
