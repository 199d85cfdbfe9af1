//! Bad input, as data.

use std::fmt;

/// Something in an object that could not be used. The rest of the object, and
/// all other objects, are used all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The kind as Kubernetes spells it.
    pub kind: &'static str,
    /// `namespace/name`, or the name of a cluster-wide object.
    pub object: String,
    /// The field, as an API path.
    pub field: String,
    /// What is wrong with it, with the value.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            object,
            field,
            message,
        } = self;
        write!(f, "{kind} {object}: {field}: {message}")
    }
}
