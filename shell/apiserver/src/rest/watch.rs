//! GET of a collection with `watch=true`.
//!
//! A watch is a position in the cache's window of events. The stream reads on
//! from there whenever the kind changes, so nothing is queued per watcher:
//!
//! ```text
//! [initial objects ─► bookmark] ─► events after the position ─┬─► wait ─┐
//!                                          ▲                  │         │
//!                                          └──────────────────┴─────────┘
//!  ends: timeoutSeconds, shutdown; ERROR 410 when the window has moved past
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use portolan_api::table::{self, Include, Options};
use portolan_api::{Cause, Status};
use serde_json::json;
use tokio::time::Instant;

use super::{Call, read};
use crate::answer::{self, Answer, Failure};
use crate::context::Context;
use crate::limits::Place;
use crate::negotiate::{self, Output};
use crate::request::Asked;
use crate::select::Selection;
use crate::store::{Event, EventType, Form, Next, ObjectName, Stored, line};

/// Watches without `timeoutSeconds` end within this and its double, as
/// Kubernetes' do, so that clients do not all come back at once.
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// The bookmark that ends the initial objects carries this annotation.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Lines are put together up to this size before they are sent.
const PIECE_BYTES: usize = 64 * 1024;

/// A running watch.
struct Watch {
    context: Arc<Context>,
    asked: Asked,
    selection: Selection,
    output: Output,
    include: Include,
    bookmarks: bool,
    /// Everything up to here has been sent.
    position: u64,
    initial: Option<Initial>,
    /// Whether the next row must bring the column definitions.
    headless: bool,
    changed: tokio::sync::watch::Receiver<u64>,
    next_bookmark: Instant,
    end: Instant,
    over: bool,
    /// Counts the watch as one of its client's.
    _place: Arc<Place>,
}

/// Objects to send before events.
struct Initial {
    objects: std::vec::IntoIter<Arc<Stored>>,
    /// Whether the client wants to know where they end.
    marked: bool,
}

pub(super) fn watch(call: &Call) -> Result<Answer, Failure> {
    let watch = start(call)?;
    let ending = call.ending.clone();
    let gone = call.asked.resource.gone.clone();
    let pieces = stream::unfold(watch, |mut watch| async move {
        let piece = watch.piece().await?;
        Some((Ok(piece), watch))
    })
    .take_until(async move {
        match gone {
            Some(gone) => {
                futures::future::select(
                    std::pin::pin!(ending.cancelled()),
                    std::pin::pin!(gone.cancelled()),
                )
                .await;
            }
            None => ending.cancelled().await,
        }
    });
    let pieces: BoxStream<'static, Result<Bytes, std::io::Error>> = pieces.boxed();
    Ok(answer::stream(answer::JSON, pieces))
}

fn start(call: &Call) -> Result<Watch, Failure> {
    let query = call.query();
    let index = call.asked.resource.index;
    let cache = call.context.store.cache();
    let wanted = query.number("resourceVersion").map_err(|text| {
        answer::unknown_error(format!(
            "strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })?;
    let streaming = streaming_list(call)?;
    let Some(changed) = cache.subscribe(index) else {
        return Err(Box::new(Status::no_such_path()));
    };
    let selection = Selection::of(&call.asked)?;
    let from_now = matches!(wanted, None | Some(0));
    let (position, initial) = match (streaming, wanted) {
        (Some(true), _) | (None, None | Some(0)) => {
            let snapshot = cache.snapshot(index);
            let objects: Vec<Arc<Stored>> = snapshot
                .objects
                .iter()
                .filter(|(name, stored)| {
                    selection.in_namespace(name) && selection.matches(name, stored)
                })
                .map(|(_, stored)| Arc::clone(stored))
                .collect();
            let initial = Initial {
                objects: objects.into_iter(),
                marked: streaming == Some(true),
            };
            (snapshot.revision, Some(initial))
        }
        (Some(false), _) if from_now => (cache.snapshot(index).revision, None),
        (_, wanted) => (wanted.unwrap_or_default(), None),
    };
    let now = Instant::now();
    Ok(Watch {
        output: negotiate::output(&call.headers)?,
        include: read::table_options(call).include,
        bookmarks: query.flag("allowWatchBookmarks"),
        next_bookmark: now + call.context.config.bookmark_interval,
        end: now + timeout(call)?,
        context: Arc::clone(&call.context),
        asked: Asked {
            resource: call.asked.resource.clone(),
            verb: call.asked.verb,
            namespace: call.asked.namespace.clone(),
            name: String::new(),
            subresource: String::new(),
            query: query.clone(),
        },
        selection,
        position,
        initial,
        headless: false,
        changed,
        over: false,
        _place: Arc::clone(&call.place),
    })
}

/// `sendInitialEvents`, which needs `resourceVersionMatch=NotOlderThan`.
fn streaming_list(call: &Call) -> Result<Option<bool>, Failure> {
    let query = call.query();
    let wanted = query
        .has("sendInitialEvents")
        .then(|| query.flag("sendInitialEvents"));
    let matching = query.text("resourceVersionMatch");
    let detail = match (wanted, matching) {
        (None, "") | (Some(_), "NotOlderThan") => return Ok(wanted),
        (None, _) => {
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        (Some(_), _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    };
    let cause = Cause::forbidden("resourceVersionMatch", detail);
    let status = Status::invalid_kind("meta.k8s.io", "ListOptions", "", &[cause]);
    Err(Box::new(status))
}

fn timeout(call: &Call) -> Result<Duration, Failure> {
    let seconds = call.query().number("timeoutSeconds").map_err(|text| {
        Box::new(Status::bad_request(format!(
            "timeoutSeconds: Invalid value: {text:?}: must be a number"
        )))
    })?;
    let seconds = match seconds {
        Some(seconds) if seconds > 0 => seconds,
        Some(_) | None => {
            let random = uuid::Uuid::new_v4().as_u64_pair().1;
            MIN_TIMEOUT_SECONDS + random % MIN_TIMEOUT_SECONDS
        }
    };
    // A year is for ever.
    Ok(Duration::from_secs(seconds.min(365 * 24 * 3600)))
}

impl Watch {
    /// The next bytes for the client; `None` ends the watch.
    async fn piece(&mut self) -> Option<Bytes> {
        loop {
            if self.over || Instant::now() >= self.end {
                return None;
            }
            if let Some(piece) = self.initial_piece() {
                return Some(piece);
            }
            // Seen before reading, so that nothing is missed between.
            self.changed.borrow_and_update();
            let cache = self.context.store.cache();
            match cache.after(self.asked.resource.index, self.position) {
                Next::Expired { oldest } => {
                    self.over = true;
                    let status = Status::too_old(self.position, oldest);
                    return Some(line("ERROR", status.to_value().to_string().as_bytes()));
                }
                Next::Events { events, revision } => {
                    let some = !events.is_empty();
                    let piece = self.lines(&events);
                    self.position = revision;
                    if !piece.is_empty() {
                        return Some(piece);
                    }
                    if some {
                        continue;
                    }
                }
            }
            if self.bookmarks && Instant::now() >= self.next_bookmark {
                return Some(self.bookmark(false));
            }
            self.wait().await?;
        }
    }

    /// Wait for a change, the next bookmark or the end.
    async fn wait(&mut self) -> Option<()> {
        let until = if self.bookmarks {
            self.next_bookmark.min(self.end)
        } else {
            self.end
        };
        tokio::select! {
            changed = self.changed.changed() => changed.ok(),
            () = tokio::time::sleep_until(until) => Some(()),
        }
    }

    fn initial_piece(&mut self) -> Option<Bytes> {
        let mut initial = self.initial.take()?;
        let mut piece = BytesMut::new();
        for stored in initial.objects.by_ref() {
            let object = self.object(&stored.json);
            piece.extend_from_slice(&line(EventType::Added.text(), &object));
            if piece.len() >= PIECE_BYTES {
                self.initial = Some(initial);
                return Some(piece.freeze());
            }
        }
        if initial.marked && self.bookmarks {
            piece.extend_from_slice(&self.bookmark(true));
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// The lines for those events that concern this watch.
    fn lines(&mut self, events: &[Arc<Event>]) -> Bytes {
        let mut lines = Vec::new();
        for event in events {
            if let Some(kind) = self.concerns(event) {
                lines.push(self.line(event, kind));
            }
        }
        if lines.len() == 1 {
            return lines.pop().unwrap_or_default();
        }
        let mut piece = BytesMut::with_capacity(lines.iter().map(Bytes::len).sum());
        for line in lines {
            piece.extend_from_slice(&line);
        }
        piece.freeze()
    }

    /// Objects enter and leave the selection: that is ADDED and DELETED.
    fn concerns(&self, event: &Event) -> Option<EventType> {
        if !self.selection.in_namespace(&event.name) {
            return None;
        }
        let selected = |name: &ObjectName, stored: &Option<Arc<Stored>>| {
            stored
                .as_ref()
                .is_some_and(|stored| self.selection.matches(name, stored))
        };
        let before = selected(&event.name, &event.previous);
        let after = selected(&event.name, &event.current);
        match (before, after) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    fn line(&mut self, event: &Event, kind: EventType) -> Bytes {
        let form = match self.output {
            Output::Object => Form::Whole,
            Output::Metadata => Form::Metadata,
            Output::Table if self.headless && self.include == Include::Metadata => Form::Row,
            Output::Table => {
                let object = self.object(&event.object(kind));
                return line(kind.text(), &object);
            }
        };
        // The encoded line is shared by watches of the stored form only.
        if self.asked.resource.kind.converts() {
            let object = self.object(&event.object(kind));
            return line(kind.text(), &object);
        }
        event.line(kind, form, |json| self.object(&json))
    }

    /// An object in the form of this watch. The first row brings the columns.
    fn object(&mut self, json: &Bytes) -> Bytes {
        if self.output == Output::Object {
            return self.asked.resource.json(json);
        }
        let value = self
            .asked
            .resource
            .kind
            .read_form(serde_json::from_slice(json).unwrap_or_default());
        let value = if self.output == Output::Table {
            let options = Options {
                include: self.include,
                now: Timestamp::now(),
                headless: std::mem::replace(&mut self.headless, true),
            };
            let kind = &self.asked.resource.kind;
            table::table(kind, [&value], table::metadata_of(&value), &options)
        } else {
            table::partial_metadata(&value)
        };
        Bytes::from(value.to_string())
    }

    fn bookmark(&mut self, initial_end: bool) -> Bytes {
        self.next_bookmark = Instant::now() + self.context.config.bookmark_interval;
        let kind = &self.asked.resource.kind;
        let mut metadata = json!({
            "resourceVersion": self.position.to_string(),
            "creationTimestamp": null,
        });
        if initial_end && let Some(map) = metadata.as_object_mut() {
            map.insert(
                "annotations".to_owned(),
                json!({INITIAL_EVENTS_END: "true"}),
            );
        }
        let object = match self.output {
            Output::Object => json!({
                "kind": kind.kind,
                "apiVersion": kind.api_version(),
                "metadata": metadata,
            }),
            Output::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Output::Table => json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.position.to_string()},
                "columnDefinitions": [],
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                }}],
            }),
        };
        line("BOOKMARK", object.to_string().as_bytes())
    }
}
