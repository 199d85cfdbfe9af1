//! What a controller wants done.

use std::time::Duration;

use portolan_model::workloads::{Meta, ObjectKey};
use serde_json::{Value, json};

/// The kinds that controllers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// v1 Pod
    Pod,
    /// apps/v1 ReplicaSet
    ReplicaSet,
    /// apps/v1 Deployment
    Deployment,
    /// apps/v1 StatefulSet
    StatefulSet,
    /// apps/v1 DaemonSet
    DaemonSet,
    /// apps/v1 ControllerRevision
    ControllerRevision,
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice,
    /// v1 Endpoints
    Endpoints,
    /// v1 Service
    Service,
    /// v1 Node
    Node,
    /// portolan.dev/v1alpha1 AddressPool
    AddressPool,
    /// metallb.io/v1beta1 IPAddressPool
    IpAddressPool,
}

impl Kind {
    /// `apiVersion` and `kind`.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pod => ("v1", "Pod"),
            Self::ReplicaSet => ("apps/v1", "ReplicaSet"),
            Self::Deployment => ("apps/v1", "Deployment"),
            Self::StatefulSet => ("apps/v1", "StatefulSet"),
            Self::DaemonSet => ("apps/v1", "DaemonSet"),
            Self::ControllerRevision => ("apps/v1", "ControllerRevision"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Endpoints => ("v1", "Endpoints"),
            Self::Service => ("v1", "Service"),
            Self::Node => ("v1", "Node"),
            Self::AddressPool => ("portolan.dev/v1alpha1", "AddressPool"),
            Self::IpAddressPool => ("metallb.io/v1beta1", "IPAddressPool"),
        }
    }
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
}

impl About {
    /// An object whose metadata is known.
    pub fn new(kind: Kind, meta: &Meta) -> Self {
        Self {
            kind,
            key: meta.key.clone(),
            uid: meta.uid.clone(),
        }
    }
}

/// Something to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// About which object.
    pub about: About,
    /// Whether somebody should look.
    pub warning: bool,
    /// Kubernetes' reason.
    pub reason: &'static str,
    /// Kubernetes' text.
    pub message: String,
}

/// Why the last write for a workload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The reason that was told, such as `FailedCreate`.
    pub reason: String,
    /// What the server said.
    pub message: String,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What kind of object.
    pub kind: Kind,
    /// Which one. A created object may have no name yet.
    pub key: ObjectKey,
    /// What to do with it.
    pub action: Action,
    /// Told when it is done. A name that the server chose is appended.
    pub success: Option<Tell>,
    /// Told when it failed. The error is appended.
    pub failure: Option<Tell>,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create it.
    Create(Value),
    /// Change it by a merge patch.
    Merge(Value),
    /// Change it by a strategic merge patch.
    Strategic(Value),
    /// Merge into its status.
    MergeStatus(Value),
    /// Merge strategically into its status.
    StrategicStatus(Value),
    /// Delete it, if it still has this uid.
    Delete {
        /// The uid.
        uid: String,
        /// Remove it at once, without its node's consent.
        force: bool,
    },
    /// Bind the pod with this uid to a node.
    Bind {
        /// The pod's uid.
        uid: String,
        /// The node.
        node: String,
    },
}

impl Write {
    /// A write about which nothing is told.
    pub fn quiet(kind: Kind, key: ObjectKey, action: Action) -> Self {
        Self {
            kind,
            key,
            action,
            success: None,
            failure: None,
        }
    }
}

/// What a controller wants done now, and when it wants to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Writes, in this order; the rest waits when one fails.
    pub writes: Vec<Write>,
    /// What to tell the user regardless.
    pub tell: Vec<Tell>,
    /// Look again after this long even if nothing changes.
    pub again: Option<Duration>,
}

impl Step {
    /// Whether there is nothing to do now.
    pub fn is_done(&self) -> bool {
        self.writes.is_empty() && self.tell.is_empty()
    }

    /// Adds a quiet write.
    pub fn write(&mut self, kind: Kind, meta: &Meta, action: Action) {
        self.writes
            .push(Write::quiet(kind, meta.key.clone(), action));
    }

    /// Looks again after this long, or sooner if that was already asked for.
    pub fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |already| already.min(after)));
    }
}

/// An owner reference that makes `owner` the controller.
pub(crate) fn controller_reference(kind: Kind, owner: &Meta) -> Value {
    let (api_version, kind) = kind.names();
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": owner.key.name,
        "uid": owner.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
