//! Who owns the fields that a write changes: the field manager of the request.

use http::header::USER_AGENT;
use portolan_api::managed::{self, Writer};
use portolan_api::{Cause, Kind};
use serde_json::Value;

use super::Call;
use super::create::now;
use crate::answer::Failure;

/// Kubernetes' limit of a manager's name.
const MAX_BYTES: usize = 128;
/// The manager of what the server itself makes.
const SERVER: &str = "portolan";

/// A field manager, and the door through which it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    name: String,
    subresource: String,
}

/// Where the managed fields of a stored object come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners<'a> {
    /// What the write changes is recorded as this manager's.
    Record(&'a Manager),
    /// The object brings them: an apply has worked them out.
    Given,
}

impl Manager {
    /// The manager of a request: `fieldManager`, else the program's name.
    pub(super) fn of(call: &Call) -> Result<Self, Failure> {
        let said = call.query().text("fieldManager");
        if said.len() > MAX_BYTES {
            return Err(call.bad_options(Cause::too_long("fieldManager", MAX_BYTES)));
        }
        if said.chars().any(char::is_control) {
            let detail = "should only contain printable characters";
            let cause = Cause::invalid("fieldManager", &said.into(), detail);
            return Err(call.bad_options(cause));
        }
        let name = match said {
            "" => program(call),
            said => said.to_owned(),
        };
        Ok(Self {
            name,
            subresource: call.asked.subresource.clone(),
        })
    }

    /// The server itself.
    pub(crate) fn server() -> Self {
        Self {
            name: SERVER.to_owned(),
            subresource: String::new(),
        }
    }

    /// The manager as a writer at this time.
    pub(super) fn writer<'a>(&'a self, now: &'a str) -> Writer<'a> {
        Writer {
            manager: &self.name,
            subresource: &self.subresource,
            now,
        }
    }
}

impl Owners<'_> {
    /// Record what the write of `new` in place of `old` changes.
    pub(super) fn record(self, kind: &Kind, old: Option<&Value>, new: &mut Value) {
        if let Self::Record(manager) = self {
            managed::record(kind, old, new, manager.writer(&now()));
        }
    }
}

/// `kubectl` of `kubectl/v1.32.4 (linux/amd64) …`.
fn program(call: &Call) -> String {
    let agent = call
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    match name {
        "" => "unknown".to_owned(),
        name => name.chars().take(MAX_BYTES).collect(),
    }
}
