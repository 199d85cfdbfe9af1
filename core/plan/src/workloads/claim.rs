//! Which objects are a controller's own.
//!
//! An object belongs to the one that its owner references name as controller.
//! What a controller selects and nobody controls, it adopts; what it controls
//! and selects no more, it releases.

use portolan_model::workloads::{Meta, Object, Selector};
use serde_json::json;

use super::step::{Action, Kind, Step, controller_reference};

/// A controller that looks for what is its own.
#[derive(Clone, Copy)]
pub(super) struct Claimant<'a> {
    pub(super) kind: Kind,
    pub(super) meta: &'a Meta,
    pub(super) selector: &'a Selector,
}

impl Claimant<'_> {
    /// Its own among `objects`, which are of `kind`. `suits` tells what it
    /// cannot own whatever the labels say.
    pub(super) fn claim<'o, T: Object>(
        &self,
        kind: Kind,
        objects: &[&'o T],
        suits: impl Fn(&T) -> bool,
        step: &mut Step,
    ) -> Vec<&'o T> {
        let busy = self.meta.deleting;
        let mut mine = Vec::new();
        for object in objects.iter().copied() {
            let meta = object.meta();
            let selected = self.selector.matches(&meta.labels) && suits(object);
            if meta.is_controlled_by(&self.meta.uid) {
                if selected {
                    mine.push(object);
                } else if !busy {
                    step.write(kind, meta, self.release(meta));
                }
            } else if selected && meta.controller.is_none() && !busy && !meta.deleting {
                step.write(kind, meta, self.adopt(meta));
                mine.push(object);
            }
        }
        mine
    }

    /// A patch that makes it the controller of the object with this uid.
    fn adopt(&self, object: &Meta) -> Action {
        Action::Strategic(json!({"metadata": {
            "uid": object.uid,
            "ownerReferences": [controller_reference(self.kind, self.meta)],
        }}))
    }

    /// A patch that takes it off the object with this uid.
    fn release(&self, object: &Meta) -> Action {
        Action::Strategic(json!({"metadata": {
            "uid": object.uid,
            "ownerReferences": [{"$patch": "delete", "uid": self.meta.uid}],
        }}))
    }
}
