//! Replacing a stored object by a changed one: what PUT, PATCH, scale and
//! status have in common.

use std::sync::Arc;

use portolan_api::value::{int_at, strings_at};
use portolan_api::{Status, meta};
use serde_json::Value;

use super::create::unstored;
use super::write_error;
use crate::answer::Failure;
use crate::context::{Context, Resource};
use crate::store::{Key, Stored, WriteError};

/// How often a change that does not name a version is tried on the next one.
pub(super) const TRIES: usize = 32;

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
        let kind = self.resource.kind;
        (kind.defaults)(&mut object);
        let mut reservation = None;
        let causes = match self.part {
            Part::Whole => {
                if self.resource.is("", "Service") {
                    let allocator = &self.context.allocator;
                    reservation = Some(allocator.assign(&mut object, Some(old), self.dry_run)?);
                }
                kind.prepare_update(&mut object, old);
                kind.validate_update(&object, old)
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
        if object == *old {
            return Ok(Arc::clone(self.stored));
        }
        if self.dry_run {
            return Ok(Arc::new(unstored(object)));
        }
        let written = self
            .context
            .store
            .replace(self.key.clone(), object, self.stored.revision)
            .await;
        let stored = self.map(written)?;
        if let Some(reservation) = reservation {
            reservation.commit(&stored.value(), Some(old));
        }
        Ok(stored)
    }

    /// The last finalizer went: the object goes, too.
    async fn finish(&self, object: Value) -> Result<Arc<Stored>, Replaced> {
        if !self.dry_run {
            self.remove().await?;
        }
        Ok(Arc::new(unstored(object)))
    }

    /// Remove the object and give back what it had.
    pub(super) async fn remove(&self) -> Result<Arc<Stored>, Replaced> {
        let removed = self
            .context
            .store
            .remove(self.key.clone(), self.stored.revision)
            .await;
        let removed = self.map(removed)?;
        if self.resource.is("", "Service") {
            self.context.allocator.release(&removed.value());
        }
        Ok(removed)
    }

    pub(super) fn map(
        &self,
        result: Result<Arc<Stored>, WriteError>,
    ) -> Result<Arc<Stored>, Replaced> {
        result.map_err(|error| match error {
            WriteError::Conflict => Replaced::Changed,
            WriteError::Exists
            | WriteError::Missing
            | WriteError::NoNamespace
            | WriteError::Terminating
            | WriteError::File(_)
            | WriteError::Closed => {
                let name = &self.key.name;
                let place = (name.namespace.as_str(), name.name.as_str());
                let status = write_error(self.context, self.resource.kind, place, error);
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
