//! Which objects a list or watch is about.

use portolan_api::Status;
use portolan_api::kinds::KindRef;
use portolan_api::selector::{FieldSelector, LabelSelector};

use crate::answer::Failure;
use crate::request::Asked;
use crate::store::{ObjectName, Stored};

/// Namespace, labels and fields of a list or watch.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// Empty for all.
    namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
    kind: KindRef,
    /// Set where fields must be read anew each time: the stored form has
    /// others, or the kind's definition may change.
    live: Option<KindRef>,
}

impl Selection {
    pub(crate) fn of(asked: &Asked) -> Result<Self, Failure> {
        let bad = |error: &dyn std::fmt::Display| {
            Box::new(Status::bad_request(error.to_string())) as Failure
        };
        let labels = LabelSelector::parse(asked.query.text("labelSelector"))
            .map_err(|error| bad(&format_args!("unable to parse requirement: {error}")))?;
        let kind = &asked.resource.kind;
        let fields = FieldSelector::parse(kind, asked.query.text("fieldSelector"))
            .map_err(|error| bad(&error))?;
        let namespace = if kind.namespaced {
            asked.namespace.clone()
        } else {
            String::new()
        };
        Ok(Self {
            namespace,
            labels,
            live: ((kind.converts() || kind.custom.is_some()) && !fields.is_empty())
                .then(|| kind.clone()),
            kind: kind.clone(),
            fields,
        })
    }

    /// Whether only the namespace selects.
    pub(crate) fn is_plain(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn in_namespace(&self, name: &ObjectName) -> bool {
        self.namespace.is_empty() || name.namespace == self.namespace
    }

    /// Whether labels and fields of an object in the namespace fit.
    pub(crate) fn matches(&self, name: &ObjectName, stored: &Stored) -> bool {
        if self
            .fields
            .exact_name()
            .is_some_and(|wanted| wanted != name.name)
        {
            return false;
        }
        if !self.labels.matches_labels(|key| stored.label(key)) {
            return false;
        }
        match &self.live {
            None => self.fields.matches_fields(|field| match field {
                "metadata.name" => Some(&name.name),
                "metadata.namespace" => Some(&name.namespace),
                other => stored.field(&self.kind, other),
            }),
            Some(kind) => self.fields.matches(kind, &kind.read_form(stored.value())),
        }
    }
}
