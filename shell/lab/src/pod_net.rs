//! Pods on routed veths.
//!
//! A pod's `eth0` has its addresses as /32 and /128 and two routes: the gateway
//! is a neighbour, everything is behind the gateway. The node's side of the veth
//! has the gateway's addresses, the same on every veth, so the node answers ARP
//! and neighbour discovery by itself, at once and without proxy settings. A pod
//! has no neighbour but its node: every packet between two pods is routed and
//! passes the node's forward hook, on one node as between two.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use futures::future::BoxFuture;
use portolan_kernel::{
    link::{LinkError, Links, Mac, VethEnd},
    netns::{NetNs, NetNsError},
    route::{Route, RouteKind},
    sysctl::{self, SysctlError},
};
use tokio::sync::Mutex;

use crate::{
    addresses::{POD_GATEWAY_V4, POD_GATEWAY_V6, alone, everything},
    fabric::NodeNet,
    ipam::{Exhausted, PodAddresses},
    kubelet::{self, PodNet},
};

/// The pod's side of its veth.
pub const POD_DEVICE: &str = "eth0";

/// The hardware address of every veth's node side; a veth has two ends only, so
/// it needs no other.
const GATEWAY_MAC: Mac = [0xee; 6];

/// What a pod's namespace wants: addresses are usable at once, nobody else
/// configures them, and redirects are not believed.
const POD_SYSCTLS: [(&str, &str); 5] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
];

/// Gives the pods of one node their networks. Clones share it.
#[derive(Clone, Debug)]
pub struct PodNets {
    node: NodeNet,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: PodAddresses,
    by_pod: BTreeMap<String, PodNet>,
}

/// Why a pod got no network.
#[derive(Debug, thiserror::Error)]
pub enum PodNetError {
    /// The node's pod ranges are full.
    #[error("cannot attach pod {pod}")]
    Exhausted {
        /// The pod's uid.
        pod: String,
        /// Which ranges.
        #[source]
        cause: Exhausted,
    },
    /// The pod's namespace could not be made.
    #[error("cannot make the network namespace of pod {pod}")]
    Namespace {
        /// The pod's uid.
        pod: String,
        /// Why not.
        #[source]
        cause: NetNsError,
    },
    /// A sysctl was refused.
    #[error("cannot set up the network namespace of pod {pod}")]
    Sysctl {
        /// The pod's uid.
        pod: String,
        /// Which one, and why.
        #[source]
        cause: SysctlError,
    },
    /// A link, address or route was refused.
    #[error("cannot wire up pod {pod}")]
    Wire {
        /// The pod's uid.
        pod: String,
        /// Which one, and why.
        #[source]
        cause: LinkError,
    },
}

impl PodNets {
    /// No pod of `node` has a network yet.
    pub fn new(node: NodeNet) -> Self {
        let free = PodAddresses::new(&node.pod_cidrs);
        Self {
            node,
            state: Arc::new(Mutex::new(State {
                free,
                by_pod: BTreeMap::new(),
            })),
        }
    }

    /// The name of the node's side of a pod's veth.
    pub fn device_of(uid: &str) -> String {
        device_name(uid)
    }

    /// The node.
    pub fn node(&self) -> &NodeNet {
        &self.node
    }

    /// Gives the pod `uid` a namespace, addresses and the way to its node; the
    /// same again for a pod that has them already.
    pub async fn attach(&self, uid: &str) -> Result<PodNet, PodNetError> {
        let mut state = self.state.lock().await;
        if let Some(net) = state.by_pod.get(uid) {
            return Ok(net.clone());
        }
        let pod = || uid.to_owned();
        let ips = state
            .free
            .take()
            .map_err(|cause| PodNetError::Exhausted { pod: pod(), cause })?;
        match self.build(uid, &ips).await {
            Ok(net) => {
                state.by_pod.insert(pod(), net.clone());
                Ok(net)
            }
            Err(error) => {
                // Half a pod is taken away again; its veth may not exist.
                self.node.links.delete(&device_name(uid)).await.ok();
                state.free.give_back(&ips);
                Err(error)
            }
        }
    }

    /// Takes the pod's veth and addresses away. Gone already is success.
    pub async fn detach(&self, uid: &str) -> Result<(), PodNetError> {
        let mut state = self.state.lock().await;
        if !state.by_pod.contains_key(uid) {
            return Ok(());
        }
        self.node
            .links
            .delete(&device_name(uid))
            .await
            .map_err(|cause| PodNetError::Wire {
                pod: uid.to_owned(),
                cause,
            })?;
        if let Some(net) = state.by_pod.remove(uid) {
            state.free.give_back(&net.ips);
        }
        Ok(())
    }

    async fn build(&self, uid: &str, ips: &[IpAddr]) -> Result<PodNet, PodNetError> {
        let pod = || uid.to_owned();
        let netns =
            NetNs::create().map_err(|cause| PodNetError::Namespace { pod: pod(), cause })?;
        sysctl::set_all(&netns, &POD_SYSCTLS)
            .map_err(|cause| PodNetError::Sysctl { pod: pod(), cause })?;
        let net = PodNet {
            netns,
            ips: ips.to_vec(),
        };
        self.wire(uid, &net)
            .await
            .map_err(|cause| PodNetError::Wire { pod: pod(), cause })?;
        Ok(net)
    }

    async fn wire(&self, uid: &str, net: &PodNet) -> Result<(), LinkError> {
        let node = &self.node.links;
        let pod = Links::open(&net.netns)?;
        let here = VethEnd {
            name: &device_name(uid),
            mac: Some(GATEWAY_MAC),
        };
        let there = VethEnd {
            name: POD_DEVICE,
            mac: None,
        };
        let node_end = node.add_veth(here, there, &pod, None).await?;
        let pod_end = pod.index(POD_DEVICE).await?;
        for ip in &net.ips {
            let (gateway, gateway_net) = gateway(*ip);
            node.add_address(node_end, gateway_net).await?;
            pod.add_address(pod_end, alone(*ip)).await?;
            if gateway.is_ipv4() {
                // A link-local gateway is a neighbour already in IPv6.
                pod.replace_route(&Route::new(alone(gateway), RouteKind::Link(pod_end)))
                    .await?;
            }
            let default = Route::new(everything(*ip), RouteKind::OnLink(gateway, pod_end));
            pod.replace_route(&default.with_source(*ip)).await?;
            let mut to_pod = Route::new(alone(*ip), RouteKind::Link(node_end));
            to_pod.source = self.node.own_ip(*ip);
            node.replace_route(&to_pod).await?;
        }
        Ok(())
    }
}

impl kubelet::PodNetwork for PodNets {
    fn attach<'a>(
        &'a self,
        pod: &'a kubelet::PodIdentity,
    ) -> BoxFuture<'a, Result<PodNet, kubelet::NetworkError>> {
        Box::pin(async move { Ok(Self::attach(self, &pod.uid).await?) })
    }

    fn detach<'a>(
        &'a self,
        pod: &'a kubelet::PodIdentity,
    ) -> BoxFuture<'a, Result<(), kubelet::NetworkError>> {
        Box::pin(async move { Ok(Self::detach(self, &pod.uid).await?) })
    }
}

/// The gateway in the family of `ip`, and as the node's side has it.
fn gateway(ip: IpAddr) -> (IpAddr, ipnet::IpNet) {
    match ip {
        IpAddr::V4(_) => (POD_GATEWAY_V4.into(), alone(POD_GATEWAY_V4.into())),
        IpAddr::V6(_) => (POD_GATEWAY_V6.into(), alone(POD_GATEWAY_V6.into())),
    }
}

/// `veth` and eight hex digits of the uid's FNV-1a hash: 12 of the 15 bytes that
/// a name may have, and the same after a restart.
fn device_name(uid: &str) -> String {
    let hash = uid.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("veth{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_and_are_stable() {
        assert_eq!(device_name(""), "veth811c9dc5");
        assert_eq!(device_name("a"), "vethe40c292c");
        assert!(device_name("6f1c4e9a-0000-4000-8000-000000000001").len() <= 15);
    }
}
