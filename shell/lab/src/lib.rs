//! Nodes and pods on one machine: a lab node is a network namespace, a pod is
//! one or more namespaced processes, and the lab around them is a user
//! namespace whose death leaves nothing behind.
//!
//! The pod manager ([`kubelet`]) knows the API server only through the
//! Kubernetes API and the network only through [`kubelet::PodNetwork`], so each
//! half can be tried without the other. There is no container engine and no
//! registry: [`image`] has the built-in images and says which well-known names
//! they stand for.
//!
//! The world around the pods, in the order in which it comes to be: the process
//! splits into a broker on the host and a lab in namespaces of its own
//! ([`sandbox`], [`broker`]); the lab claims its data directory ([`leftovers`]),
//! lays the wire between its nodes ([`fabric`], by the plan in [`addresses`]),
//! plugs pods in ([`pod_net`]) and offers NodePorts to the host ([`publish`]).
//!
//! Absent on purpose: cgroup limits (a rootless lab may not set any), volumes
//! that outlive a pod, image layers.
#![expect(
    unsafe_code,
    reason = "namespaces, mounts and descriptors are system calls that no safe crate wraps in full"
)]

pub mod broker;
pub mod sandbox;

pub mod leftovers;

pub mod addresses;
pub mod fabric;

pub mod ipam;
pub mod pod_net;
pub mod publish;

pub mod container;
pub mod echo;
pub mod image;
pub mod kubelet;
pub mod logs;
pub mod probe;
