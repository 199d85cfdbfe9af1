//! Garbage collection: watches the metadata of every served kind, and deletes
//! what is left without owners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::{Stream, StreamExt};
use portolan_api::lean::ObjectMeta;
use portolan_client::{
    Client, Deletion, Event, Metadata, Params, PatchBody, Propagation, RequestError, Resource,
    Target, Writer, discover, watch_metadata,
};
use portolan_model::workloads::ObjectKey;
use portolan_plan::workloads::{Absent, Gc, Graph, Reference, Vertex};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use super::{ClusterConfig, sleep_until};

/// Messages waiting for the loop.
const CHANNEL_DEPTH: usize = 1024;
/// Objects whose writes may be under way at once.
const IN_FLIGHT: usize = 20;
/// Owners remembered as absent.
const ABSENT: usize = 10_000;

/// What the loop is told.
enum Message {
    /// A watched resource.
    Seen(usize, Box<Event<Metadata>>),
    /// What is served now.
    Served(Vec<Resource>),
    /// Of these owners, by namespace and uid, it is known that they do not exist.
    Missing(Vec<(String, String)>),
    /// The writes for an object are done.
    Done(String, bool),
}

/// Collects garbage until `shutdown`.
pub(super) async fn run(client: Client, config: ClusterConfig, shutdown: CancellationToken) {
    let (inbox, messages) = mpsc::channel(CHANNEL_DEPTH);
    let collector = Collector {
        writer: Writer::new(client.clone(), "generic-garbage-collector"),
        resources: Vec::new(),
        listing: BTreeMap::new(),
        listed: BTreeSet::new(),
        known: false,
        graph: Graph::default(),
        absent: Absent::new(),
        queue: Queue::new(config.retry),
        in_flight: 0,
        inbox: inbox.clone(),
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = look_for_kinds(client, config, inbox) => {}
        () = collector.work(messages) => {}
    }
}

/// Asks again and again what the server serves.
async fn look_for_kinds(client: Client, config: ClusterConfig, inbox: mpsc::Sender<Message>) {
    let mut retry = portolan_client::Backoff::new(config.retry.0, config.discovery_interval);
    loop {
        let wait = match discover(&client).await {
            Ok(served) => {
                retry.reset();
                let resources = served
                    .into_iter()
                    .filter(|served| served.can(&["list", "watch", "delete"]))
                    // Nobody owns anything through events, and there are many.
                    .filter(|served| served.resource.kind != "Event")
                    .map(|served| served.resource)
                    .collect();
                if inbox.send(Message::Served(resources)).await.is_err() {
                    return;
                }
                config.discovery_interval
            }
            Err(error) => {
                tracing::debug!(%error, "discovery failed");
                retry.next_delay()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

struct Collector {
    writer: Writer,
    /// The watched resources; vertices refer to them by index.
    resources: Vec<Resource>,
    /// Lists that are being read.
    listing: BTreeMap<usize, Vec<Vertex>>,
    /// Resources that were listed once.
    listed: BTreeSet<usize>,
    /// Whether discovery has answered.
    known: bool,
    graph: Graph,
    absent: Absent,
    queue: Queue<String>,
    in_flight: usize,
    inbox: mpsc::Sender<Message>,
}

impl Collector {
    async fn work(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = sleep_until(self.queue.next_due()) => {}
            }
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            // An owner of a kind that is not listed yet would look absent;
            // it would be looked up, but that costs a request per object.
            if self.known && self.listed.len() == self.resources.len() {
                self.decide();
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Served(resources) => {
                self.known = true;
                for resource in resources {
                    self.watch(resource);
                }
            }
            Message::Seen(index, event) => self.see(index, *event),
            Message::Missing(uids) => {
                if self.absent.len() > ABSENT {
                    self.absent.clear();
                }
                self.absent.extend(uids);
            }
            Message::Done(uid, success) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.queue.done(&uid, success, Instant::now());
            }
        }
    }

    fn watch(&mut self, resource: Resource) {
        if self.resources.contains(&resource) {
            return;
        }
        let index = self.resources.len();
        self.resources.push(resource.clone());
        let client = self.writer.client().clone();
        let inbox = self.inbox.clone();
        let events = watch_metadata::<Metadata>(client, resource, Params::all());
        tokio::spawn(async move {
            tokio::select! {
                () = inbox.closed() => {}
                () = hand_on(events, &inbox, index) => {}
            }
        });
    }

    fn see(&mut self, index: usize, event: Event<Metadata>) {
        let look = match event {
            Event::Init => {
                self.listing.insert(index, Vec::new());
                return;
            }
            Event::InitItem(object) => {
                self.listing
                    .entry(index)
                    .or_default()
                    .push(vertex(index, object.metadata));
                return;
            }
            Event::InitDone { .. } => {
                self.listed.insert(index);
                let vertices = self.listing.remove(&index).unwrap_or_default();
                self.graph.replace(index, vertices)
            }
            Event::Upsert(object) => self.graph.upsert(vertex(index, object.metadata)),
            Event::Delete(object) => {
                let uid = object.metadata.uid;
                let look = self.graph.remove(&uid);
                // The watch saw it go: no need to ask the server.
                for dependent in &look {
                    if let Some(dependent) = self.graph.get(dependent) {
                        let namespace = dependent.key.namespace.clone();
                        self.absent.insert((namespace, uid.clone()));
                    }
                }
                look
            }
        };
        look.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn decide(&mut self) {
        while self.in_flight < IN_FLIGHT
            && let Some(uid) = self.queue.pop(Instant::now())
        {
            let todo = self.graph.step(&uid, &self.absent);
            if todo.is_empty() {
                self.queue.done(&uid, true, Instant::now());
                continue;
            }
            self.in_flight += 1;
            let jobs = todo.into_iter().filter_map(|gc| self.job(gc)).collect();
            tokio::spawn(carry_out(
                self.writer.clone(),
                uid,
                jobs,
                self.inbox.clone(),
            ));
        }
    }

    /// Resolves what is to be done to requests.
    fn job(&self, gc: Gc) -> Option<Job> {
        let (Gc::LookUp { uid, .. } | Gc::Delete { uid, .. } | Gc::Patch { uid, .. }) = &gc;
        let vertex = self.graph.get(uid)?;
        let place = Place {
            resource: self.resources.get(vertex.resource)?.clone(),
            key: vertex.key.clone(),
        };
        Some(match gc {
            Gc::LookUp { owners, .. } => {
                let namespace = vertex.key.namespace.clone();
                let owners = owners
                    .into_iter()
                    .filter_map(|owner| {
                        let place = self.place_of(&owner, &namespace)?;
                        Some((owner, place))
                    })
                    .collect();
                Job::LookUp(namespace, owners)
            }
            Gc::Delete {
                uid,
                foreground,
                orphan,
            } => {
                let propagation = if orphan {
                    Propagation::Orphan
                } else if foreground {
                    Propagation::Foreground
                } else {
                    Propagation::Background
                };
                let deletion = Deletion {
                    uid: Some(uid),
                    resource_version: Some(vertex.version.clone()),
                    propagation: Some(propagation),
                    ..Deletion::default()
                };
                Job::Delete(place, deletion)
            }
            Gc::Patch { patch, .. } => Job::Patch(place, patch),
        })
    }

    /// Where an owner lives; none where its kind is not served, which may
    /// change, and where an object of no namespace names an owner that has
    /// one: nobody can tell which is meant. Neither is a reason to delete.
    fn place_of(&self, owner: &Reference, namespace: &str) -> Option<Place> {
        let group = owner
            .api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        let resource = self
            .resources
            .iter()
            .find(|resource| resource.kind == owner.kind && resource.group == group)?;
        if resource.namespaced && namespace.is_empty() {
            return None;
        }
        let namespace = if resource.namespaced { namespace } else { "" };
        Some(Place {
            resource: resource.clone(),
            key: ObjectKey::new(namespace, &owner.name),
        })
    }
}

fn vertex(resource: usize, metadata: ObjectMeta) -> Vertex {
    Vertex {
        resource,
        deleting: metadata.is_deleting(),
        owners: metadata
            .owner_references
            .into_iter()
            .map(|owner| Reference {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
                controller: owner.controller,
                blocks: owner.block_owner_deletion,
            })
            .collect(),
        key: ObjectKey::new(metadata.namespace, metadata.name),
        uid: metadata.uid,
        version: metadata.resource_version,
        finalizers: metadata.finalizers,
    }
}

/// An object's address.
struct Place {
    resource: Resource,
    key: ObjectKey,
}

impl Place {
    fn target(&self) -> Target<'_> {
        let namespace = Some(self.key.namespace.as_str()).filter(|ns| !ns.is_empty());
        Target::one(&self.resource, namespace, &self.key.name)
    }
}

/// A request, or several.
enum Job {
    LookUp(String, Vec<(Reference, Place)>),
    Delete(Place, Deletion),
    Patch(Place, serde_json::Value),
}

async fn carry_out(writer: Writer, uid: String, jobs: Vec<Job>, inbox: mpsc::Sender<Message>) {
    let mut success = true;
    for job in jobs {
        let result = match job {
            Job::LookUp(namespace, owners) => look_up(&writer, &namespace, owners, &inbox).await,
            Job::Delete(place, deletion) => {
                writer.delete(place.target(), &deletion).await.map(|_| true)
            }
            Job::Patch(place, patch) => writer
                .patch(place.target(), PatchBody::Merge(&patch))
                .await
                .map(|_| true),
        };
        success &= match result {
            Ok(success) => success,
            // Gone is what was wanted.
            Err(error) if error.is_not_found() => true,
            Err(error) => {
                tracing::debug!(%error, message = error.message(), "garbage collection");
                false
            }
        };
    }
    if inbox.send(Message::Done(uid, success)).await.is_err() {
        tracing::debug!("garbage collection has stopped");
    }
}

/// Asks the server for owners that the graph does not have. False: look at the
/// object again, now or when the graph has caught up.
async fn look_up(
    writer: &Writer,
    namespace: &str,
    owners: Vec<(Reference, Place)>,
    inbox: &mpsc::Sender<Message>,
) -> Result<bool, RequestError> {
    let mut missing = Vec::new();
    for (owner, place) in owners {
        match writer.get(place.target()).await {
            Ok(object) if portolan_api::meta::uid(&object) == owner.uid => {}
            Ok(_namesake) => missing.push((namespace.to_owned(), owner.uid)),
            Err(error) if error.is_not_found() => missing.push((namespace.to_owned(), owner.uid)),
            Err(error) => return Err(error),
        }
    }
    if inbox.send(Message::Missing(missing)).await.is_err() {
        tracing::debug!("garbage collection has stopped");
    }
    Ok(false)
}

/// Hands a watch's events to the loop for as long as it listens.
async fn hand_on(
    events: impl Stream<Item = Event<Metadata>>,
    inbox: &mpsc::Sender<Message>,
    index: usize,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if inbox
            .send(Message::Seen(index, Box::new(event)))
            .await
            .is_err()
        {
            return;
        }
    }
}
