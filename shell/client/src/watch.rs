//! One kind, listed and then watched, for ever.
//!
//! ```text
//!        ┌────────────────────── 410 Gone, unknown version ─────────────────┐
//!        ▼                                                                  │
//!   list page by page ──► Init, InitItem*, InitDone ──► watch ──► Upsert/Delete
//!        │ 404                                            │ connection ends
//!        ▼                                                └──► watch again from
//!   Init, InitDone (empty, once), look again later             the last version
//! ```
//!
//! A list that breaks half-way starts again with a new `Init`, so a consumer
//! that swaps on `InitDone` never sees half a list. Before a new list there is a
//! random pause: the watches of all nodes lose their versions together.

use std::time::Duration;

use futures::{Stream, TryStreamExt};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use portolan_api::lean;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::backoff::spread;
use crate::{Backoff, Resource};

/// Events buffered between the connection and the consumer. Small: a slow
/// consumer should slow the server down, not fill memory.
const CHANNEL_DEPTH: usize = 256;
/// Objects asked for per list request. Half of client-go's page: a page is held
/// as text and as objects at the same time.
const PAGE: u32 = 250;
/// First and longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// The longest pause before a list is read again. A server that starts anew tells
/// every watch of every node at once that its version is gone.
const RELIST: Duration = Duration::from_secs(1);
/// First and longest pause before an unserved kind is looked for again.
const ABSENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The server ends a watch after this long; it is resumed at once. Our read
/// timeout is 295 s.
const WATCH_SECONDS: u32 = 290;

/// What a watched kind tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A complete list begins; items of an unfinished earlier one are void.
    Init,
    /// One object of the list.
    InitItem(T),
    /// The list is complete as of this version. Replace what you know.
    InitDone {
        /// The list's resourceVersion; empty where the kind is not served.
        resource_version: String,
        /// The list is empty because the kind may not be read ([`Params::optional`]).
        forbidden: bool,
    },
    /// An object was created or changed.
    Upsert(T),
    /// An object is gone; this was its last state.
    Delete(T),
}

/// Anything that can be watched: it must tell its version, so that a broken
/// watch resumes where it ended.
pub trait Versioned: DeserializeOwned + Clone + Send + 'static {
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> Option<&str>;
}

impl Versioned for serde_json::Value {
    fn resource_version(&self) -> Option<&str> {
        self.get("metadata")?.get("resourceVersion")?.as_str()
    }
}

/// The lean views keep their version in `metadata`.
macro_rules! versioned {
    ($($view:ty),+) => {$(
        impl Versioned for $view {
            fn resource_version(&self) -> Option<&str> {
                Some(self.metadata.resource_version.as_str()).filter(|v| !v.is_empty())
            }
        }
    )+};
}

versioned!(
    lean::Service,
    lean::EndpointSlice,
    lean::Node,
    lean::Namespace,
    lean::ServiceCidr,
    lean::Pod,
    lean::PodFacts,
    lean::NetworkPolicy,
    lean::ClusterNetworkPolicy,
    lean::Deployment,
    lean::ReplicaSet,
    Metadata
);

/// Just the metadata of an object of any kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Metadata {
    /// The object's metadata.
    #[serde(default)]
    pub metadata: lean::ObjectMeta,
}

/// Which objects of a kind to watch.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only objects with these labels.
    pub labels: Option<String>,
    /// Only objects with these fields.
    pub fields: Option<String>,
    /// Whoever may not read the kind does without it: as long as it was never
    /// read, a refusal counts as an empty list.
    pub optional: bool,
}

impl Params {
    /// Every object of every namespace.
    pub fn all() -> Self {
        Self::default()
    }
}

/// Lists and watches `resource`, deserialising into `T`.
///
/// Runs as a task until the stream is dropped.
pub fn watch<T: Versioned>(
    client: Client,
    resource: Resource,
    params: Params,
) -> impl Stream<Item = Event<T>> + Send + Unpin + 'static {
    start(client, resource, params, Form::Whole)
}

/// Lists and watches only the metadata of `resource`.
pub fn watch_metadata<T: Versioned>(
    client: Client,
    resource: Resource,
    params: Params,
) -> impl Stream<Item = Event<T>> + Send + Unpin + 'static {
    start(client, resource, params, Form::MetadataOnly)
}

/// Which representation is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    MetadataOnly,
}

fn start<T: Versioned>(
    client: Client,
    resource: Resource,
    params: Params,
    form: Form,
) -> ReceiverStream<Event<T>> {
    let (events, receiver) = mpsc::channel(CHANNEL_DEPTH);
    let watcher = Watcher {
        client,
        request: kube::core::Request::new(resource.path(params.namespace.as_deref())),
        resource,
        params,
        form,
        events: events.clone(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = events.closed() => {}
            Stop = watcher.run() => {}
        }
    });
    ReceiverStream::new(receiver)
}

/// The consumer is gone.
struct Stop;

/// How an attempt to list ended.
enum Listed {
    /// Complete, as of this version.
    At(String),
    /// The server does not know the kind.
    Absent,
    /// The server does not let us read the kind.
    Forbidden,
}

/// Why a watch ended.
enum Ended {
    /// The connection closed; go on from the last version.
    Resume,
    /// The version is too old or unknown; list again.
    Relist,
}

struct Watcher<T> {
    client: Client,
    request: kube::core::Request,
    resource: Resource,
    params: Params,
    form: Form,
    events: mpsc::Sender<Event<T>>,
}

impl<T: Versioned> Watcher<T> {
    async fn run(&self) -> Stop {
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        let mut absent = Backoff::new(ABSENT.0, ABSENT.1);
        let mut known = false;
        loop {
            match self.list().await {
                Ok(Err(stop)) => return stop,
                Ok(Ok(Listed::At(version))) => {
                    retry.reset();
                    absent.reset();
                    known = true;
                    if let Err(stop) = self.follow(version).await {
                        return stop;
                    }
                    tokio::time::sleep(spread(RELIST)).await;
                }
                Ok(Ok(Listed::Absent)) => {
                    if absent.failures() == 0 {
                        tracing::info!(resource = %self.resource, "not served; counts as empty and is looked for again");
                        if let Err(stop) = self.announce_absent(false).await {
                            return stop;
                        }
                    }
                    tokio::time::sleep(absent.next_delay()).await;
                }
                Ok(Ok(Listed::Forbidden)) => {
                    if absent.failures() == 0 {
                        tracing::warn!(resource = %self.resource, "may not be read; done without, and tried again");
                    }
                    if !known {
                        known = true;
                        if let Err(stop) = self.announce_absent(true).await {
                            return stop;
                        }
                    }
                    tokio::time::sleep(absent.next_delay()).await;
                }
                Err(error) => {
                    tracing::warn!(resource = %self.resource, %error, "cannot list");
                    tokio::time::sleep(retry.next_delay()).await;
                }
            }
        }
    }

    async fn send(&self, event: Event<T>) -> Result<(), Stop> {
        self.events.send(event).await.map_err(|_closed| Stop)
    }

    async fn announce_absent(&self, forbidden: bool) -> Result<(), Stop> {
        self.send(Event::Init).await?;
        self.send(Event::InitDone {
            resource_version: String::new(),
            forbidden,
        })
        .await
    }

    /// Reads the whole kind, page by page.
    async fn list(&self) -> Result<Result<Listed, Stop>, kube::Error> {
        let mut params = ListParams {
            label_selector: self.params.labels.clone(),
            field_selector: self.params.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut first = true;
        loop {
            let request = match self.form {
                Form::Whole => self.request.list(&params),
                Form::MetadataOnly => self.request.list_metadata(&params),
            }
            .map_err(kube::Error::BuildRequest)?;
            let page: Page<T> = match self.client.request(request).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if status.code == 404 && first => {
                    return Ok(Ok(Listed::Absent));
                }
                Err(kube::Error::Api(status))
                    if status.code == 403 && first && self.params.optional =>
                {
                    return Ok(Ok(Listed::Forbidden));
                }
                Err(kube::Error::Api(status)) if status.code == 410 && !first => {
                    // The continue token expired: the list was longer than the
                    // server's memory. Ask for everything at once.
                    params.continue_token = None;
                    params.limit = None;
                    first = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Err(stop) = self.send_page(page.items, first).await {
                return Ok(Err(stop));
            }
            first = false;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version;
                    let done = Event::InitDone {
                        resource_version: version.clone(),
                        forbidden: false,
                    };
                    return Ok(self.send(done).await.map(|()| Listed::At(version)));
                }
            }
        }
    }

    async fn send_page(&self, items: Vec<T>, first: bool) -> Result<(), Stop> {
        if first {
            self.send(Event::Init).await?;
        }
        for item in items {
            self.send(Event::InitItem(item)).await?;
        }
        Ok(())
    }

    /// Watches from `version` on, until only a new list can help.
    async fn follow(&self, mut version: String) -> Result<(), Stop> {
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let before = version.clone();
            match self.watch_once(&mut version).await {
                Ok(Ok(Ended::Resume)) => {
                    if version != before {
                        retry.reset();
                    } else {
                        // A server that closes at once must not be hammered.
                        tokio::time::sleep(retry.next_delay()).await;
                    }
                }
                Ok(Ok(Ended::Relist)) => return Ok(()),
                Ok(Err(stop)) => return Err(stop),
                Err(error) => {
                    tracing::warn!(resource = %self.resource, %error, "watch broke");
                    tokio::time::sleep(retry.next_delay()).await;
                    if let kube::Error::Api(_) = error {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn watch_once(&self, version: &mut String) -> Result<Result<Ended, Stop>, kube::Error> {
        let params = WatchParams {
            label_selector: self.params.labels.clone(),
            field_selector: self.params.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = match self.form {
            Form::Whole => self.request.watch(&params, version),
            Form::MetadataOnly => self.request.watch_metadata(&params, version),
        }
        .map_err(kube::Error::BuildRequest)?;
        let mut lines = std::pin::pin!(self.client.request_events::<T>(request).await?);
        while let Some(line) = lines.try_next().await? {
            let event = match line {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Upsert(object),
                WatchEvent::Deleted(object) => Event::Delete(object),
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) if status.code == 410 => return Ok(Ok(Ended::Relist)),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            if let Event::Upsert(object) | Event::Delete(object) = &event
                && let Some(seen) = object.resource_version()
            {
                seen.clone_into(version);
            }
            if let Err(stop) = self.send(event).await {
                return Ok(Err(stop));
            }
        }
        Ok(Ok(Ended::Resume))
    }
}

/// One page of a list, whatever its items are.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}
