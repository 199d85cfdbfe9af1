//! The kernel's side of every plane: network namespaces, links and routes,
//! sysctls, and nftables, connection tracking and logged packets over netlink.
//!
//! Each handle takes a [`netns::NetNs`] when it is opened. A socket stays in the
//! namespace in which it was opened, so one process can serve many lab nodes.
//! Nothing here knows Kubernetes, and nothing here decides: it reads what the
//! kernel holds and commits what it is given.

mod address;
pub mod conntrack;
pub mod datagrams;
pub mod frames;
pub mod hops;
pub mod link;
pub mod md5;
pub mod memory;
pub mod netns;
pub mod nflog;
pub mod nft;
pub mod passing;
pub mod presence;
pub mod release;
pub mod route;
pub mod sysctl;
pub mod way;

#[cfg(test)]
mod testing;
