//! Values that many Services have in common, each held once.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Fewer values than these are not looked through for those that nobody has any more.
const FEW: usize = 64;

/// Values, each held once for all who have it.
#[derive(Clone, Debug)]
pub struct Shared<T: ?Sized> {
    all: BTreeSet<Arc<T>>,
    /// From this many on, those that nobody has any more are dropped.
    most: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            all: BTreeSet::new(),
            most: FEW,
        }
    }
}

impl<T: ?Sized + Ord> Shared<T> {
    /// The one that all have who have this value.
    pub fn share(&mut self, value: impl Into<Arc<T>> + Borrow<T>) -> Arc<T> {
        if let Some(known) = self.all.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.most {
            self.all.retain(|one| Arc::strong_count(one) > 1);
            // So each value is looked at a constant number of times.
            self.most = FEW.max(2 * self.all.len());
        }
        let new: Arc<T> = value.into();
        self.all.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_held_once_and_as_long_as_somebody_has_it() {
        let mut shared: Shared<String> = Shared::default();
        let first = shared.share("a".to_owned());
        assert!(Arc::ptr_eq(&first, &shared.share("a".to_owned())));
        for number in 0..10 * FEW {
            shared.share(number.to_string());
        }
        assert!(shared.all.len() <= FEW, "{}", shared.all.len());
        assert!(Arc::ptr_eq(&first, &shared.share("a".to_owned())));
        let kept: Vec<Arc<String>> = (0..4 * FEW).map(|n| shared.share(n.to_string())).collect();
        assert!(kept.iter().all(|one| shared.all.contains(one)));
    }
}
