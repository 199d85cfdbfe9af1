//! A place in a document, read with an eye on every fault.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::duration;
use crate::Cause;

/// The longest domain name as text.
const MOST_NAME: usize = 253;

/// Where faults are collected.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) causes: RefCell<Vec<Cause>>,
    pub(super) unknown: RefCell<Vec<String>>,
}

/// One value and the path that leads to it.
pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
    pub(super) faults: &'a Faults,
}

impl<'a> At<'a> {
    pub(super) fn fault(&self, cause: Cause) {
        self.faults.causes.borrow_mut().push(cause);
    }

    pub(super) fn invalid(&self, detail: &str) {
        self.fault(Cause::invalid(&*self.path, self.value, detail));
    }

    fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        let detail = format!("must be {wanted}");
        self.fault(Cause::type_invalid(&*self.path, self.value, &detail));
        None
    }

    fn child(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        }
    }

    /// The fields of an object; those that nobody knows are faults.
    pub(super) fn object(&self, known: &[&str]) -> bool {
        let Some(map) = self.value.as_object() else {
            self.wrong_type::<()>("an object");
            return false;
        };
        let unknown = map.keys().filter(|key| !known.contains(&key.as_str()));
        let mut told = self.faults.unknown.borrow_mut();
        told.extend(unknown.map(|key| self.child(key)));
        true
    }

    /// A field, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<At<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(At {
            path: self.child(name),
            value,
            faults: self.faults,
        })
    }

    /// The entries of a list.
    pub(super) fn items(&self) -> Vec<At<'a>> {
        let Some(list) = self.value.as_array() else {
            self.wrong_type::<()>("a list");
            return Vec::new();
        };
        let items = list.iter().enumerate();
        items
            .map(|(index, value)| At {
                path: format!("{}[{index}]", self.path),
                value,
                faults: self.faults,
            })
            .collect()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str().or_else(|| self.wrong_type("a string"))
    }

    /// An absolute path.
    pub(super) fn path(&self) -> Option<String> {
        let path = self.text()?;
        if !path.starts_with('/') {
            self.invalid("must be an absolute path");
        }
        Some(path.to_owned())
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.value
            .as_bool()
            .or_else(|| self.wrong_type("true or false"))
    }

    pub(super) fn number(&self, least: u64, most: u64) -> Option<u64> {
        let Some(number) = self.value.as_u64() else {
            return self.wrong_type("a whole number");
        };
        if !(least..=most).contains(&number) {
            self.invalid(&format!("must be between {least} and {most}, inclusive"));
            return None;
        }
        Some(number)
    }

    pub(super) fn choice<T: Copy>(&self, table: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = table.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            self.fault(Cause::not_supported(&*self.path, self.value, &names));
        }
        found.map(|(_, value)| *value)
    }

    /// A duration of at most a week.
    pub(super) fn duration(&self) -> Option<Duration> {
        const MOST: Duration = Duration::from_secs(7 * 24 * 3600);
        let text = self.text()?;
        let Some(found) = duration::parse(text) else {
            self.invalid("must be a duration, such as 1m30s or 500ms");
            return None;
        };
        if found > MOST {
            self.invalid("must be at most 168h");
            return None;
        }
        Some(found)
    }

    /// A duration above zero.
    pub(super) fn pause(&self) -> Option<Duration> {
        let found = self.duration()?;
        if found.is_zero() {
            self.invalid("must be greater than 0s");
            return None;
        }
        Some(found)
    }

    /// A duration in whole seconds, as TTLs are.
    pub(super) fn seconds(&self) -> Option<Duration> {
        let found = self.duration()?;
        if found.subsec_nanos() != 0 {
            self.invalid("must be whole seconds");
            return None;
        }
        Some(found)
    }

    /// A domain name; the root only if that is allowed.
    pub(super) fn domain(&self, root: bool) -> Option<String> {
        let text = self.text()?;
        if text == "." && root {
            return Some(text.to_owned());
        }
        if let Err(detail) = check_domain(text) {
            self.invalid(&detail);
            return None;
        }
        Some(text.to_owned())
    }

    /// Where to listen: `address:port`, or `:port` for every address; an empty text
    /// is nowhere.
    pub(super) fn place(&self) -> Option<Option<SocketAddr>> {
        let text = self.text()?;
        if text.is_empty() {
            return Some(None);
        }
        let full = match text.starts_with(':') {
            true => format!("0.0.0.0{text}"),
            false => text.to_owned(),
        };
        let found = full.parse().ok();
        if found.is_none() {
            self.invalid("must be ADDRESS:PORT, :PORT, or empty");
        }
        found.map(Some)
    }
}

/// Whether a text is a domain name; underscores and any depth are fine in DNS.
pub(super) fn check_domain(text: &str) -> Result<(), String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("must be a domain name".to_owned());
    }
    if name.len() > MOST_NAME {
        return Err(format!("must be no more than {MOST_NAME} characters"));
    }
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 || !label.bytes().all(fine) {
            return Err(
                "must be a domain name: labels of letters, digits, '-' and '_', at most 63 each, with dots between them"
                    .to_owned(),
            );
        }
    }
    Ok(())
}
