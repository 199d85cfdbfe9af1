//! Replacing a stored object by a changed one: what PUT, PATCH, scale and
//! status have in common.

use std::sync::Arc;

use portolan_api::value::{int_at, strings_at};
use portolan_api::{Status, managed, meta};
use serde_json::Value;

use super::create::{now, unstored};
use super::owners::Owners;
use super::{Call, write_error};
use crate::answer::Failure;
use crate::context::{Context, Resource};
use crate::custom;
use crate::store::{Change, Condition, Hold, Key, Stored, Write, WriteError};

/// How often a change that does not name a version is tried on the next one.
pub(super) const TRIES: usize = 32;

/// Change the object of the path to what `make` makes of it, again if another
/// write comes between; the object before and after.
pub(super) async fn change(
    call: &Call,
    part: Part,
    owners: Owners<'_>,
    mut make: impl FnMut(&Value, &Stored) -> Result<Value, Failure>,
) -> Result<(Value, Arc<Stored>), Failure> {
    let dry_run = call.dry_run()?;
    let resource = &call.asked.resource;
    for _ in 0..TRIES {
        let stored = call.current()?;
        let old = resource.value(&stored);
        let object = make(&old, &stored)?;
        let replacement = Replacement {
            context: &call.context,
            resource: resource.clone(),
            key: call.key(),
            stored: &stored,
            part,
            dry_run,
            owners,
        };
        match replacement.store(&old, object).await {
            Ok(new) => return Ok((old, new)),
            Err(Replaced::Failed(failure)) => return Err(failure),
            Err(Replaced::Changed) => {}
        }
    }
    Err(Box::new(Status::conflict(&resource.kind, &call.asked.name)))
}

/// Which part of an object a change may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
}

impl Part {
    pub(super) fn of(subresource: &str) -> Self {
        match subresource {
            "status" => Self::Status,
            "finalize" => Self::Finalize,
            _ => Self::Whole,
        }
    }
}

/// A change of the version `stored` of an object.
pub(super) struct Replacement<'a> {
    pub(super) context: &'a Context,
    pub(super) resource: Resource,
    pub(super) key: Key,
    pub(super) stored: &'a Arc<Stored>,
    pub(super) part: Part,
    pub(super) dry_run: bool,
    pub(super) owners: Owners<'a>,
}

/// Why a replacement did not happen.
pub(super) enum Replaced {
    /// Another write came first: look again.
    Changed,
    Failed(Failure),
}

impl From<Failure> for Replaced {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Replacement<'_> {
    /// Prepare, validate and store `object` in place of `old`, which is the
    /// value of `stored`.
    pub(super) async fn store(
        &self,
        old: &Value,
        mut object: Value,
    ) -> Result<Arc<Stored>, Replaced> {
        let kind = &self.resource.kind;
        kind.default(&mut object);
        if self.part != Part::Finalize {
            self.owners.record(kind, Some(old), &mut object);
        }
        let mut reservation = None;
        let causes = match self.part {
            Part::Whole => {
                if self.resource.is("", "Service") {
                    let allocator = &self.context.allocator;
                    reservation = Some(allocator.assign(&mut object, Some(old), self.dry_run)?);
                }
                kind.prepare_update(&mut object, old);
                let mut causes = kind.validate_update(&object, old);
                causes.extend(custom::rule_faults(&self.resource, &object));
                causes
            }
            Part::Status => {
                kind.prepare_status(&mut object, old);
                kind.validate_status_update(&object, old)
            }
            Part::Finalize => {
                let finalizers = portolan_api::value::at(&object, "spec.finalizers").clone();
                object = old.clone();
                portolan_api::value::set(&mut object, "spec.finalizers", finalizers);
                Vec::new()
            }
        };
        if !causes.is_empty() {
            let status = Status::invalid(kind, &self.key.name.name, &causes);
            return Err(Replaced::Failed(Box::new(status)));
        }
        meta::set_resource_version(&mut object, meta::resource_version(old));
        if is_finished(&object) {
            return self.finish(object).await;
        }
        if object == *old || managed::same_but_times(old, &object) {
            return Ok(Arc::clone(self.stored));
        }
        if self.dry_run {
            return Ok(Arc::new(unstored(kind.write_form(object))));
        }
        let companions = match &reservation {
            Some(_) => self
                .context
                .allocator
                .companions(Some(&object), Some(old), &now()),
            None => Vec::new(),
        };
        let hold = reservation.map(|reservation| Box::new(reservation) as Hold);
        let change = Change::Put(kind.write_form(object));
        self.transact(change, companions, hold).await
    }

    /// The last finalizer went: the object goes, too.
    async fn finish(&self, object: Value) -> Result<Arc<Stored>, Replaced> {
        if !self.dry_run {
            self.remove().await?;
        }
        Ok(Arc::new(unstored(self.resource.kind.write_form(object))))
    }

    /// Remove the object and give back what it had.
    pub(super) async fn remove(&self) -> Result<Arc<Stored>, Replaced> {
        let companions = if self.resource.is("", "Service") {
            let old = self.stored.value();
            self.context.allocator.companions(None, Some(&old), "")
        } else {
            Vec::new()
        };
        self.transact(Change::Delete, companions, None).await
    }

    /// Write the object and what goes with it.
    async fn transact(
        &self,
        change: Change,
        companions: Vec<Write>,
        hold: Option<Hold>,
    ) -> Result<Arc<Stored>, Replaced> {
        let mut writes = vec![Write {
            key: self.key.clone(),
            condition: Condition::Revision(self.stored.revision),
            change,
            namespace: None,
        }];
        writes.extend(companions);
        let written = self.context.store.transact(writes, hold).await;
        self.map(written)
    }

    pub(super) fn map(
        &self,
        result: Result<Arc<Stored>, WriteError>,
    ) -> Result<Arc<Stored>, Replaced> {
        result.map_err(|error| match error {
            WriteError::Conflict | WriteError::Companion => Replaced::Changed,
            WriteError::Exists
            | WriteError::Missing
            | WriteError::NoNamespace
            | WriteError::Terminating
            | WriteError::File(_)
            | WriteError::Closed => {
                let name = &self.key.name;
                let place = (name.namespace.as_str(), name.name.as_str());
                let status = write_error(self.context, &self.resource.kind, place, error);
                Replaced::Failed(Box::new(status))
            }
        })
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
fn is_finished(object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some()
        && meta::finalizers(object).is_empty()
        && int_at(object, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && strings_at(object, "spec.finalizers").is_empty()
}
