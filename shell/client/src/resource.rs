//! Where objects of a kind live on the server.

use std::borrow::Cow;

/// A served resource: enough to build every URL of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// API version, such as `v1`.
    pub version: Cow<'static, str>,
    /// Name in URLs, such as `pods`.
    pub plural: Cow<'static, str>,
    /// Name in manifests, such as `Pod`.
    pub kind: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

/// v1 Secret
pub static SECRETS: Resource = Resource::fixed("", "secrets", "Secret", true);
/// v1 ConfigMap
pub static CONFIG_MAPS: Resource = Resource::fixed("", "configmaps", "ConfigMap", true);
/// v1 Endpoints
pub static ENDPOINTS: Resource = Resource::fixed("", "endpoints", "Endpoints", true);
/// v1 Event
pub static EVENTS: Resource = Resource::fixed("", "events", "Event", true);
/// v1 Namespace
pub static NAMESPACES: Resource = Resource::fixed("", "namespaces", "Namespace", false);
/// v1 Node
pub static NODES: Resource = Resource::fixed("", "nodes", "Node", false);
/// v1 Pod
pub static PODS: Resource = Resource::fixed("", "pods", "Pod", true);
/// v1 Service
pub static SERVICES: Resource = Resource::fixed("", "services", "Service", true);
/// networking.k8s.io/v1 ServiceCIDR
pub static SERVICE_CIDRS: Resource =
    Resource::fixed("networking.k8s.io", "servicecidrs", "ServiceCIDR", false);
/// networking.k8s.io/v1 NetworkPolicy
pub static NETWORK_POLICIES: Resource = Resource::fixed(
    "networking.k8s.io",
    "networkpolicies",
    "NetworkPolicy",
    true,
);
/// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy
pub(crate) static CLUSTER_NETWORK_POLICIES: Resource = Resource {
    group: Cow::Borrowed("policy.networking.k8s.io"),
    version: Cow::Borrowed("v1alpha2"),
    plural: Cow::Borrowed("clusternetworkpolicies"),
    kind: Cow::Borrowed("ClusterNetworkPolicy"),
    namespaced: false,
};
/// apps/v1 Deployment
pub static DEPLOYMENTS: Resource = Resource::fixed("apps", "deployments", "Deployment", true);
/// apps/v1 ReplicaSet
pub static REPLICA_SETS: Resource = Resource::fixed("apps", "replicasets", "ReplicaSet", true);
/// apps/v1 StatefulSet
pub static STATEFUL_SETS: Resource = Resource::fixed("apps", "statefulsets", "StatefulSet", true);
/// apps/v1 DaemonSet
pub static DAEMON_SETS: Resource = Resource::fixed("apps", "daemonsets", "DaemonSet", true);
/// apps/v1 ControllerRevision
pub static CONTROLLER_REVISIONS: Resource =
    Resource::fixed("apps", "controllerrevisions", "ControllerRevision", true);
/// discovery.k8s.io/v1 EndpointSlice
pub static ENDPOINT_SLICES: Resource =
    Resource::fixed("discovery.k8s.io", "endpointslices", "EndpointSlice", true);
/// portolan.dev/v1alpha1 AddressPool
pub static ADDRESS_POOLS: Resource = Resource::custom(
    portolan_api::GROUP,
    "v1alpha1",
    "addresspools",
    "AddressPool",
    false,
);
/// metallb.io/v1beta1 IPAddressPool
pub static IP_ADDRESS_POOLS: Resource = Resource::custom(
    "metallb.io",
    "v1beta1",
    "ipaddresspools",
    "IPAddressPool",
    true,
);
/// portolan.dev/v1alpha1 L2Announcement
pub static L2_ANNOUNCEMENTS: Resource = Resource::custom(
    portolan_api::GROUP,
    "v1alpha1",
    "l2announcements",
    "L2Announcement",
    false,
);
/// portolan.dev/v1alpha1 BGPAnnouncement
pub static BGP_ANNOUNCEMENTS: Resource = Resource::custom(
    portolan_api::GROUP,
    "v1alpha1",
    "bgpannouncements",
    "BGPAnnouncement",
    false,
);
/// portolan.dev/v1alpha1 BGPPeer
pub static BGP_PEERS: Resource = Resource::custom(
    portolan_api::GROUP,
    "v1alpha1",
    "bgppeers",
    "BGPPeer",
    false,
);
/// metallb.io/v1beta1 L2Advertisement
pub static L2_ADVERTISEMENTS: Resource = Resource::custom(
    "metallb.io",
    "v1beta1",
    "l2advertisements",
    "L2Advertisement",
    true,
);
/// metallb.io/v1beta1 BGPAdvertisement
pub static BGP_ADVERTISEMENTS: Resource = Resource::custom(
    "metallb.io",
    "v1beta1",
    "bgpadvertisements",
    "BGPAdvertisement",
    true,
);
/// metallb.io/v1beta2 BGPPeer
pub static METALLB_BGP_PEERS: Resource =
    Resource::custom("metallb.io", "v1beta2", "bgppeers", "BGPPeer", true);
/// metallb.io/v1beta1 Community
pub static COMMUNITIES: Resource =
    Resource::custom("metallb.io", "v1beta1", "communities", "Community", true);
/// metallb.io/v1beta1 BFDProfile
pub static BFD_PROFILES: Resource =
    Resource::custom("metallb.io", "v1beta1", "bfdprofiles", "BFDProfile", true);
/// coordination.k8s.io/v1 Lease
pub static LEASES: Resource = Resource::fixed("coordination.k8s.io", "leases", "Lease", true);

impl Resource {
    /// A `v1` resource known at compile time.
    const fn fixed(
        group: &'static str,
        plural: &'static str,
        kind: &'static str,
        namespaced: bool,
    ) -> Self {
        Self::custom(group, "v1", plural, kind, namespaced)
    }

    /// A resource of some version known at compile time.
    const fn custom(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            namespaced,
        }
    }

    /// `GROUP/VERSION`, or the bare version for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The URL path of the collection: of one namespace, or of all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(ns) if self.namespaced => format!("{root}/namespaces/{ns}/{}", self.plural),
            Some(_) | None => format!("{root}/{}", self.plural),
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        assert_eq!(PODS.path(Some("a")), "/api/v1/namespaces/a/pods");
        assert_eq!(PODS.path(None), "/api/v1/pods");
        assert_eq!(NODES.path(Some("ignored")), "/api/v1/nodes");
        assert_eq!(
            ENDPOINT_SLICES.path(Some("a")),
            "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"
        );
        assert_eq!(DEPLOYMENTS.api_version(), "apps/v1");
        assert_eq!(DEPLOYMENTS.to_string(), "deployments.apps");
    }
}
