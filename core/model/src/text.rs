//! Shared strings.
//!
//! Node names, zones, namespaces and port names repeat once per endpoint, so
//! they are reference-counted and each distinct one is kept once.

use std::sync::Arc;

use imbl::OrdSet;

/// A string that many facts share.
pub type Text = Arc<str>;

/// One copy of every string that was seen, for the strings that repeat.
#[derive(Debug, Clone, Default)]
pub struct Interner {
    seen: OrdSet<Text>,
}

impl Interner {
    /// Replaces `text` by the copy that others already hold.
    pub fn share(&mut self, text: &mut Text) {
        match self.seen.get(&**text) {
            Some(held) => *text = Arc::clone(held),
            None => {
                self.seen.insert(Arc::clone(text));
            }
        }
    }

    /// The same for an optional string.
    pub fn share_option(&mut self, text: &mut Option<Text>) {
        if let Some(text) = text {
            self.share(text);
        }
    }

    /// Forgets the strings that nobody but this table holds any more.
    pub fn forget_unused(&mut self) {
        self.seen = self
            .seen
            .iter()
            .filter(|text| Arc::strong_count(text) > 1)
            .cloned()
            .collect();
    }

    /// How many distinct strings are held.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}
