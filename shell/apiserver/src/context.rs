//! What every request handler may use.

use std::sync::{Arc, PoisonError, RwLock};

use portolan_api::Kind;
use portolan_api::kinds;

use crate::allocator::Allocator;
use crate::documents::Documents;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::{Collection, Key, KindIndex, Store};
use crate::{Config, PodBackend};

/// A kind and its place in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    pub(crate) kind: &'static Kind,
    pub(crate) index: KindIndex,
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
}

/// State of the server.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) identity: Identity,
    pub(crate) allocator: Allocator,
    pub(crate) documents: Documents,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pods: RwLock<Option<Arc<dyn PodBackend>>>,
}

impl Context {
    pub(crate) fn new(
        config: Config,
        store: Store,
        identity: Identity,
        allocator: Allocator,
    ) -> Self {
        Self {
            config,
            store,
            identity,
            allocator,
            documents: Documents::default(),
            metrics: Metrics::default(),
            limits: Limits::default(),
            pods: RwLock::new(None),
        }
    }

    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Resource> {
        resources().find(|resource| {
            let kind = resource.kind;
            kind.plural == plural && kind.group == group && kind.version == version
        })
    }

    /// The resource of a kind of the core group.
    pub(crate) fn core(&self, kind: &str) -> Option<Resource> {
        resources().find(|resource| resource.is("", kind))
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

/// All kinds with their places.
pub(crate) fn resources() -> impl Iterator<Item = Resource> {
    kinds::all()
        .enumerate()
        .map(|(index, kind)| Resource { kind, index })
}

/// The kinds as the store needs them.
pub(crate) fn collections() -> Vec<Collection> {
    kinds::all()
        .map(|kind| Collection {
            name: kind.resource(),
            fields: Box::new(|value| {
                let fields = kind.selectable(value);
                fields
                    .into_iter()
                    .map(|(field, text)| (field.to_owned(), text))
                    .collect()
            }),
        })
        .collect()
}
