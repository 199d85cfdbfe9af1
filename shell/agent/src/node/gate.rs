//! Where those who make pods' networks wait until the pods' policies hold (N16).
//!
//! Whoever made a network tells the node's loop of it and gets an answer once the
//! kernel holds what policies say of the pod at those addresses: after the agent has
//! read every watched kind, knows the pod, and has committed. Until then the pod's
//! first process must not start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_model::{Attachment, Change, PodKey, Uid};
use portolan_plan::policy::Policies;
use tokio::sync::{Notify, oneshot};

/// The way to one node's loop. Clones lead to the same.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    desk: Arc<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    asked: Mutex<Vec<Asked>>,
    called: Notify,
}

/// Somebody who waits: for a pod's policies, or for the first commit.
#[derive(Debug)]
struct Waiting {
    attachment: Option<Attachment>,
    answer: oneshot::Sender<()>,
}

#[derive(Debug)]
enum Asked {
    Wait(Waiting),
    Tell(Attachment),
    Detach(PodKey, Uid),
}

impl Gate {
    /// Tells of a pod's network and waits until its policies hold there. Whoever does
    /// not want to wait any longer drops the future; what was told stays told.
    pub async fn attach(&self, attachment: Attachment) {
        self.wait(Some(attachment)).await;
    }

    /// Waits until the kernel holds what the API server says.
    pub async fn ready(&self) {
        self.wait(None).await;
    }

    async fn wait(&self, attachment: Option<Attachment>) {
        let (answer, answered) = oneshot::channel();
        self.put(Asked::Wait(Waiting { attachment, answer }));
        if answered.await.is_err() {
            // The loop ends: nobody may go on because of that.
            std::future::pending::<()>().await;
        }
    }

    /// Tells of a pod's network, and does not wait.
    pub fn tell(&self, attachment: Attachment) {
        self.put(Asked::Tell(attachment));
    }

    /// Tells that the network of a pod is gone.
    pub fn detach(&self, pod: PodKey, uid: Uid) {
        self.put(Asked::Detach(pod, uid));
    }

    fn put(&self, asked: Asked) {
        self.lock().push(asked);
        self.desk.called.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        let asked = self.desk.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner)
    }

    /// Until somebody asked.
    pub(super) async fn called(&self) {
        self.desk.called.notified().await;
    }
}

/// The loop's side.
#[derive(Debug)]
pub(super) struct Keeper {
    gate: Gate,
    /// Policies are enforced at all.
    policies: bool,
    waiting: Vec<Waiting>,
}

impl Keeper {
    pub(super) fn new(gate: Gate, policies: bool) -> Self {
        let waiting = Vec::new();
        Self {
            gate,
            policies,
            waiting,
        }
    }

    /// Where one asks.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What was asked since the last time, as changes.
    pub(super) fn take(&mut self) -> Vec<Change> {
        let asked = std::mem::take(&mut *self.gate.lock());
        let change = |asked| match asked {
            Asked::Detach(pod, uid) => Some(Change::Detach(pod, uid)),
            Asked::Tell(attachment) => Some(Change::Attach(attachment)),
            Asked::Wait(waiting) => {
                let attachment = waiting.attachment.clone();
                self.waiting.push(waiting);
                attachment.map(Change::Attach)
            }
        };
        asked.into_iter().filter_map(change).collect()
    }

    /// Lets those go on whose pods the kernel treats as these policies say: it holds
    /// them. Nobody waits where policies are not enforced.
    pub(super) fn open(&mut self, held: &Policies) {
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            let governed = one
                .attachment
                .as_ref()
                .is_none_or(|own| held.governs(&own.pod, &own.addresses));
            if !self.policies || governed {
                // Who went away needs no answer.
                one.answer.send(()).ok();
            } else if !one.answer.is_closed() {
                self.waiting.push(one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::{Cluster, Fact, Pod};
    use portolan_plan::{NodeView, node};

    use super::*;

    #[tokio::test]
    async fn n16_nobody_passes_before_the_pod_is_known() {
        let gate = Gate::default();
        let mut keeper = Keeper::new(gate.clone(), true);
        let view = NodeView {
            node: "n".into(),
            ..NodeView::default()
        };
        let key = PodKey::new("ns", "web");
        let attachment = Attachment {
            pod: key.clone(),
            uid: Uid::UNKNOWN,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let passing = tokio::spawn(async move { gate.attach(attachment).await });
        keeper.gate.called().await;
        let mut cluster = Cluster::default();
        for change in keeper.take() {
            cluster.apply(change);
        }
        keeper.open(&node(&cluster, &view).policies);
        assert_eq!(keeper.waiting.len(), 1);
        let pod = Pod {
            node: Some("n".into()),
            ..Pod::at(key, None)
        };
        cluster.apply(Change::Upsert(Fact::Pod(pod.into())));
        keeper.open(&node(&cluster, &view).policies);
        assert!(keeper.waiting.is_empty());
        passing.await.unwrap();
    }
}
