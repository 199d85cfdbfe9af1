//! Networks of pods that are ready once the node's agent says that the pods' policies
//! hold (N16): the lab's pod managers and its agents do not know each other.

use std::time::Duration;

use anyhow::anyhow;
use futures::future::BoxFuture;
use portolan_agent::node::Gate;
use portolan_lab::kubelet::{NetworkError, PodIdentity, PodNet, PodNetwork};
use portolan_lab::pod_net::PodNets;
use portolan_model::{Attachment, PodKey, Uid};

/// How long a pod waits for its policies before it is tried anew.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node's networks of pods, and the way to its agent.
pub(crate) struct GatedNets {
    pub(crate) nets: PodNets,
    pub(crate) gate: Gate,
}

impl PodNetwork for GatedNets {
    fn attach<'a>(&'a self, pod: &'a PodIdentity) -> BoxFuture<'a, Result<PodNet, NetworkError>> {
        Box::pin(async move {
            let net = self.nets.attach(&pod.uid).await?;
            let attachment = Attachment {
                pod: key(pod),
                uid: Uid::of(&pod.uid),
                addresses: net.ips.clone(),
            };
            let held = tokio::time::timeout(PATIENCE, self.gate.attach(attachment));
            if held.await.is_err() {
                self.detach(pod).await?;
                let pod = key(pod);
                let late = anyhow!("the policies of pod {pod} are not in place after {PATIENCE:?}");
                return Err(late.into());
            }
            Ok(net)
        })
    }

    fn detach<'a>(&'a self, pod: &'a PodIdentity) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            let gone = self.nets.detach(&pod.uid).await;
            self.gate.detach(key(pod), Uid::of(&pod.uid));
            Ok(gone?)
        })
    }
}

fn key(pod: &PodIdentity) -> PodKey {
    PodKey::new(&pod.namespace, &pod.name)
}
