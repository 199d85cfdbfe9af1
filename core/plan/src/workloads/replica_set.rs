//! ReplicaSet → Pods.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use portolan_api::meta::{annotations, labels};
use portolan_api::value::at;
use portolan_model::workloads::{Phase, Pod, ReplicaSet};
use serde_json::json;

use super::step::{
    About, Action, Kind, Step, Tell, Write, adopt, controller_reference, release, unless_zero,
};

/// Pods created or deleted in one step, as in Kubernetes.
const BURST: usize = 500;

/// What brings the pods of `set` closer to its number.
///
/// `pods` are the pods of its namespace that it controls or that nobody does;
/// `crowd` says how many pods of the same workload run on each node.
pub fn replica_set(
    set: &ReplicaSet,
    pods: &[&Pod],
    crowd: &BTreeMap<&str, usize>,
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    let mine = claim(set, pods, &mut step);
    // First, so that a template that the server refuses still has a status.
    status(set, &mine, now, &mut step);
    if !set.meta.deleting {
        let wanted = usize::try_from(set.replicas).unwrap_or(0);
        if mine.len() < wanted {
            let missing = (wanted - mine.len()).min(BURST);
            step.writes
                .extend(std::iter::repeat_with(|| create(set)).take(missing));
        } else {
            let mut victims = mine.clone();
            victims.sort_by_cached_key(|pod| rank(pod, crowd, now));
            victims.truncate((mine.len() - wanted).min(BURST));
            step.writes
                .extend(victims.into_iter().map(|pod| delete(set, pod)));
        }
    }
    step
}

/// Its active pods: those it controls and that it selects, and orphans that it
/// selects. Pods that it controls but selects no more are released.
fn claim<'a>(set: &ReplicaSet, pods: &[&'a Pod], step: &mut Step) -> Vec<&'a Pod> {
    let mut mine = Vec::new();
    for pod in pods.iter().copied().filter(|pod| pod.is_active()) {
        let selected = set.selector.matches(&pod.meta.labels);
        if pod.meta.is_controlled_by(&set.meta.uid) {
            if selected {
                mine.push(pod);
            } else if !set.meta.deleting {
                step.write(Kind::Pod, &pod.meta, release(&set.meta, &pod.meta));
            }
        } else if selected && pod.meta.controller.is_none() && !set.meta.deleting {
            step.write(
                Kind::Pod,
                &pod.meta,
                adopt(Kind::ReplicaSet, &set.meta, &pod.meta),
            );
            mine.push(pod);
        }
    }
    mine
}

/// A pod as the template says.
fn create(set: &ReplicaSet) -> Write {
    let template = set.template.as_ref();
    let mut metadata = json!({
        "generateName": format!("{}-", set.meta.key.name),
        "namespace": set.meta.key.namespace,
        "labels": labels(template),
        "ownerReferences": [controller_reference(Kind::ReplicaSet, &set.meta)],
    });
    let notes = annotations(template);
    if !notes.is_empty() {
        metadata["annotations"] = json!(notes);
    }
    let finalizers = at(template, "metadata.finalizers");
    if !finalizers.is_null() {
        metadata["finalizers"] = finalizers.clone();
    }
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": at(template, "spec").clone(),
    });
    let tell = |warning, reason, message: &str| {
        Some(Tell {
            about: About::new(Kind::ReplicaSet, &set.meta),
            warning,
            reason,
            message: message.to_owned(),
        })
    };
    Write {
        kind: Kind::Pod,
        key: portolan_model::workloads::ObjectKey::new(&set.meta.key.namespace, ""),
        action: Action::Create(body),
        success: tell(false, "SuccessfulCreate", "Created pod: "),
        failure: tell(true, "FailedCreate", "Error creating: "),
    }
}

fn delete(set: &ReplicaSet, pod: &Pod) -> Write {
    let tell = |warning, reason, message: String| {
        Some(Tell {
            about: About::new(Kind::ReplicaSet, &set.meta),
            warning,
            reason,
            message,
        })
    };
    Write {
        kind: Kind::Pod,
        key: pod.meta.key.clone(),
        action: Action::Delete {
            uid: pod.meta.uid.clone(),
            force: false,
        },
        success: tell(
            false,
            "SuccessfulDelete",
            format!("Deleted pod: {}", pod.meta.key.name),
        ),
        failure: tell(true, "FailedDelete", "Error deleting: ".to_owned()),
    }
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

/// Writes the status where it differs from the last one.
fn status(set: &ReplicaSet, mine: &[&Pod], now: Timestamp, step: &mut Step) {
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        i64::try_from(mine.iter().filter(|pod| holds(pod)).count()).unwrap_or(i64::MAX)
    };
    let template_labels = labels(&set.template);
    let replicas = count(&|_| true);
    let fully_labeled = count(&|pod| {
        template_labels
            .iter()
            .all(|(key, value)| pod.meta.labels.get(*key).is_some_and(|v| v == value))
    });
    let ready = count(&|pod| pod.ready);
    let available = count(&|pod| pod.is_available(set.min_ready_seconds, now));
    if available < ready {
        // Time alone makes them available: look again when the first is due.
        let due = mine
            .iter()
            .filter(|pod| pod.ready && !pod.is_available(set.min_ready_seconds, now))
            .filter_map(|pod| pod.ready_changed)
            .map(|since| since.as_second() + set.min_ready_seconds - now.as_second())
            .min()
            .unwrap_or(1);
        step.look_again(Duration::from_secs(u64::try_from(due).unwrap_or(1).max(1)));
    }
    let was = &set.status;
    let same = was.observed_generation == set.meta.generation
        && (was.replicas, was.fully_labeled, was.ready, was.available)
            == (replicas, fully_labeled, ready, available);
    if !same {
        let status = json!({
            "observedGeneration": set.meta.generation,
            "replicas": replicas,
            "fullyLabeledReplicas": unless_zero(fully_labeled),
            "readyReplicas": unless_zero(ready),
            "availableReplicas": unless_zero(available),
        });
        step.write(
            Kind::ReplicaSet,
            &set.meta,
            Action::MergeStatus(json!({"status": status})),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::testbed::Server;
    use super::*;
    use portolan_model::workloads::{Object, ObjectKey};
    use proptest::prelude::*;
    use serde_json::Value;

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

    /// A controller that knows pods only through a lagging watch and the
    /// answers to its own writes.
    struct Laggard {
        server: Server,
        pods: Store<Pod>,
        delivered: usize,
    }

    impl Laggard {
        fn act(&mut self) {
            let set = self.server.sets().remove(0);
            let known: Vec<std::sync::Arc<Pod>> = self.pods.all().cloned().collect();
            let known: Vec<&Pod> = known.iter().map(AsRef::as_ref).collect();
            let step = replica_set(&set, &known, &BTreeMap::new(), self.server.now());
            for write in step.writes.iter().filter(|write| write.kind == Kind::Pod) {
                if let Action::Delete { uid, .. } = &write.action {
                    let here = self
                        .server
                        .objects
                        .contains_key(&(Kind::Pod, write.key.clone()));
                    if here {
                        self.server.write(write);
                    }
                    self.pods.told_to_go(&write.key, uid);
                } else if let Some(answer) = self.server.write(write) {
                    self.pods.wrote(Pod::read(&answer));
                }
            }
        }

        fn deliver(&mut self, count: usize) {
            for _ in 0..count {
                let Some((kind, object, gone)) = self.server.log.get(self.delivered) else {
                    return;
                };
                self.delivered += 1;
                if *kind == Kind::Pod {
                    let pod = Pod::read(object);
                    if *gone {
                        self.pods.saw_end(&pod);
                    } else {
                        self.pods.saw(pod);
                    }
                }
            }
        }

        fn relist(&mut self) {
            let last = self
                .server
                .log
                .last()
                .map(|(_, object, _)| Pod::read(object).meta.version);
            self.pods.replace(self.server.pods(), last.unwrap_or(0));
            self.delivered = self.server.log.len();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However late and in whatever company news arrives, there are never
        /// more pods than were ever asked for, a scale-down never takes more
        /// than it should, and in the end the number is right.
        #[test]
        fn it_never_makes_too_many(happenings in prop::collection::vec(happening(), 0..60)) {
            let mut world = Laggard { server: bed(3), pods: Store::default(), delivered: 0 };
            world.relist();
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
                        world.act();
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
                world.act();
            }
            let wanted = world.server.sets()[0].replicas;
            prop_assert_eq!(i64::try_from(world.server.active().len()).expect("few"), wanted);
        }
    }
}
