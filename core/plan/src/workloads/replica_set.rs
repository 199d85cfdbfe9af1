//! ReplicaSet → Pods.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_api::meta::labels;
use portolan_model::workloads::{Condition, Phase, Pod, ReplicaSet, ReplicaSetStatus};
use serde_json::{Value, json};

use super::claim::Claimant;
use super::pods;
use super::status::{condition_json, count, look_again_for, unless_zero, whole_second};
use super::step::{Action, Blame, Kind, Step};

/// Pods created or deleted in one step, as in Kubernetes.
const BURST: usize = 500;

/// What brings the pods of `set` closer to its number.
///
/// `pods` are the pods of its namespace that it controls or that nobody does;
/// `crowd` says how many pods of the same workload run on each node; `blame`
/// says why pods could not be made or deleted the last time.
pub fn replica_set(
    set: &ReplicaSet,
    pods: &[&Pod],
    crowd: &BTreeMap<&str, usize>,
    blame: Option<&Blame>,
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    let claimant = Claimant {
        kind: Kind::ReplicaSet,
        meta: &set.meta,
        selector: &set.selector,
    };
    let active: Vec<&Pod> = pods.iter().copied().filter(|pod| pod.is_active()).collect();
    let mine = claimant.claim(Kind::Pod, &active, |_| true, &mut step);
    let terminating = pods.iter().filter(|pod| {
        pod.meta.deleting
            && !pod.is_finished()
            && pod.meta.is_controlled_by(&set.meta.uid)
            && set.selector.matches(&pod.meta.labels)
    });
    // First, so that a template that the server refuses still has a status.
    let status = Status {
        set,
        mine: &mine,
        terminating: count(terminating.count()),
        now,
    };
    status.write(blame, &mut step);
    if !set.meta.deleting {
        let wanted = usize::try_from(set.replicas).unwrap_or(0);
        if mine.len() < wanted {
            let missing = (wanted - mine.len()).min(BURST);
            let body = pods::body(&set.template, Kind::ReplicaSet, &set.meta);
            let create = || pods::create_unnamed(body.clone(), Kind::ReplicaSet, &set.meta);
            step.writes
                .extend(std::iter::repeat_with(create).take(missing));
        } else {
            let mut victims = mine.clone();
            victims.sort_by_cached_key(|pod| rank(pod, crowd, now));
            victims.truncate((mine.len() - wanted).min(BURST));
            let delete = |pod| pods::delete(pod, Kind::ReplicaSet, &set.meta);
            step.writes.extend(victims.into_iter().map(delete));
        }
    }
    step
}

/// The order in which pods go: the smallest first.
type Rank = (
    bool,
    Phase,
    bool,
    i64,
    Reverse<usize>,
    u32,
    Reverse<i64>,
    Reverse<Option<Timestamp>>,
    String,
);

/// A user's word on which pod to delete first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Unscheduled before scheduled, pending before running, unready before ready,
/// cheap before dear, crowded nodes before empty ones, briefly ready before
/// long ready (by powers of two, so that age is not everything, KEP-2185),
/// often restarted before stable, young before old.
fn rank(pod: &Pod, crowd: &BTreeMap<&str, usize>, now: Timestamp) -> Rank {
    let cost = pod
        .meta
        .annotations
        .get(DELETION_COST)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0);
    let neighbours = crowd.get(pod.node.as_str()).copied().unwrap_or(0);
    let ready_for = match pod.ready_changed {
        Some(since) if pod.ready => {
            let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
            64 - u64::try_from(seconds).unwrap_or(0).leading_zeros()
        }
        Some(_) | None => 0,
    };
    (
        !pod.node.is_empty(),
        pod.phase,
        pod.ready,
        cost,
        Reverse(neighbours),
        ready_for,
        Reverse(pod.restarts),
        Reverse(pod.meta.created),
        pod.meta.uid.clone(),
    )
}

/// What the status is made from.
struct Status<'a> {
    set: &'a ReplicaSet,
    mine: &'a [&'a Pod],
    terminating: i64,
    now: Timestamp,
}

/// The condition of a ReplicaSet that cannot make or delete its pods.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

impl Status<'_> {
    /// Writes the status where it differs from the last one.
    fn write(&self, blame: Option<&Blame>, step: &mut Step) {
        let set = self.set;
        let template_labels = labels(&set.template);
        let of =
            |holds: &dyn Fn(&Pod) -> bool| count(self.mine.iter().filter(|pod| holds(pod)).count());
        let is = ReplicaSetStatus {
            observed_generation: set.meta.generation,
            replicas: of(&|_| true),
            fully_labeled: of(&|pod| {
                template_labels
                    .iter()
                    .all(|(key, value)| pod.meta.labels.get(*key).is_some_and(|v| v == value))
            }),
            ready: of(&|pod| pod.ready),
            available: of(&|pod| pod.is_available(set.min_ready_seconds, self.now)),
            terminating: Some(self.terminating),
            conditions: self.conditions(blame),
        };
        look_again_for(self.mine, set.min_ready_seconds, self.now, step);
        if is != set.status {
            let status = json!({"status": body(&is)});
            step.write(Kind::ReplicaSet, &set.meta, Action::MergeStatus(status));
        }
    }

    /// The last conditions, with or without a failure. Which error it was
    /// first stays: each of many pods has its own.
    fn conditions(&self, blame: Option<&Blame>) -> Vec<Condition> {
        let mut conditions = self.set.status.conditions.clone();
        match blame {
            None => conditions.retain(|known| known.kind != REPLICA_FAILURE),
            Some(_) if conditions.iter().any(|known| known.kind == REPLICA_FAILURE) => {}
            Some(blame) => conditions.push(Condition {
                kind: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: blame.reason.clone(),
                message: blame.message.clone(),
                updated: None,
                changed: whole_second(self.now),
            }),
        }
        conditions
    }
}

fn body(status: &ReplicaSetStatus) -> Value {
    let conditions: Vec<Value> = status.conditions.iter().map(condition_json).collect();
    json!({
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "fullyLabeledReplicas": unless_zero(status.fully_labeled),
        "readyReplicas": unless_zero(status.ready),
        "availableReplicas": unless_zero(status.available),
        "terminatingReplicas": status.terminating,
        "conditions": if conditions.is_empty() { Value::Null } else { conditions.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::super::Action;
    use super::super::laggard::Laggard;
    use super::super::testbed::Server;
    use super::*;
    use portolan_model::workloads::{Object, ObjectKey};
    use proptest::prelude::*;

    fn set(replicas: i64) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "set", "generation": 1},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        })
    }

    fn bed(replicas: i64) -> Server {
        let mut server = Server::default();
        server.put(Kind::ReplicaSet, set(replicas));
        server
    }

    #[test]
    fn pods_are_made_from_the_template_and_owned() {
        let mut server = bed(2);
        server.settle_sets();
        let pods = server.active();
        assert_eq!(pods.len(), 2);
        assert!(pods.iter().all(|pod| pod.meta.is_controlled_by("set")));
        assert_eq!(server.told[0], "Created pod: ");
        let status = server.sets().remove(0).status;
        assert_eq!(
            (status.replicas, status.fully_labeled, status.ready),
            (2, 2, 0)
        );
    }

    #[test]
    fn orphans_are_adopted_and_strays_released() {
        let mut server = bed(1);
        server.put(
            Kind::Pod,
            json!({"metadata": {"name": "orphan", "namespace": "a",
            "labels": {"app": "web"}}}),
        );
        server.put(
            Kind::Pod,
            json!({"metadata": {"name": "stray", "namespace": "a",
            "labels": {"app": "other"},
            "ownerReferences": [{"uid": "set", "controller": true}]}}),
        );
        let step = server.set_step(&server.sets()[0]);
        let patched: Vec<&str> = step
            .writes
            .iter()
            .filter(|write| matches!(write.action, Action::Strategic(_)))
            .map(|write| write.key.name.as_str())
            .collect();
        assert_eq!(patched, ["orphan", "stray"]);
        assert!(
            !step
                .writes
                .iter()
                .any(|w| matches!(w.action, Action::Create(_)))
        );
    }

    #[test]
    fn pods_go_in_kubernetes_order() {
        let pod = |name: &str, node: &str, phase: &str, ready: &str, cost: &str, restarts: i64| {
            Pod::read(&json!({
                "metadata": {"name": name, "namespace": "a", "uid": name,
                    "annotations": {DELETION_COST: cost}, "labels": {"app": "web"},
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "ownerReferences": [{"uid": "set", "controller": true}]},
                "spec": {"nodeName": node},
                "status": {"phase": phase,
                    "conditions": [{"type": "Ready", "status": ready,
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                    "containerStatuses": [{"restartCount": restarts}]},
            }))
        };
        let pods = [
            pod("stable", "n1", "Running", "True", "0", 0),
            pod("restarted", "n1", "Running", "True", "0", 3),
            pod("crowded", "n2", "Running", "True", "0", 0),
            pod("cheap", "n1", "Running", "True", "-5", 0),
            pod("unready", "n1", "Running", "False", "9", 0),
            pod("pending", "n1", "Pending", "False", "9", 0),
            pod("unscheduled", "", "Pending", "False", "9", 0),
        ];
        let pods: Vec<&Pod> = pods.iter().collect();
        let crowd = BTreeMap::from([("n1", 1), ("n2", 4)]);
        let step = replica_set(
            &ReplicaSet::read(&set(0)),
            &pods,
            &crowd,
            None,
            "2026-01-02T00:00:00Z".parse().expect("a time"),
        );
        let order: Vec<&str> = step
            .writes
            .iter()
            .filter(|write| matches!(write.action, Action::Delete { .. }))
            .map(|write| write.key.name.as_str())
            .collect();
        assert_eq!(
            order,
            [
                "unscheduled",
                "pending",
                "unready",
                "cheap",
                "crowded",
                "restarted",
                "stable"
            ]
        );
    }

    /// What happens to a controller whose watch lags.
    #[derive(Clone, Debug)]
    enum Happening {
        /// The watch delivers so many changes.
        Watch(usize),
        /// The watch breaks and lists again.
        Relist,
        /// The controller acts on what it knows.
        Act,
        /// The user asks for so many.
        Scale(i64),
        /// The nth pod changes by itself.
        Ready(usize),
        /// The nth pod is deleted by somebody.
        Kill(usize),
        /// Deleted pods end.
        Reap,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            4 => (1usize..4).prop_map(Happening::Watch),
            1 => Just(Happening::Relist),
            6 => Just(Happening::Act),
            1 => (0i64..7).prop_map(Happening::Scale),
            2 => (0usize..7).prop_map(Happening::Ready),
            1 => (0usize..7).prop_map(Happening::Kill),
            2 => Just(Happening::Reap),
        ]
    }

    fn act(world: &mut Laggard) {
        let set = world.server.sets().remove(0);
        let known = world.known_pods();
        let known: Vec<&Pod> = known.iter().map(AsRef::as_ref).collect();
        let step = replica_set(&set, &known, &BTreeMap::new(), None, world.server.now());
        world.carry_out(&step);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However late and in whatever company news arrives, there are never
        /// more pods than were ever asked for, a scale-down never takes more
        /// than it should, and in the end the number is right.
        #[test]
        fn it_never_makes_too_many(happenings in prop::collection::vec(happening(), 0..60)) {
            let mut world = Laggard::new(bed(3));
            let key = ObjectKey::new("a", "web");
            let mut most = 3;
            for happening in happenings {
                let pods = world.server.active();
                match happening {
                    Happening::Watch(count) => world.deliver(count),
                    Happening::Relist => world.relist(),
                    Happening::Act => {
                        let wanted = world.server.sets()[0].replicas;
                        let before = i64::try_from(pods.len()).expect("few");
                        act(&mut world);
                        let after = i64::try_from(world.server.active().len()).expect("few");
                        prop_assert!(after <= before.max(wanted), "{before} → {after} of {wanted}");
                    }
                    Happening::Scale(count) => {
                        most = most.max(count);
                        let patch = json!({"spec": {"replicas": count}});
                        world.server.change(Kind::ReplicaSet, &key, &patch, false);
                    }
                    Happening::Ready(n) => {
                        if let Some(pod) = pods.get(n) {
                            world.server.set_ready(&pod.meta.key, true);
                        }
                    }
                    Happening::Kill(n) => {
                        if let Some(pod) = pods.get(n) {
                            let at = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
                            world.server.change(Kind::Pod, &pod.meta.key, &at, false);
                        }
                    }
                    Happening::Reap => world.server.reap(),
                }
                prop_assert!(i64::try_from(world.server.active().len()).expect("few") <= most);
            }
            for _ in 0..4 {
                world.deliver(usize::MAX);
                act(&mut world);
            }
            let wanted = world.server.sets()[0].replicas;
            prop_assert_eq!(i64::try_from(world.server.active().len()).expect("few"), wanted);
        }
    }
}
