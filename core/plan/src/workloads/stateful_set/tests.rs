//! StatefulSets against a server in miniature.

mod laws;

use std::collections::BTreeMap;

use portolan_model::workloads::{ControllerRevision, ObjectKey, Pod, StatefulSet};
use serde_json::{Value, json};

use super::super::testbed::Server;
use super::super::{Action, Kind, Step, Write};
use super::{of_revision, stateful_set};

fn key() -> ObjectKey {
    ObjectKey::new("a", "db")
}

fn pod_key(ordinal: i64) -> ObjectKey {
    ObjectKey::new("a", format!("db-{ordinal}"))
}

struct Bed {
    server: Server,
}

impl Bed {
    fn new(replicas: i64, more: &Value) -> Self {
        let mut server = Server::default();
        let mut set = json!({
            "metadata": {"name": "db", "namespace": "a", "uid": "set", "generation": 1,
                "annotations": {"kubernetes.io/change-cause": "first"}},
            "spec": {
                "replicas": replicas,
                "serviceName": "db-headless",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
                "revisionHistoryLimit": 2,
            },
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            set["spec"][field] = value.clone();
        }
        server.put(Kind::StatefulSet, set);
        Self { server }
    }

    fn patch(&mut self, patch: &Value) {
        self.server.change(Kind::StatefulSet, &key(), patch, false);
    }

    fn image(&mut self, image: &str) {
        self.patch(&json!({"spec": {"template":
            {"spec": {"containers": [{"name": "c", "image": image}]}}}}));
    }

    fn next(&self) -> Step {
        let set = self.set();
        let revisions = self.revisions();
        let revisions: Vec<&ControllerRevision> = revisions.iter().collect();
        let pods = self.server.pods();
        let pods: Vec<&Pod> = pods.iter().collect();
        stateful_set(&set, &revisions, &pods, self.server.now())
    }

    fn step(&mut self) {
        self.server.seconds += 1;
        let step = self.next();
        self.server.carry_out(&step);
    }

    fn everything_ready(&mut self) {
        for pod in self.server.active() {
            if !pod.ready {
                self.server.set_ready(&pod.meta.key, true);
            }
        }
        self.server.reap();
    }

    /// Runs until nothing changes, all pods becoming ready.
    fn roll_out(&mut self) {
        for _ in 0..300 {
            let before = self.server.log.len();
            self.step();
            self.everything_ready();
            if self.server.log.len() == before {
                return;
            }
        }
        panic!("it does not end: {:?}", self.set());
    }

    fn set(&self) -> StatefulSet {
        self.server.all(Kind::StatefulSet).remove(0)
    }

    fn revisions(&self) -> Vec<ControllerRevision> {
        self.server.all(Kind::ControllerRevision)
    }

    fn object(&self, kind: Kind, key: &ObjectKey) -> &Value {
        &self.server.objects[&(kind, key.clone())]
    }

    /// Image of each pod, by name.
    fn images(&self) -> BTreeMap<String, String> {
        self.server
            .objects
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::Pod)
            .map(|((_, key), pod)| {
                let image = &pod["spec"]["containers"][0]["image"];
                (key.name.clone(), image.as_str().unwrap_or("").to_owned())
            })
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.images().into_keys().collect()
    }
}

fn images(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(pod, image)| ((*pod).to_owned(), (*image).to_owned()))
        .collect()
}

#[test]
fn pods_come_one_after_the_other_with_names_of_their_own() {
    let mut bed = Bed::new(3, &json!({}));
    bed.step();
    bed.step();
    assert_eq!(bed.names(), ["db-0"], "the next waits until it is ready");
    let pod = bed.object(Kind::Pod, &pod_key(0)).clone();
    assert_eq!(pod["spec"]["hostname"], "db-0");
    assert_eq!(pod["spec"]["subdomain"], "db-headless");
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-0");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "0");
    let revision = bed.revisions().remove(0);
    assert_eq!(
        labels["controller-revision-hash"],
        revision.meta.key.name.as_str()
    );
    assert_eq!(
        bed.server.told,
        ["create Pod db-0 in StatefulSet db successful"]
    );
    bed.roll_out();
    assert_eq!(bed.names(), ["db-0", "db-1", "db-2"]);
    let status = &bed.object(Kind::StatefulSet, &key())["status"];
    for field in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "currentReplicas",
        "updatedReplicas",
    ] {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!(status["collisionCount"], 0);
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn ordinals_may_start_elsewhere() {
    let mut bed = Bed::new(2, &json!({"ordinals": {"start": 5}}));
    bed.roll_out();
    assert_eq!(bed.names(), ["db-5", "db-6"]);
    bed.patch(&json!({"spec": {"ordinals": {"start": 6}}}));
    bed.roll_out();
    assert_eq!(bed.names(), ["db-6", "db-7"]);
}

#[test]
fn in_parallel_all_come_at_once() {
    let mut bed = Bed::new(3, &json!({"podManagementPolicy": "Parallel"}));
    bed.step();
    assert_eq!(bed.names(), ["db-0", "db-1", "db-2"]);
    bed.patch(&json!({"spec": {"replicas": 0}}));
    bed.step();
    assert!(bed.server.active().is_empty());
}

#[test]
fn a_deleted_pod_comes_back_under_its_name() {
    let mut bed = Bed::new(3, &json!({}));
    bed.roll_out();
    let before = bed.object(Kind::Pod, &pod_key(0))["metadata"]["uid"].clone();
    bed.server.kill(&pod_key(0));
    bed.step();
    assert_eq!(
        bed.object(Kind::Pod, &pod_key(0))["metadata"]["uid"],
        before,
        "the name is free when the old pod is gone"
    );
    bed.server.reap();
    bed.roll_out();
    assert_eq!(bed.names(), ["db-0", "db-1", "db-2"]);
    assert_ne!(
        bed.object(Kind::Pod, &pod_key(0))["metadata"]["uid"],
        before
    );
}

#[test]
fn the_highest_goes_first_and_the_next_waits_until_it_is_gone() {
    let mut bed = Bed::new(3, &json!({}));
    bed.roll_out();
    bed.patch(&json!({"spec": {"replicas": 1}}));
    bed.step();
    bed.step();
    let active: Vec<String> = bed
        .server
        .active()
        .iter()
        .map(|p| p.meta.key.name.clone())
        .collect();
    assert_eq!(active, ["db-0", "db-1"]);
    bed.roll_out();
    assert_eq!(bed.names(), ["db-0"]);
}

#[test]
fn scaling_down_takes_a_sick_pod_only_if_none_below_is_sick_too() {
    let mut bed = Bed::new(3, &json!({}));
    bed.roll_out();
    bed.server.set_ready(&pod_key(1), false);
    bed.server.set_ready(&pod_key(2), false);
    bed.patch(&json!({"spec": {"replicas": 1}}));
    bed.step();
    assert_eq!(bed.server.active().len(), 3, "db-1 is sick too: db-2 stays");
    bed.server.set_ready(&pod_key(1), true);
    bed.step();
    assert_eq!(bed.server.active().len(), 2, "db-2 alone is sick: it goes");
}

#[test]
fn an_update_goes_from_the_highest_down_one_at_a_time() {
    let mut bed = Bed::new(3, &json!({}));
    bed.roll_out();
    bed.image("v2");
    let mut order = Vec::new();
    for _ in 0..40 {
        bed.step();
        let going: Vec<Pod> = bed
            .server
            .pods()
            .into_iter()
            .filter(|p| p.meta.deleting)
            .collect();
        assert!(going.len() <= 1, "one at a time");
        order.extend(going.into_iter().map(|pod| pod.meta.key.name));
        bed.everything_ready();
    }
    assert_eq!(order, ["db-2", "db-1", "db-0"]);
    assert!(bed.images().values().all(|image| image == "v2"));
    let status = bed.set().status;
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!((status.current, status.updated), (3, 3));
}

#[test]
fn pods_below_the_partition_keep_their_revision_even_when_made_anew() {
    let mut bed = Bed::new(
        3,
        &json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
    );
    bed.roll_out();
    bed.image("v2");
    bed.roll_out();
    bed.server.kill(&pod_key(0));
    bed.roll_out();
    assert_eq!(
        bed.images(),
        images(&[("db-0", "v1"), ("db-1", "v1"), ("db-2", "v2")])
    );
    let status = bed.set().status;
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!((status.current, status.updated), (2, 1));
    bed.patch(&json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}));
    bed.roll_out();
    assert!(bed.images().values().all(|image| image == "v2"));
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut bed = Bed::new(2, &json!({"updateStrategy": {"type": "OnDelete"}}));
    bed.roll_out();
    bed.image("v2");
    bed.roll_out();
    assert_eq!(bed.images(), images(&[("db-0", "v1"), ("db-1", "v1")]));
    bed.server.kill(&pod_key(0));
    bed.roll_out();
    assert_eq!(bed.images(), images(&[("db-0", "v2"), ("db-1", "v1")]));
}

#[test]
fn max_unavailable_lets_several_go_at_once() {
    let rolling = json!({"podManagementPolicy": "Parallel", "updateStrategy": {
        "type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": "50%"}}});
    let mut bed = Bed::new(5, &rolling);
    bed.roll_out();
    bed.image("v2");
    bed.step();
    let active: Vec<String> = bed
        .server
        .active()
        .iter()
        .map(|p| p.meta.key.name.clone())
        .collect();
    assert_eq!(active, ["db-0", "db-1", "db-2"], "50 % of 5, rounded down");
    bed.roll_out();
    assert!(bed.images().values().all(|image| image == "v2"));
}

#[test]
fn a_stuck_pod_stops_an_ordered_set_until_it_is_deleted() {
    let mut bed = Bed::new(2, &json!({}));
    bed.roll_out();
    bed.image("broken");
    bed.step();
    bed.server.reap();
    bed.step();
    bed.image("v3");
    for _ in 0..5 {
        bed.step();
    }
    assert_eq!(
        bed.images(),
        images(&[("db-0", "v1"), ("db-1", "broken")]),
        "as in Kubernetes, a broken pod is not replaced by itself"
    );
    bed.server.kill(&pod_key(1));
    bed.roll_out();
    assert_eq!(bed.images(), images(&[("db-0", "v3"), ("db-1", "v3")]));
}

#[test]
fn ended_pods_are_replaced() {
    let mut bed = Bed::new(2, &json!({}));
    bed.roll_out();
    bed.server.fail(&pod_key(0));
    bed.roll_out();
    assert_eq!(bed.names(), ["db-0", "db-1"]);
    assert!(bed.server.active().iter().all(|pod| pod.ready));
}

#[test]
fn revisions_are_found_again_and_the_oldest_forgotten() {
    let mut bed = Bed::new(1, &json!({}));
    bed.roll_out();
    let first = bed.revisions().remove(0);
    assert_eq!(
        first.meta.annotations["kubernetes.io/change-cause"],
        "first"
    );
    assert_eq!(first.data["spec"]["template"]["$patch"], "replace");
    bed.image("v2");
    bed.roll_out();
    bed.image("v1");
    bed.roll_out();
    let numbers = |bed: &Bed| -> Vec<i64> {
        let mut numbers: Vec<i64> = bed.revisions().iter().map(|r| r.revision).collect();
        numbers.sort();
        numbers
    };
    assert_eq!(numbers(&bed), [2, 3], "the first became the third");
    assert_eq!(bed.set().status.update_revision, first.meta.key.name);
    for image in ["v3", "v4", "v5"] {
        bed.image(image);
        bed.roll_out();
    }
    assert_eq!(numbers(&bed), [4, 5, 6], "the live one and two old ones");
}

#[test]
fn a_taken_revision_name_is_a_collision() {
    let mut bed = Bed::new(1, &json!({}));
    bed.step();
    let name = bed.revisions()[0].meta.key.clone();
    let mut other = Bed::new(1, &json!({}));
    other.server.put(
        Kind::ControllerRevision,
        json!({"metadata": {"name": name.name, "namespace": "a",
            "ownerReferences": [{"uid": "another", "controller": true}]}, "revision": 1}),
    );
    other.roll_out();
    let status = other.set().status;
    assert_eq!(status.collisions, Some(1));
    assert_ne!(status.update_revision, name.name);
}

#[test]
fn orphans_with_its_names_are_adopted_and_strays_released() {
    let mut bed = Bed::new(1, &json!({}));
    let pod = |name: &str, app: &str, owner: Option<&str>| {
        let mut pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name,
            "labels": {"app": app}}, "status": {"phase": "Pending"}});
        if let Some(owner) = owner {
            pod["metadata"]["ownerReferences"] = json!([{"uid": owner, "controller": true}]);
        }
        pod
    };
    bed.server.put(Kind::Pod, pod("db-0", "db", None));
    bed.server.put(Kind::Pod, pod("other-0", "db", None));
    bed.server
        .put(Kind::Pod, pod("db-7", "changed", Some("set")));
    let step = bed.next();
    let patched: Vec<&str> = step
        .writes
        .iter()
        .filter(|write| matches!(write.action, Action::Strategic(_)))
        .map(|write| write.key.name.as_str())
        .collect();
    assert_eq!(
        patched,
        ["db-0", "db-7"],
        "a pod of another name is not its own"
    );
    bed.server.set_ready(&pod_key(0), true);
    bed.roll_out();
    let labels = &bed.object(Kind::Pod, &pod_key(0))["metadata"]["labels"];
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-0");
}

#[test]
fn volume_claims_become_empty_dirs_and_an_event_says_so() {
    let mut bed = Bed::new(
        1,
        &json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
    );
    let step = bed.next();
    assert_eq!(step.tell.len(), 1);
    assert!(step.tell[0].message.contains("volume claim \"data\""));
    bed.server.carry_out(&step);
    assert_eq!(
        bed.object(Kind::Pod, &pod_key(0))["spec"]["volumes"],
        json!([{"name": "data", "emptyDir": {}}])
    );
    assert!(bed.next().tell.is_empty(), "said once");
}

#[test]
fn min_ready_seconds_delay_the_next_pod() {
    let mut bed = Bed::new(2, &json!({"minReadySeconds": 30}));
    bed.step();
    bed.everything_ready();
    bed.step();
    assert_eq!(bed.names(), ["db-0"]);
    assert!(bed.next().again.is_some(), "looks again by itself");
    bed.server.seconds += 31;
    bed.step();
    assert_eq!(bed.names(), ["db-0", "db-1"]);
}

#[test]
fn pods_that_ended_do_not_stop_a_set_from_shrinking() {
    let mut bed = Bed::new(3, &json!({}));
    bed.roll_out();
    bed.server.fail(&pod_key(2));
    bed.server.fail(&pod_key(1));
    bed.patch(&json!({"spec": {"replicas": 1}}));
    for left in [&["db-0", "db-1"][..], &["db-0"]] {
        bed.step();
        bed.server.reap();
        assert_eq!(bed.names(), left);
    }
}

#[test]
fn a_set_that_is_being_deleted_makes_nothing() {
    let mut bed = Bed::new(2, &json!({}));
    bed.patch(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert!(bed.next().is_done());
}

#[test]
fn a_huge_number_costs_no_more_than_a_burst() {
    let bed = Bed::new(
        i64::from(i32::MAX),
        &json!({"podManagementPolicy": "Parallel"}),
    );
    let creations = |write: &&Write| matches!(write.action, Action::Create(_));
    assert!(bed.next().writes.iter().filter(creations).count() <= super::BURST + 1);
}
