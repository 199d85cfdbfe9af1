//! Watches, turned into facts and sent to the loop.

use futures::StreamExt;
use portolan_client::{Client, Event, Params, Resource, watch};
use portolan_model::workloads::{
    ControllerRevision, DaemonSet, Deployment, Endpoints, Lease, Node, Object, ObjectKey, Pod,
    ReplicaSet, Service, Slice, StatefulSet,
};
use portolan_plan::workloads::{Blame, Kind};
use serde_json::Value;
use tokio::sync::mpsc;

use super::world::Task;

/// The namespace of nodes' leases.
const NODE_LEASES: &str = "kube-node-lease";

/// What happened to objects of one kind.
pub(crate) enum News<T> {
    /// A complete list, as of this version.
    All(Vec<T>, u64),
    /// An object is now so.
    Is(T),
    /// An object is gone.
    Gone(T),
}

/// What the loop is told.
pub(super) enum Message {
    /// News of pods.
    Pod(News<Pod>),
    /// News of ReplicaSets.
    ReplicaSet(News<ReplicaSet>),
    /// News of Deployments.
    Deployment(News<Deployment>),
    /// News of StatefulSets.
    StatefulSet(News<StatefulSet>),
    /// News of DaemonSets.
    DaemonSet(News<DaemonSet>),
    /// News of ControllerRevisions.
    Revision(News<ControllerRevision>),
    /// News of Services.
    Service(News<Service>),
    /// News of EndpointSlices.
    Slice(News<Slice>),
    /// News of Endpoints.
    Endpoints(News<Endpoints>),
    /// News of nodes.
    Node(News<Node>),
    /// News of nodes' leases.
    Lease(News<Lease>),
    /// What became of writes.
    Report(Report<Task>),
}

/// What became of the writes of a task.
pub(super) enum Report<T> {
    /// The server's answer to a write.
    Wrote(Kind, Value),
    /// The server agreed to delete an object, or does not have it.
    ToldToGo(Kind, ObjectKey, String),
    /// A pod was bound to a node, or was not.
    Bound(ObjectKey, String, Option<String>),
    /// A write for the workload with this uid was refused.
    Refused(String, Blame),
    /// A task's writes are carried out, or one failed.
    Done {
        /// The task.
        task: T,
        /// Whether all went well.
        success: bool,
    },
}

impl From<Report<Task>> for Message {
    fn from(report: Report<Task>) -> Self {
        Self::Report(report)
    }
}

/// Starts all watches. They end when the loop does.
pub(super) fn start(client: &Client, inbox: &mpsc::Sender<Message>) {
    use portolan_client as at;
    let feed = |resource: &Resource| Feed::of(client, resource, inbox);
    feed(&at::PODS).start(Message::Pod);
    feed(&at::REPLICA_SETS).start(Message::ReplicaSet);
    feed(&at::DEPLOYMENTS).start(Message::Deployment);
    feed(&at::STATEFUL_SETS).start(Message::StatefulSet);
    feed(&at::DAEMON_SETS).start(Message::DaemonSet);
    feed(&at::CONTROLLER_REVISIONS).start(Message::Revision);
    feed(&at::SERVICES).start(Message::Service);
    feed(&at::ENDPOINT_SLICES).start(Message::Slice);
    feed(&at::ENDPOINTS).start(Message::Endpoints);
    feed(&at::NODES).start(Message::Node);
    let mut leases = feed(&at::LEASES);
    leases.params.namespace = Some(NODE_LEASES.to_owned());
    leases.start(Message::Lease);
}

/// One watch, whose news are sent to a loop.
pub(crate) struct Feed<M> {
    client: Client,
    resource: Resource,
    pub(crate) params: Params,
    inbox: mpsc::Sender<M>,
}

impl<M: Send + 'static> Feed<M> {
    /// All objects of a kind.
    pub(crate) fn of(client: &Client, resource: &Resource, inbox: &mpsc::Sender<M>) -> Self {
        Self {
            client: client.clone(),
            resource: resource.clone(),
            params: Params::all(),
            inbox: inbox.clone(),
        }
    }

    /// Watches until the loop ends.
    pub(crate) fn start<T: Object + Send + 'static>(self, wrap: fn(News<T>) -> M) {
        tokio::spawn(async move {
            let inbox = self.inbox.clone();
            tokio::select! {
                () = inbox.closed() => {}
                () = self.run(wrap) => {}
            }
        });
    }

    async fn run<T: Object>(self, wrap: fn(News<T>) -> M) {
        let mut events = watch::<Value>(self.client, self.resource, self.params);
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            let news = match event {
                Event::Init => {
                    listed.clear();
                    continue;
                }
                Event::InitItem(object) => {
                    listed.push(T::read(&object));
                    continue;
                }
                Event::InitDone {
                    resource_version, ..
                } => {
                    let version = resource_version.parse().unwrap_or(0);
                    News::All(std::mem::take(&mut listed), version)
                }
                Event::Upsert(object) => News::Is(T::read(&object)),
                Event::Delete(object) => News::Gone(T::read(&object)),
            };
            if self.inbox.send(wrap(news)).await.is_err() {
                return;
            }
        }
    }
}
