//! The new ReplicaSet, revisions, and the annotations that carry them.

use portolan_api::meta::{labels, set_label};
use portolan_api::value::set;
use portolan_model::workloads::{Meta, ObjectKey, ReplicaSet};
use serde_json::{Map, Value, json};

use super::super::hash::{TEMPLATE_HASH, template_hash};
use super::super::pods;
use super::super::step::{Action, Kind, Write, controller_reference};
use super::Rollout;
use super::status::CREATE_ERROR;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Characters of a list of former revisions, as in Kubernetes.
const MAX_HISTORY: usize = 2000;

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The revision of a Deployment or ReplicaSet; 0 where it has none.
pub(super) fn of(meta: &Meta) -> i64 {
    meta.annotations
        .get(REVISION)
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0)
}

impl Rollout<'_> {
    /// Numbers the new ReplicaSet above all old ones and the Deployment like
    /// it; creates the ReplicaSet if there is none and `create` says so.
    pub(super) fn sync_revision(&mut self, create: bool) {
        let highest_old = self.old.iter().map(|set| of(&set.meta)).max().unwrap_or(0);
        let mut revision = highest_old + 1;
        match self.new {
            Some(new) => {
                revision = revision.max(of(&new.meta));
                self.update_new(new, revision);
                self.note_found(new, of(&new.meta) < revision);
            }
            None if create => self.create_new(revision),
            None => return,
        }
        if of(&self.wanted.meta) != revision {
            let patch = annotate([(REVISION, revision.to_string())]);
            let action = Action::Merge(json!({"metadata": {"annotations": patch}}));
            self.step.write(Kind::Deployment, &self.wanted.meta, action);
        }
    }

    /// Brings annotations and `minReadySeconds` of the new ReplicaSet up to date.
    fn update_new(&mut self, new: &ReplicaSet, revision: i64) {
        let mut notes = Map::new();
        for (key, value) in inherited(&self.wanted.meta) {
            if new.meta.annotations.get(key) != Some(value) {
                notes.insert(key.clone(), value.as_str().into());
            }
        }
        let known = of(&new.meta);
        if known < revision {
            notes.insert(REVISION.to_owned(), revision.to_string().into());
            if known != 0 {
                let history = new.meta.annotations.get(REVISION_HISTORY);
                let history = lengthened(history.map_or("", String::as_str), known);
                notes.insert(REVISION_HISTORY.to_owned(), history.into());
            }
        }
        let mut patch = json!({});
        if !notes.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(notes);
        }
        if new.min_ready_seconds != self.wanted.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = self.wanted.min_ready_seconds.into();
        }
        if patch.as_object().is_some_and(|p| !p.is_empty()) {
            self.push(Kind::ReplicaSet, new, Action::Merge(patch), None);
        }
    }

    fn create_new(&mut self, revision: i64) {
        let hash = template_hash(&self.wanted.template, self.collisions);
        let name = format!("{}-{hash}", self.wanted.meta.key.name);
        if self.foreign.contains(&name.as_str()) || self.old.iter().any(|s| s.meta.key.name == name)
        {
            // Somebody else's ReplicaSet has the name: hash differently.
            self.collisions += 1;
            return;
        }
        self.created = self.size_of_new(0);
        let body = self.new_set(&name, &hash, revision);
        let told = (self.created > 0).then(|| {
            self.tell(format!(
                "Scaled up replica set {name} from 0 to {}",
                self.created
            ))
        });
        match self.blame {
            None => self.note_created(&name),
            Some(blame) => self.note_refused(&name, &blame.message),
        }
        let refused = pods::complain(
            Kind::Deployment,
            &self.wanted.meta,
            CREATE_ERROR,
            format!("Failed to create new replica set \"{name}\": "),
        );
        let key = ObjectKey::new(&self.wanted.meta.key.namespace, name);
        self.step.writes.push(Write {
            success: told,
            failure: refused,
            ..Write::quiet(Kind::ReplicaSet, key, Action::Create(body))
        });
    }

    fn new_set(&self, name: &str, hash: &str, revision: i64) -> Value {
        let wanted = self.wanted;
        let mut template = wanted.template.as_ref().clone();
        set_label(&mut template, TEMPLATE_HASH, hash);
        let mut selector = wanted.selector_json.as_ref().clone();
        let mut match_labels = selector["matchLabels"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        match_labels.insert(TEMPLATE_HASH.to_owned(), hash.into());
        set(&mut selector, "matchLabels", Value::Object(match_labels));
        let mut notes = annotate(self.size_notes());
        for (key, value) in inherited(&wanted.meta) {
            notes.insert(key.clone(), value.as_str().into());
        }
        notes.insert(REVISION.to_owned(), revision.to_string().into());
        json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": wanted.meta.key.namespace,
                "labels": labels(&template),
                "annotations": notes,
                "ownerReferences": [controller_reference(Kind::Deployment, &wanted.meta)],
            },
            "spec": {
                "replicas": self.created,
                "minReadySeconds": wanted.min_ready_seconds,
                "selector": selector,
                "template": template,
            },
        })
    }

    /// What a ReplicaSet carries so that a later change of the Deployment's
    /// size is told from a rollout.
    pub(super) fn size_notes(&self) -> [(&'static str, String); 2] {
        let wanted = self.wanted.replicas;
        [
            (DESIRED_REPLICAS, wanted.to_string()),
            (MAX_REPLICAS, (wanted + self.max_surge()).to_string()),
        ]
    }
}

/// A list of former revisions with one more at its end. The oldest are
/// forgotten when it gets too long.
fn lengthened(history: &str, revision: i64) -> String {
    let mut history = match history {
        "" => revision.to_string(),
        history => format!("{history},{revision}"),
    };
    while history.len() > MAX_HISTORY {
        let Some((_oldest, rest)) = history.split_once(',') else {
            break;
        };
        history = rest.to_owned();
    }
    history
}

fn inherited(meta: &Meta) -> impl Iterator<Item = (&String, &String)> {
    meta.annotations
        .iter()
        .filter(|(key, _)| !OWN.contains(&key.as_str()))
}

pub(super) fn annotate<const N: usize>(notes: [(&str, String); N]) -> Map<String, Value> {
    notes
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
}
