//! What is said of a domain and all below it, found by the longest suffix.

use crate::name::{Name, Spelled};

/// Values by domain. The closest domain around a name decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffixes<T> {
    /// The one with the most labels first.
    rows: Vec<(Name, T)>,
}

impl<T> Default for Suffixes<T> {
    fn default() -> Self {
        Self { rows: Vec::new() }
    }
}

impl<T> Suffixes<T> {
    /// The given ones; of two for one domain the later one counts.
    pub fn new(rows: impl IntoIterator<Item = (Name, T)>) -> Self {
        let mut this = Self::default();
        for (domain, value) in rows {
            this.rows.retain(|(old, _)| *old != domain);
            let labels = domain.labels().count();
            let at = this
                .rows
                .partition_point(|(old, _)| old.labels().count() >= labels);
            this.rows.insert(at, (domain, value));
        }
        this
    }

    /// What is said of a name, and of which domain.
    pub fn find(&self, name: &Name) -> Option<(&Name, &T)> {
        let name = Spelled::of(name);
        self.rows
            .iter()
            .find(|(domain, _)| name.prefix_above(domain.as_wire()).is_some())
            .map(|(domain, value)| (domain, value))
    }

    /// All of them, the ones with more labels first.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &T)> {
        self.rows.iter().map(|(domain, value)| (domain, value))
    }
}
