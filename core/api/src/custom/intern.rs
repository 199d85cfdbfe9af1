//! Names that are known only at run time, kept for the life of the program.
//!
//! [`crate::Kind`] has `&'static str` names, so that the table stays plain
//! data. Names of CustomResourceDefinitions are put here, each distinct one
//! once: making the same definition again adds nothing. What can be added is
//! bounded by [`MAX_BYTES`]; a definition whose names no longer fit is not
//! served.

use crate::kinds::Subresource;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, PoisonError};

/// All names together: about forty thousand, where a cluster has some hundreds.
const MAX_BYTES: usize = 2 << 20;

#[derive(Default)]
struct Names {
    texts: BTreeSet<&'static str>,
    lists: BTreeSet<&'static [&'static str]>,
    subresources: BTreeMap<Vec<&'static str>, &'static [Subresource]>,
    bytes: usize,
}

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

impl Names {
    fn room(&mut self, bytes: usize) -> Option<()> {
        self.bytes = self.bytes.checked_add(bytes)?;
        (self.bytes <= MAX_BYTES).then_some(())
    }

    fn text(&mut self, text: &str) -> Option<&'static str> {
        if let Some(found) = self.texts.get(text) {
            return Some(found);
        }
        self.room(text.len() + size_of::<&str>())?;
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        self.texts.insert(kept);
        Some(kept)
    }
}

fn names<T>(work: impl FnOnce(&mut Names) -> T) -> T {
    work(&mut NAMES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A name; `None` when there is no more room.
pub fn text(text: &str) -> Option<&'static str> {
    names(|names| names.text(text))
}

/// A list of names.
pub fn list(texts: &[&str]) -> Option<&'static [&'static str]> {
    names(|names| {
        let list = texts
            .iter()
            .map(|text| names.text(text))
            .collect::<Option<Vec<_>>>()?;
        if let Some(found) = names.lists.get(list.as_slice()) {
            return Some(*found);
        }
        names.room(list.len() * size_of::<&str>())?;
        let kept: &'static [&'static str] = Box::leak(list.into_boxed_slice());
        names.lists.insert(kept);
        Some(kept)
    })
}

/// The subresources of a kind.
pub fn subresources(list: Vec<Subresource>) -> Option<&'static [Subresource]> {
    names(|names| {
        let key: Vec<&'static str> = list
            .iter()
            .flat_map(|sub| [sub.name, sub.group, sub.version, sub.kind])
            .collect();
        if let Some(found) = names.subresources.get(&key) {
            return Some(*found);
        }
        names.room(list.len() * size_of::<Subresource>())?;
        let kept: &'static [Subresource] = Box::leak(list.into_boxed_slice());
        names.subresources.insert(key, kept);
        Some(kept)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_kept_once() {
        let first = text("crontabs.example.com").unwrap();
        let again = text(&String::from("crontabs.example.com")).unwrap();
        assert!(std::ptr::eq(first, again));
        let first = list(&["ct", "cts"]).unwrap();
        assert!(std::ptr::eq(first, list(&["ct", "cts"]).unwrap()));
    }

    #[test]
    fn room_ends() {
        let mut names = Names::default();
        assert_eq!(names.text(&"x".repeat(MAX_BYTES)), None);
        assert_eq!(names.text("y"), None);
    }
}
