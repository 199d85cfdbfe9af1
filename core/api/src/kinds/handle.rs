//! A handle on a kind: of the table, or of a definition that may go away.

use super::Kind;
use std::ops::Deref;
use std::sync::Arc;

/// A kind that is cheap to keep. It reads like a `&Kind`.
#[derive(Clone, Debug)]
pub enum KindRef {
    /// A row of the table.
    Table(&'static Kind),
    /// A version of a CustomResourceDefinition as it was at some time.
    Custom(Arc<Kind>),
}

impl Deref for KindRef {
    type Target = Kind;

    fn deref(&self) -> &Kind {
        match self {
            Self::Table(kind) => kind,
            Self::Custom(kind) => kind,
        }
    }
}

impl From<&'static Kind> for KindRef {
    fn from(kind: &'static Kind) -> Self {
        Self::Table(kind)
    }
}

impl From<Arc<Kind>> for KindRef {
    fn from(kind: Arc<Kind>) -> Self {
        Self::Custom(kind)
    }
}
