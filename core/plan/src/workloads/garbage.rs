//! Objects whose owners are gone.
//!
//! Owner references form a graph over all kinds. An object all of whose owners
//! are gone is deleted; one that still has an owner only loses the references
//! to those that are gone. An owner that is deleted in the foreground waits
//! for the dependents that block it; one that is deleted as "orphan" takes its
//! reference off its dependents first.
//!
//! The graph is built from watches of many kinds and may lag. So an owner that
//! is not in it is looked up on the server before anything is deleted.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::workloads::ObjectKey;
use serde_json::{Value, json};

/// The finalizer of an owner that waits for its dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner that lets its dependents live.
const ORPHAN: &str = "orphan";

/// One of an object's owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `ReplicaSet`.
    pub kind: String,
    /// Its name; its namespace is the object's.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it manages the object.
    pub controller: bool,
    /// Whether its deletion waits for the object.
    pub blocks: bool,
}

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vertex {
    /// Which of the served resources it belongs to; the caller's number.
    pub resource: usize,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
    /// Its owners.
    pub owners: Vec<Reference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Vertex {
    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// Whether it waits for its dependents.
    fn waits(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// A merge patch that leaves only those of `owners` that `stay` accepts.
    fn owners_patch(&self, owners: &[Reference], stay: impl Fn(&Reference) -> bool) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .filter(|owner| stay(owner))
            .map(|owner| {
                let mut body = json!({
                    "apiVersion": owner.api_version,
                    "kind": owner.kind,
                    "name": owner.name,
                    "uid": owner.uid,
                });
                for (field, flag) in [
                    ("controller", owner.controller),
                    ("blockOwnerDeletion", owner.blocks),
                ] {
                    if flag {
                        body[field] = true.into();
                    }
                }
                body
            })
            .collect();
        self.patch("ownerReferences", owners.into())
    }

    fn finalizers_patch(&self, without: &str) -> Value {
        let left: Vec<&String> = self.finalizers.iter().filter(|f| *f != without).collect();
        self.patch("finalizers", json!(left))
    }

    fn patch(&self, field: &str, value: Value) -> Value {
        json!({"metadata": {"uid": self.uid, "resourceVersion": self.version, field: value}})
    }
}

/// Owners that the server was asked for and does not have: the namespace
/// where they were looked for, and their uid.
pub type Absent = BTreeSet<(String, String)>;

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Gc {
    /// Ask the server whether these owners of the object exist.
    LookUp {
        /// The object.
        uid: String,
        /// The owners that are not in the graph.
        owners: Vec<Reference>,
    },
    /// Delete the object; in the foreground if that is said.
    Delete {
        /// The object.
        uid: String,
        /// Whether it waits for its own dependents.
        foreground: bool,
        /// Whether its own dependents stay.
        orphan: bool,
    },
    /// Merge this into the object.
    Patch {
        /// The object.
        uid: String,
        /// The merge patch.
        patch: Value,
    },
}

/// All objects by uid, and who depends on whom.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: BTreeMap<String, Vertex>,
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// One object.
    pub fn get(&self, uid: &str) -> Option<&Vertex> {
        self.vertices.get(uid)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// An object is now so. Answers with the uids to look at.
    pub fn upsert(&mut self, vertex: Vertex) -> Vec<String> {
        let uid = vertex.uid.clone();
        self.unlink(&uid);
        for owner in &vertex.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        let matters = !vertex.owners.is_empty()
            || vertex.deleting && (vertex.has(FOREGROUND) || vertex.has(ORPHAN));
        // An owner that starts to wait pulls its dependents along; a dependent
        // that lets go of its owner may be what the owner waits for.
        let mut look: Vec<String> = if vertex.waits() {
            self.dependents_of(&uid).map(|v| v.uid.clone()).collect()
        } else {
            Vec::new()
        };
        look.extend(self.waiting_owners(&vertex));
        if let Some(before) = self.vertices.insert(uid.clone(), vertex) {
            look.extend(self.waiting_owners(&before));
        }
        if matters {
            look.push(uid);
        }
        look
    }

    /// An object is gone. Answers with the uids to look at.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        self.unlink(uid);
        let Some(vertex) = self.vertices.remove(uid) else {
            return Vec::new();
        };
        let mut look: Vec<String> = self.dependents_of(uid).map(|v| v.uid.clone()).collect();
        look.extend(self.waiting_owners(&vertex));
        look
    }

    /// A complete list of one resource. Answers with the uids to look at.
    pub fn replace(&mut self, resource: usize, vertices: Vec<Vertex>) -> Vec<String> {
        let listed: BTreeSet<&str> = vertices.iter().map(|v| v.uid.as_str()).collect();
        let gone: Vec<String> = self
            .vertices
            .values()
            .filter(|v| v.resource == resource && !listed.contains(v.uid.as_str()))
            .map(|v| v.uid.clone())
            .collect();
        let mut look: Vec<String> = gone.iter().flat_map(|uid| self.remove(uid)).collect();
        look.extend(vertices.into_iter().flat_map(|vertex| self.upsert(vertex)));
        look
    }

    fn unlink(&mut self, uid: &str) {
        let Some(vertex) = self.vertices.get(uid) else {
            return;
        };
        for owner in &vertex.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Vertex> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|dependent| self.vertices.get(dependent))
    }

    fn waiting_owners(&self, vertex: &Vertex) -> Vec<String> {
        vertex
            .owners
            .iter()
            .filter(|owner| {
                self.get(&owner.uid)
                    .is_some_and(|owner| owner.waits() || owner.deleting && owner.has(ORPHAN))
            })
            .map(|owner| owner.uid.clone())
            .collect()
    }

    /// What is to be done about an object.
    pub fn step(&self, uid: &str, absent: &Absent) -> Vec<Gc> {
        let Some(vertex) = self.vertices.get(uid) else {
            return Vec::new();
        };
        if vertex.deleting && vertex.has(ORPHAN) {
            self.orphan_dependents(vertex)
        } else if vertex.waits() {
            self.let_go(vertex)
        } else if vertex.deleting {
            Vec::new()
        } else {
            self.judge(vertex, absent)
        }
    }

    /// Takes the owner's reference off its dependents, then its finalizer off.
    fn orphan_dependents(&self, owner: &Vertex) -> Vec<Gc> {
        let mut todo: Vec<Gc> = self
            .dependents_of(&owner.uid)
            .map(|dependent| Gc::Patch {
                uid: dependent.uid.clone(),
                patch: dependent
                    .owners_patch(&dependent.owners, |reference| reference.uid != owner.uid),
            })
            .collect();
        if todo.is_empty() {
            todo.push(Gc::Patch {
                uid: owner.uid.clone(),
                patch: owner.finalizers_patch(ORPHAN),
            });
        }
        todo
    }

    /// Lets a waiting owner go when no dependent blocks it any more.
    fn let_go(&self, owner: &Vertex) -> Vec<Gc> {
        let blocked = self.dependents_of(&owner.uid).any(|dependent| {
            dependent
                .owners
                .iter()
                .any(|r| r.uid == owner.uid && r.blocks)
        });
        if blocked {
            // Its dependents were looked at when it began to wait.
            return Vec::new();
        }
        vec![Gc::Patch {
            uid: owner.uid.clone(),
            patch: owner.finalizers_patch(FOREGROUND),
        }]
    }

    /// An owner where a reference may mean it: in the object's own namespace,
    /// or in none. A uid that lives elsewhere is as good as absent.
    fn owner(&self, vertex: &Vertex, reference: &Reference) -> Option<&Vertex> {
        self.get(&reference.uid).filter(|owner| {
            owner.key.namespace.is_empty() || owner.key.namespace == vertex.key.namespace
        })
    }

    /// Judges a live object by its owners.
    fn judge(&self, vertex: &Vertex, absent: &Absent) -> Vec<Gc> {
        let uid = &vertex.uid;
        let known = |reference: &Reference| {
            let missing = (vertex.key.namespace.clone(), reference.uid.clone());
            self.owner(vertex, reference).is_some() || absent.contains(&missing)
        };
        let unknown: Vec<Reference> = vertex
            .owners
            .iter()
            .filter(|r| !known(r))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return vec![Gc::LookUp {
                uid: uid.clone(),
                owners: unknown,
            }];
        }
        let solid = |reference: &Reference| {
            self.owner(vertex, reference)
                .is_some_and(|owner| !owner.waits())
        };
        let solid_count = vertex.owners.iter().filter(|r| solid(r)).count();
        if solid_count == vertex.owners.len() {
            return Vec::new();
        }
        if solid_count > 0 {
            return vec![Gc::Patch {
                uid: uid.clone(),
                patch: vertex.owners_patch(&vertex.owners, solid),
            }];
        }
        let owner_waits = vertex
            .owners
            .iter()
            .any(|r| self.owner(vertex, r).is_some());
        let has_dependents = self.dependents_of(uid).next().is_some();
        let orphan = vertex.has(ORPHAN);
        let foreground = !orphan && (vertex.has(FOREGROUND) || owner_waits && has_dependents);
        let mut todo = Vec::new();
        if foreground && self.dependents_of(uid).any(Vertex::waits) {
            // The references may form a circle in which everybody waits for
            // everybody: this object lets its owners go first.
            let mut owners = vertex.owners.clone();
            owners.iter_mut().for_each(|owner| owner.blocks = false);
            if owners != vertex.owners {
                todo.push(Gc::Patch {
                    uid: uid.clone(),
                    patch: vertex.owners_patch(&owners, |_| true),
                });
                return todo;
            }
        }
        todo.push(Gc::Delete {
            uid: uid.clone(),
            foreground,
            orphan,
        });
        todo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(uid: &str, owners: &[&str]) -> Vertex {
        Vertex {
            uid: uid.to_owned(),
            key: ObjectKey::new("a", uid),
            owners: owners
                .iter()
                .map(|owner| Reference {
                    api_version: "v1".into(),
                    kind: "Thing".into(),
                    name: (*owner).into(),
                    uid: (*owner).into(),
                    controller: false,
                    blocks: true,
                })
                .collect(),
            ..Vertex::default()
        }
    }

    fn waiting(uid: &str, owners: &[&str]) -> Vertex {
        Vertex {
            deleting: true,
            finalizers: vec![FOREGROUND.into(), "mine".into()],
            ..vertex(uid, owners)
        }
    }

    fn absent(namespace: &str, uid: &str) -> Absent {
        Absent::from([(namespace.to_owned(), uid.to_owned())])
    }

    fn delete(uid: &str, foreground: bool) -> Gc {
        Gc::Delete {
            uid: uid.into(),
            foreground,
            orphan: false,
        }
    }

    #[test]
    fn an_unknown_owner_is_looked_up_before_anything_is_deleted() {
        let mut graph = Graph::default();
        assert_eq!(graph.upsert(vertex("pod", &["set"])), ["pod"]);
        let step = graph.step("pod", &Absent::new());
        assert!(matches!(&step[..], [Gc::LookUp { .. }]), "{step:?}");
        let gone = absent("a", "set");
        assert_eq!(graph.step("pod", &gone), [delete("pod", false)]);
    }

    #[test]
    fn a_deleted_owner_takes_its_dependents_but_not_those_of_others() {
        let mut graph = Graph::default();
        graph.replace(0, vec![vertex("set", &[]), vertex("other", &[])]);
        graph.replace(
            1,
            vec![
                Vertex {
                    resource: 1,
                    ..vertex("mine", &["set"])
                },
                Vertex {
                    resource: 1,
                    ..vertex("shared", &["set", "other"])
                },
            ],
        );
        assert!(graph.step("mine", &Absent::new()).is_empty());
        assert_eq!(graph.remove("set"), ["mine", "shared"]);
        let gone = absent("a", "set");
        assert_eq!(graph.step("mine", &gone), [delete("mine", false)]);
        let step = graph.step("shared", &gone);
        let [Gc::Patch { patch, .. }] = &step[..] else {
            panic!("{step:?}");
        };
        assert_eq!(
            patch["metadata"]["ownerReferences"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
    }

    #[test]
    fn foreground_deletion_goes_from_the_leaves_up() {
        let mut graph = Graph::default();
        graph.upsert(vertex("deployment", &[]));
        graph.upsert(vertex("set", &["deployment"]));
        graph.upsert(vertex("pod", &["set"]));
        let look = graph.upsert(waiting("deployment", &[]));
        assert_eq!(look, ["set", "deployment"]);
        assert_eq!(graph.step("set", &Absent::new()), [delete("set", true)]);
        assert!(
            graph.step("deployment", &Absent::new()).is_empty(),
            "blocked by set"
        );
        graph.upsert(waiting("set", &["deployment"]));
        assert_eq!(graph.step("pod", &Absent::new()), [delete("pod", false)]);
        assert_eq!(graph.remove("pod"), ["set"]);
        let step = graph.step("set", &Absent::new());
        let [Gc::Patch { patch, .. }] = &step[..] else {
            panic!("{step:?}");
        };
        assert_eq!(patch["metadata"]["finalizers"], json!(["mine"]));
    }

    #[test]
    fn orphaned_dependents_lose_the_reference_first() {
        let mut graph = Graph::default();
        graph.upsert(vertex("pod", &["set"]));
        graph.upsert(Vertex {
            deleting: true,
            finalizers: vec![ORPHAN.into()],
            ..vertex("set", &[])
        });
        let step = graph.step("set", &Absent::new());
        assert!(matches!(&step[..], [Gc::Patch { uid, .. }] if uid == "pod"));
        graph.upsert(vertex("pod", &[]));
        let step = graph.step("set", &Absent::new());
        assert!(matches!(&step[..], [Gc::Patch { uid, .. }] if uid == "set"));
    }

    #[test]
    fn an_owner_that_is_orphaning_looks_again_when_a_dependent_let_go() {
        let mut graph = Graph::default();
        graph.upsert(vertex("pod", &["set"]));
        graph.upsert(waiting("set", &[]));
        assert_eq!(graph.upsert(vertex("pod", &[])), ["set"]);
    }

    #[test]
    fn an_owner_in_another_namespace_is_none() {
        let mut graph = Graph::default();
        graph.upsert(vertex("set", &[]));
        let mut stranger = vertex("pod", &["set"]);
        stranger.key.namespace = "b".to_owned();
        graph.upsert(stranger);
        let step = graph.step("pod", &absent("a", "set"));
        assert!(matches!(&step[..], [Gc::LookUp { .. }]), "{step:?}");
        assert_eq!(
            graph.step("pod", &absent("b", "set")),
            [delete("pod", false)]
        );
    }

    #[test]
    fn an_owner_without_a_namespace_may_own_anything() {
        let mut graph = Graph::default();
        let mut owner = vertex("node", &[]);
        owner.key.namespace.clear();
        graph.upsert(owner);
        graph.upsert(vertex("pod", &["node"]));
        assert!(graph.step("pod", &Absent::new()).is_empty());
        graph.remove("node");
        assert_eq!(
            graph.step("pod", &absent("a", "node")),
            [delete("pod", false)]
        );
    }

    #[test]
    fn a_circle_of_owners_that_wait_is_broken() {
        let mut graph = Graph::default();
        graph.upsert(waiting("a", &["b"]));
        graph.upsert(vertex("b", &["a"]));
        let step = graph.step("b", &Absent::new());
        let [Gc::Patch { patch, .. }] = &step[..] else {
            panic!("{step:?}");
        };
        let owner = &patch["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["uid"], owner.get("blockOwnerDeletion")),
            (&json!("a"), None)
        );
        let mut unblocking = vertex("b", &["a"]);
        unblocking.owners[0].blocks = false;
        graph.upsert(unblocking);
        assert_eq!(graph.step("b", &Absent::new()), [delete("b", true)]);
        let step = graph.step("a", &Absent::new());
        assert!(
            matches!(&step[..], [Gc::Patch { uid, .. }] if uid == "a"),
            "{step:?}"
        );
    }

    #[test]
    fn a_dependent_that_does_not_block_is_not_waited_for() {
        let mut graph = Graph::default();
        let mut loose = vertex("pod", &["set"]);
        loose.owners[0].blocks = false;
        graph.upsert(loose);
        graph.upsert(waiting("set", &[]));
        let step = graph.step("set", &Absent::new());
        assert!(
            matches!(&step[..], [Gc::Patch { uid, .. }] if uid == "set"),
            "{step:?}"
        );
    }
}
