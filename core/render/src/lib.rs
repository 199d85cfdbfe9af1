//! From decisions to images: what each target should hold, as data.
//!
//! A renderer knows packets or records and no Kubernetes: it has no opinion
//! about readiness, policies or types, it writes down what a `NodePlan` says.
//! Each target has two functions: `image` renders a whole plan, `delta` only
//! what a round of planning touched, at the cost of what was touched. Deltas
//! applied in turn give the image, which the test kit proves.
//!
//! - [`nft`]: one nftables table per family.
//! - [`zone`]: the cluster's domain.
//!
//! Deliberately absent: reading back what a target holds, and repair; both
//! compare whole images and belong to the agent.

#![forbid(unsafe_code)]

pub mod nft;
pub mod zone;
