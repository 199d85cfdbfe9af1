//! What every request handler may use.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use portolan_api::kinds::{self, KindRef};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::allocator::Allocator;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::store::{Collection, Key, KindIndex, Store, Stored};
use crate::{Config, PodBackend};

/// A kind, its place in the store, and how long it is served.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) kind: KindRef,
    pub(crate) index: KindIndex,
    /// Cancelled when the kind is no longer served in this form: watches end.
    pub(crate) gone: Option<CancellationToken>,
    /// The definition is being deleted: nothing new may come.
    pub(crate) ending: bool,
}

impl Resource {
    /// The key of one object; cluster-scoped kinds have no namespace.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        let namespace = if self.kind.namespaced { namespace } else { "" };
        Key::new(self.index, namespace, name)
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.kind.group == group && self.kind.kind == kind
    }

    /// A stored object in the form of this resource.
    pub(crate) fn value(&self, stored: &Stored) -> Value {
        self.kind.read_form(stored.value())
    }

    /// The JSON of a stored object in the form of this resource.
    pub(crate) fn json(&self, stored: &Bytes) -> Bytes {
        if !self.kind.converts() {
            return stored.clone();
        }
        let value = serde_json::from_slice(stored).unwrap_or_default();
        Bytes::from(self.kind.read_form(value).to_string())
    }
}

/// State of the server.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) identity: Identity,
    pub(crate) allocator: Arc<Allocator>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pods: RwLock<Option<Arc<dyn PodBackend>>>,
}

impl Context {
    pub(crate) fn new(
        config: Config,
        store: Store,
        identity: Identity,
        allocator: Arc<Allocator>,
    ) -> Self {
        let registry = Registry::new(&store);
        Self {
            config,
            store,
            identity,
            allocator,
            registry,
            metrics: Metrics::default(),
            limits: Limits::default(),
            pods: RwLock::new(None),
        }
    }

    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        self.registry
            .served()
            .resources
            .iter()
            .find(|resource| {
                let kind = &resource.kind;
                kind.plural == plural && kind.group == group && kind.version == version
            })
            .cloned()
    }

    /// The resource of a kind of the core group.
    pub(crate) fn core(&self, kind: &str) -> Option<Resource> {
        self.registry
            .served()
            .resources
            .iter()
            .find(|resource| resource.is("", kind))
            .cloned()
    }

    pub(crate) fn pod_backend(&self) -> Option<Arc<dyn PodBackend>> {
        self.pods
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_pod_backend(&self, backend: Arc<dyn PodBackend>) {
        *self.pods.write().unwrap_or_else(PoisonError::into_inner) = Some(backend);
    }
}

/// The kinds of the table as the store needs them; views have no collection.
pub(crate) fn collections() -> Vec<Collection> {
    kinds::all()
        .filter(|kind| kind.stored_as.is_none())
        .map(|kind| Collection {
            name: kind.resource(),
        })
        .collect()
}
