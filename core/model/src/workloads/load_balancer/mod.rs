//! What is known about Services of type LoadBalancer, and about where their
//! addresses come from.

mod node;
mod pool;
mod service;
mod span;

pub use node::{BalancerNode, ReadyNodes};
pub use pool::Pool;
pub use service::{Asked, BalancedPort, BalancedService, DualStack};
pub use span::Span;

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
