//! GET of a collection.
//!
//! A list is one consistent copy of its kind. With `limit` it comes in chunks
//! of that same copy: the continue token carries its revision, and the cache
//! keeps the copy for a while.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use portolan_api::table;
use portolan_api::{Cause, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Call, read};
use crate::answer::{self, Answer, Failure};
use crate::context::Resource;
use crate::negotiate::{self, Output};
use crate::select::Selection;
use crate::store::{ObjectName, Snapshot, Stored};

/// Where a list goes on.
#[derive(Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: u64,
    namespace: String,
    name: String,
}

/// A chunk of a list.
struct Page {
    items: Vec<Arc<Stored>>,
    revision: u64,
    /// The token, and how many items follow if that is known.
    more: Option<(String, Option<usize>)>,
}

pub(super) fn list(call: &Call) -> Result<Answer, Failure> {
    let output = negotiate::output(&call.headers)?;
    let page = page(call)?;
    let kind = &call.asked.resource.kind;
    let metadata = page.metadata();
    Ok(match output {
        Output::Object => {
            let body = encode(&call.asked.resource, &metadata, &page.items);
            answer::bytes(StatusCode::OK, answer::JSON, body)
        }
        Output::Table => {
            let values: Vec<Value> = page.values(&call.asked.resource);
            let options = read::table_options(call);
            let table = table::table(kind, &values, metadata, &options);
            answer::json(StatusCode::OK, &table)
        }
        Output::Metadata => {
            let values: Vec<Value> = page.values(&call.asked.resource);
            let list = table::partial_metadata_list(&values, metadata);
            answer::json(StatusCode::OK, &list)
        }
    })
}

impl Page {
    fn values(&self, resource: &Resource) -> Vec<Value> {
        self.items.iter().map(|item| resource.value(item)).collect()
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert(
            "resourceVersion".to_owned(),
            self.revision.to_string().into(),
        );
        if let Some((token, remaining)) = &self.more {
            metadata.insert("continue".to_owned(), token.as_str().into());
            if let Some(remaining) = remaining {
                metadata.insert("remainingItemCount".to_owned(), (*remaining).into());
            }
        }
        metadata
    }
}

/// The list's JSON, put together from the stored JSON of its items.
pub(super) fn encode(
    resource: &Resource,
    metadata: &Map<String, Value>,
    items: &[Arc<Stored>],
) -> Bytes {
    let kind = &resource.kind;
    let head = json!({
        "kind": kind.list_kind,
        "apiVersion": kind.api_version(),
        "metadata": metadata,
    })
    .to_string();
    let size: usize = items.iter().map(|item| item.json.len() + 1).sum();
    let mut out = BytesMut::with_capacity(head.len() + size + 16);
    out.put_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
    out.put_slice(b",\"items\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&resource.json(&item.json));
    }
    out.put_slice(b"]}");
    out.freeze()
}

fn page(call: &Call) -> Result<Page, Failure> {
    let selection = Selection::of(&call.asked)?;
    let limit = number(call, "limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| *limit > 0);
    let (snapshot, after) = match call.query().text("continue") {
        "" => (beginning(call)?, None),
        token => {
            let (snapshot, name) = continuation(call, token)?;
            (snapshot, Some(name))
        }
    };
    let start = match (&after, call.asked.namespace.as_str()) {
        (Some(name), _) => Bound::Excluded(name.clone()),
        (None, "") => Bound::Unbounded,
        (None, namespace) => Bound::Included(ObjectName {
            namespace: namespace.to_owned(),
            name: String::new(),
        }),
    };
    let mut matching = snapshot
        .objects
        .range((start, Bound::Unbounded))
        .take_while(|(name, _)| selection.in_namespace(name))
        .filter(|(name, stored)| selection.matches(name, stored));
    let mut items = Vec::new();
    let mut last = None;
    for (name, stored) in matching.by_ref() {
        items.push(Arc::clone(stored));
        if limit.is_some_and(|limit| items.len() >= limit) {
            last = Some(name.clone());
            break;
        }
    }
    let more = last.and_then(|last| {
        let remaining = if selection.is_plain() {
            matching.count()
        } else {
            return matching.next().map(|_| (token(&snapshot, &last), None));
        };
        (remaining > 0).then(|| (token(&snapshot, &last), Some(remaining)))
    });
    if more.is_some() {
        let cache = call.context.store.cache();
        cache.keep(call.asked.resource.index, &snapshot);
    }
    Ok(Page {
        items,
        revision: snapshot.revision,
        more,
    })
}

fn token(snapshot: &Snapshot, last: &ObjectName) -> String {
    let token = Continue {
        revision: snapshot.revision,
        namespace: last.namespace.clone(),
        name: last.name.clone(),
    };
    let json = serde_json::to_vec(&token).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json)
}

/// The copy that a new list reads.
fn beginning(call: &Call) -> Result<Snapshot, Failure> {
    let wanted = read::wait_for_revision(call)?;
    let snapshot = call
        .context
        .store
        .cache()
        .snapshot(call.asked.resource.index);
    match (call.query().text("resourceVersionMatch"), wanted) {
        ("", _) => Ok(snapshot),
        ("NotOlderThan", Some(_)) => Ok(snapshot),
        ("Exact", Some(wanted)) if wanted > 0 => exact(call, wanted),
        (other, _) => {
            let detail = match other {
                "Exact" | "NotOlderThan" => {
                    "resourceVersionMatch is forbidden unless resourceVersion is provided"
                }
                _ => "supported values: \"Exact\", \"NotOlderThan\"",
            };
            let cause = Cause::forbidden("resourceVersionMatch", detail);
            Err(Box::new(Status::invalid_kind(
                "meta.k8s.io",
                "ListOptions",
                "",
                &[cause],
            )))
        }
    }
}

/// The copy at exactly this revision, if it is known or nothing has changed.
fn exact(call: &Call, revision: u64) -> Result<Snapshot, Failure> {
    let cache = call.context.store.cache();
    let index = call.asked.resource.index;
    if let Some(kept) = cache.kept(index, revision) {
        return Ok(kept);
    }
    cache.unchanged_since(index, revision).ok_or_else(|| {
        Box::new(Status::expired(format!(
            "The resourceVersion for the provided list is too old: {revision}"
        )))
    })
}

fn continuation(call: &Call, token: &str) -> Result<(Snapshot, ObjectName), Failure> {
    let parsed: Option<Continue> = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    let Some(parsed) = parsed else {
        return Err(Box::new(Status::bad_request(format!(
            "continue key is not valid: {token:?}"
        ))));
    };
    if !matches!(call.query().text("resourceVersion"), "" | "0") {
        return Err(Box::new(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        )));
    }
    let name = ObjectName {
        namespace: parsed.namespace,
        name: parsed.name,
    };
    match exact(call, parsed.revision) {
        Ok(snapshot) => Ok((snapshot, name)),
        Err(_) => Err(Box::new(Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
        ))),
    }
}

fn number(call: &Call, key: &str) -> Result<Option<u64>, Failure> {
    call.query().number(key).map_err(|text| {
        Box::new(Status::bad_request(format!(
            "{key}: Invalid value: {text:?}: must be a number"
        ))) as Failure
    })
}

/// All objects that a request selects, for deletecollection.
pub(super) fn selected(call: &Call) -> Result<Vec<(ObjectName, Arc<Stored>)>, Failure> {
    let selection = Selection::of(&call.asked)?;
    let cache = call.context.store.cache();
    Ok(cache
        .snapshot(call.asked.resource.index)
        .objects
        .iter()
        .filter(|(name, stored)| selection.in_namespace(name) && selection.matches(name, stored))
        .map(|(name, stored)| (name.clone(), Arc::clone(stored)))
        .collect())
}
