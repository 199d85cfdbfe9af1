//! DaemonSet → one Pod on each node that will have it.
//!
//! ```text
//!  per node   wanted, none there ──► create (bound to the node by affinity)
//!             not wanted, there  ──► delete
//!             ended              ──► delete, so that it is made anew
//!             too many           ──► keep the oldest; while surging, one old and one new
//!  per set    pods of older revisions ──► as many as maxUnavailable allows go first,
//!                                         or as many as maxSurge allows come first
//! ```
//!
//! Without surge a node's new pod comes only when the old one is gone for
//! good: both may want the same port of the node.

mod nodes;
mod status;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use portolan_model::workloads::DaemonUpdate;
use portolan_model::workloads::{ControllerRevision, DaemonSet, Node, Phase, Pod, Share};

use super::claim::Claimant;
use super::history::{History, REVISION_HASH, Revision};
use super::pods;
use super::status::look_again_for;
use super::step::{About, Kind, Step, Tell};

/// Pods created or deleted in one step, as in Kubernetes.
const BURST: usize = 250;
/// How long an ended pod is left, so that a node that refuses a pod is not
/// asked again at once.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// What brings a DaemonSet's pods closer to its template and the nodes.
///
/// `revisions` are those of its namespace; `pods` those of its namespace that
/// it controls or that nobody does; `nodes` are all.
pub fn daemon_set(
    set: &DaemonSet,
    revisions: &[&ControllerRevision],
    pods: &[&Pod],
    nodes: &[&Node],
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    if set.selector.is_empty() {
        return selects_all(set);
    }
    let claimant = Claimant {
        kind: Kind::DaemonSet,
        meta: &set.meta,
        selector: &set.selector,
    };
    let mine = claimant.claim(Kind::Pod, pods, |_| true, &mut step);
    let mut history = History::claim(claimant, revisions, set.status.collisions, &mut step);
    if set.meta.deleting {
        return step;
    }
    let update = history.settle(&set.template, &mut step);
    let mut look = Look {
        set,
        nodes,
        wishes: nodes::Wishes::of(set),
        by_node: by_node(&mine),
        update,
        now,
        step,
    };
    look.write_status(history.collisions);
    look_again_for(&mine, set.min_ready_seconds, now, &mut look.step);
    let mut work = look.manage();
    if work.is_empty() {
        work = look.roll();
    }
    look.carry_out(work);
    let Look {
        update, mut step, ..
    } = look;
    let live = |revision: &Revision| {
        revision.name == update.name || mine.iter().any(|pod| of_revision(pod) == revision.hash)
    };
    history.clean_up(set.revision_history_limit, live, &mut step);
    step
}

/// A selector without terms would take every pod of the namespace.
fn selects_all(set: &DaemonSet) -> Step {
    let mut step = Step::default();
    if set.status.observed_generation < set.meta.generation {
        step.tell.push(Tell {
            about: About::new(Kind::DaemonSet, &set.meta),
            warning: true,
            reason: "SelectingAll",
            message: "This daemon set is selecting all pods. A non-empty selector is required."
                .to_owned(),
        });
    }
    step
}

/// The revision that a pod was made from.
fn of_revision(pod: &Pod) -> &str {
    pod.meta
        .labels
        .get(REVISION_HASH)
        .map_or("", String::as_str)
}

/// Pods by the node that they are on or are meant for. Pods that ended and are
/// being deleted are as good as gone.
fn by_node<'a>(pods: &[&'a Pod]) -> BTreeMap<&'a str, Vec<&'a Pod>> {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        let node = pod.target_node();
        let as_good_as_gone = pod.is_finished() && pod.meta.deleting;
        if !node.is_empty() && !as_good_as_gone {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        // Scheduled ones first, then the oldest.
        pods.sort_by_key(|pod| (pod.node.is_empty(), pod.meta.created, &pod.meta.key.name));
    }
    by_node
}

/// What is to be done to pods.
#[derive(Default)]
struct Work<'a> {
    /// Nodes that get a pod.
    create: Vec<&'a str>,
    /// Pods that go.
    delete: Vec<&'a Pod>,
}

impl Work<'_> {
    fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// One look at a DaemonSet.
struct Look<'a> {
    set: &'a DaemonSet,
    nodes: &'a [&'a Node],
    wishes: nodes::Wishes,
    by_node: BTreeMap<&'a str, Vec<&'a Pod>>,
    /// The revision that the template is.
    update: Revision,
    now: Timestamp,
    step: Step,
}

impl<'a> Look<'a> {
    fn pods_of(&self, node: &str) -> &[&'a Pod] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(self.set.min_ready_seconds, self.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        of_revision(pod) == self.update.hash
    }

    fn surges(&self) -> bool {
        match self.set.update {
            DaemonUpdate::OnDelete => false,
            DaemonUpdate::RollingUpdate { max_surge, .. } => {
                !matches!(max_surge, Share::Count(0) | Share::Percent(0))
            }
        }
    }

    /// One pod where one is wanted, none where none is.
    fn manage(&mut self) -> Work<'a> {
        let mut work = Work::default();
        for node in self.nodes {
            self.manage_node(node, &mut work);
        }
        // Pods that wait for a node that is gone can never start.
        for (name, pods) in &self.by_node {
            if !self.nodes.iter().any(|node| node.meta.key.name == *name) {
                let waiting = pods
                    .iter()
                    .filter(|pod| pod.node.is_empty() && !pod.meta.deleting);
                work.delete.extend(waiting);
            }
        }
        work
    }

    fn manage_node(&mut self, node: &'a Node, work: &mut Work<'a>) {
        let name = node.meta.key.name.as_str();
        let wanted = self.wishes.of_node(node);
        let pods = self.pods_of(name).to_vec();
        let going = |pod: &&&Pod| pod.meta.deleting;
        if !wanted.stays {
            work.delete.extend(pods.iter().filter(|pod| !going(pod)));
        } else if pods.is_empty() {
            if wanted.runs {
                work.create.push(name);
            }
        } else {
            let live: Vec<&Pod> = pods.iter().filter(|pod| !going(pod)).copied().collect();
            let running = self.sweep(node, &live, work);
            if self.surges() {
                if live.is_empty() && wanted.runs {
                    work.create.push(name);
                }
                self.keep_two(&running, work);
            } else {
                work.delete.extend(running.iter().skip(1));
            }
        }
    }

    /// Ended pods go. Answers with the others.
    fn sweep(&mut self, node: &Node, pods: &[&'a Pod], work: &mut Work<'a>) -> Vec<&'a Pod> {
        let mut running = Vec::new();
        for pod in pods.iter().copied() {
            let (reason, warning, message) = match pod.phase {
                Phase::Failed => ("FailedDaemonPod", true, "failed"),
                Phase::Succeeded => ("SucceededDaemonPod", false, "succeeded"),
                Phase::Pending | Phase::Running | Phase::Unknown => {
                    running.push(pod);
                    continue;
                }
            };
            let age = pod.meta.created.map_or(i64::MAX, |created| {
                self.now.as_second().saturating_sub(created.as_second())
            });
            let young = FAILED_FOR.saturating_sub(Duration::from_secs(age.unsigned_abs()));
            if !young.is_zero() {
                self.step.look_again(young);
                continue;
            }
            let verb = if warning { "kill" } else { "delete" };
            let (pod_key, node) = (&pod.meta.key, &node.meta.key.name);
            self.step.tell.push(Tell {
                about: About::new(Kind::DaemonSet, &self.set.meta),
                warning,
                reason,
                message: format!(
                    "Found {message} daemon pod {pod_key} on node {node}, will try to {verb} it"
                ),
            });
            work.delete.push(pod);
        }
        running
    }

    /// While surging, a node may have an old pod that is ready and a new one
    /// that is not available yet; everything else goes. (Kubernetes keeps the
    /// oldest of several old ones; here one that serves is kept.)
    fn keep_two(&self, running: &[&'a Pod], work: &mut Work<'a>) {
        let mut best_first = running.to_vec();
        best_first.sort_by_key(|pod| (!self.is_available(pod), !pod.ready));
        let (new, old): (Vec<&Pod>, Vec<&Pod>) =
            best_first.into_iter().partition(|pod| self.is_updated(pod));
        work.delete.extend(new.iter().skip(1));
        work.delete.extend(old.iter().skip(1));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.ready || self.is_available(new))
        {
            work.delete.push(old);
        }
    }

    fn carry_out(&mut self, work: Work<'a>) {
        let owner = &self.set.meta;
        let deletions = work.delete.into_iter().take(BURST);
        let deletions = deletions.map(|pod| pods::delete(pod, Kind::DaemonSet, owner));
        let creations = work.create.into_iter().take(BURST);
        let creations = creations.map(|node| {
            let body = self.wishes.pod(self.set, &self.update, node);
            pods::create_unnamed(body, Kind::DaemonSet, owner)
        });
        self.step.writes.extend(deletions.chain(creations));
    }
}
