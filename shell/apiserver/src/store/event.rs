//! One change of one object, and its JSON for watchers, made once.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::object::{ObjectName, Stored, set_revision};

/// What a watcher is told about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Added => 0,
            Self::Modified => 1,
            Self::Deleted => 2,
        }
    }
}

/// The forms of an object that are worth keeping encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Whole,
    /// PartialObjectMetadata of meta.k8s.io/v1.
    Metadata,
    /// A Table of meta.k8s.io/v1 without column definitions, rows with metadata.
    Row,
}

impl Form {
    fn index(self) -> usize {
        match self {
            Self::Whole => 0,
            Self::Metadata => 1,
            Self::Row => 2,
        }
    }
}

/// A committed change. At least one of `previous` and `current` is there.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) name: ObjectName,
    pub(crate) previous: Option<Arc<Stored>>,
    pub(crate) current: Option<Arc<Stored>>,
    lines: [[OnceLock<Bytes>; 3]; 3],
    gone: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(
        revision: u64,
        name: ObjectName,
        previous: Option<Arc<Stored>>,
        current: Option<Arc<Stored>>,
    ) -> Self {
        Self {
            revision,
            name,
            previous,
            current,
            lines: Default::default(),
            gone: OnceLock::new(),
        }
    }

    /// The object's JSON as an event of this type carries it: the last state,
    /// with the revision of the change also where the object is gone.
    pub(crate) fn object(&self, kind: EventType) -> Bytes {
        match (kind, &self.current, &self.previous) {
            (EventType::Added | EventType::Modified, Some(current), _)
            | (_, Some(current), None) => current.json.clone(),
            (_, _, Some(previous)) => self
                .gone
                .get_or_init(|| {
                    let mut value = previous.value();
                    set_revision(&mut value, self.revision);
                    Bytes::from(value.to_string())
                })
                .clone(),
            (_, None, None) => Bytes::from_static(b"null"),
        }
    }

    /// One line of a watch, encoded by the first watcher that needs it.
    pub(crate) fn line(
        &self,
        kind: EventType,
        form: Form,
        make: impl FnOnce(Bytes) -> Bytes,
    ) -> Bytes {
        let slot = self
            .lines
            .get(form.index())
            .and_then(|types| types.get(kind.index()));
        let encode = || line(kind.text(), &make(self.object(kind)));
        match slot {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
        }
    }
}

/// `{"type":…,"object":…}` and a line end.
pub(crate) fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}
