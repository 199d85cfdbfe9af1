//! What the node's loop and the task of the way back hand to each other.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_plan::{NodePlan, NodeView, Replies};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::state;
use crate::node::NodeConfig;

/// What the node's loop tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// The ranges of the node's pods.
    pub(super) ranges: Vec<IpNet>,
    /// The node's addresses by its Node object.
    pub(super) addresses: Vec<IpAddr>,
    /// Of what is known of the way back, what the kernel's rules are made of.
    pub(super) held: Option<Arc<Replies>>,
}

/// The loop's end.
pub(crate) struct Hand {
    /// Nothing, where clients do not keep their addresses.
    ends: Option<Ends>,
}

struct Ends {
    found: watch::Receiver<Option<Arc<Replies>>>,
    told: watch::Sender<Told>,
}

impl Hand {
    /// Starts the task, or takes away what an earlier one has left.
    pub(crate) fn start(config: &NodeConfig, shutdown: &CancellationToken) -> Self {
        let path = config.reply_path.clone();
        let place = state::Place {
            node: config.given.node.to_string(),
            netns: config.netns.clone(),
            kube: config.kube.clone(),
            path,
        };
        let shutdown = shutdown.clone();
        if !place.path.on {
            tokio::spawn(shutdown.run_until_cancelled_owned(state::leave(place)));
            return Self { ends: None };
        }
        let (found_here, found) = watch::channel(None);
        let (told, told_there) = watch::channel(Told::default());
        let work = state::work(place, found_here, told_there);
        tokio::spawn(shutdown.run_until_cancelled_owned(work));
        Self {
            ends: Some(Ends { found, told }),
        }
    }

    /// Returns when something else is known of the way back; never if nothing is asked.
    pub(crate) async fn changed(&mut self) {
        if let Some(ends) = &mut self.ends
            && ends.found.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Puts into a view what is known of the way back.
    pub(crate) fn show(&mut self, view: &mut NodeView) {
        if let Some(ends) = &mut self.ends {
            view.replies.clone_from(&ends.found.borrow_and_update());
        }
    }

    /// Whether nothing is known yet: a plan made now would forget whose answers go
    /// where.
    pub(crate) fn is_awaited(&self) -> bool {
        self.ends
            .as_ref()
            .is_some_and(|ends| ends.found.borrow().is_none())
    }

    /// Tells what the kernel holds now.
    pub(crate) fn tell(&self, plan: &NodePlan) {
        if let Some(Ends { told, .. }) = &self.ends {
            told.send_if_modified(|told| {
                let (view, before) = (&plan.view, &*told);
                let same = before.ranges == view.node_pod_cidrs
                    && before.addresses == view.node_addresses
                    && same(before.held.as_ref(), view.replies.as_ref());
                if !same {
                    *told = Told {
                        ranges: view.node_pod_cidrs.clone(),
                        addresses: view.node_addresses.clone(),
                        held: view.replies.clone(),
                    };
                }
                !same
            });
        }
    }
}

/// Whether both are one, which costs nothing to say.
fn same(one: Option<&Arc<Replies>>, other: Option<&Arc<Replies>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
