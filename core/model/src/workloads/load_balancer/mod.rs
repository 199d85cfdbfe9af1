//! What is known about Services of type LoadBalancer, and about where their
//! addresses come from.

mod announcement;
mod community;
mod node;
mod peer;
mod pool;
mod scope;
mod service;
mod span;
mod speaker;

pub use announcement::{BgpAnnouncement, L2Announcement};
pub use community::{Community, CommunityNames};
pub use node::{BalancerNode, ReadyNodes};
pub use peer::{Bfd, BfdProfile, Password, Peer};
pub use pool::Pool;
pub use scope::Scope;
pub use service::{Asked, BalancedPort, BalancedService, DualStack};
pub use span::Span;
pub use speaker::{HEARTBEATS_AT, LINKS, SPEAKER, Speaker, SpeakerLink};

use super::{Meta, meta};

/// A namespace, by whose labels pools select.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelledNamespace {
    /// What every object has.
    pub meta: Meta,
}

meta::object!(LabelledNamespace, read_namespace);

fn read_namespace(object: &serde_json::Value) -> LabelledNamespace {
    let mut meta = Meta::of(object);
    meta.annotations.clear();
    LabelledNamespace { meta }
}
