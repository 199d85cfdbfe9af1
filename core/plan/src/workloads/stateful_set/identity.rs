//! Names, labels and volumes that a pod keeps.

use portolan_api::meta::set_label;
use portolan_api::value::list_at;
use portolan_model::workloads::{ObjectKey, Pod, StatefulUpdate};
use serde_json::{Value, json};

use super::super::history::REVISION_HASH;
use super::super::pods;
use super::super::step::{Action, Kind, Write};
use super::Look;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

impl Look<'_> {
    /// A new pod with this ordinal, of the revision that it is to have.
    pub(super) fn create(&self, ordinal: i64) -> Write {
        let set = self.set;
        let keeps_current = match set.update {
            StatefulUpdate::OnDelete => false,
            StatefulUpdate::RollingUpdate { partition, .. } => ordinal - set.start < partition,
        };
        let revision = if keeps_current {
            &self.current
        } else {
            &self.update
        };
        let name = set.pod_name(ordinal);
        let mut body = pods::body(&revision.template, Kind::StatefulSet, &set.meta);
        body["metadata"]["generateName"] = format!("{}-", set.meta.key.name).into();
        body["metadata"]["name"] = name.as_str().into();
        set_label(&mut body, POD_NAME, &name);
        set_label(&mut body, POD_INDEX, &ordinal.to_string());
        set_label(&mut body, REVISION_HASH, &revision.name);
        body["spec"]["hostname"] = name.as_str().into();
        if !set.service_name.is_empty() {
            body["spec"]["subdomain"] = set.service_name.as_str().into();
        }
        replace_claims(&mut body, &set.claims);
        let key = ObjectKey::new(&set.meta.key.namespace, &name);
        self.told("create", key, Action::Create(body))
    }

    pub(super) fn delete(&mut self, pod: &Pod) {
        let action = Action::Delete {
            uid: pod.meta.uid.clone(),
            force: false,
        };
        let write = self.told("delete", pod.meta.key.clone(), action);
        self.step.writes.push(write);
    }

    /// Gives an adopted pod the labels that its name stands for.
    pub(super) fn keep_identity(&mut self, pod: &Pod, ordinal: i64) {
        let name = &pod.meta.key.name;
        if pod.meta.labels.get(POD_NAME) == Some(name) {
            return;
        }
        let patch = json!({"metadata": {
            "uid": pod.meta.uid,
            "labels": {POD_NAME: name, POD_INDEX: ordinal.to_string()},
        }});
        let write = self.told("update", pod.meta.key.clone(), Action::Merge(patch));
        self.step.writes.push(write);
    }

    /// A write about a pod, with Kubernetes' words for it.
    fn told(&self, verb: &str, key: ObjectKey, action: Action) -> Write {
        let set = &self.set.meta;
        let (done, failed) = match verb {
            "create" => ("SuccessfulCreate", "FailedCreate"),
            "update" => ("SuccessfulUpdate", "FailedUpdate"),
            _ => ("SuccessfulDelete", "FailedDelete"),
        };
        let what = format!("{verb} Pod {} in StatefulSet {}", key.name, set.key.name);
        Write {
            kind: Kind::Pod,
            key,
            action,
            success: pods::tell(Kind::StatefulSet, set, done, format!("{what} successful")),
            failure: pods::complain(
                Kind::StatefulSet,
                set,
                failed,
                format!("{what} failed error: "),
            ),
        }
    }
}

/// An emptyDir in place of each volume claim.
fn replace_claims(pod: &mut Value, claims: &[String]) {
    if claims.is_empty() {
        return;
    }
    let mut volumes: Vec<Value> = list_at(pod, "spec.volumes")
        .iter()
        .filter(|volume| !claims.iter().any(|claim| volume["name"] == claim.as_str()))
        .cloned()
        .collect();
    volumes.extend(
        claims
            .iter()
            .map(|claim| json!({"name": claim, "emptyDir": {}})),
    );
    pod["spec"]["volumes"] = volumes.into();
}
