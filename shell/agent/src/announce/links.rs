//! The tasks of all links.

use std::collections::{BTreeMap, BTreeSet};

use portolan_announce::l2::Mac;
use portolan_kernel::link::LinkIndex;
use portolan_kernel::netns::NetNs;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::ledger::Orders;
use super::link::{Answerer, Order};
use super::survey::Found;
use super::told::AnnounceTold;

/// The task of a link. It ends when nobody can give it orders any more.
struct Running {
    index: LinkIndex,
    mac: Mac,
    orders: mpsc::UnboundedSender<Order>,
}

/// The tasks of all links, by name.
pub(super) struct LinkTasks {
    netns: NetNs,
    tasks: TaskTracker,
    told: AnnounceTold,
    running: BTreeMap<String, Running>,
}

impl LinkTasks {
    pub(super) fn new(netns: NetNs, tasks: TaskTracker, told: AnnounceTold) -> Self {
        Self {
            netns,
            tasks,
            told,
            running: BTreeMap::new(),
        }
    }

    /// The links are these now. Answers with those whose tasks are new.
    pub(super) fn set(&mut self, found: &[Found]) -> BTreeSet<String> {
        self.running.retain(|name, running| {
            let same = |link: &&Found| {
                link.name == *name && link.index == running.index && link.mac == running.mac
            };
            found.iter().any(|link| same(&link))
        });
        let mut new = BTreeSet::new();
        for link in found {
            if self.running.contains_key(&link.name) {
                continue;
            }
            let (orders, receiver) = mpsc::unbounded_channel();
            let answerer = Answerer::new(self.netns.clone(), link.clone(), self.told.clone());
            self.tasks.spawn(answerer.run(receiver));
            let running = Running {
                index: link.index,
                mac: link.mac,
                orders,
            };
            self.running.insert(link.name.clone(), running);
            new.insert(link.name.clone());
        }
        new
    }

    /// Tells each link's task what it is to do. A link that is not there any more has
    /// nothing to do, and is told all when it is back.
    pub(super) fn carry_out(&self, orders: Orders) {
        for (link, order) in orders {
            if let Some(running) = self.running.get(link.as_ref())
                && running.orders.send(order).is_err()
            {
                tracing::warn!(%link, "the task of a link has ended");
            }
        }
    }

    /// Nothing is answered for any more.
    pub(super) fn release_all(&mut self) {
        self.running.clear();
    }
}
