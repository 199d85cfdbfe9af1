//! Facts as the controllers need them.
//!
//! The data plane's facts ([`crate::Cluster`]) know nothing of pods' owners,
//! templates or phases; the controllers need those and little else. So they
//! have facts of their own, read straight from the served JSON: what is
//! missing or of another type reads as empty, and no object is refused.
//!
//! A template is kept as the JSON it came as, since it is handed on to the
//! pods made from it, with every field, known here or not.

mod apps;
mod daemon;
mod endpoints;
mod load_balancer;
mod meta;
mod neighbours;
mod node;
mod pod;
mod resources;
mod selector;
mod service;
mod stateful;

pub use apps::{
    Condition, Deployment, DeploymentStatus, ReplicaSet, ReplicaSetStatus, Share, Strategy,
};
pub use daemon::{DaemonSet, DaemonSetStatus, DaemonUpdate};
pub use endpoints::{Endpoints, Hints, Slice, SliceEndpoint, SlicePort, Target};
pub use load_balancer::{
    Asked, BalancedPort, BalancedService, BalancerNode, Bfd, BfdProfile, BgpAnnouncement,
    Community, CommunityNames, DualStack, HEARTBEATS_AT, L2Announcement, LINKS, LabelledNamespace,
    Password, Peer, Pool, ReadyNodes, SPEAKER, Scope, Span, Speaker, SpeakerLink,
};
pub use meta::{Meta, Object, ObjectKey, Owner};
pub use neighbours::{Neighbours, PodTerm, Spread};
pub use node::{Lease, Namespace, Node, Taint, Toleration};
pub use pod::{ContainerPort, HostPort, NodeTerm, Phase, Placement, Pod};
pub use resources::Resources;
pub use selector::{Requirement, Selector};
pub use service::{Port, Service, TargetPort};
pub use stateful::{ControllerRevision, StatefulSet, StatefulSetStatus, StatefulUpdate};
