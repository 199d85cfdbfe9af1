//! Rollouts against a server in miniature.

use std::collections::BTreeMap;

use portolan_model::workloads::{ObjectKey, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testbed::Server;
use super::super::{Action, Blame, Kind, Step, replica_set};
use super::deployment;

fn web(replicas: i64, strategy: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "a", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]},
            },
            "strategy": strategy,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
        },
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn key() -> ObjectKey {
    ObjectKey::new("a", "web")
}

struct Bed {
    server: Server,
}

impl Bed {
    fn new(replicas: i64, strategy: &Value) -> Self {
        let mut server = Server::default();
        server.put(Kind::Deployment, web(replicas, strategy));
        Self { server }
    }

    fn patch(&mut self, patch: &Value) {
        self.server.change(Kind::Deployment, &key(), patch, false);
    }

    fn image(&mut self, image: &str) {
        self.patch(&json!({"spec": {"template":
            {"spec": {"containers": [{"name": "c", "image": image}]}}}}));
    }

    /// One step of the Deployment, then the ReplicaSets settle.
    fn step(&mut self) {
        self.server.seconds += 1;
        let step = self.server.deployment_step();
        self.server.carry_out(&step);
        self.server.settle_sets();
    }

    fn everything_ready(&mut self) {
        for pod in self.server.active() {
            if !pod.ready {
                self.server.set_ready(&pod.meta.key, true);
            }
        }
        self.server.reap();
        self.server.settle_sets();
    }

    /// Runs until nothing changes, all pods becoming ready.
    fn roll_out(&mut self) {
        for _ in 0..200 {
            let before = self.server.log.len();
            self.step();
            self.everything_ready();
            if self.server.log.len() == before {
                return;
            }
        }
        panic!("the rollout does not end: {:?}", self.server.sets());
    }

    fn images(&self) -> Vec<String> {
        let mut images: Vec<String> = self
            .server
            .objects
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::Pod)
            .map(|(_, pod)| pod["spec"]["containers"][0]["image"].to_string())
            .collect();
        images.sort();
        images
    }

    fn object(&self) -> &Value {
        &self.server.objects[&(Kind::Deployment, key())]
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.object()["status"]["conditions"].as_array().cloned();
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        conditions
            .unwrap_or_default()
            .iter()
            .find(|c| c["type"] == kind)
            .map(|c| (text(&c["status"]), text(&c["reason"])))
            .unwrap_or_default()
    }
}

#[test]
fn a_new_deployment_comes_up_and_says_so_as_kubectl_expects() {
    let mut bed = Bed::new(3, &rolling(json!("25%"), json!("25%")));
    bed.step();
    assert_eq!(bed.server.active().len(), 3);
    let name = bed.server.sets()[0].meta.key.name.clone();
    assert_eq!(
        bed.server.told[0],
        format!("Scaled up replica set {name} from 0 to 3")
    );
    bed.step();
    assert_eq!(
        bed.condition("Available"),
        ("False".into(), "MinimumReplicasUnavailable".into())
    );
    bed.roll_out();
    let status = &bed.object()["status"];
    assert_eq!(
        status["observedGeneration"],
        bed.object()["metadata"]["generation"]
    );
    for field in [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!(status.get("unavailableReplicas"), None);
    assert_eq!(
        bed.condition("Available"),
        ("True".into(), "MinimumReplicasAvailable".into())
    );
    assert_eq!(
        bed.condition("Progressing"),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
    assert_eq!(
        bed.object()["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "1"
    );
    let pod = bed.server.active().remove(0);
    assert!(pod.meta.labels.contains_key("pod-template-hash"));
    assert!(name.ends_with(&pod.meta.labels["pod-template-hash"]));
}

#[test]
fn a_rollback_finds_the_old_replica_set_again() {
    let mut bed = Bed::new(2, &rolling(json!(1), json!(0)));
    bed.roll_out();
    let first = bed.server.sets()[0].meta.uid.clone();
    bed.image("v2");
    bed.roll_out();
    assert_eq!(bed.images(), ["\"v2\"", "\"v2\""]);
    bed.image("v1");
    bed.roll_out();
    assert_eq!(bed.server.sets().len(), 2);
    let current = bed
        .server
        .sets()
        .into_iter()
        .find(|s| s.replicas == 2)
        .unwrap();
    assert_eq!(current.meta.uid, first);
    assert_eq!(
        current.meta.annotations["deployment.kubernetes.io/revision"],
        "3"
    );
    assert_eq!(
        current.meta.annotations["deployment.kubernetes.io/revision-history"],
        "1"
    );
    assert_eq!(
        bed.object()["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
}

#[test]
fn the_history_keeps_as_many_replica_sets_as_asked() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        bed.image(image);
        bed.roll_out();
    }
    assert_eq!(
        bed.server.sets().len(),
        3,
        "the current one and two old ones"
    );
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut bed = Bed::new(3, &json!({"type": "Recreate"}));
    bed.roll_out();
    bed.image("v2");
    for _ in 0..5 {
        bed.step();
        assert!(
            bed.images().iter().all(|image| image == "\"v1\""),
            "old pods still there"
        );
    }
    assert_eq!(bed.server.active().len(), 0);
    bed.server.reap();
    bed.roll_out();
    assert_eq!(bed.images(), ["\"v2\""; 3]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut bed = Bed::new(2, &rolling(json!(1), json!(0)));
    bed.roll_out();
    bed.patch(&json!({"spec": {"paused": true, "replicas": 4}}));
    bed.image("v2");
    bed.roll_out();
    assert_eq!(bed.images(), ["\"v1\""; 4]);
    assert_eq!(
        bed.condition("Progressing"),
        ("Unknown".into(), "DeploymentPaused".into())
    );
    bed.patch(&json!({"spec": {"paused": false}}));
    bed.roll_out();
    assert_eq!(bed.images(), ["\"v2\""; 4]);
    assert_eq!(
        bed.condition("Progressing"),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_mix() {
    let mut bed = Bed::new(10, &rolling(json!(3), json!(2)));
    bed.roll_out();
    bed.image("v2");
    (0..3).for_each(|_| bed.step());
    let sizes = |bed: &Bed| {
        let mut sizes: Vec<i64> = bed.server.sets().iter().map(|s| s.replicas).collect();
        sizes.sort();
        sizes
    };
    assert_eq!(
        sizes(&bed),
        [5, 8],
        "the worked example of the Kubernetes documentation"
    );
    bed.patch(&json!({"spec": {"replicas": 15}}));
    bed.step();
    assert_eq!(sizes(&bed).iter().sum::<i64>(), 18);
    assert_eq!(sizes(&bed), [7, 11]);
    bed.roll_out();
    assert_eq!(bed.images().len(), 15);
}

#[test]
fn a_rollout_without_progress_times_out() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    bed.step();
    bed.step();
    bed.server.seconds += 1000;
    bed.step();
    assert_eq!(
        bed.condition("Progressing"),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
    bed.roll_out();
    assert_eq!(
        bed.condition("Progressing"),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
}

#[test]
fn going_back_after_a_timeout_is_a_new_rollout_from_its_first_status_on() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    bed.roll_out();
    bed.image("broken");
    bed.step();
    bed.step();
    bed.server.seconds += 1000;
    bed.step();
    assert_eq!(
        bed.condition("Progressing"),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
    bed.image("v1");
    bed.step();
    let status = &bed.object()["status"];
    assert_eq!(
        status["observedGeneration"],
        bed.object()["metadata"]["generation"]
    );
    assert_eq!(
        bed.condition("Progressing"),
        ("True".into(), "FoundNewReplicaSet".into())
    );
    bed.roll_out();
    assert_eq!(
        bed.condition("Progressing"),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
}

#[test]
fn min_ready_seconds_delay_availability() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    bed.patch(&json!({"spec": {"minReadySeconds": 30}}));
    bed.step();
    bed.everything_ready();
    bed.step();
    assert_eq!(bed.object()["status"]["readyReplicas"], 1);
    assert_eq!(bed.object()["status"].get("availableReplicas"), None);
    let set = bed.server.sets().remove(0);
    assert!(
        bed.server.set_step(&set).again.is_some(),
        "looks again by itself"
    );
    bed.server.seconds += 31;
    bed.server.settle_sets();
    bed.step();
    assert_eq!(bed.object()["status"]["availableReplicas"], 1);
}

#[test]
fn old_replica_sets_stay_until_the_rollout_is_complete() {
    let mut bed = Bed::new(2, &rolling(json!(1), json!(0)));
    for image in ["v1", "v2", "v3"] {
        bed.image(image);
        bed.roll_out();
    }
    bed.image("v4");
    for _ in 0..5 {
        bed.step();
    }
    assert_eq!(bed.server.sets().len(), 4, "the fourth is not complete");
    bed.roll_out();
    assert_eq!(bed.server.sets().len(), 3);
}

#[test]
fn trouble_of_a_replica_set_is_the_deployments_too() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    bed.step();
    let set = bed.server.sets().remove(0);
    let blame = Blame {
        reason: "FailedCreate".to_owned(),
        message: "pods \"web-x\" is forbidden: no".to_owned(),
    };
    let step = replica_set(&set, &[], &BTreeMap::new(), Some(&blame), bed.server.now());
    bed.server.write(&step.writes[0]);
    bed.step();
    assert_eq!(
        bed.condition("ReplicaFailure"),
        ("True".into(), "FailedCreate".into())
    );
    bed.roll_out();
    assert_eq!(
        bed.condition("ReplicaFailure"),
        (String::new(), String::new()),
        "and goes with it"
    );
}

#[test]
fn a_replica_set_that_is_refused_is_told_before_it_is_tried_again() {
    let bed = Bed::new(1, &rolling(json!(1), json!(0)));
    let wanted = bed.server.deployment();
    let blame = Blame {
        reason: "ReplicaSetCreateError".to_owned(),
        message: "no".to_owned(),
    };
    let step = deployment(&wanted, &[], &|_| false, Some(&blame), bed.server.now());
    let Action::MergeStatus(status) = &step.writes[0].action else {
        panic!("{step:?}");
    };
    let conditions = status["status"]["conditions"].as_array().expect("a list");
    let progressing = conditions
        .iter()
        .find(|c| c["type"] == "Progressing")
        .expect("there");
    assert_eq!(progressing["status"], "False");
    assert_eq!(progressing["reason"], "ReplicaSetCreateError");
    let message = progressing["message"].as_str().unwrap_or("");
    assert!(
        message.starts_with("Failed to create new replica set \"web-")
            && message.ends_with("\": no"),
        "{message}"
    );
    let failure = step.writes[1].failure.as_ref().expect("told");
    assert_eq!(
        (failure.reason, failure.warning),
        ("ReplicaSetCreateError", true)
    );
}

#[test]
fn a_taken_name_is_a_collision_and_another_is_found() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    bed.step();
    let name = bed.server.sets()[0].meta.key.name.clone();
    let mut other = Bed::new(1, &rolling(json!(1), json!(0)));
    other.server.put(
        Kind::ReplicaSet,
        json!({"metadata": {"name": name, "namespace": "a",
            "ownerReferences": [{"uid": "another", "controller": true}]},
            "spec": {"replicas": 0, "template": {}}}),
    );
    other.roll_out();
    assert_eq!(other.object()["status"]["collisionCount"], 1);
    assert_eq!(other.images(), ["\"v1\""]);
}

#[test]
fn pods_that_are_going_are_counted_apart() {
    let mut bed = Bed::new(2, &rolling(json!(1), json!(0)));
    bed.roll_out();
    assert_eq!(bed.object()["status"]["terminatingReplicas"], 0);
    bed.patch(&json!({"spec": {"replicas": 0}}));
    bed.step();
    bed.step();
    assert_eq!(bed.object()["status"]["terminatingReplicas"], 2);
    assert_eq!(bed.object()["status"].get("replicas"), None);
}

#[test]
fn replica_sets_are_adopted_and_released_by_label() {
    let mut bed = Bed::new(1, &rolling(json!(1), json!(0)));
    bed.roll_out();
    let name = bed.server.sets()[0].meta.key.clone();
    bed.server.change(
        Kind::ReplicaSet,
        &name,
        &json!({"metadata": {"labels": {"app": "other"}}}),
        false,
    );
    let step = bed.server.deployment_step();
    let patched = |step: &Step| -> Vec<String> {
        step.writes
            .iter()
            .filter(|w| matches!(w.action, Action::Strategic(_)))
            .map(|w| w.key.name.clone())
            .collect()
    };
    assert_eq!(patched(&step), [name.name.as_str()], "released");
    bed.server.change(
        Kind::ReplicaSet,
        &name,
        &json!({"metadata": {"labels": {"app": "web"}, "ownerReferences": null}}),
        false,
    );
    let step = bed.server.deployment_step();
    assert_eq!(patched(&step), [name.name.as_str()], "adopted");
    assert!(
        !step
            .writes
            .iter()
            .any(|w| matches!(w.action, Action::Create(_)))
    );
}

#[test]
fn a_restart_is_a_new_template_and_an_undo_an_old_one() {
    let mut bed = Bed::new(2, &rolling(json!(1), json!(0)));
    bed.roll_out();
    bed.patch(&json!({"spec": {"template": {"metadata": {"annotations":
        {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}}}}));
    bed.roll_out();
    assert_eq!(bed.server.sets().len(), 2);
    bed.patch(&json!({"spec": {"template": {"metadata": {"annotations": null}}}}));
    bed.roll_out();
    assert_eq!(bed.server.sets().len(), 2);
    assert_eq!(
        bed.object()["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
}

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Happening {
    /// The nth pod that is not ready becomes ready.
    Ready(usize),
    /// Deleted pods end.
    Reap,
    /// The Deployment acts.
    Step,
    /// The ReplicaSets act.
    Sets,
    /// The nth ReplicaSet acts once, the others are late: their status is old.
    OneSet(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0usize..8).prop_map(Happening::Ready),
        1 => Just(Happening::Reap),
        3 => Just(Happening::Step),
        2 => Just(Happening::Sets),
        3 => (0usize..3).prop_map(Happening::OneSet),
    ]
}

fn share() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0i64..4).prop_map(|n| json!(n)),
        (0i64..60).prop_map(|p| json!(format!("{p}%"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// At every moment of a rolling update at most wanted + surge pods are asked
    /// for, and there are at least wanted − unavailable available ones; and it ends.
    #[test]
    fn a_rolling_update_keeps_its_bounds_and_ends(
        replicas in 1i64..9,
        surge in share(),
        unavailable in share(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let mut bed = Bed::new(replicas, &rolling(surge.clone(), unavailable.clone()));
        bed.roll_out();
        bed.image("v2");
        let round = |value: &Value, up: bool| {
            let share = portolan_model::workloads::Share::of(value).unwrap();
            if up { share.rounded_up(replicas) } else { share.rounded_down(replicas) }
        };
        let (surge, mut unavailable) = (round(&surge, true), round(&unavailable, false));
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        let least = replicas - unavailable.min(replicas);
        for happening in happenings {
            match happening {
                Happening::Ready(n) => {
                    let waiting: Vec<Pod> =
                        bed.server.active().into_iter().filter(|p| !p.ready).collect();
                    if let Some(pod) = waiting.get(n) {
                        bed.server.set_ready(&pod.meta.key, true);
                    }
                }
                Happening::Reap => bed.server.reap(),
                Happening::Step => {
                    bed.server.seconds += 1;
                    let step = bed.server.deployment_step();
                    bed.server.carry_out(&step);
                }
                Happening::Sets => bed.server.settle_sets(),
                Happening::OneSet(n) => {
                    if let Some(set) = bed.server.sets().get(n) {
                        let step = bed.server.set_step(set);
                        bed.server.carry_out(&step);
                    }
                }
            }
            let active = bed.server.active();
            let available = active.iter().filter(|pod| pod.ready).count();
            // Counted by what is asked for, as Kubernetes does: a ReplicaSet
            // that is late to delete may have a pod more for a moment.
            let asked: i64 = bed.server.sets().iter().map(|set| set.replicas).sum();
            prop_assert!(asked <= replicas + surge, "{asked} > {replicas} + {surge}");
            prop_assert!(i64::try_from(available).unwrap() >= least, "{available} < {least}");
        }
        bed.roll_out();
        prop_assert_eq!(bed.images(), vec!["\"v2\"".to_owned(); usize::try_from(replicas).unwrap()]);
    }
}
