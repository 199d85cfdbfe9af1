//! The revisions of StatefulSets and DaemonSets.
//!
//! A ControllerRevision holds a patch that brings a former template back, in
//! the form that `kubectl rollout undo` sends. Templates are told apart by
//! these patches, not by names: going back to an old template finds its
//! revision again and numbers it anew.

use std::sync::Arc;

use portolan_api::meta::labels;
use portolan_api::value::at;
use portolan_model::workloads::{ControllerRevision, Meta, ObjectKey};
use serde_json::{Value, json};

use super::claim::Claimant;
use super::hash::{same, template_hash};
use super::step::{Action, Kind, Step, Write, controller_reference};

/// The label of a DaemonSet's revisions and of the pods of both kinds that
/// names their revision.
pub(super) const REVISION_HASH: &str = "controller-revision-hash";
/// The label of a StatefulSet's revisions.
const STATEFUL_HASH: &str = "controller.kubernetes.io/hash";

/// The revision that a template is.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    /// The name of the ControllerRevision.
    pub(super) name: String,
    /// The end of that name.
    pub(super) hash: String,
    /// The template.
    pub(super) template: Arc<Value>,
}

impl Revision {
    fn of(known: &ControllerRevision, owner: &Meta) -> Self {
        let prefix = format!("{}-", owner.key.name);
        let name = &known.meta.key.name;
        let hash = [REVISION_HASH, STATEFUL_HASH]
            .into_iter()
            .find_map(|label| known.meta.labels.get(label))
            .map_or_else(
                || name.strip_prefix(&prefix).unwrap_or(name),
                String::as_str,
            );
        Self {
            name: name.clone(),
            hash: hash.to_owned(),
            template: Arc::new(template(&known.data)),
        }
    }
}

/// All revisions of one workload.
pub(super) struct History<'a> {
    owner: Claimant<'a>,
    /// Its own, oldest first.
    mine: Vec<&'a ControllerRevision>,
    /// Names that somebody else's revisions have.
    foreign: Vec<&'a str>,
    /// How often a name was taken.
    pub(super) collisions: i64,
}

impl<'a> History<'a> {
    /// `revisions` are those of the workload's namespace.
    pub(super) fn claim(
        owner: Claimant<'a>,
        revisions: &[&'a ControllerRevision],
        collisions: i64,
        step: &mut Step,
    ) -> Self {
        let mut mine = owner.claim(Kind::ControllerRevision, revisions, |_| true, step);
        mine.sort_by_key(|known| (known.revision, known.meta.created, &known.meta.key.name));
        let foreign = revisions
            .iter()
            .filter(|known| !mine.iter().any(|own| own.meta.uid == known.meta.uid))
            .map(|known| known.meta.key.name.as_str())
            .collect();
        Self {
            owner,
            mine,
            foreign,
            collisions,
        }
    }

    /// One of its own revisions.
    pub(super) fn named(&self, name: &str) -> Option<Revision> {
        let known = self.mine.iter().find(|own| own.meta.key.name == name)?;
        Some(Revision::of(known, self.owner.meta))
    }

    /// The revision of the workload's template: found, numbered anew, or made.
    pub(super) fn settle(&mut self, wanted: &Arc<Value>, step: &mut Step) -> Revision {
        let data = patch(wanted);
        let next = self.mine.last().map_or(0, |newest| newest.revision) + 1;
        let equal = self.mine.iter().rposition(|own| same(&own.data, &data));
        match equal.and_then(|i| self.mine.get(i).map(|own| (i, *own))) {
            Some((i, known)) => {
                if i + 1 != self.mine.len() {
                    let renumber = json!({"metadata": {"uid": known.meta.uid}, "revision": next});
                    step.write(
                        Kind::ControllerRevision,
                        &known.meta,
                        Action::Merge(renumber),
                    );
                }
                Revision {
                    template: Arc::clone(wanted),
                    ..Revision::of(known, self.owner.meta)
                }
            }
            None => self.create(wanted, data, next, step),
        }
    }

    fn create(&mut self, wanted: &Arc<Value>, data: Value, next: i64, step: &mut Step) -> Revision {
        let owner = self.owner.meta;
        let (mut hash, mut name);
        loop {
            hash = template_hash(&data, self.collisions);
            name = format!("{}-{hash}", owner.key.name);
            let taken = self.foreign.contains(&name.as_str())
                || self.mine.iter().any(|own| own.meta.key.name == name);
            if !taken {
                break;
            }
            self.collisions += 1;
        }
        let label = match self.owner.kind {
            Kind::DaemonSet => REVISION_HASH,
            Kind::StatefulSet
            | Kind::Pod
            | Kind::ReplicaSet
            | Kind::Deployment
            | Kind::ControllerRevision
            | Kind::EndpointSlice
            | Kind::Endpoints
            | Kind::Service
            | Kind::Node
            | Kind::AddressPool
            | Kind::IpAddressPool => STATEFUL_HASH,
        };
        let mut metadata = json!({
            "name": name,
            "namespace": owner.key.namespace,
            "labels": labels(wanted),
            "ownerReferences": [controller_reference(self.owner.kind, owner)],
        });
        metadata["labels"][label] = hash.as_str().into();
        if !owner.annotations.is_empty() {
            metadata["annotations"] = json!(owner.annotations);
        }
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": metadata,
            "data": data,
            "revision": next,
        });
        step.writes.push(Write::quiet(
            Kind::ControllerRevision,
            ObjectKey::new(&owner.key.namespace, &name),
            Action::Create(body),
        ));
        Revision {
            name,
            hash,
            template: Arc::clone(wanted),
        }
    }

    /// Deletes the oldest revisions that no pod is of, beyond the limit.
    pub(super) fn clean_up(
        &self,
        limit: i64,
        is_live: impl Fn(&Revision) -> bool,
        step: &mut Step,
    ) {
        let dead: Vec<&ControllerRevision> = self
            .mine
            .iter()
            .copied()
            .filter(|own| !own.meta.deleting && !is_live(&Revision::of(own, self.owner.meta)))
            .collect();
        let keep = usize::try_from(limit).unwrap_or(0);
        for own in dead.iter().take(dead.len().saturating_sub(keep)) {
            let action = Action::Delete {
                uid: own.meta.uid.clone(),
                force: false,
            };
            step.write(Kind::ControllerRevision, &own.meta, action);
        }
    }
}

/// The strategic merge patch that brings a template back.
fn patch(template: &Value) -> Value {
    let mut replaced = template.clone();
    replaced["$patch"] = "replace".into();
    json!({"spec": {"template": replaced}})
}

/// The template that such a patch brings back.
fn template(data: &Value) -> Value {
    let mut template = at(data, "spec.template").clone();
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    template
}
