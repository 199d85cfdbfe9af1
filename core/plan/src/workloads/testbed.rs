//! A server in miniature, for the controllers' laws.

use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_model::workloads::{Deployment, Object, ObjectKey, Pod, ReplicaSet};
use serde_json::{Value, json};

use super::{Action, Kind, Step, Write, deployment, replica_set};

/// Objects, and every change of them in order.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) objects: BTreeMap<(Kind, ObjectKey), Value>,
    /// `(kind, object, gone)` as a watch would tell it.
    pub(crate) log: Vec<(Kind, Value, bool)>,
    pub(crate) told: Vec<String>,
    version: u64,
    names: u64,
    pub(crate) seconds: i64,
}

/// A merge patch (RFC 7386); lists of conditions merge by type where asked.
pub(crate) fn merge(into: &mut Value, from: &Value, strategic: bool) {
    let Value::Object(from) = from else {
        *into = from.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in from {
        match value {
            Value::Null => {
                into.as_object_mut().expect("a map").remove(key);
            }
            Value::Array(items) if strategic && key == "conditions" => {
                let known = into[key].as_array().cloned().unwrap_or_default();
                let mut merged: Vec<Value> = known
                    .into_iter()
                    .filter(|k| items.iter().all(|item| item["type"] != k["type"]))
                    .collect();
                merged.extend(items.iter().cloned());
                into[key] = merged.into();
            }
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                merge(&mut into[key], value, strategic);
            }
        }
    }
}

impl Server {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.seconds).expect("in range")
    }

    fn stamp(&mut self, object: &mut Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
    }

    /// Creates or changes an object as the server would.
    pub(crate) fn put(&mut self, kind: Kind, mut object: Value) -> Value {
        if object["metadata"]["name"].is_null() {
            self.names += 1;
            let prefix = object["metadata"]["generateName"]
                .as_str()
                .unwrap_or("x-")
                .to_owned();
            object["metadata"]["name"] = format!("{prefix}{:04}", self.names).into();
        }
        if object["metadata"]["uid"].is_null() {
            self.names += 1;
            object["metadata"]["uid"] = format!("uid-{}", self.names).into();
            object["metadata"]["creationTimestamp"] = self.now().to_string().into();
        }
        self.stamp(&mut object);
        self.objects.insert((kind, key_of(&object)), object.clone());
        self.log.push((kind, object.clone(), false));
        object
    }

    pub(crate) fn change(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        patch: &Value,
        strategic: bool,
    ) -> Option<Value> {
        let mut object = self.objects.get(&(kind, key.clone()))?.clone();
        let spec = object["spec"].clone();
        merge(&mut object, patch, strategic);
        if object["spec"] != spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = (generation + 1).into();
        }
        Some(self.put(kind, object))
    }

    pub(crate) fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(mut object) = self.objects.remove(&(kind, key.clone())) {
            self.stamp(&mut object);
            self.log.push((kind, object, true));
        }
    }

    /// Carries one write out. Answers with the object, as the server does.
    pub(crate) fn write(&mut self, write: &Write) -> Option<Value> {
        if let Some(tell) = &write.success {
            self.told.push(tell.message.clone());
        }
        match &write.action {
            Action::Create(body) => {
                let taken = (write.kind, key_of(body));
                assert!(!self.objects.contains_key(&taken), "{taken:?} is there");
                Some(self.put(write.kind, body.clone()))
            }
            Action::Merge(patch) | Action::MergeStatus(patch) => {
                self.change(write.kind, &write.key, patch, false)
            }
            Action::Strategic(patch) | Action::StrategicStatus(patch) => {
                self.change(write.kind, &write.key, patch, true)
            }
            Action::Delete { uid, .. } => {
                let known = self.objects.get(&(write.kind, write.key.clone()))?;
                assert_eq!(known["metadata"]["uid"], uid.as_str());
                if write.kind == Kind::Pod {
                    let at = json!({"metadata": {"deletionTimestamp": self.now().to_string()}});
                    return self.change(write.kind, &write.key, &at, false);
                }
                self.remove(write.kind, &write.key);
                None
            }
            Action::Bind { .. } => None,
        }
    }

    pub(crate) fn all<T: Object>(&self, kind: Kind) -> Vec<T> {
        self.objects
            .iter()
            .filter(|((k, _), _)| *k == kind)
            .map(|(_, object)| T::read(object))
            .collect()
    }

    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.all(Kind::Pod)
    }

    pub(crate) fn active(&self) -> Vec<Pod> {
        self.pods().into_iter().filter(Pod::is_active).collect()
    }

    pub(crate) fn sets(&self) -> Vec<ReplicaSet> {
        self.all(Kind::ReplicaSet)
    }

    pub(crate) fn deployment(&self) -> Deployment {
        self.all(Kind::Deployment).remove(0)
    }

    /// The Deployment controller's next step.
    pub(crate) fn deployment_step(&self) -> Step {
        let sets = self.sets();
        let sets: Vec<&ReplicaSet> = sets.iter().collect();
        let pods = self.pods();
        let has_pods = |uid: &str| {
            pods.iter()
                .any(|p| p.meta.is_controlled_by(uid) && !p.is_finished())
        };
        deployment(&self.deployment(), &sets, &has_pods, None, self.now())
    }

    /// The ReplicaSet controller's next step for one of them.
    pub(crate) fn set_step(&self, set: &ReplicaSet) -> Step {
        let pods = self.pods();
        let pods: Vec<&Pod> = pods.iter().collect();
        replica_set(set, &pods, &BTreeMap::new(), None, self.now())
    }

    pub(crate) fn carry_out(&mut self, step: &Step) {
        for write in &step.writes {
            self.write(write);
        }
    }

    /// Every ReplicaSet acts until none has anything to do.
    pub(crate) fn settle_sets(&mut self) {
        for _ in 0..20 {
            let steps: Vec<Step> = self.sets().iter().map(|set| self.set_step(set)).collect();
            if steps.iter().all(Step::is_done) {
                return;
            }
            steps.iter().for_each(|step| self.carry_out(step));
        }
        panic!("the ReplicaSets do not settle");
    }

    /// Somebody deletes a pod.
    pub(crate) fn kill(&mut self, key: &ObjectKey) {
        let at = json!({"metadata": {"deletionTimestamp": self.now().to_string()}});
        self.change(Kind::Pod, key, &at, false);
    }

    /// A pod's containers end for good.
    pub(crate) fn fail(&mut self, key: &ObjectKey) {
        let failed = json!({"status": {"phase": "Failed", "conditions": []}});
        self.change(Kind::Pod, key, &failed, false);
    }

    pub(crate) fn set_ready(&mut self, key: &ObjectKey, ready: bool) {
        let node = self
            .pods()
            .iter()
            .find(|pod| pod.meta.key == *key)
            .map(|pod| pod.target_node().to_owned())
            .filter(|node| !node.is_empty())
            .unwrap_or_else(|| "n1".to_owned());
        let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": self.now().to_string()});
        let patch = json!({
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [condition]},
        });
        self.change(Kind::Pod, key, &patch, true);
    }

    /// Pods that are being deleted end.
    pub(crate) fn reap(&mut self) {
        for pod in self.pods().into_iter().filter(|pod| pod.meta.deleting) {
            self.remove(Kind::Pod, &pod.meta.key);
        }
    }
}

pub(crate) fn key_of(object: &Value) -> ObjectKey {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
    ObjectKey::new(text("namespace"), text("name"))
}
